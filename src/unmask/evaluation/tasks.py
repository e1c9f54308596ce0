"""What a task is: something that asks a model for vectors and gives samples, from which metrics come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.encoder import Encoder
from unmask.evaluation.bootstrap import Statistic
from unmask.evaluation.outcome import Samples
from unmask.text import Text

Matrix = NDArray[np.float32]


class Model(Protocol):
    """What a task may ask of the model that is measured.

    Attributes:
        encoder: the encoder itself, for tasks that need more than vectors of texts.
    """

    encoder: Encoder

    def vectors(self, texts: Iterable[Text]) -> Matrix:
        """Return the vectors of ``texts``, ``[n, D]``, in their order; a text met before is not encoded again."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of task.

    Attributes:
        name: of the kind, and of the folder in which its data lies.
        main: the metric that stands for the task.
        statistic: from samples, resampled or not, to every metric.
    """

    name: str
    main: str
    statistic: Statistic


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with its data.

    Attributes:
        name: of the task.
        kind: of the task.
        size: how many texts it encodes, for the progress bar.
        settings: what its figures depend on besides the model.
        run: from a model to samples.
    """

    name: str
    kind: Kind
    size: int
    settings: dict[str, Any]
    run: Callable[[Model], Samples]

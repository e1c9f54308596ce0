"""What a task is: something that asks a model for vectors and gives samples, from which metrics come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.encoder import Encoder
from unmask.evaluation.bootstrap import Statistic
from unmask.evaluation.instructions import QUERY
from unmask.evaluation.outcome import Samples
from unmask.text import Text

Matrix = NDArray[np.float32]


class Model(Protocol):
    """What a task may ask of the model that is measured."""

    @property
    def encoder(self) -> Encoder:
        """The encoder itself, for tasks that need more than vectors of texts.

        Raises:
            InputError: the model is not one of Unmask's.
        """

    def vectors(self, texts: Iterable[Text]) -> Matrix:
        """Return the vectors of ``texts``, ``[n, D]``, in their order; a text met before is not encoded again.

        Raises:
            InputError: the model gives what is no number.
        """

    def advance(self, texts: int, tokens: int = 0) -> None:
        """Move the progress bar, for tasks that encode texts by other means than :meth:`vectors`."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of task.

    Attributes:
        name: of the kind, and of the folder in which its data lies.
        main: the metric that stands for the task.
        statistic: from samples, resampled or not, to every metric; NaN where one is undefined.
        bounds: lowest and highest figure that its metrics can give.
        main_alone: the same for the main metric alone, where that is quicker: all that tests between models need.
    """

    name: str
    main: str
    statistic: Statistic
    bounds: tuple[float, float] = (0.0, 1.0)
    main_alone: Statistic | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with its data.

    Attributes:
        name: of the task.
        kind: of the task.
        size: how many texts it encodes, for the progress bar.
        settings: what its figures depend on besides the model: plain data, as JSON has it.
        run: from a model to samples.
    """

    name: str
    kind: Kind
    size: int
    settings: dict[str, Any]
    run: Callable[[Model], Samples]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a reader of tasks may be told.

    Attributes:
        limit: at most so many items a task, drawn with the seed; None for all.
        seed: of everything drawn.
        instructions: by task. Queries carry them, documents do not; where both sides are alike, both do.
        query: what queries carry that have no instruction of their own.
    """

    limit: int | None = None
    seed: int = 0
    instructions: Mapping[str, str] = field(default_factory=dict)
    query: str = QUERY

    def instruction(self, task: str, default: str = "") -> str:
        """Return the instruction of ``task``, ``default`` where none was given."""
        return self.instructions.get(task, default)

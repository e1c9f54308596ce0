"""What the server and a worker process say to one another: pickled values, each behind its length.

Both ends are this package in processes of one user, the pipe is theirs alone, and texts cross it as numbers only.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.engine.settings import ModelSettings, Weights

#: The length of what follows, in bytes.
HEADER: Final = struct.Struct("<Q")


# --- to a worker -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Send the tokenizer of a model, and what else is known of its texts."""

    model: ModelSettings


@dataclass(frozen=True, slots=True)
class Load:
    """Load weights and warm them up."""

    weights: Weights


@dataclass(frozen=True, slots=True)
class Unload:
    """Forget weights; not answered."""

    weights: Weights


@dataclass(frozen=True, slots=True)
class Compute:
    """Encode a batch.

    Attributes:
        number: by which the answer names it.
        weights: loaded before.
        ids: token ids of all texts, one behind the other, int32.
        lengths: tokens of each text.
        starts: first pooled token of each.
    """

    number: int
    weights: Weights
    ids: NDArray[np.int32]
    lengths: tuple[int, ...]
    starts: tuple[int, ...]


Order = Read | Load | Unload | Compute


# --- from a worker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    """It runs, and takes orders."""


@dataclass(frozen=True, slots=True)
class WasRead:
    """What is known of a model's texts, to be unpacked away from the event loop; see :mod:`unmask.engine.tokens`."""

    name: str
    reading: bytes


@dataclass(frozen=True, slots=True)
class WasLoaded:
    """Weights are ready.

    Attributes:
        weights: which.
        size: bytes of their parameters.
        dimension: components of a vector.
        budget: tokens of a batch that suit the device.
        seconds: how long it took, warm-up included.
    """

    weights: Weights
    size: int
    dimension: int
    budget: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """An order to read or load could not be carried out.

    Attributes:
        order: which.
        error: why, for the log.
        lasting: whether trying again alone will not help.
    """

    order: Read | Load
    error: str
    lasting: bool


@dataclass(frozen=True, slots=True)
class Computed:
    """Vectors of a batch.

    Attributes:
        number: of the batch.
        vectors: ``[N, D]`` float32.
        broken: rows that hold something that is not a finite number.
        seconds: how long it took.
    """

    number: int
    vectors: NDArray[np.float32]
    broken: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A batch raised an error."""

    number: int
    error: str


Answer = Up | WasRead | WasLoaded | Refused | Computed | Failed


def frame(message: Order | Answer) -> bytes:
    """Return a message as bytes, its length in front."""
    body = pickle.dumps(message, protocol=5)
    return HEADER.pack(len(body)) + body


def parse(body: bytes) -> Order | Answer:
    """Return the message that :func:`frame` made ``body`` from, without its length."""
    message: Order | Answer = pickle.loads(body)  # noqa: S301 - from this package's own process, over a private pipe
    return message

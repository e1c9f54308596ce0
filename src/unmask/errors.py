"""Every error that Unmask raises on purpose, one tree.

    UnmaskError
    ├── InputError (ValueError)     what the caller passed: a text, an option, a file of texts
    │   └── TooManyTokensError      texts with more tokens together than one request may have
    ├── CheckpointError             what lies on disk or on a hub: missing, broken, of an unknown layout
    │   ├── AdapterError            an adapter that does not fit its base
    │   └── DownloadError           what could not be fetched: not there, gated, no network
    ├── TrainingError               a run that cannot go on: a loss that is not a number, a disk that is full
    ├── EvaluationError             some tasks of an evaluation failed; the figures of the others are written
    ├── ServingError                a request that a running engine cannot answer, or not now
    │   ├── UnknownModelError       a model that is not served here
    │   ├── ModelColdError          a model that is still being loaded
    │   ├── ModelUnavailableError   a model that cannot be loaded until its operator mends something
    │   ├── QueueFullError          more work than the queue may hold
    │   ├── StoppingError           the engine takes nothing more
    │   └── EncodingFailedError     a text on which the worker failed again and again
    └── BackboneError               the model itself
        ├── OutOfMemoryError        a device whose memory does not suffice for a single text
        ├── UnsupportedModelError   an architecture that cannot be made bidirectional, or not exactly
        └── NotBidirectionalError   a proof failed: the model would have been silently causal

Each message says what was given, what was expected, and what to do.
"""

from __future__ import annotations

from typing import Any


class UnmaskError(Exception):
    """Base of all errors raised by Unmask on purpose."""


class InputError(UnmaskError, ValueError):
    """The caller's texts or options cannot be used as they are."""


class TooManyTokensError(InputError):
    """The texts of one request have more tokens together than it may have."""


class CheckpointError(UnmaskError):
    """A checkpoint is missing, damaged or of a layout Unmask does not know."""


class AdapterError(CheckpointError):
    """An adapter does not fit the base it was to be applied to."""


class DownloadError(CheckpointError):
    """Something could not be fetched: unknown, gated, damaged in transit, or no network."""


class TrainingError(UnmaskError):
    """A training run cannot go on, or cannot be taken up again; its checkpoints are whole."""


class EvaluationError(UnmaskError):
    """Some tasks of an evaluation failed; the figures of the others are written."""


class BackboneError(UnmaskError):
    """The model cannot serve as a text encoder."""


class OutOfMemoryError(BackboneError):
    """The memory of the model's device does not suffice for a single text."""


class UnsupportedModelError(BackboneError):
    """The architecture cannot be made bidirectional, or Unmask cannot run it exactly."""


class NotBidirectionalError(BackboneError):
    """A proof failed: some position of the model does not see what it must see."""


class ServingError(UnmaskError):
    """A running engine cannot answer a request.

    Attributes:
        retry_after: seconds after which another try may succeed, None if none will.
    """

    retry_after: float | None = None

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnknownModelError(ServingError):
    """The model asked for is not served here."""


class ModelColdError(ServingError):
    """The model asked for is still being loaded."""


class ModelUnavailableError(ServingError):
    """The model asked for could not be loaded, and trying again alone will not help: its operator must."""


class QueueFullError(ServingError):
    """The queue holds as many tokens as it may."""


class StoppingError(ServingError):
    """The engine is shutting down and takes nothing more."""


class EncodingFailedError(ServingError):
    """A worker failed on a text, alone and again.

    Attributes:
        vectors: of all texts, zeros for those that failed, where the others were encoded all the same; else None.
    """

    vectors: Any = None

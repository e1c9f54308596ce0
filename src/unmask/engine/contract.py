"""What a server may ask of an engine; the real one is :class:`unmask.engine.engine.Engine`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.text import Text, TokenizedText

#: ``batch`` is served only from what ``realtime`` leaves.
Priority = Literal["realtime", "batch"]
#: ``cold``: not in memory, loaded when first asked for. ``failed``: it could not be loaded; ``Served.error`` says why.
State = Literal["cold", "warming", "ready", "failed"]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The answer to a request.

    Attributes:
        vectors: ``[n, D]`` float32, not normalised, in the order of the texts.
        tokens: tokens of each text as the model read it, template and instruction included.
    """

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that is served.

    Attributes:
        name: by which requests name it.
        state: whether it can answer at once.
        dimension: components of a vector; None while the model has never been loaded.
        max_length: most tokens of a text; None while its tokenizer has not been read, seconds after the start.
        error: why it failed, else None.
    """

    name: str
    state: State
    dimension: int | None
    max_length: int | None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """How busy the engine is.

    Attributes:
        queued_tokens: waiting, by priority.
        queue_limit: most tokens that may wait, of each priority.
        running_tokens: in batches that workers have.
        tokens_per_second: of all workers while they compute, over the last half minute; None before the first batch.
        batches: done since the start.
        batch_tokens: tokens of all batches done since the start.
        restarts: of workers, since the start.
    """

    queued_tokens: dict[Priority, int]
    queue_limit: int
    running_tokens: int
    tokens_per_second: float | None
    batches: int
    batch_tokens: int
    restarts: int


class EmbeddingEngine(Protocol):
    """An engine: one process, one event loop, any number of models and devices."""

    async def start(self) -> None:
        """Start the workers and load the models that are to be warm; returns at once."""

    async def stop(self, grace: float) -> None:
        """Take nothing more, finish what was taken within ``grace`` seconds, end the workers."""

    def served(self) -> tuple[Served, ...]:
        """Return every model, in the order of the settings."""

    def load(self) -> Load:
        """Return how busy the engine is."""

    async def tokenize(self, model: str, texts: Sequence[Text], *, truncate: bool = True) -> list[TokenizedText]:
        """Return the tokens of ``texts`` as the model reads them, off the event loop; a cold model need not be loaded.

        Raises:
            UnknownModelError: it is not served.
            ModelColdError: its tokenizer has not been read yet, half a minute after it was asked for, or cannot be.
            StoppingError: the engine shuts down.
            InputError: a text is too long and ``truncate`` is false, or has no token; names its index.
        """

    async def detokenize(self, model: str, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts that token arrays stand for.

        Args:
            model: whose tokens they are.
            ids: as :meth:`tokenize` gives them for texts without instruction, or as a plain tokenizer does, with or
                without its special tokens.

        Raises:
            UnknownModelError, ModelColdError, StoppingError: as :meth:`tokenize`.
            InputError: an id is not in the vocabulary; names the array's index.
        """

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        caller: str,
        priority: Priority = "realtime",
        truncate: bool = True,
        wait: float = 0.0,
    ) -> Embedded:
        """Encode ``texts``; cancelling the call drops what of it has not been computed.

        Args:
            model: name of a served model.
            texts: at least one, none of them blank.
            caller: whose request it is: callers have equal shares of a full engine.
            priority: ``batch`` yields to ``realtime``.
            truncate: cut texts that are too long instead of raising.
            wait: seconds to wait for a cold model.

        Raises:
            UnknownModelError: it is not served.
            ModelColdError: it is not ready within ``wait`` seconds, and loading goes on; or it could not be loaded,
                and will be tried again when asked for after a pause.
            QueueFullError: the texts do not fit into the queue, or would leave too little of it to other callers.
            StoppingError: the engine shuts down.
            EncodingFailedError: a worker failed on one of the texts, which the message names by index.
            InputError: as :meth:`tokenize`.
        """

"""What a server may ask of an engine; the real one is :class:`unmask.engine.engine.Engine`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.errors import TooManyTokensError
from unmask.text import Text, TokenizedText

#: ``batch`` is served only from what ``realtime`` leaves.
Priority = Literal["realtime", "batch"]
#: ``cold``: not in memory, loaded when first asked for. ``failed``: it could not be loaded; ``Served.error`` says why.
State = Literal["cold", "warming", "ready", "failed"]
#: Told of the tokens of each text before anything is computed; what it raises ends the request.
Admit = Callable[[Sequence[int]], Awaitable[None]]
#: Seconds to wait for the tokenizer of a model that has not been read yet.
PATIENCE: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The answer to a request.

    Attributes:
        vectors: ``[n, D]`` float32, not normalised, in the order of the texts.
        tokens: tokens of each text as the model read it, template and instruction included.
        provider: that computed it; None for this process, where there are no others.
    """

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]
    provider: str | None = None


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that is served.

    Attributes:
        name: by which requests name it.
        state: whether it can answer at once.
        dimension: components of a vector; None while the model has never been loaded.
        max_length: most tokens of a text; None while its tokenizer has not been read, seconds after the start.
        query_instruction: what queries have by default, as its checkpoint says; None where it does not say, or while
            its tokenizer has not been read.
        error: why it failed, else None; for the operator alone, as it may hold paths of the machine.
    """

    name: str
    state: State
    dimension: int | None
    max_length: int | None
    query_instruction: str | None = None
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


def check_total(tokens: int, most: int | None) -> None:
    """Refuse more tokens than a request may have; None for any number.

    Raises:
        TooManyTokensError: there are more.
    """
    if most is not None and tokens > most:
        raise TooManyTokensError(
            f"The texts have more than {most:,} tokens together, the most of one request. Send fewer at a time."
        )


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

    async def tokenize(
        self, model: str, texts: Sequence[Text], *, truncate: bool = True, wait: float = PATIENCE
    ) -> list[TokenizedText]:
        """Return the tokens of ``texts`` as the model reads them, off the event loop; a cold model need not be loaded.

        Args:
            model: name of a served model.
            texts: any number; with none, only the tokenizer is waited for.
            truncate: cut texts that are too long instead of raising.
            wait: seconds to wait for a tokenizer that has not been read yet.

        Raises:
            UnknownModelError: it is not served.
            ModelColdError: its tokenizer has not been read within ``wait`` seconds, or could not be.
            ModelUnavailableError: it could not be, and will not be until its operator mends something.
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
            UnknownModelError, ModelColdError, ModelUnavailableError, StoppingError: as :meth:`tokenize`.
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
        most_tokens: int | None = None,
        admit: Admit | None = None,
    ) -> Embedded:
        """Encode ``texts``; cancelling the call drops what of it has not been computed.

        Args:
            model: name of a served model.
            texts: at least one, none of them blank.
            caller: whose request it is: callers have equal shares of a full engine.
            priority: ``batch`` yields to ``realtime``.
            truncate: cut texts that are too long instead of raising.
            wait: seconds to wait for a cold model.
            most_tokens: that the texts may have together, None for any number.
            admit: awaited once, when there is room for the texts' tokens; what it raises is raised. None for nothing.

        Raises:
            UnknownModelError: it is not served.
            ModelColdError: it is not ready within ``wait`` seconds, and loading goes on; or it could not be loaded,
                and will be tried again when asked for after a pause.
            ModelUnavailableError: it could not be loaded, and will not be until its operator mends something; it is
                tried again when asked for after a pause, too.
            TooManyTokensError: the texts have more tokens than ``most_tokens``.
            QueueFullError: the texts do not fit into the queue, or would leave too little of it to other callers.
            StoppingError: the engine shuts down.
            EncodingFailedError: a worker failed on one of the texts, which the message names by index.
            InputError: as :meth:`tokenize`.
        """

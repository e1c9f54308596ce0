"""An engine without a model: instant, the same vector for the same text on every machine. For tests and load tests.

Tokens are bytes of UTF-8, so that texts and token arrays turn into one another. Vectors come from SHAKE-128.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from unmask.engine.contract import PATIENCE, Admit, Embedded, Load, Priority, Served, check_total
from unmask.errors import InputError, StoppingError, UnknownModelError
from unmask.text import SEPARATOR, Text, TokenizedText

#: One id a byte.
VOCABULARY: Final = 256


class FakeEngine:
    """An :class:`~unmask.engine.contract.EmbeddingEngine` that computes nothing; every model is always ready.

    Args:
        models: names of its models.
        dimension: components of a vector.
        max_length: most tokens of a text.
    """

    def __init__(self, models: Sequence[str] = ("fake",), *, dimension: int = 384, max_length: int = 512) -> None:
        self.models = tuple(models)
        self.dimension = dimension
        self.max_length = max_length
        self._batches = self._tokens = 0
        self._stopping = False

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def stop(self, grace: float) -> None:
        """Take nothing more."""
        self._stopping = True

    def served(self) -> tuple[Served, ...]:
        """Return every model, ready."""
        return tuple(
            Served(name=name, state="ready", dimension=self.dimension, max_length=self.max_length)
            for name in self.models
        )

    def load(self) -> Load:
        """Return an empty queue and what was done since the start."""
        return Load(
            queued_tokens={"realtime": 0, "batch": 0},
            queue_limit=1_000_000,
            running_tokens=0,
            tokens_per_second=None,
            batches=self._batches,
            batch_tokens=self._tokens,
            restarts=0,
        )

    async def tokenize(
        self, model: str, texts: Sequence[Text], *, truncate: bool = True, wait: float = PATIENCE
    ) -> list[TokenizedText]:
        """Return the bytes of each text.

        Raises:
            UnknownModelError: it is not served.
            InputError: a text is too long and ``truncate`` is false; names its index.
        """
        self._check(model)
        return [self._tokenize(text, index, truncate) for index, text in enumerate(texts)]

    async def detokenize(self, model: str, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts that bytes stand for.

        Raises:
            UnknownModelError: it is not served.
            InputError: an id is no byte; names the array's index.
        """
        self._check(model)
        for index, array in enumerate(ids):
            wrong = next((number for number in array if not 0 <= number < VOCABULARY), None)
            if wrong is not None:
                raise InputError(f"Token array {index} holds {wrong}; expected ids from 0 to {VOCABULARY - 1}.")
        return [bytes(array).decode("utf-8", "replace") for array in ids]

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
        """Return vectors made from the texts' bytes and the model's name.

        Raises:
            UnknownModelError: it is not served.
            StoppingError: the engine shuts down.
            TooManyTokensError: the texts have more tokens than ``most_tokens``.
            InputError: as :meth:`tokenize`.
        """
        self._check(model)
        if self._stopping:
            raise StoppingError("The engine shuts down and takes nothing more. Ask another server.")
        tokenized = [self._tokenize(text, index, truncate) for index, text in enumerate(texts)]
        tokens = tuple(len(text.ids) for text in tokenized)
        check_total(sum(tokens), most_tokens)
        if admit is not None:
            await admit(tokens)
        self._batches += 1
        self._tokens += sum(tokens)
        salt = model.encode()
        size = 2 * self.dimension
        random = b"".join(hashlib.shake_128(salt + bytes(text.ids)).digest(size) for text in tokenized)
        # Numbers from -1 to 1, none of them 0: a vector of zeros has no direction.
        vectors = (np.frombuffer(random, dtype="<i2").astype(np.float32) + np.float32(0.5)) / np.float32(32768)
        return Embedded(vectors=vectors.reshape(len(texts), self.dimension), tokens=tokens)

    def _check(self, model: str) -> None:
        if model not in self.models:
            raise UnknownModelError(f"Model {model!r} is not served here; expected one of {', '.join(self.models)}.")

    def _tokenize(self, text: Text, index: int, truncate: bool) -> TokenizedText:
        instruction = text.instruction.strip()
        before = (instruction + SEPARATOR).encode() if instruction else b""
        ids = before + text.content.strip().encode()
        if len(ids) > self.max_length:
            if not truncate or len(before) >= self.max_length:
                raise InputError(
                    f"Text {index} has {len(ids)} tokens, {len(ids) - self.max_length} more than max_length "
                    f"{self.max_length}. Shorten it, or pass truncate=True to cut its end."
                )
            ids = ids[: self.max_length]
        return TokenizedText(ids=list(ids), start=len(before))

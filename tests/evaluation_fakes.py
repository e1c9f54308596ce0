"""Models to evaluate that are made from code: the sum of their words' vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.progress import Progress
from unmask.text import Text

DIMENSION = 16


def word_vector(word: str) -> NDArray[np.float32]:
    """Return a vector that depends on nothing but the word, ``[16]``."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)


def text_vector(text: Text) -> NDArray[np.float32]:
    """Return the sum over the words of instruction and content, ``[16]``."""
    words = f"{text.instruction} {text.content}".split()
    total: NDArray[np.float32] = np.stack([word_vector(word) for word in words]).sum(axis=0)
    return total


@dataclass
class FakeModel:
    """What a task is run on: remembers what it was asked for."""

    vector: Callable[[Text], Any] = text_vector
    asked: list[list[Text]] = field(default_factory=list)

    @property
    def encoder(self) -> Any:
        raise AssertionError

    def vectors(self, texts: Iterable[Text]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        return np.array([self.vector(text) for text in self.asked[-1]], dtype=np.float32)

    def advance(self, texts: int, tokens: int = 0) -> None:
        raise AssertionError


@dataclass
class FakeSubject:
    """A model that is measured; it says nothing of tokens unless told to."""

    name: str = "fake"
    source: str = "nowhere"
    identity: str = "1"
    dimension: int = DIMENSION
    max_length: int = 32
    parameters: int = 0
    encoder: None = None
    vector: Callable[[Text], Any] = text_vector
    counts: bool = False
    encoded: list[Text] = field(default_factory=list)

    def encode(self, texts: Sequence[Text], bar: Progress) -> NDArray[np.float32]:
        self.encoded += texts
        if self.counts:
            bar.advance(len(texts), extra=sum(len(text.content.split()) for text in texts))
        return np.array([self.vector(text) for text in texts], dtype=np.float32)

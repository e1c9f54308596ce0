"""Exact search: the texts of a corpus nearest to a query, by cosine.

Shapes: N texts of a corpus, Q queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from unmask.bulk.kept import KeptVectors, Matrix
from unmask.errors import InputError

if TYPE_CHECKING:
    from unmask.encoder import Encoder

#: Rows of a corpus that are worked on at a time.
_BLOCK: Final = 32_768
#: Mean cosine of two texts of a corpus above which its vectors are standardised …
LIKENESS: Final = 0.5
#: … if it has at least so many texts: fewer say too little about their mean and spread.
ENOUGH: Final = 100
#: Goes before a query unless a checkpoint brings its own.
QUERY_INSTRUCTION: Final = "Given a question, find the text that answers it:"
#: What queries look like; with as many texts of the corpus, they tell what all queries have in common.
_SAMPLE_QUERIES: Final = (
    "How do I cook rice?", "What is the capital of France?", "Why is the sky blue?", "Who wrote Romeo and Juliet?",
    "How can I learn to play the guitar?", "What does a cat eat?", "How far is the moon?", "How do I change a tyre?",
    "When did the war end?", "Which fruit has the most sugar?", "How can I sleep better?", "Where do penguins live?",
    "What causes rain?", "How do I tie a knot?", "Is coffee bad for you?", "How much water should I drink?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Standard:
    """What is taken off unit vectors, and what they are divided by, ``[D]`` each."""

    mean: Matrix
    spread: Matrix


class Index:
    """The vectors of a corpus, ready for search; they are read block by block and may lie on disk.

    In a model that was not trained as an encoder all vectors point nearly the same way, and a few
    dimensions outweigh the rest. Standardising (each dimension less its mean, divided by its standard
    deviation) brings out what tells texts apart: "All Bark and No Bite", arXiv 2109.04404.

    Args:
        vectors: ``[N, D]`` of any number format but packed bits; not copied.
        standardised: whether to do so; None: where the corpus calls for it, see :data:`LIKENESS`.

    Attributes:
        likeness: mean cosine of two texts of the corpus.
        standardised: whether the vectors are standardised.
    """

    def __init__(self, vectors: NDArray[np.generic], *, standardised: bool | None = None) -> None:
        if vectors.ndim != 2 or len(vectors) == 0:
            raise InputError(
                f"The corpus has vectors of shape {vectors.shape}; expected [texts, dimensions], not empty."
            )
        self._vectors = vectors
        standard, count = self._measure()
        # |mean|² is the mean over all pairs, those of a text with itself (1 each) included.
        own = float(standard.mean @ standard.mean)
        self.likeness = (own * count - 1) / (count - 1) if count > 1 else 0.0
        self.standardised = count >= ENOUGH and self.likeness > LIKENESS if standardised is None else standardised
        self._corpus: _Standard | None = standard if self.standardised else None
        self._queries = self._corpus

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._vectors)

    def expect(self, queries: NDArray[np.generic]) -> None:
        """Learn from sample queries, ``[Q, D]``, what queries have in common; used if vectors are standardised."""
        if self._corpus is not None:
            mean = np.asarray(_unit(queries, None).mean(axis=0), dtype=np.float32)
            self._queries = _Standard(mean, self._corpus.spread)

    def nearest(self, queries: NDArray[np.generic], count: int) -> tuple[Matrix, NDArray[np.int64]]:
        """Return the texts nearest to each query, best first; of equal ones the earlier first.

        Args:
            queries: ``[Q, D]``.
            count: how many texts for each; at most N come back.

        Returns:
            Cosines and positions in the corpus, both ``[Q, min(count, N)]``. A zero vector has cosine 0
            with everything.
        """
        queries = np.atleast_2d(queries)
        if queries.shape[1] != self._vectors.shape[1] or count < 1:
            raise InputError(
                f"Asked for {count} texts near vectors of {queries.shape[1]} dimensions; expected at least 1, and "
                f"{self._vectors.shape[1]} dimensions, as the corpus has."
            )
        unit_QD = _unit(queries, self._queries)
        scores: Matrix = np.zeros((len(queries), 0), dtype=np.float32)
        positions: NDArray[np.int64] = np.zeros((len(queries), 0), dtype=np.int64)
        for start, block_ND in self._blocks(self._corpus):
            new_scores = unit_QD @ block_ND.T
            new = np.broadcast_to(np.arange(start, start + len(block_ND)), new_scores.shape)
            scores, positions = _best(np.hstack([scores, new_scores]), np.hstack([positions, new]), count)
        return scores, positions

    def paired(self, queries: NDArray[np.generic], documents: NDArray[np.generic]) -> Matrix:
        """Return the cosine of each query with the document beside it, ``[Q, D]`` both, as ``[Q]``; as in a search."""
        cosines = np.einsum("qd,qd->q", _unit(queries, self._queries), _unit(documents, self._corpus))
        return np.asarray(cosines, dtype=np.float32)

    def _measure(self) -> tuple[_Standard, int]:
        """Return mean and spread of the unit vectors, and how many there are, zero vectors left out."""
        total = np.zeros(self._vectors.shape[1])
        squares, count = np.zeros_like(total), 0
        for _, block_ND in self._blocks(None):
            total += block_ND.sum(axis=0, dtype=np.float64)
            squares += np.square(block_ND).sum(axis=0, dtype=np.float64)
            count += int(block_ND.any(axis=1).sum())
        mean = total / max(count, 1)
        spread = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
        constant = spread <= 1e-6 * (spread.max() or 1)  # rounding is all that varies there
        return _Standard(mean.astype(np.float32), np.where(constant, np.inf, spread).astype(np.float32)), count

    def _blocks(self, standard: _Standard | None) -> Iterator[tuple[int, Matrix]]:
        """Yield unit vectors, block by block, with the position of the first."""
        for start in range(0, len(self._vectors), _BLOCK):
            yield start, _unit(self._vectors[start : start + _BLOCK], standard)


class TextSearch:
    """Texts to search among; their vectors are kept from run to run.

    Args:
        encoder: the model.
        texts: the corpus; blank texts are never found.
        instruction: put before queries. None: the checkpoint's own, else :data:`QUERY_INSTRUCTION`.
        standardised: see :class:`Index`.
        progress: show the encoding.

    Attributes:
        instruction: put before queries.
        index: the vectors.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        instruction: str | None = None,
        standardised: bool | None = None,
        progress: bool = False,
    ) -> None:
        own = encoder.settings.query_instruction or QUERY_INSTRUCTION
        self.instruction = own if instruction is None else instruction
        self._encoder = encoder
        kept = KeptVectors(encoder)
        self.index = Index(kept.of(texts, progress=progress), standardised=standardised)
        if self.index.standardised:
            some = texts[:: max(1, len(texts) // len(_SAMPLE_QUERIES))][: len(_SAMPLE_QUERIES)]
            self.index.expect(kept.of([*_SAMPLE_QUERIES, *some], instruction=self.instruction))

    def find(self, query: str, count: int = 5) -> list[tuple[float, int]]:
        """Return cosine and position of the texts nearest to ``query``, best first."""
        vector = self._encoder.encode([query], instruction=self.instruction)
        scores, positions = self.index.nearest(vector, count)
        return list(zip(scores[0].tolist(), positions[0].tolist(), strict=True))


def _unit(vectors: NDArray[np.generic], standard: _Standard | None) -> Matrix:
    """Return vectors of length 1, standardised if asked; zero vectors stay zero."""
    unit = _scaled(np.asarray(vectors, dtype=np.float32))
    if standard is None:
        return unit
    moved = (unit - standard.mean) / standard.spread
    return _scaled(np.where(unit.any(axis=1, keepdims=True), moved, np.float32(0)))


def _scaled(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _best(scores: Matrix, positions: NDArray[np.int64], count: int) -> tuple[Matrix, NDArray[np.int64]]:
    """Return the best columns of each row, sorted; those with equal scores in the order of their positions."""
    columns = []
    for row, at in zip(scores, positions, strict=True):
        # All that equal the last one that fits are looked at, or chance would choose among them.
        kept = np.flatnonzero(row >= np.partition(row, -count)[-count]) if len(row) > count else np.arange(len(row))
        columns.append(kept[np.lexsort((at[kept], -row[kept]))[:count]])
    chosen = np.stack(columns)
    return np.take_along_axis(scores, chosen, axis=1), np.take_along_axis(positions, chosen, axis=1)

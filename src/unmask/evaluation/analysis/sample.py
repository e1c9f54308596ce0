"""The texts that an analysis looks at: few enough to end in minutes, the same on each run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask import corpora
from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.bootstrap import intervals
from unmask.evaluation.outcome import Metric
from unmask.pipeline import check
from unmask.text import TokenizedText

Matrix = NDArray[np.float32]

SEED: Final = 0
#: Most texts, and most tokens of them together.
TEXTS: Final = 200
TOKENS: Final = 12_000
#: Nearest neighbours that are compared; a sample needs more texts than these.
NEIGHBOURS: Final = 10

#: The sample taken where no texts are given: docstrings, and neighbouring ones joined to so many words each.
_DOCSTRINGS: Final = 172
_JOINED: Final = ((12, 70), (16, 250))
_DEFAULT_SOURCE: Final = "docstrings of the Python standard library, some joined to longer texts"


class NotMeasuredError(Exception):
    """What an analysis was to look at is not there; the message says why, and ends up in the report."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Texts and their tokens.

    Attributes:
        source: where the texts come from, in words.
        given: how many distinct texts there were to choose from.
        texts: those chosen.
        tokenized: the tokens of each, cut at the encoder's ``max_length``.
    """

    source: str
    given: int
    texts: tuple[str, ...]
    tokenized: tuple[TokenizedText, ...]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, template included."""
        return np.array([len(text.ids) for text in self.tokenized], dtype=np.int64)

    def longest(self, count: int, *, above: int = 0) -> list[int]:
        """Return the indices of at most ``count`` texts of more than ``above`` tokens, longest first."""
        lengths = self.lengths
        return [int(i) for i in np.argsort(-lengths, kind="stable") if lengths[i] > above][:count]

    def within(self, tokens: int) -> list[int]:
        """Return the indices of the first texts that have at most ``tokens`` tokens together, at least two."""
        fitting = int((self.lengths.cumsum() <= tokens).sum())
        return list(range(max(2, fitting)))


def draw(encoder: Encoder, texts: Sequence[str] | None) -> Sample:
    """Draw a sample: at most :data:`TEXTS` texts with about :data:`TOKENS` tokens, in random order.

    Args:
        encoder: counts the tokens.
        texts: those to draw from; None for docstrings of the standard library.

    Raises:
        InputError: a text is blank or no string, or there are too few distinct ones.
    """
    source = _DEFAULT_SOURCE if texts is None else "given"
    checked = [text for text in check(_docstrings() if texts is None else texts, None, "error") if text is not None]
    distinct = list(dict.fromkeys(checked))
    if len(distinct) <= NEIGHBOURS:
        raise InputError(
            f"got {len(distinct)} distinct texts to analyse; expected at least {NEIGHBOURS + 1}. "
            "Give more texts, or none for the docstrings of the standard library."
        )
    chosen = random.Random(SEED).sample(distinct, min(TEXTS, len(distinct)))  # noqa: S311 - no secret
    tokenized = encoder.pipeline.tokenizer.tokenize(chosen)
    before = np.cumsum([0, *(len(text.ids) for text in tokenized)])[:-1]
    count = max(NEIGHBOURS + 1, int((before < TOKENS).sum()))
    return Sample(
        source=source,
        given=len(distinct),
        texts=tuple(text.content for text in chosen[:count]),
        tokenized=tuple(tokenized[:count]),
    )


def _docstrings() -> list[str]:
    entries = corpora.demo_entries()
    short = random.Random(SEED).sample(entries, min(_DOCSTRINGS, len(entries)))  # noqa: S311 - no secret
    joined = [text for count, words in _JOINED for text in corpora.long_mix(entries, count, words=words)]
    return [entry.text for entry in short] + joined


def vectors_of(encoder: Encoder, texts: Sequence[str], **options: Any) -> Matrix:
    """Return vectors as the model gives them, not normalised, ``[n, D]``."""
    vectors: Matrix = encoder.encode(list(texts), normalize=False, **options)
    return vectors


def unit(vectors_ND: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return vectors scaled to length 1, ``[n, D]``; zero vectors stay zero."""
    vectors = vectors_ND.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def cosines(left_ND: NDArray[np.generic], right_ND: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the cosine of each row of ``left_ND`` with the same row of ``right_ND``, ``[n]``."""
    return np.asarray((unit(left_ND) * unit(right_ND)).sum(axis=-1))


def average(values: NDArray[np.float64]) -> Metric:
    """Return the mean of one cosine or share an item, with its bootstrap interval."""
    return intervals(lambda samples: {"mean": float(samples["value"].mean())}, {"value": values}, bounds=(-1.0, 1.0))[
        "mean"
    ]


def kept_neighbours(before_NN: NDArray[np.float64], after_NN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each text's ten nearest texts that stay among its ten nearest, ``[n]``.

    Args:
        before_NN: similarity of each text with each; itself does not count.
        after_NN: the same by other vectors.
    """
    near_before, near_after = (_nearest(similarity) for similarity in (before_NN, after_NN))
    return np.array([len({*a} & {*b}) / NEIGHBOURS for a, b in zip(near_before, near_after, strict=True)])


def _nearest(similarity_NN: NDArray[np.float64]) -> list[list[int]]:
    others = similarity_NN.copy()
    np.fill_diagonal(others, -np.inf)
    ranked: list[list[int]] = np.argsort(-others, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()
    return ranked

"""Hard negatives: texts that a model takes for the answer to a query, though they are not.

A text nearly as close to the query as its positive is more often an answer that nobody marked than a hard
negative. So what scores more than 95 % of the positive's own score is left out: "TopK-PercPos" of
NV-Retriever, arXiv 2407.15831.

Shapes: R rows, K candidates, n negatives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError

Matrix = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MiningSettings:
    """What to look for.

    Attributes:
        instruction: put before each query, never before documents. None: the checkpoint's own, if it has one.
        negatives: n, how many for each row.
        top: how deep to look: ranks 1 to ``top``, counted without the query's own positives.
        skip_first: so many of the first ranks are left out.
        margin: a negative scores at most this share of the positive's score.
        standardised: see :class:`unmask.bulk.search.Index`.

    Raises:
        InputError: a number is out of range.
    """

    instruction: str | None = None
    negatives: int = 1
    top: int = 100
    skip_first: int = 0
    margin: float = 0.95
    standardised: bool | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.margin <= 1:
            raise InputError(f"margin is {self.margin}; expected more than 0 and at most 1, such as 0.95.")
        if self.negatives < 1 or self.skip_first < 0:
            raise InputError(
                f"Got {self.negatives} negatives and {self.skip_first} ranks to skip; expected at least 1, and at "
                "least 0."
            )
        if self.top < self.skip_first + self.negatives:
            raise InputError(
                f"top is {self.top}; expected at least {self.skip_first + self.negatives}: {self.skip_first} ranks to "
                f"skip and {self.negatives} negatives. Raise it."
            )


@dataclass(frozen=True, kw_only=True)
class Mined:
    """What was found, row by row.

    Attributes:
        positions: ``[R, n]``, positions in the corpus, best first; -1 in a row that has too few.
        scores: ``[R, n]``, their scores.
        positive_scores: ``[R]``.
        others: ``[R]``, documents other than the query's own among the ranks that were looked at, whatever
            their scores: where there are n of them, the margin is why a row has too few.
        standardised: whether the vectors were; see :class:`unmask.bulk.search.Index`.
    """

    positions: NDArray[np.int64]
    scores: Matrix
    positive_scores: Matrix
    others: NDArray[np.int64]
    standardised: bool = False

    @property
    def found(self) -> NDArray[np.bool_]:
        """Rows that have their negatives, ``[R]``."""
        return np.asarray(self.positions[:, 0] >= 0)

    @classmethod
    def empty(cls, rows: int, negatives: int) -> Self:
        """Return room for so many rows."""
        return cls(
            positions=np.full((rows, negatives), -1, dtype=np.int64),
            scores=np.zeros((rows, negatives), dtype=np.float32),
            positive_scores=np.zeros(rows, dtype=np.float32),
            others=np.zeros(rows, dtype=np.int64),
        )


def choose_negatives(
    scores: Matrix,
    candidates: NDArray[np.int64],
    positive_scores: Matrix,
    *,
    own: Sequence[Collection[int]],
    settings: MiningSettings,
) -> Mined:
    """Choose the negatives of each row among the documents nearest to its query.

    Of the candidates that are not the query's own, those of ranks ``skip_first`` + 1 to ``top`` that score at
    most p - (1 - margin) · abs(p) are fit, p being the score of the positive; the first n of them are taken.
    For p ≥ 0 that is margin · p. For p < 0, margin · p would lie above p and let through what is closer to the
    query than its positive; this way the limit stays below p by the same share of its size.

    Args:
        scores: ``[R, K]``, best first.
        candidates: ``[R, K]``, which document each score belongs to, as :meth:`Index.nearest` returns them: of
            equal scores the earlier document first, none twice.
        positive_scores: ``[R]``, on the same scale.
        own: for each row the documents that are no negatives, whatever their score.
        settings: what to look for.

    Returns:
        n negatives for each row, or none for a row with fewer than n that are fit.
    """
    chosen = Mined.empty(len(scores), settings.negatives)
    other_RK = ~np.array([np.isin(row, list(mine)) for row, mine in zip(candidates, own, strict=True)], dtype=bool)
    rank_RK = np.cumsum(other_RK, axis=1)
    looked_RK = other_RK & (rank_RK > settings.skip_first) & (rank_RK <= settings.top)
    limit_R = positive_scores - (1 - settings.margin) * np.abs(positive_scores)
    fit_RK = looked_RK & (scores <= limit_R[:, None])
    enough_R = fit_RK.sum(axis=1) >= settings.negatives
    # False sorts before True, and the sort is stable: the fit ones first, in their order.
    first_RK = np.argsort(~fit_RK, axis=1, kind="stable")
    for row in np.flatnonzero(enough_R):
        columns = first_RK[row, : settings.negatives]
        chosen.positions[row], chosen.scores[row] = candidates[row, columns], scores[row, columns]
    chosen.positive_scores[:] = positive_scores
    chosen.others[:] = looked_RK.sum(axis=1)
    return chosen

"""Figures with their intervals: rank correlation, nDCG@10, accuracy and V-measure, resampled by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.metrics import ndcg_score

RESAMPLES: Final = 1_000
SEED: Final = 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value and its 95 % interval.

    Attributes:
        value: on all items.
        low: lower end of the interval.
        high: upper end.
        n: items that were resampled.
    """

    value: float
    low: float
    high: float
    n: int


def bootstrap(statistic: Callable[[NDArray[np.int64]], float], n: int, *, seed: int = SEED) -> Figure:
    """Return a statistic of ``n`` items with its percentile interval over resamples.

    Args:
        statistic: from indices of items, which may repeat, to the value.
        n: how many items there are.
        seed: of the resampling.

    Raises:
        ValueError: there are fewer than two items.
    """
    if n < 2:
        raise ValueError(f"n is {n}; expected at least 2 items to resample. Use a larger set.")
    items = np.arange(n)
    found = stats.bootstrap(
        (items,),
        statistic,
        n_resamples=RESAMPLES,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Figure(value=float(statistic(items)), low=float(found.low), high=float(found.high), n=n)


def spearman(scores: ArrayLike, truth: ArrayLike) -> Figure:
    """Return the rank correlation of scores with the truth, pairs resampled."""
    a, b = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    return bootstrap(lambda i: float(stats.spearmanr(a[i], b[i]).statistic), len(a))


def mean(values: ArrayLike) -> Figure:
    """Return the mean of a value an item: accuracy from hits, or nDCG from queries."""
    each = np.asarray(values, dtype=np.float64)
    return bootstrap(lambda i: float(each[i].mean()), len(each))


def ndcg_at_10(relevance: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Return nDCG@10 of each query over the whole collection; both arguments are ``[queries, documents]``."""
    rows = zip(np.asarray(relevance), np.asarray(scores), strict=True)
    return np.array([ndcg_score(truth[None], row[None], k=10) for truth, row in rows])


def v_measure(labels: Sequence[Any], assignments: Sequence[ArrayLike]) -> Figure:
    """Return the V-measure, the mean over several clusterings of the same items, items resampled.

    The clusterings stay as they are: the interval is that of the items, not of the clustering.
    """
    truth, *fixed = (np.unique(np.asarray(names), return_inverse=True)[1] for names in (labels, *assignments))
    return bootstrap(lambda i: float(np.mean([_v_measure(truth[i], found[i]) for found in fixed])), len(truth))


def _v_measure(labels: NDArray[np.intp], clusters: NDArray[np.intp]) -> float:
    """Return mutual information over mean entropy; scikit-learn would spend most of a resample on its checks."""
    width = int(clusters.max()) + 1
    both = np.bincount(labels * width + clusters)
    apart = _entropy(np.bincount(labels)) + _entropy(np.bincount(clusters))
    return 2 * (apart - _entropy(both)) / apart if apart else 1.0


def _entropy(counts: NDArray[np.intp]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())

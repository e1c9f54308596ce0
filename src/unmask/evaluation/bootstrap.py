"""How sure a figure is, and a difference between two: resampling by item.

Percentile bootstrap: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, moved by the
bootstrap's own estimate of bias (chapter 10): a resample repeats items, which makes a V-measure larger than that of the
items themselves, by more than its interval is wide. For a difference both models are resampled with the same items,
which is what makes the test paired (Dror et al., ACL 2018, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.evaluation.outcome import Metric, Samples

RESAMPLES: Final = 1_000
SEED: Final = 0
#: Probability that a bootstrap interval holds the truth.
CONFIDENCE: Final = 0.95
UNBOUNDED: Final = (-math.inf, math.inf)
_PERCENTILES: Final = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)

#: From samples, resampled or not, to every metric by name.
Statistic = Callable[[Samples], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better the second of two models is, on the same items.

    Attributes:
        value: second minus first.
        low: lower end of the 95 % interval.
        high: upper end.
        p: two-sided p-value: how probable a difference as large as this is if there is none, at least
            1 / (resamples + 1).
    """

    value: float
    low: float
    high: float
    p: float


def take(samples: Samples, rows: NDArray[np.int64]) -> Samples:
    """Return the given rows of every array."""
    return {name: array[rows] for name, array in samples.items()}


def intervals(
    statistic: Statistic, samples: Samples, *, resamples: int = RESAMPLES, bounds: tuple[float, float] = UNBOUNDED
) -> dict[str, Metric]:
    """Return each metric on all items with its 95 % interval.

    A resample on which a metric is undefined (all items alike, by chance) is left out; a metric that all of them
    leave undefined has no interval.

    Args:
        statistic: computes the metrics.
        samples: arrays with one row an item, all of the same length.
        resamples: how many.
        bounds: lowest and highest figure there can be; no interval goes beyond.
    """
    values = statistic(samples)
    drawn = [statistic(take(samples, rows)) for rows in _draws(size(samples), resamples)]
    return {name: _metric(value, np.array([draw[name] for draw in drawn]), bounds) for name, value in values.items()}


def difference(
    statistic: Statistic, metric: str, first: Samples, second: Samples, *, resamples: int = RESAMPLES
) -> Difference:
    """Return how much better ``second`` is than ``first`` in ``metric``, with interval and p-value.

    The p-value is that of the bootstrap distribution shifted to no difference (Efron and Tibshirani, section 16.4).

    Args:
        statistic: computes the metrics.
        metric: which one.
        first: a model's samples.
        second: another model's, of the same items in the same order.
        resamples: how many.

    Raises:
        InputError: the two are of different numbers of items, or the metric is undefined.
    """
    if size(first) != size(second):
        raise InputError(
            f"The models were measured on {size(first):,} and {size(second):,} items; expected the same ones. "
            "Measure both on the same data, with the same --limit."
        )
    value = statistic(second)[metric] - statistic(first)[metric]
    draws = [
        statistic(take(second, rows))[metric] - statistic(take(first, rows))[metric]
        for rows in _draws(size(first), resamples)
    ]
    drawn = np.array([draw for draw in draws if np.isfinite(draw)])
    if not (np.isfinite(value) and drawn.size):
        raise InputError(f"{metric} is undefined on these {size(first):,} items. Measure both models on more.")
    low, high = _ends(value, drawn)
    beyond = int((np.abs(drawn - value) >= abs(value)).sum())
    return Difference(value=float(value), low=low, high=high, p=(beyond + 1) / (len(drawn) + 1))


def size(samples: Samples) -> int:
    """Return how many items ``samples`` hold."""
    lengths = {len(array) for array in samples.values()}
    assert len(lengths) == 1, f"samples of different lengths: {lengths}"
    return lengths.pop()


def _metric(value: float, drawn: NDArray[np.float64], bounds: tuple[float, float]) -> Metric:
    known = drawn[np.isfinite(drawn)]
    if not known.size:
        return Metric(value=float(value))
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in _ends(value, known))
    return Metric(value=float(value), low=low, high=high)


def _ends(value: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval round ``value``: percentiles of the draws, less what the draws are too large by."""
    low, high = np.percentile(drawn, _PERCENTILES) - (drawn.mean() - value)
    return float(low), float(high)


def _draws(items: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(SEED)
    return (generator.integers(0, items, items) for _ in range(resamples))

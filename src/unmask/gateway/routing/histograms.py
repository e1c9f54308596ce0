"""Counts of values in fixed buckets: any two of them can be added, whichever process counted, at whatever time.

Twenty buckets make a factor of ten, so each ends 12.2 % above where it begins. A percentile is given as the middle of
its bucket on that scale: at most 5.9 % from the value that a list of all values would give. What it is of does not
matter; seconds and tokens a second share one scale, from 0.00001 to 100,000,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: Buckets of a factor of ten.
STEPS: Final = 20
#: Most that a percentile is away from the true one, as a share of it.
ERROR: Final = 10 ** (1 / (2 * STEPS)) - 1
#: The first bucket and the last; what lies outside is counted in them.
FIRST: Final = -5 * STEPS
LAST: Final = 8 * STEPS


def bucket_of(value: float) -> int:
    """Return the bucket that a value is counted in."""
    return within(math.floor(STEPS * math.log10(value))) if value > 0 else FIRST


def within(bucket: int) -> int:
    """Return the bucket that there is in the place of one that may lie outside."""
    return min(LAST, max(FIRST, bucket))


def middle_of(bucket: int) -> float:
    """Return the value that stands for all of a bucket."""
    return float(10 ** ((bucket + 0.5) / STEPS))


@dataclass(frozen=True)
class Histogram:
    """How many values are in each bucket.

    Attributes:
        counts: by bucket.
    """

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many values there are."""
        return sum(self.counts.values())

    def at_most(self, share: float) -> float | None:
        """Return what ``share`` of the values do not exceed, as nearly as buckets tell; None without a value."""
        return self._walk(share, sorted(self.counts))

    def at_least(self, share: float) -> float | None:
        """Return what ``share`` of the values reach or exceed, likewise."""
        return self._walk(share, sorted(self.counts, reverse=True))

    def _walk(self, share: float, buckets: Iterable[int]) -> float | None:
        # A hair less: 0.9 x 10 is 9, and not a little more.
        left = max(1, math.ceil(self.total * share - 1e-9))
        for bucket in buckets:
            left -= self.counts[bucket]
            if left <= 0:
                return middle_of(bucket)
        return None


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return the histogram of all values of several."""
    counts: dict[int, int] = {}
    for each in histograms:
        for bucket, count in each.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return Histogram(counts)

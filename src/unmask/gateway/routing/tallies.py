"""What this process counted of its providers since it was last written down: additions in memory, and nothing else.

A request costs two logarithms and three additions here, a microsecond or so. Whoever writes the counts down takes them
every few seconds; what is taken belongs to the hour in which it is, so at the turn of an hour some seconds' counts fall
to the next one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from math import floor, log10
from typing import Final, Literal, NamedTuple

from unmask.gateway.routing.histograms import STEPS, within

#: ``answered``, ``failed``: requests that a provider was sent. ``up``, ``down``: checks of it. The rest: histograms.
Figure = Literal["answered", "failed", "up", "down", "latency", "throughput"]

_HOUR: Final = 3600
#: What stands for no time, and for no tokens: they have no logarithm.
_TINY: Final = 1e-9


class Cell(NamedTuple):
    """What a number counts.

    Attributes:
        model: its name.
        provider: its name.
        figure: what was seen.
        hour: since 1970, UTC.
        bucket: of a histogram; 0 of a plain count.
    """

    model: str
    provider: str
    figure: Figure
    hour: int
    bucket: int


class Tally:
    """The counts of one provider of a model."""

    __slots__ = ("_answered", "_latency", "_plain", "_throughput")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._answered = 0
        self._plain: Counter[Figure] = Counter()
        self._latency: defaultdict[int, int] = defaultdict(int)
        self._throughput: defaultdict[int, int] = defaultdict(int)

    def answered(self, seconds: float | None, tokens: int) -> None:
        """Count an answer.

        Args:
            seconds: that it took; None if it says nothing of the provider's speed.
            tokens: of its texts.
        """
        self._answered += 1
        if seconds is None:
            return
        # Every request comes here: buckets are brought into their range when they are taken.
        seconds = seconds or _TINY
        self._latency[floor(STEPS * log10(seconds))] += 1
        self._throughput[floor(STEPS * log10((tokens or _TINY) / seconds))] += 1

    def failed(self) -> None:
        """Count a failure."""
        self._plain["failed"] += 1

    def checked(self, *, up: bool) -> None:
        """Count a check."""
        self._plain["up" if up else "down"] += 1

    def take(self) -> Mapping[tuple[Figure, int], int]:
        """Return the counts by figure and bucket, and begin anew."""
        found: Counter[tuple[Figure, int]] = Counter({(figure, 0): count for figure, count in self._plain.items()})
        if self._answered:
            found["answered", 0] = self._answered
        for bucket, count in self._latency.items():
            found["latency", within(bucket)] += count
        for bucket, count in self._throughput.items():
            found["throughput", within(bucket)] += count
        self._begin()
        return found


class Tallies:
    """The counts of all providers.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tallies: dict[tuple[str, str], Tally] = {}

    def of(self, model: str, provider: str) -> Tally:
        """Return the counts of a provider; the same ones, however often the operator changes it."""
        return self._tallies.setdefault((model, provider), Tally())

    def take(self) -> Mapping[Cell, int]:
        """Return what was counted since the last time."""
        hour, found = int(self._now()) // _HOUR, Counter[Cell]()
        for (model, provider), tally in self._tallies.items():
            for (figure, bucket), count in tally.take().items():
                found[Cell(model, provider, figure, hour, bucket)] = count
        return found

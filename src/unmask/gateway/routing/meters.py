"""What a router goes by: how fast a provider was lately, in this process, and how often it failed.

It is in memory and begins anew with the process. What people are shown is in the database (``history.py``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from unmask.gateway.routing.tallies import Tally

#: Answers and seconds over which latency and throughput are taken.
_ANSWERS: Final = 1000
_SECONDS: Final = 900.0
#: Seconds for which a median is good: it is asked for with every request.
_KEPT: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a provider was, over the last quarter of an hour or 1,000 answers.

    Attributes:
        answers: it is taken from.
        p50: seconds that half of the answers took at most.
        p90: seconds, nine of ten.
        p99: seconds, 99 of a hundred.
        tokens_per_second: tokens of all answers by the seconds they took together: what one caller sees.
    """

    answers: int
    p50: float
    p90: float
    p99: float
    tokens_per_second: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of ``ordered`` values, at least one, that ``share`` of them do not exceed."""
    # A hair less: 0.9 x 10 is 9, and not a little more.
    return ordered[max(0, math.ceil(len(ordered) * share - 1e-9) - 1)]


class Meter:
    """Latency and throughput.

    Args:
        clock: seconds, from any origin.
        tally: counts the same for good.
    """

    def __init__(self, clock: Callable[[], float], tally: Tally) -> None:
        self._clock = clock
        self._tally = tally
        self._answers: deque[tuple[float, float, int]] = deque(maxlen=_ANSWERS)
        self._median: float | None = None
        self._median_until = float("-inf")
        self.successes = 0
        self.failures = 0

    def answered(self, seconds: float | None, tokens: int) -> None:
        """Count an answer.

        Args:
            seconds: that it took; None if its caller was ready to wait, and it says nothing of the provider.
            tokens: of its texts.
        """
        self.successes += 1
        self._tally.answered(seconds, tokens)
        if seconds is not None:
            self._answers.append((self._clock(), seconds, tokens))

    def failed(self) -> None:
        """Count a failure."""
        self.failures += 1
        self._tally.failed()

    def median(self) -> float | None:
        """Return the median of the latency, at most a second old; None if there is none."""
        now = self._clock()
        if self._median is None or now >= self._median_until:
            speed = self.speed()
            self._median, self._median_until = speed.p50 if speed else None, now + _KEPT
        return self._median

    def speed(self) -> Speed | None:
        """Return how fast it is; None without an answer in the last quarter of an hour."""
        return speed_of([self])

    def recent(self) -> list[tuple[float, int]]:
        """Return seconds and tokens of each answer that counts."""
        since = self._clock() - _SECONDS
        while self._answers and self._answers[0][0] < since:
            self._answers.popleft()
        return [(seconds, tokens) for _, seconds, tokens in self._answers]


def speed_of(meters: Sequence[Meter]) -> Speed | None:
    """Return how fast the answers of several meters were together; None if they have none."""
    answers = [answer for meter in meters for answer in meter.recent()]
    if not answers:
        return None
    took = sorted(seconds for seconds, _ in answers)
    return Speed(
        answers=len(took),
        p50=percentile(took, 0.5),
        p90=percentile(took, 0.9),
        p99=percentile(took, 0.99),
        tokens_per_second=sum(tokens for _, tokens in answers) / max(sum(took), 1e-9),
    )

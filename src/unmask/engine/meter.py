"""How fast the workers are: tokens over the time that they computed. Bounded memory, no clock of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

#: Seconds that are looked back on.
WINDOW: Final = 30.0


@dataclass(slots=True)
class _Second:
    """What was done in one second of the clock."""

    at: int
    tokens: int = 0
    busy: float = 0.0


class Meter:
    """Tokens a second of busy workers over the last half minute; where nothing was done in it, of the last second.

    Attributes:
        batches: done so far.
        tokens: of all of them.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.tokens = 0
        self._seconds: deque[_Second] = deque()

    def add(self, now: float, tokens: int, busy: float) -> None:
        """Count a batch that took ``busy`` seconds of one worker."""
        self.batches += 1
        self.tokens += tokens
        if not self._seconds or self._seconds[-1].at != int(now):
            self._seconds.append(_Second(int(now)))
        self._seconds[-1].tokens += tokens
        self._seconds[-1].busy += busy
        self._forget(now)

    def rate(self, now: float) -> float | None:
        """Return the tokens that one worker computes in a second; None before the first batch."""
        self._forget(now)
        busy = sum(second.busy for second in self._seconds)
        return sum(second.tokens for second in self._seconds) / max(busy, 1e-9) if self._seconds else None

    def _forget(self, now: float) -> None:
        while len(self._seconds) > 1 and self._seconds[0].at < now - WINDOW:
            self._seconds.popleft()

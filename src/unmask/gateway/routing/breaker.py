"""A circuit breaker: a provider that fails is left alone for a while, then tried with one request.

closed ──failures──► open ──cool-down──► half-open: one probe ──success──► closed
                      ▲                              └─failure, twice the cool-down─┐
                      └───────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from unmask.gateway.routing.routes import RoutingSettings

State = Literal["closed", "open", "half-open"]

#: Seconds over which the share of failures is taken, and how few answers say nothing.
_WINDOW: Final = 30.0
_LEAST: Final = 20
#: Answers that are remembered, at most.
_MOST: Final = 1000


class Breaker:
    """The circuit of one provider.

    A request asks for a permit, and says with it how it went. A permit is good for the state it was given in: what
    comes of it later, when the circuit has opened or closed since, changes nothing.

    Args:
        settings: when it opens, and for how long.
        clock: seconds, from any origin.

    Attributes:
        openings: how often it opened.
    """

    def __init__(self, settings: RoutingSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._recent: deque[tuple[float, bool]] = deque(maxlen=_MOST)
        self._bad = 0
        self._in_a_row = 0
        self._cooldown = settings.cooldown
        self._opened_at: float | None = None
        self._probing = False
        self._era = 0
        self.openings = 0

    @property
    def state(self) -> State:
        """Whether requests pass; half-open when it has cooled down."""
        if self._opened_at is None:
            return "closed"
        return "half-open" if self._probing or not self.seconds_left else "open"

    @property
    def seconds_left(self) -> float:
        """Of the cool-down; 0 when there is none."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._cooldown - self._clock())

    def ask(self) -> int | None:
        """Return a permit for one request, None if it must not be sent."""
        if self._opened_at is None:
            return self._era
        if self._probing or self.seconds_left:
            return None
        self._probing = True
        return self._era

    def succeeded(self, permit: int) -> None:
        """Count an answer; that of the probe closes the circuit."""
        if permit != self._era:
            return
        if self._opened_at is not None:
            self._cooldown = self._settings.cooldown
            self._begin(None)
            return
        self._in_a_row = 0
        self._remember(ok=True)

    def failed(self, permit: int) -> None:
        """Count a failure; that of the probe opens the circuit for longer."""
        if permit != self._era:
            return
        if self._opened_at is not None:
            self._open_again()
            return
        self._in_a_row += 1
        self._remember(ok=False)
        too_many = len(self._recent) >= _LEAST and self._bad > self._settings.failure_share * len(self._recent)
        if self._in_a_row >= self._settings.failures or too_many:
            self._open()

    def refused(self, permit: int) -> None:
        """Open at once: every further request would fail alike."""
        if permit == self._era:
            if self._opened_at is None:
                self._open()
            else:
                self._open_again()

    def dropped(self, permit: int) -> None:
        """Give a permit back that says nothing of the provider: its request was cancelled, or wrong itself."""
        if permit == self._era:
            self._probing = False

    def _open(self) -> None:
        self.openings += 1
        self._begin(self._clock())

    def _open_again(self) -> None:
        self._cooldown = min(2 * self._cooldown, self._settings.longest_cooldown)
        self._open()

    def _begin(self, opened_at: float | None) -> None:
        self._opened_at = opened_at
        self._probing = False
        self._in_a_row = self._bad = 0
        self._recent.clear()
        self._era += 1

    def _remember(self, *, ok: bool) -> None:
        now = self._clock()
        recent = self._recent
        while recent and (recent[0][0] < now - _WINDOW or len(recent) == _MOST):
            self._bad -= not recent.popleft()[1]
        recent.append((now, ok))
        self._bad += not ok

"""How many further attempts a model's requests may have together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Further attempts that may be saved up, and those that come each second: few requests may fail over, too.
_MOST: Final = 20.0
_EACH_SECOND: Final = 0.5


class RetryBudget:
    """Requests pay in a share of an attempt, each further attempt costs a whole one.

    When all of a model's providers fail, the load on them rises by this share and no more.

    Args:
        share: that a request pays in.
        clock: seconds, from any origin.
    """

    def __init__(self, share: float, clock: Callable[[], float]) -> None:
        self._share = share
        self._clock = clock
        self._saved = _MOST
        self._at = clock()

    @property
    def saved(self) -> float:
        """Attempts that may be made now."""
        self._flow()
        return self._saved

    def pay_in(self) -> None:
        """Count a request."""
        self._flow()
        self._saved = min(_MOST, self._saved + self._share)

    def withdraw(self) -> bool:
        """Return whether a further attempt may be made, and count it."""
        self._flow()
        if self._saved < 1:
            return False
        self._saved -= 1
        return True

    def _flow(self) -> None:
        now = self._clock()
        self._saved = min(_MOST, self._saved + _EACH_SECOND * (now - self._at) * (self._share > 0))
        self._at = now

"""The time as accounts keep it: whole microseconds since 1970, UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], int]

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
DAY: Final = 86_400 * SECOND


def microseconds() -> int:
    """Return the time."""
    return time.time_ns() // 1000

"""What is done every so often, whether anybody asks or not."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from unmask.errors import UnmaskError

_log: Final = logging.getLogger("unmask.gateway")


@dataclass(frozen=True, kw_only=True)
class Chore:
    """Something to be done again and again.

    Attributes:
        name: for the log.
        seconds: between two times, more or less a tenth: processes on one database should not do it together.
        work: does it.
        at_once: whether it is done at the start, too.
    """

    name: str
    seconds: float
    work: Callable[[], Awaitable[object]]
    at_once: bool = False


class Housework:
    """Does chores in the background; one that fails is tried again when it is due.

    Args:
        chores: all of them.
    """

    def __init__(self, *chores: Chore) -> None:
        self._chores = chores
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._again(chore), name=chore.name) for chore in self._chores]

    async def stop(self) -> None:
        """Stop; what is being done is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _again(self, chore: Chore) -> None:
        pause = 0.0 if chore.at_once else chore.seconds
        while True:
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311
            pause = chore.seconds
            try:
                await chore.work()
            except UnmaskError as error:
                _log.warning("a chore failed", extra={"fields": {"chore": chore.name, "error": str(error)}})
            except Exception:  # noqa: BLE001 - the next time may go well
                _log.exception("a chore failed", extra={"fields": {"chore": chore.name}})

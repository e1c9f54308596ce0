"""What was looked up by a digest a moment ago, so that not every request asks the database."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple, TypeVar

#: Seconds for which what was looked up is taken to be so.
CACHE_SECONDS: Final = 5.0
#: Seconds after which it is looked up anew while it still holds: of what is in use nobody waits for the database.
_AHEAD_SECONDS: Final = CACHE_SECONDS / 2
#: Things that are remembered.
_CACHED: Final = 10_000

T = TypeVar("T")


class Moment(NamedTuple):
    """When the database was asked, and how many changes there had been."""

    at: float
    changes: int


class Remembered(Generic[T]):
    """Things of the database, remembered for :data:`CACHE_SECONDS`.

    Args:
        fetch: a digest → what the database has under it, None for nothing.
        monotonic: seconds.
    """

    def __init__(self, fetch: Callable[[bytes], Awaitable[T | None]], monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._cache: OrderedDict[bytes, tuple[float, T]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[T | None]] = {}
        self._changes = 0

    async def get(self, digest: bytes) -> T | None:
        """Return what is under a digest, None if nothing is.

        Raises:
            DatabaseUnavailableError: it would have to be looked up, and cannot now.
        """
        at, found = self._cache.get(digest, (0.0, None))
        age = self._monotonic() - at
        if found is None or age > CACHE_SECONDS:
            # Requests that come meanwhile share the answer; none of them can cancel it for the others.
            return await asyncio.shield(self._look_up(digest))
        if age > _AHEAD_SECONDS:
            self._look_up(digest)
        return found

    def now(self) -> Moment:
        """Return the moment before the database is asked, for :meth:`keep`."""
        return Moment(self._monotonic(), self._changes)

    def keep(self, digest: bytes, found: T | None, asked: Moment) -> None:
        """Remember what the database had under a digest, unless something was forgotten since it was asked."""
        self._cache.pop(digest, None)
        if found is not None and asked.changes == self._changes:
            self._cache[digest] = (asked.at, found)
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)

    def forget(self, *digests: bytes) -> None:
        """Forget what has changed; what is being looked up is not remembered either."""
        for digest in digests:
            self._cache.pop(digest, None)
        self._changes += 1

    def digests(self, wanted: Callable[[T], bool]) -> list[bytes]:
        """Return the digests of the things that are wanted."""
        return [digest for digest, (_, found) in self._cache.items() if wanted(found)]

    def _look_up(self, digest: bytes) -> asyncio.Task[T | None]:
        task = self._asked.get(digest)
        if task is None:
            task = self._asked[digest] = asyncio.get_running_loop().create_task(self._ask(digest))
            task.add_done_callback(lambda done: self._looked_up(digest, done))
        return task

    def _looked_up(self, digest: bytes, task: asyncio.Task[T | None]) -> None:
        del self._asked[digest]
        if not task.cancelled():
            task.exception()  # whoever waits has it; ahead of time nobody does, and what is remembered still holds

    async def _ask(self, digest: bytes) -> T | None:
        asked = self.now()
        found = await self._fetch(digest)
        self.keep(digest, found, asked)
        return found

"""One connection that writes: what waits is done in one transaction, so that one commit serves many requests.

Concurrent requests would otherwise pay a transaction each, and wait for one another on the database's lock. While one
group is committed, the next one gathers. What need not be hurried (a charge for a request that is answered) goes along
with the next operation that must be, or by itself after 5 ms; that halves the commits of a busy gateway.

**Where it is done.** PostgreSQL is waited for in a thread. SQLite is not waited for: a group takes some 0.1 ms, less
than the event loop and a thread need to hand a processor, and Python's lock, to each other and back, four times a
group. It is done on the event loop itself; measured, a thread added three times as much to each request. Only what
really waits goes to the thread: for the disk (durable groups), or for another process that writes.

**Operations.** An operation is a function of a :class:`Transaction` that looks first, refuses by raising an
:class:`~unmask.errors.UnmaskError`, and only then writes: its refusal undoes nothing of the others. Where one fails in
another way, or refuses after it wrote, the group is undone and every operation of it done again, alone. So each is done
whole or not at all, whatever its neighbours do. It must therefore change nothing but the database.

**What a power cut can lose.** A process that ends in any way loses nothing that was answered. When the machine loses
power, groups with a *durable* operation (credit that comes in, keys made or revoked) are on the disk before they are
answered. The others (requests reserved, charged, released) are there when the next durable group, a checkpoint or
PostgreSQL's log writer puts them there: SQLite within a second (``checkpoints.py``), PostgreSQL within three times its
``wal_writer_delay`` (0.6 s). A power cut takes the last of those back all together, in order: requests that were
answered in the last moments are then not paid. It never leaves half a transaction, and never costs a customer anything.
``always_durable`` makes every group wait for the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import URL

from unmask.errors import UnmaskError
from unmask.gateway.db.backends import Backend
from unmask.gateway.db.checkpoints import Checkpointer
from unmask.gateway.db.errors import DatabaseError, DatabaseUnavailableError
from unmask.gateway.db.link import Link
from unmask.gateway.db.statements import Transaction

_log = logging.getLogger(__name__)

#: Most operations of one transaction: more would make the first of them wait for the last.
GROUP: Final = 64
#: Seconds that an operation without hurry waits for another one.
LEISURE: Final = 0.005
#: Operations that may wait; beyond, the database is stuck, and nothing more is taken.
WAITING: Final = 10_000
#: An operation that failed alone is tried again: another process may have written the same row first.
_TRIES: Final = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Asked(Generic[T]):
    run: Callable[[Transaction], T]
    user: int | None
    durable: bool
    future: asyncio.Future[T]


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


class Writer:
    """The one that writes, of a process, for one event loop.

    Args:
        url: of the database.
        backend: that drives it.
        always_durable: whether every group waits for the disk.
    """

    def __init__(self, url: URL, backend: Backend, *, always_durable: bool = False) -> None:
        self._backend = backend
        self._link = Link(url, backend)
        self._always_durable = always_durable
        self._asked: deque[_Asked[Any]] = deque()
        #: Whether the thread has a group, whether one is about to begin, and when one will at the latest.
        self._busy = False
        self._soon = False
        self._later: asyncio.TimerHandle | None = None
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-writer")
        self._checkpointer = Checkpointer(url, backend)

    async def write(
        self, run: Callable[[Transaction], T], *, user: int | None = None, durable: bool = False, hurry: bool = True
    ) -> T:
        """Have an operation done, and return what it returned once it is committed.

        It is done even if the caller is cancelled meanwhile.

        Args:
            run: the operation.
            user: whose balance or holds it looks at or changes; no other process does so meanwhile.
            durable: it must outlive a power cut from the moment it is answered.
            hurry: False if it may wait a little for others.

        Raises:
            UnmaskError: its refusal.
            DatabaseUnavailableError: the database cannot do it now.
        """
        if self._closed or len(self._asked) >= WAITING:
            state = "is closed" if self._closed else f"does not keep up: {WAITING:,} operations wait"
            raise DatabaseUnavailableError(f"The database {state}. Nothing was taken; try again later.")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        assert self._loop is loop, "a database is one event loop's"
        future: asyncio.Future[T] = loop.create_future()
        self._asked.append(_Asked(run, user, durable or self._always_durable, future))
        self._schedule(loop, hurry=hurry)
        return await future

    async def close(self) -> None:
        """Do what waits, then close the connection."""
        loop = asyncio.get_running_loop()
        if not self._closed:
            self._closed = True
            if self._asked or self._busy:
                self._emptied = loop.create_future()
                self._schedule(loop, hurry=True)
                await self._emptied
            await loop.run_in_executor(None, self._close)

    def _close(self) -> None:
        self._thread.shutdown()
        self._checkpointer.close()
        self._link.close()

    def _schedule(self, loop: asyncio.AbstractEventLoop, *, hurry: bool) -> None:
        if self._busy or self._soon:
            return
        if hurry:
            self._soon = True
            loop.call_soon(self._begin, loop)
        elif self._later is None:
            self._later = loop.call_later(LEISURE, self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do a group: here if that takes no time, else in the thread."""
        self._soon = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._busy or not self._asked:
            return
        group = [self._asked.popleft() for _ in range(min(GROUP, len(self._asked)))]
        outcomes = self._at_once(group)
        if outcomes is not None:
            self._end(loop, group, outcomes)
            return
        self._busy = True
        done = loop.run_in_executor(self._thread, self._do, group)
        done.add_done_callback(lambda done: self._end(loop, group, done.result()))

    def _end(self, loop: asyncio.AbstractEventLoop, group: Sequence[_Asked[Any]], outcomes: Sequence[_Outcome]) -> None:
        self._busy = False
        for operation, outcome in zip(group, outcomes, strict=True):
            if operation.future.done():  # cancelled
                continue
            if outcome.error is not None:
                operation.future.set_exception(outcome.error)
            else:
                operation.future.set_result(outcome.value)
        if self._asked:
            self._schedule(loop, hurry=True)
        elif self._emptied is not None:
            self._emptied.set_result(None)

    def _at_once(self, group: Sequence[_Asked[Any]]) -> list[_Outcome] | None:
        """Do a group on the event loop, or return None if it has to wait for something, or has to be looked into."""
        if not self._backend.at_once or any(operation.durable for operation in group):
            return None
        try:
            return self._together(group, patient=False)
        except DatabaseUnavailableError as error:
            return _unavailable(group, error)
        except Exception as error:  # noqa: BLE001 - nothing was done; the thread does it again, and tells
            _log.debug("%d operations go to the thread: %s", len(group), type(error).__name__)
            return None

    def _do(self, group: Sequence[_Asked[Any]]) -> list[_Outcome]:
        try:
            return self._together(group, patient=True)
        except DatabaseUnavailableError as error:
            return _unavailable(group, error)
        except Exception as error:  # noqa: BLE001 - what one of them raised must not reach the others
            if len(group) > 1:
                _log.warning("%d operations are done one by one: %s", len(group), type(error).__name__)
            return [self._alone(operation) for operation in group]

    def _alone(self, operation: _Asked[Any]) -> _Outcome:
        failure: Exception | None = None
        for _ in range(_TRIES):
            try:
                return self._together([operation], patient=True)[0]
            except (UnmaskError, DatabaseUnavailableError) as error:
                return _Outcome(error=error)
            except self._backend.failures as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - whoever waits for it is told
                return _Outcome(error=error)
        told = DatabaseError(f"The database refused an operation: {type(failure).__name__}. It was not done.")
        told.__cause__ = failure
        return _Outcome(error=told)

    def _together(self, group: Sequence[_Asked[Any]], *, patient: bool) -> list[_Outcome]:
        durable = any(operation.durable for operation in group)
        users = {operation.user for operation in group if operation.user is not None}
        transaction = self._link.begin(durable=durable, users=users, patient=patient)
        try:
            outcomes = [_outcome(operation, transaction) for operation in group]
            self._link.commit()
        except BaseException as error:
            self._link.undo()
            if self._backend.is_gone(error):
                self._link.close()
                raise self._link.unavailable(error) from error
            raise
        self._checkpointer.wrote()
        return outcomes


def _outcome(operation: _Asked[Any], transaction: Transaction) -> _Outcome:
    transaction.wrote = False
    try:
        return _Outcome(operation.run(transaction))
    except UnmaskError as refusal:
        if transaction.wrote:
            raise
        return _Outcome(error=refusal)


def _unavailable(group: Sequence[_Asked[Any]], error: DatabaseUnavailableError) -> list[_Outcome]:
    """Return an error of its own for each: an exception that several tasks raise gathers the traces of all."""
    _log.warning("%s", error)
    return [_Outcome(error=DatabaseUnavailableError(str(error))) for _ in group]

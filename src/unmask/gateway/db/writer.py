"""One thread that writes: what waits is done in one transaction, so that one commit serves many requests.

Concurrent requests would otherwise pay a transaction each, and wait for one another on the database's lock. While one
group is committed, the next one gathers; nobody waits for company.

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
import queue
import threading
from collections.abc import Callable, Sequence
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
GROUP: Final = 256
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
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


class Writer:
    """The one that writes, of a process.

    Args:
        url: of the database.
        backend: that drives it.
        always_durable: whether every group waits for the disk.
    """

    def __init__(self, url: URL, backend: Backend, *, always_durable: bool = False) -> None:
        self._backend = backend
        self._link = Link(url, backend)
        self._always_durable = always_durable
        self._asked: queue.SimpleQueue[_Asked[Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._door = threading.Lock()
        self._checkpointer = Checkpointer(url, backend)
        self._thread = threading.Thread(target=self._work, name="gateway-writer", daemon=True)
        self._thread.start()

    async def write(self, run: Callable[[Transaction], T], *, user: int | None = None, durable: bool = False) -> T:
        """Have an operation done, and return what it returned once it is committed.

        It is done even if the caller is cancelled meanwhile.

        Args:
            run: the operation.
            user: whose balance or holds it looks at or changes; no other process does so meanwhile.
            durable: it must outlive a power cut from the moment it is answered.

        Raises:
            UnmaskError: its refusal.
            DatabaseUnavailableError: the database cannot do it now.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        asked = _Asked(run, user, durable or self._always_durable, future, loop)
        with self._door:
            if self._closed or self._asked.qsize() >= WAITING:
                state = "is closed" if self._closed else f"does not keep up: {WAITING:,} operations wait"
                raise DatabaseUnavailableError(f"The database {state}. Nothing was taken; try again later.")
            self._asked.put(asked)
        return await future

    def close(self) -> None:
        """Do what waits, then end."""
        with self._door:
            closed, self._closed = self._closed, True
        if not closed:
            self._asked.put(None)
            self._thread.join()
            self._checkpointer.close()

    def _work(self) -> None:
        last = False
        while not last:
            group = self._gather()
            last = None in group
            operations = [each for each in group if each is not None]
            if operations:
                _answer(operations, self._do(operations))
        self._link.close()

    def _gather(self) -> list[_Asked[Any] | None]:
        group = [self._asked.get()]
        while len(group) < GROUP and group[-1] is not None:
            try:
                group.append(self._asked.get_nowait())
            except queue.Empty:
                break
        return group

    def _do(self, group: Sequence[_Asked[Any]]) -> list[_Outcome]:
        try:
            return self._together(group)
        except DatabaseUnavailableError as error:
            _log.warning("%s", error)
            return [_Outcome(error=DatabaseUnavailableError(str(error))) for _ in group]
        except Exception as error:  # noqa: BLE001 - what one of them raised must not reach the others
            if len(group) > 1:
                _log.warning("%d operations are done one by one: %s", len(group), type(error).__name__)
            return [self._alone(operation) for operation in group]

    def _alone(self, operation: _Asked[Any]) -> _Outcome:
        failure: Exception | None = None
        for _ in range(_TRIES):
            try:
                return self._together([operation])[0]
            except (UnmaskError, DatabaseUnavailableError) as error:
                return _Outcome(error=error)
            except self._backend.failures as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - whoever waits for it is told
                return _Outcome(error=error)
        told = DatabaseError(f"The database refused an operation: {type(failure).__name__}. It was not done.")
        told.__cause__ = failure
        return _Outcome(error=told)

    def _together(self, group: Sequence[_Asked[Any]]) -> list[_Outcome]:
        durable = any(operation.durable for operation in group)
        users = {operation.user for operation in group if operation.user is not None}
        transaction = self._link.begin(*self._backend.begin(durable, users))
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


def _answer(group: Sequence[_Asked[Any]], outcomes: Sequence[_Outcome]) -> None:
    """Tell those who wait, each event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], _Outcome]]] = {}
    for operation, outcome in zip(group, outcomes, strict=True):
        loops.setdefault(operation.loop, []).append((operation.future, outcome))
    for loop, answers in loops.items():
        try:
            loop.call_soon_threadsafe(_set, answers)
        except RuntimeError:  # the loop is closed: nobody waits
            _log.debug("nobody waits for %d operations that were done", len(answers))


def _set(answers: list[tuple[asyncio.Future[Any], _Outcome]]) -> None:
    for future, outcome in answers:
        if future.done():  # cancelled
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.value)

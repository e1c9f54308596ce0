"""One connection, opened when it is needed and again after it broke."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import URL

from unmask.gateway.db.backends import Backend, shown
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.db.statements import Connection, Transaction


class Link:
    """A connection of one thread.

    Args:
        url: of the database.
        backend: that drives it.
    """

    def __init__(self, url: URL, backend: Backend) -> None:
        self._url = url
        self._backend = backend
        self._connection: Connection | None = None
        self._cursor: Any = None
        #: How the connection is set.
        self._modes: dict[tuple[str, str], bool] = {}

    def begin(self, *, durable: bool, users: Iterable[int], patient: bool) -> Transaction:
        """Begin a transaction that writes.

        Args:
            durable: whether it must outlive a power cut from the moment it is committed.
            users: whose accounts all others are held off until it ends.
            patient: False to raise the driver's own error if another process writes, rather than to wait for it.

        Raises:
            DatabaseUnavailableError: it cannot; there is no transaction.
        """

        def begin() -> None:
            for modes, mode in ((self._backend.sync, durable), (self._backend.patience, patient)):
                if modes is not None and self._modes.get(modes) != mode:
                    self._cursor.execute(modes[mode])
                    self._modes[modes] = mode
            self._cursor.execute(self._backend.begin(durable, users), **self._backend.unprepared)

        return self._open(begin) if patient else self._begin(begin)

    def run(self, statement: str) -> Transaction:
        """Run a statement that is no part of a transaction, or begins one that reads.

        Raises:
            DatabaseUnavailableError: it cannot.
        """
        return self._open(lambda: self._cursor.execute(statement))

    def _open(self, begin: Callable[[], object]) -> Transaction:
        """Begin, on a new connection if the one that there was is of no more use: nothing is lost by that."""
        used = self._connection is not None
        try:
            return self._begin(begin)
        except self._backend.failures as error:
            self.close()
            if not used or self._backend.is_busy(error):
                raise self.unavailable(error) from error
        try:
            return self._begin(begin)
        except self._backend.failures as error:
            self.close()
            raise self.unavailable(error) from error

    def _begin(self, begin: Callable[[], object]) -> Transaction:
        if self._connection is None:
            self._connection = self._backend.connect(self._url)
            self._cursor = self._connection.cursor()
            self._modes = {}
        begin()
        return Transaction(self._cursor, self._backend.dialect)

    def commit(self) -> None:
        """Commit the transaction."""
        self._cursor.execute("COMMIT")

    def undo(self) -> None:
        """Undo the transaction; a connection that cannot even do that is closed, which does it, too."""
        try:
            if self._cursor is not None:
                self._cursor.execute("ROLLBACK")
        except self._backend.failures:
            self.close()

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        connection, cursor, self._connection, self._cursor = self._connection, self._cursor, None, None
        # They are of no more use, whatever they say. SQLite keeps a connection, and its lock, while a cursor is open.
        for each in (cursor, connection):
            if each is not None:
                with suppress(self._backend.failures):
                    each.close()

    def unavailable(self, error: BaseException) -> DatabaseUnavailableError:
        """Return what is told of an error of the driver: its class, not its words, which may hold values."""
        return DatabaseUnavailableError(
            f"The database {shown(self._url)} cannot be used now: {type(error).__name__}. "
            "Nothing was taken; try again, or see the log and the database's own."
        )

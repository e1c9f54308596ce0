"""One connection, opened when it is needed and again after it broke."""

from __future__ import annotations

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

    def begin(self, *statements: str) -> Transaction:
        """Begin a transaction, on a new connection if the one that there was is of no more use.

        Args:
            statements: that begin it.

        Raises:
            DatabaseUnavailableError: it cannot; there is no transaction.
        """
        used = self._connection is not None
        try:
            return self._begin(statements)
        except self._backend.failures as error:
            self.close()
            if not used:
                raise self.unavailable(error) from error
        try:  # the server may only have been started anew
            return self._begin(statements)
        except self._backend.failures as error:
            self.close()
            raise self.unavailable(error) from error

    def _begin(self, statements: tuple[str, ...]) -> Transaction:
        if self._connection is None:
            self._connection = self._backend.connect(self._url)
            self._cursor = self._connection.cursor()
        for statement in statements:
            self._cursor.execute(statement, **self._backend.unprepared)
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

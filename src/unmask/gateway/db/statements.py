"""Statements compiled once, and run on the driver's own cursor.

SQLAlchemy says each statement once for both databases; its layers of execution, which cost more than SQLite's work, are
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Dialect
from sqlalchemy.sql import ClauseElement

#: What a column may hold.
Value = int | str | bytes | None
Row = Sequence[Any]


class Cursor(Protocol):
    """What is used of a DB-API cursor."""

    rowcount: int

    def execute(self, sql: str, values: dict[str, Any], /) -> object:
        """Run a statement."""

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""


class Connection(Protocol):
    """What is used of a DB-API connection that commits by statements only."""

    def cursor(self) -> Any:
        """Return a cursor."""

    def close(self) -> None:
        """Close it; what was not committed is undone."""


class Statement:
    """A statement for every database.

    Args:
        construct: SQLAlchemy's form of it; one for each kind of database where they must differ. Its parameters are
            named.
    """

    def __init__(self, construct: ClauseElement | Mapping[str, ClauseElement]) -> None:
        self._construct = construct
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def of(self, dialect: Dialect) -> tuple[str, dict[str, Any]]:
        """Return it as a database takes it, and the values that are part of it."""
        found = self._compiled.get(dialect.name)
        if found is None:
            construct = self._construct
            compiled = (construct[dialect.name] if isinstance(construct, Mapping) else construct).compile(
                dialect=dialect
            )
            fixed = {name: value for name, value in compiled.params.items() if value is not None}
            found = self._compiled[dialect.name] = (str(compiled), fixed)
        return found


class Transaction:
    """A transaction that somebody else begins and commits.

    Args:
        cursor: of the connection it runs on.
        dialect: of the database.

    Attributes:
        wrote: whether a row has been written since this was last set to False.
    """

    def __init__(self, cursor: Cursor, dialect: Dialect) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self.wrote = False

    def run(self, statement: Statement, **values: Value) -> int:
        """Run a statement that writes and return how many rows it wrote."""
        sql, fixed = statement.of(self._dialect)
        self._cursor.execute(sql, {**fixed, **values})
        count = self._cursor.rowcount
        self.wrote = self.wrote or count > 0
        return count

    def rows(self, statement: Statement, **values: Value) -> list[Row]:
        """Run a statement that reads, or one that returns what it writes, and return the rows."""
        sql, fixed = statement.of(self._dialect)
        self._cursor.execute(sql, {**fixed, **values})
        found = self._cursor.fetchall()
        self.wrote = self.wrote or (bool(found) and not sql.startswith("SELECT"))
        return found

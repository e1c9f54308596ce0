"""What is different about SQLite and PostgreSQL, as data."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors as refusals
from sqlalchemy import URL, Dialect, make_url
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg as postgresql_psycopg
from sqlalchemy.exc import ArgumentError

from unmask.errors import InputError
from unmask.gateway.db.errors import DatabaseError
from unmask.gateway.db.statements import Connection

#: Milliseconds that a statement waits for another process that writes.
_PATIENCE: Final = 5000
#: In that time; counted, for a machine that was asleep meanwhile has not waited.
_TRIES: Final = 500
#: Strict tables came with 3.37.
_OLDEST_SQLITE: Final = (3, 37, 0)
_EXPECTED: Final = "Expected sqlite:///FILE or postgresql://USER@HOST/NAME."


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How one kind of database is driven.

    Attributes:
        dialect: SQLAlchemy's, to compile statements.
        connect: open a connection to a URL.
        sync: the statements after which commits may be lost in a power cut, and after which they may not; None where
            ``begin`` says so for each.
        patience: the statements after which another process that writes is not waited for, and after which it is; None
            where it always is.
        at_once: whether a transaction takes so little time that an event loop does it itself.
        begin: return the statement that begins a transaction which writes: whether it must outlive a power cut, and
            the users whose accounts all others are held off until it ends.
        unprepared: options to run one of these with: the driver would prepare what comes often, and cannot prepare
            several statements in one string.
        begin_read: begins a transaction that reads, and sees one state of the database throughout.
        flush: puts on the disk what relaxed transactions wrote; None where the database does so itself.
        failures: all that the driver raises.
        is_gone: whether an error is the database's, rather than that of one statement.
        is_busy: whether an error says that somebody else did not let go in time: a new connection is no remedy.
    """

    dialect: Dialect
    connect: Callable[[URL], Connection]
    sync: tuple[str, str] | None
    patience: tuple[str, str] | None
    at_once: bool
    begin: Callable[[bool, Iterable[int]], str]
    unprepared: dict[str, Any]
    begin_read: str
    flush: str | None
    failures: type[Exception]
    is_gone: Callable[[BaseException], bool]
    is_busy: Callable[[BaseException], bool]

    @property
    def name(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.dialect.name


def _connect_sqlite(url: URL) -> Connection:
    connection = sqlite3.connect(
        str(url.database), timeout=_PATIENCE / 1000, isolation_level=None, check_same_thread=False
    )
    try:
        set_up_sqlite(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


#: A foreign key is one. ``synchronous``: see ``writer.py``.
_SQLITE_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {_PATIENCE}",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    # Pages, 256 MB: see checkpoints.py.
    "PRAGMA wal_autocheckpoint = 64000",
)


def set_up_sqlite(connection: sqlite3.Connection) -> None:
    """Set a new connection; the file gets a log (WAL): readers and the writer then do not wait for each other.

    Raises:
        sqlite3.OperationalError: the file cannot be used, or others do not let go of it.
    """
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(pragma)
    for tries_left in reversed(range(_TRIES)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Here SQLite itself does not wait for another process that sets up the same new file.
            if not (_sqlite_busy(error) and tries_left):
                raise
            time.sleep(_PATIENCE / 1000 / _TRIES)
        else:
            return


#: A host that vanished is noticed within ten seconds; a process that hangs lets go of its locks.
POSTGRESQL_REACHABLE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
POSTGRESQL_SETTINGS = {
    "lock_timeout": _PATIENCE,
    "idle_in_transaction_session_timeout": 30_000,
    "synchronous_commit": "off",
}


def postgresql_address(url: URL) -> str:
    """Return a URL as PostgreSQL's own library takes it, the password in it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _connect_postgresql(url: URL) -> Connection:
    options: dict[str, Any] = {"application_name": "unmask-gateway", **POSTGRESQL_REACHABLE}
    connection = psycopg.connect(postgresql_address(url), autocommit=True, **options)
    connection.execute("; ".join(f"SET {name} = {value}" for name, value in POSTGRESQL_SETTINGS.items()))
    return connection


def _begin_sqlite(_: bool, __: Iterable[int]) -> str:
    # One writer at a time: whatever the users, all others are held off.
    return "BEGIN IMMEDIATE"


def _begin_postgresql(durable: bool, users: Iterable[int]) -> str:
    # In order, so that two processes never wait for each other in a circle; in one string, which is one round trip.
    locked = ",".join(str(int(user)) for user in sorted(users))
    statements = [
        "BEGIN",
        *(["SET LOCAL synchronous_commit = on"] if durable else []),
        *([f"SELECT 1 FROM balances WHERE user_id IN ({locked}) ORDER BY user_id FOR UPDATE"] if locked else []),  # noqa: S608
    ]
    return "; ".join(statements)


def _sqlite_gone(error: BaseException) -> bool:
    # DatabaseError itself: the file is damaged, or no database.
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _sqlite_busy(error: BaseException) -> bool:
    # The lowest byte says what it is, the others which kind of it.
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _postgresql_busy(error: BaseException) -> bool:
    return isinstance(error, refusals.LockNotAvailable)


def _postgresql_gone(error: BaseException) -> bool:
    undone = (refusals.DeadlockDetected, refusals.SerializationFailure)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not isinstance(error, undone)


SQLITE: Final = Backend(
    dialect=sqlite.dialect(paramstyle="named"),
    connect=_connect_sqlite,
    sync=("PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"),
    patience=("PRAGMA busy_timeout = 0", f"PRAGMA busy_timeout = {_PATIENCE}"),
    at_once=True,
    begin=_begin_sqlite,
    unprepared={},
    begin_read="BEGIN",
    flush="PRAGMA wal_checkpoint(PASSIVE)",
    failures=sqlite3.Error,
    is_gone=_sqlite_gone,
    is_busy=_sqlite_busy,
)

POSTGRESQL: Final = Backend(
    dialect=postgresql_psycopg.dialect(),  # type: ignore[no-untyped-call]
    connect=_connect_postgresql,
    sync=None,
    patience=None,
    at_once=False,
    begin=_begin_postgresql,
    unprepared={"prepare": False},
    begin_read="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    flush=None,
    failures=psycopg.Error,
    is_gone=_postgresql_gone,
    is_busy=_postgresql_busy,
)

#: By the first word of a URL.
BACKENDS: Final = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgres": POSTGRESQL, "postgresql+psycopg": POSTGRESQL}


def shown(url: URL) -> str:
    """Return a URL without its password."""
    return url.render_as_string(hide_password=True)


def parse_url(text: str) -> tuple[URL, Backend]:
    """Return a database's URL and what drives it.

    Raises:
        InputError: it is none, or of another kind of database; never shows it, for there may be a password in it.
        DatabaseError: this Python's SQLite is too old.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InputError(f"The database's URL cannot be read. {_EXPECTED}") from error
    backend = BACKENDS.get(url.drivername)
    if backend is None:
        raise InputError(f"The database is of the kind {url.drivername!r}. {_EXPECTED}")
    if backend is POSTGRESQL:
        return url.set(drivername="postgresql+psycopg"), backend
    if url.database in (None, "", ":memory:"):
        raise InputError(f"The database's URL {shown(url)} names no file. {_EXPECTED}")
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise DatabaseError(f"SQLite is of version {sqlite3.sqlite_version}; expected 3.37 or newer. Update Python.")
    return url, backend

"""Accounts to test with: everything on one database, a clock that goes where it is told, and statements that fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from sqlalchemy import URL

from unmask.gateway.accounts.audit import audit
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.keys import Key, KeyLimits
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.money import Order
from unmask.gateway.accounts.users import User, Users
from unmask.gateway.db.backends import Backend, parse_url
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Connection

SECRET = b"a secret of the server, 32 bytes and more"
#: 23 November 2026, nine in the morning.
START = 1_795_424_400_000_000


@dataclass
class Clock:
    """A clock that stands still.

    Attributes:
        now: microseconds since 1970.
    """

    now: int = START

    def __call__(self) -> int:
        return self.now

    def skip(self, seconds: float) -> None:
        """Go on, or back."""
        self.now += int(seconds * 1_000_000)


@dataclass
class Faults:
    """What happens to the statements of a writer.

    Attributes:
        seen: statements that were run, since the fault was set.
        at: the number of the statement that fails, None for none; all later ones of its connection fail, too.
        late: it is done, and only its answer is lost.
    """

    seen: list[str] = field(default_factory=list)
    at: int | None = None
    late: bool = False

    def set(self, at: int | None, *, late: bool = False) -> None:
        """Choose the statement that fails, from now on; the first is number 0."""
        self.seen, self.at, self.late = [], at, late


class _Cursor:
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._real = connection.real.cursor()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, values: Any = None, **options: Any) -> None:
        faults, connection = self._connection.faults, self._connection
        if connection.broken:
            raise connection.failure("broken")
        number = len(faults.seen)
        faults.seen.append(sql)
        fails = number == faults.at
        if not fails or faults.late:
            self._real.execute(sql, *([] if values is None else [values]), **options)
        if fails:
            connection.broken = True
            raise connection.failure("broken")


class _Connection:
    def __init__(self, real: Connection, faults: Faults) -> None:
        self.real, self.faults, self.broken = real, faults, False
        self.failure = sqlite3.OperationalError if isinstance(real, sqlite3.Connection) else psycopg.OperationalError

    def cursor(self) -> _Cursor:
        return _Cursor(self)

    def close(self) -> None:
        self.real.close()


def break_statements(database: Database) -> Faults:
    """Have the statements of a database's writer fail when they are told to."""
    faults = Faults()

    def faulty(backend: Backend) -> Backend:
        def connect(url: URL) -> Connection:
            return _Connection(backend.connect(url), faults)

        return replace(backend, connect=connect)

    link = database._writer._link
    link._backend = faulty(link._backend)
    return faults


@dataclass
class Bank:
    """Accounts on one database."""

    database: Database
    clock: Clock
    users: Users
    keyring: Keyring
    ledger: Ledger
    url: str

    async def customer(
        self, credit: int = 0, *, email: str = "ada@example.org", limits: KeyLimits | None = None
    ) -> tuple[User, Key, ApiKey]:
        """Make a user with credit and a key."""
        user = await self.users.add(email)
        key, secret = await self.keyring.issue(user.id, "test", limits=limits)
        if credit:
            await self.ledger.credit(user.id, credit, "top_up", reference=f"first of {email}")
        return user, key, secret

    async def require_sound(self) -> None:
        """Fail unless the books are right."""
        assert (await audit(self.database)).findings == ()

    async def left(self) -> None:
        """Wait for what the ledger does after it has answered."""
        await asyncio.gather(*self.ledger._left)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what is in the database, read beside all of our own code."""
        return raw(self.url, sql)


def raw(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements on a connection of their own, committed together; return the last one's rows."""
    return all_rows(url, *statements)[-1]


def all_rows(url: str, *statements: str) -> list[list[tuple[Any, ...]]]:
    """Run statements on a connection of their own, committed together; return the rows of each."""
    address, backend = parse_url(url)
    connection = backend.connect(address)
    try:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        found = []
        for statement in statements:
            cursor.execute(statement)
            found.append([tuple(row) for row in cursor.fetchall()] if cursor.description else [])
        cursor.execute("COMMIT")
        return found
    finally:
        connection.close()


@asynccontextmanager
async def bank(url: str, *, hold_seconds: float = 900) -> AsyncIterator[Bank]:
    """Open the accounts of a database."""
    clock = Clock()
    async with Database(url) as database:
        yield Bank(
            database,
            clock,
            Users(database, clock=clock),
            Keyring(database, SECRET, clock=clock),
            Ledger(database, clock=clock, hold_seconds=hold_seconds),
            url,
        )


def order(key: Key, amount: int = 1, *, tokens: int = 1) -> Order:
    """Return a request of a key."""
    return Order(user_id=key.user_id, key_id=key.id, amount=amount, model="m", units=tokens, tokens=tokens)


def outcomes(results: Sequence[Any], kind: type[Any]) -> list[Any]:
    """Return those of some results that are of a kind."""
    return [result for result in results if isinstance(result, kind)]

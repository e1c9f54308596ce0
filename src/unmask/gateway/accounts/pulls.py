"""Calls and pulls of a model, counted by day: what the catalogue shows as downloads a month.

A *call* is a request that was answered; a *pull* is somebody who went from a model's page to its weights.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from sqlalchemy import LargeBinary, Table, bindparam, cast, delete, exists, func, insert, select, update

from unmask.errors import InputError
from unmask.gateway.accounts.addresses import network_of
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import DAY, Clock, microseconds
from unmask.gateway.accounts.tokens import Keyed
from unmask.gateway.accounts.usage import day_of
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import Integer64, calls, pull_marks, pulls

#: Days of a month.
MONTH: Final = 30
#: Days after which counts are forgotten.
_KEPT: Final = 400


class _Days:
    """The statements of a table that counts by model and day."""

    def __init__(self, table: Table) -> None:
        columns = table.c
        self._raise = Statement(
            update(table)
            .where(columns.slug == words("model"), columns.day == number("at"))
            .values(count=columns.count + number("more"))
        )
        self._add = Statement(insert(table).values(slug=words("model"), day=number("at"), count=number("more")))
        self._forget = Statement(delete(table).where(columns.day <= number("after")))
        self._sums = Statement(
            select(columns.slug, cast(func.sum(columns.count), Integer64))
            .where(columns.day > number("after"))
            .group_by(columns.slug)
        )

    def add(self, transaction: Transaction, slug: str, at: int, count: int, *, today: int) -> None:
        """Count something of a day; those that are too old are forgotten with the first of a day."""
        if not transaction.run(self._raise, model=slug, at=at, more=count):
            # The first of a day; another process that was first has this done once more, alone.
            transaction.run(self._add, model=slug, at=at, more=count)
            transaction.run(self._forget, after=today - _KEPT)

    def last_month(self, transaction: Transaction, *, today: int) -> dict[str, int]:
        """Return the counts of the last 30 days by model."""
        rows = transaction.rows(self._sums, after=today - MONTH)
        return {slug: int(count) for slug, count in rows}


_CALLS: Final = _Days(calls)
_PULLS: Final = _Days(pulls)
_mark: Final = bindparam("mark", type_=LargeBinary)
_MARK: Final = Statement(
    insert(pull_marks).from_select(
        ["digest", "day"],
        select(_mark, number("at")).where(~exists().where(pull_marks.c.digest == _mark)),
        include_defaults=False,
    )
)
_UNMARK: Final = Statement(delete(pull_marks).where(pull_marks.c.day < number("before")))


class Calls:
    """How often models were called.

    Args:
        database: where it is counted.
        clock: the time.
    """

    def __init__(self, database: Database, *, clock: Clock = microseconds) -> None:
        self._database = database
        self._clock = clock

    async def add(self, slug: str, day: date, count: int) -> None:
        """Count calls of a model; gather them, a write for each would cost more than the call.

        Args:
            slug: of the model.
            day: on which they were, UTC.
            count: of them, 1 or more.

        Raises:
            InputError: the count is none.
            DatabaseUnavailableError: the database cannot be written now; they may have been counted all the same.
        """
        if count < 1:
            raise InputError(f"{count} calls cannot be counted. Expected 1 or more.")
        at, today = day_of(day), self._clock() // DAY
        await self._database.write(
            lambda transaction: _CALLS.add(transaction, slug, at, count, today=today), hurry=False
        )

    async def last_month(self) -> dict[str, int]:
        """Return the calls of each model in the last 30 days, today among them; those apart that had none.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        today = self._clock() // DAY
        return await self._database.read(lambda transaction: _CALLS.last_month(transaction, today=today))


class Pulls:
    """How often models' weights were fetched: by each visitor at most once a day.

    Who is signed in is a visitor wherever they are; of others, an address is one (of IPv6, a network). What is kept of
    them is a digest that names the day, too, so that nobody can be recognised by it the day after, and not so long.

    Args:
        database: where it is counted.
        secret: the server's.
        clock: the time.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(self, database: Database, secret: bytes, *, clock: Clock = microseconds) -> None:
        self._database = database
        self._keyed = Keyed(secret, "pulls")
        self._clock = clock

    async def add(self, slug: str, *, user_id: int | None, client: str) -> bool:
        """Count that somebody fetches a model's weights; return whether they had not done so today.

        Args:
            slug: of the model.
            user_id: who; None for somebody who is not signed in.
            client: the IP address that asks.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        today = self._clock() // DAY
        who = f"client {network_of(client)}" if user_id is None else f"user {user_id}"
        mark = self._keyed.digest(f"{today} {slug} {who}")

        def operation(transaction: Transaction) -> bool:
            if not transaction.run(_MARK, mark=mark, at=today):
                return False
            _PULLS.add(transaction, slug, today, 1, today=today)
            return True

        return await self._database.write(operation)

    async def last_month(self) -> dict[str, int]:
        """Return the pulls of each model in the last 30 days, today among them; those apart that had none.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        today = self._clock() // DAY
        return await self._database.read(lambda transaction: _PULLS.last_month(transaction, today=today))

    async def sweep(self) -> int:
        """Forget who was counted before today; return how many there were.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        before = self._clock() // DAY
        return await self._database.write(lambda transaction: transaction.run(_UNMARK, before=before), hurry=False)

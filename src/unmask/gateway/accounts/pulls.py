"""Calls and pulls of a model, counted by day: what the catalogue shows as downloads a month."""

from __future__ import annotations

from datetime import date
from typing import Final

from sqlalchemy import cast, delete, func, insert, select, update

from unmask.errors import InputError
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import DAY, Clock, microseconds
from unmask.gateway.accounts.usage import day_of
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import Integer64, calls

#: Days of a month.
MONTH: Final = 30
#: Days after which counts are forgotten.
_KEPT: Final = 400

_RAISE: Final = Statement(
    update(calls)
    .where(calls.c.slug == words("model"), calls.c.day == number("at"))
    .values(count=calls.c.count + number("more"))
)
_ADD: Final = Statement(insert(calls).values(slug=words("model"), day=number("at"), count=number("more")))
_FORGET: Final = Statement(delete(calls).where(calls.c.day <= number("after")))
_SUMS: Final = Statement(
    select(calls.c.slug, cast(func.sum(calls.c.count), Integer64))
    .where(calls.c.day > number("after"))
    .group_by(calls.c.slug)
)


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
        at, too_old = day_of(day), self._clock() // DAY - _KEPT

        def operation(transaction: Transaction) -> None:
            if not transaction.run(_RAISE, model=slug, at=at, more=count):
                # The first of a day; another process that was first has this done once more, alone.
                transaction.run(_ADD, model=slug, at=at, more=count)
                transaction.run(_FORGET, after=too_old)

        await self._database.write(operation, hurry=False)

    async def last_month(self) -> dict[str, int]:
        """Return the calls of each model in the last 30 days, today among them; those apart that had none.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        after = self._clock() // DAY - MONTH
        rows = await self._database.read(lambda transaction: transaction.rows(_SUMS, after=after))
        return {slug: int(count) for slug, count in rows}

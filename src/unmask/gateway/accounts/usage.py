"""Usage: what the charges of a day come to, by model and by user. A trigger keeps the sums (``r0005_site.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, cast, func, select

from unmask.gateway.accounts.binds import number
from unmask.gateway.accounts.clock import DAY, Clock, microseconds
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement
from unmask.gateway.db.tables import Integer64, usage_days, users

_FIRST: Final = datetime.fromtimestamp(0, UTC).date()


@dataclass(frozen=True, kw_only=True)
class DayUsage:
    """What was used of a model on a day.

    Attributes:
        day: UTC.
        model: as the requests named it.
        requests: that were answered and charged.
        units: that were paid for: tokens or documents.
        amount: micro-units.
    """

    day: date
    model: str
    requests: int
    units: int
    amount: int


@dataclass(frozen=True, kw_only=True)
class UserUsage:
    """What a user used.

    Attributes:
        user_id: who.
        email: of the user.
        requests: that were answered and charged.
        units: that were paid for.
        amount: micro-units.
    """

    user_id: int
    email: str
    requests: int
    units: int
    amount: int


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    # PostgreSQL's sum of whole numbers is of another type.
    return cast(func.sum(column), Integer64)


_SUMS: Final = tuple(_sum(usage_days.c[name]) for name in ("requests", "units", "amount"))
_OF_USER: Final = Statement(
    select(*(usage_days.c[name] for name in ("day", "model", "requests", "units", "amount")))
    .where(usage_days.c.user_id == number("user"), usage_days.c.day > number("after"))
    .order_by(usage_days.c.day, usage_days.c.model)
)
_OF_ALL: Final = Statement(
    select(usage_days.c.day, usage_days.c.model, *_SUMS)
    .where(usage_days.c.day > number("after"))
    .group_by(usage_days.c.day, usage_days.c.model)
    .order_by(usage_days.c.day, usage_days.c.model)
)
_TOP: Final = Statement(
    select(users.c.id, users.c.email, *_SUMS)
    .join_from(usage_days, users)
    .where(usage_days.c.day > number("after"))
    .group_by(users.c.id, users.c.email)
    .order_by(_SUMS[-1].desc(), users.c.id)
    .limit(number("count"))
)


class Usage:
    """The usage of a database's users.

    Args:
        database: where it is.
        clock: the time.
    """

    def __init__(self, database: Database, *, clock: Clock = microseconds) -> None:
        self._database = database
        self._clock = clock

    async def by_day(self, user_id: int, days: int = 30) -> list[DayUsage]:
        """Return what a user used in the last days, today among them; the oldest first, days of nothing left out.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        return await self._days(_OF_USER, user=user_id, after=self._after(days))

    async def totals(self, days: int = 30) -> list[DayUsage]:
        """Return what all users together used; otherwise as :meth:`by_day`."""
        return await self._days(_OF_ALL, after=self._after(days))

    async def top_users(self, days: int = 30, count: int = 20) -> list[UserUsage]:
        """Return who spent most in the last days, today among them, and what.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        after = self._after(days)
        rows = await self._database.read(lambda transaction: transaction.rows(_TOP, after=after, count=count))
        names = ("user_id", "email", "requests", "units", "amount")
        return [UserUsage(**dict(zip(names, row, strict=True))) for row in rows]

    async def _days(self, statement: Statement, **values: Any) -> list[DayUsage]:
        rows = await self._database.read(lambda transaction: transaction.rows(statement, **values))
        return [
            DayUsage(day=date_of(day), model=model, requests=requests, units=units, amount=amount)
            for day, model, requests, units, amount in rows
        ]

    def _after(self, days: int) -> int:
        return self._clock() // DAY - days


def date_of(day: int) -> date:
    """Return the date of a day, which is counted from 1970."""
    return _FIRST + timedelta(days=day)


def day_of(day: date) -> int:
    """Return the number of a date's day, counted from 1970."""
    return (day - _FIRST).days

"""Wishes: which models users want that are not there yet. One vote a user and model."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, exists, func, insert, select

from unmask.errors import InputError
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.accounts.errors import UnknownUserError
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import users, wishes

_LONGEST: Final = 200

_mine: Final = (wishes.c.user_id == number("user"), wishes.c.slug == words("slug"))
_USER: Final = Statement(select(users.c.id).where(users.c.id == number("user")))
_ADD: Final = Statement(
    insert(wishes).from_select(
        ["user_id", "slug", "created_at"],
        select(users.c.id, words("slug"), number("now")).where(users.c.id == number("user"), ~exists().where(*_mine)),
        include_defaults=False,
    )
)
_DROP: Final = Statement(delete(wishes).where(*_mine))
_COUNT: Final = Statement(select(func.count()).where(wishes.c.slug == words("slug")))
_COUNTS: Final = Statement(select(wishes.c.slug, func.count()).group_by(wishes.c.slug))
_OF_USER: Final = Statement(select(wishes.c.slug).where(wishes.c.user_id == number("user")))


class Wishes:
    """The wishes of a database's users.

    Args:
        database: where they are.
        clock: the time.
    """

    def __init__(self, database: Database, *, clock: Clock = microseconds) -> None:
        self._database = database
        self._clock = clock

    async def wish(self, user_id: int, slug: str) -> int:
        """Count a user's wish for a model, once, and return how many users wish for it.

        Args:
            user_id: whose.
            slug: of the model; whether there is such a one is the caller's to check.

        Raises:
            InputError: the slug cannot be one.
            UnknownUserError: there is no such user.
            DatabaseUnavailableError: the database cannot be written now; wish again.
        """
        if not 1 <= len(slug) <= _LONGEST or not slug.isprintable():
            raise InputError(f"The model's slug has {len(slug)} characters; expected 1 to {_LONGEST} printable ones.")
        now = self._clock()

        def operation(transaction: Transaction) -> int:
            if not transaction.run(_ADD, user=user_id, slug=slug, now=now) and not transaction.rows(
                _USER, user=user_id
            ):
                raise UnknownUserError("There is no such user.")
            return _count(transaction, slug)

        return await self._database.write(operation)

    async def unwish(self, user_id: int, slug: str) -> int:
        """Take a wish back, if there is one, and return how many users still wish for the model.

        Raises:
            DatabaseUnavailableError: the database cannot be written now; take it back again.
        """

        def operation(transaction: Transaction) -> int:
            transaction.run(_DROP, user=user_id, slug=slug)
            return _count(transaction, slug)

        return await self._database.write(operation)

    async def counts(self) -> dict[str, int]:
        """Return how many users wish for each model, those apart that nobody does.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        rows = await self._database.read(lambda transaction: transaction.rows(_COUNTS))
        return {slug: int(count) for slug, count in rows}

    async def of_user(self, user_id: int) -> set[str]:
        """Return the models that a user wishes for.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        rows = await self._database.read(lambda transaction: transaction.rows(_OF_USER, user=user_id))
        return {slug for (slug,) in rows}


def _count(transaction: Transaction, slug: str) -> int:
    return int(transaction.rows(_COUNT, slug=slug)[0][0])

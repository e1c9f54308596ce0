"""Users: an address each, and with it a balance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, select

from unmask.errors import InputError
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.accounts.errors import UnknownUserError, UserExistsError
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import users

#: Characters of an address, RFC 5321.
_LONGEST: Final = 254


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with an account.

    Attributes:
        id: of the user.
        email: in small letters.
        created_at: microseconds since 1970.
    """

    id: int
    email: str
    created_at: int


_COLUMNS = (users.c.id, users.c.email, users.c.created_at)
_BY_ID = Statement(select(*_COLUMNS).where(users.c.id == number("user")))
_BY_EMAIL = Statement(select(*_COLUMNS).where(users.c.email == words("address")))
_ADD = Statement(
    insert(users).values(email=words("address"), created_at=number("now")).returning(users.c.id),
)


class Users:
    """The users of a database.

    Args:
        database: where they are.
        clock: the time.
    """

    def __init__(self, database: Database, *, clock: Clock = microseconds) -> None:
        self._database = database
        self._clock = clock

    async def add(self, email: str) -> User:
        """Add a user, with a balance of nothing.

        Raises:
            InputError: the address is none.
            UserExistsError: there is one with it.
            DatabaseUnavailableError: the database cannot be written now.
        """
        address, now = _address(email), self._clock()

        def operation(transaction: Transaction) -> User:
            if transaction.rows(_BY_EMAIL, address=address):
                raise UserExistsError("There is a user with this address. Sign in instead.")
            number = transaction.rows(_ADD, address=address, now=now)[0][0]
            return User(id=number, email=address, created_at=now)

        return await self._database.write(operation, durable=True)

    async def get(self, user_id: int) -> User:
        """Return a user.

        Raises:
            UnknownUserError: there is none.
            DatabaseUnavailableError: the database cannot be read now.
        """
        return _one(await self._database.read(lambda transaction: transaction.rows(_BY_ID, user=user_id)))

    async def find(self, email: str) -> User:
        """Return the user with an address; raises as :meth:`get`, and InputError where it is none."""
        address = _address(email)
        return _one(await self._database.read(lambda transaction: transaction.rows(_BY_EMAIL, address=address)))


def _one(rows: list[Row]) -> User:
    if not rows:
        raise UnknownUserError("There is no such user.")
    number, email, created_at = rows[0]
    return User(id=number, email=email, created_at=created_at)


def _address(email: str) -> str:
    address = email.strip().lower()
    name, _, domain = address.rpartition("@")
    if not name or not domain or len(address) > _LONGEST or not address.isprintable() or " " in address:
        raise InputError("The e-mail address is none. Expected NAME@DOMAIN, without spaces.")
    return address

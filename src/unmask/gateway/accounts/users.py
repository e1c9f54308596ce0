"""Users: an address each, and with it a balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, select, update

from unmask.errors import InputError
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.accounts.errors import UnknownUserError, UserDisabledError, UserExistsError
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import users

#: Characters of an address, RFC 5321.
_LONGEST: Final = 254
#: What LIKE takes for something else.
_LITERALLY: Final = str.maketrans({each: f"!{each}" for each in "!%_"})


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with an account.

    Attributes:
        id: of the user.
        email: in small letters.
        created_at: microseconds since 1970.
        verified_at: when the address was found to be the user's, likewise; None if it was not.
        admin: whether the user may do what operators may.
        disabled_at: since when an operator keeps the user out, likewise; None if none does.
    """

    id: int
    email: str
    created_at: int
    verified_at: int | None = None
    admin: bool = False
    disabled_at: int | None = None

    def require_enabled(self) -> None:
        """Refuse a user whom an operator keeps out.

        Raises:
            UserDisabledError: one does.
        """
        if self.disabled_at is not None:
            raise UserDisabledError


_COLUMNS: Final = tuple(
    users.c[name] for name in ("id", "email", "created_at", "verified_at", "is_admin", "disabled_at")
)
_BY_ID: Final = Statement(select(*_COLUMNS).where(users.c.id == number("user")))
_BY_EMAIL: Final = Statement(select(*_COLUMNS).where(users.c.email == words("address")))
_LATEST: Final = Statement(
    select(*_COLUMNS)
    .where(users.c.id < number("before"), users.c.email.like(words("pattern"), escape="!"))
    .order_by(users.c.id.desc())
    .limit(number("count"))
)
_ADMINS: Final = Statement(select(*_COLUMNS).where(users.c.is_admin == 1))
_ADD: Final = Statement(
    insert(users).values(email=words("address"), created_at=number("now")).returning(users.c.id),
)
_VERIFY: Final = Statement(
    update(users).where(users.c.id == number("user"), users.c.verified_at.is_(None)).values(verified_at=number("now"))
)
_SET_ADMIN: Final = Statement(update(users).where(users.c.id == number("user")).values(is_admin=number("admin")))


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

    async def verify(self, user_id: int) -> bool:
        """Note that the address is the user's; return whether this is the first time.

        Raises:
            UnknownUserError: there is no such user.
            DatabaseUnavailableError: the database cannot be written now.
        """
        now = self._clock()

        def operation(transaction: Transaction) -> bool:
            _one(transaction.rows(_BY_ID, user=user_id))
            return bool(transaction.run(_VERIFY, user=user_id, now=now))

        return await self._database.write(operation, durable=True)

    async def set_admin(self, user_id: int, admin: bool) -> User:
        """Let a user do what operators may, or no more; return the user.

        Raises:
            UnknownUserError: there is no such user.
            DatabaseUnavailableError: the database cannot be written now.
        """

        def operation(transaction: Transaction) -> User:
            transaction.run(_SET_ADMIN, user=user_id, admin=int(admin))
            return _one(transaction.rows(_BY_ID, user=user_id))

        return await self._database.write(operation, durable=True)

    async def admins(self) -> Sequence[User]:
        """Return all who may do what operators may.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        return [_user(row) for row in await self._database.read(lambda transaction: transaction.rows(_ADMINS))]

    async def list(self, query: str = "", *, before: int | None = None, count: int = 50) -> Sequence[User]:
        """Return users, the latest first.

        Args:
            query: what their addresses contain; empty for all.
            before: only those who came before the one with this id; None for all.
            count: at most so many.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        wanted = query.strip().lower().translate(_LITERALLY)
        pattern, end = f"%{wanted}%", 2**63 - 1 if before is None else before
        rows = await self._database.read(
            lambda transaction: transaction.rows(_LATEST, pattern=pattern, before=end, count=count)
        )
        return [_user(row) for row in rows]


def _one(rows: Sequence[Row]) -> User:
    if not rows:
        raise UnknownUserError("There is no such user.")
    return _user(rows[0])


def _user(row: Row) -> User:
    number, email, created_at, verified_at, admin, disabled_at = row
    return User(
        id=number,
        email=email,
        created_at=created_at,
        verified_at=verified_at,
        admin=bool(admin),
        disabled_at=disabled_at,
    )


def _address(email: str) -> str:
    address = email.strip().lower()
    name, _, domain = address.rpartition("@")
    if not name or not domain or len(address) > _LONGEST or not address.isprintable() or " " in address:
        raise InputError("The e-mail address is none. Expected NAME@DOMAIN, without spaces.")
    return address

"""The way in: who has proved an address gets an account, and each person once the free credit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from unmask.errors import InputError
from unmask.gateway.accounts import identities, persons
from unmask.gateway.accounts.addresses import parse_address
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.accounts.errors import ReferenceUsedError, UnknownUserError, UserExistsError
from unmask.gateway.accounts.identities import Identity
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.tokens import Keyed
from unmask.gateway.accounts.users import User, Users
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Transaction
from unmask.gateway.db.tables import MOST_AMOUNT

#: Users that are caught up with in one transaction.
_AT_ONCE: Final = 500


class Joining:
    """Lets people in.

    Making the user, granting the credit and marking the user verified are three steps; each may be done again, and
    changes nothing then. Where a process dies between two of them, the next sign-in does the rest.

    The free credit is for each person once, as far as an address tells (``persons.py``). Whoever comes again with
    another one has an account all the same.

    Args:
        database: where the accounts are.
        users: of it.
        ledger: of it.
        free_credit: micro-units for each new person; 0 for none.
        secret: the server's: of who had the free credit only a keyed hash is kept.
        clock: the time.

    Raises:
        InputError: the free credit cannot be, or the secret is too short.
    """

    def __init__(
        self,
        database: Database,
        users: Users,
        ledger: Ledger,
        *,
        free_credit: int,
        secret: bytes,
        clock: Clock = microseconds,
    ) -> None:
        if not 0 <= free_credit <= MOST_AMOUNT:
            raise InputError(f"Free credit of {free_credit} micro-units cannot be. Expected 0 to {MOST_AMOUNT:,}.")
        self._database = database
        self._users = users
        self._ledger = ledger
        self._free_credit = free_credit
        self._keyed = Keyed(secret, "welcomes")
        self._clock = clock

    async def enter(self, email: str) -> tuple[User, bool]:
        """Let somebody in who has proved that an address is theirs.

        Returns:
            The user, and whether this was the first time.

        Raises:
            InputError: the address is none.
            UserDisabledError: an operator keeps the user out.
            DatabaseUnavailableError: the database cannot be used now; enter again.
        """
        user = await self._user(parse_address(email))
        user.require_enabled()
        if user.verified_at is not None:
            return user, False
        await self._welcome(user)
        first = await self._users.verify(user.id)
        return await self._users.get(user.id), first

    async def enter_with(self, identity: Identity) -> tuple[User, bool]:
        """Let somebody in whom a provider vouches for.

        Returns:
            As :meth:`enter`.

        Raises:
            InputError: the address is none.
            UserDisabledError: an operator keeps the user out.
            IdentityTakenError: the account with this address has another identity at this provider.
            DatabaseUnavailableError: the database cannot be used now; enter again.
        """
        known = await self._database.read(lambda transaction: identities.owner(transaction, identity))
        if known is not None:
            return await self._owner(known), False
        user, first = await self.enter(identity.email)
        now = self._clock()
        owner = await self._database.write(
            lambda transaction: identities.tie(transaction, identity, user.id, now=now), durable=True
        )
        return (user, first) if owner == user.id else (await self._owner(owner), False)

    async def had_free_credit_before(self, user: User) -> bool:
        """Return whether somebody with an address like a user's, another one, has had the free credit.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        digest = self._digest(user.email)
        owner = await self._database.read(lambda transaction: persons.owner(transaction, digest))
        return owner not in (None, user.id)

    async def catch_up(self) -> int:
        """Note who had the free credit before it was noted by person; return how many there were.

        To be done once after an upgrade; done again it changes nothing.

        Raises:
            DatabaseUnavailableError: the database cannot be used now.
        """
        after, noted, now = 0, 0, self._clock()

        def note(found: Sequence[Row]) -> Callable[[Transaction], int]:
            return lambda transaction: sum(
                persons.claim(transaction, self._digest(email), user, now=now) for user, email in found
            )

        while True:
            some = functools.partial(persons.former, after=after, count=_AT_ONCE)
            found = await self._database.read(some)
            if not found:
                return noted
            noted += await self._database.write(note(found), hurry=False)
            after = found[-1][0]

    async def _owner(self, user_id: int) -> User:
        user = await self._users.get(user_id)
        user.require_enabled()
        return user

    def _digest(self, address: str) -> bytes:
        return self._keyed.digest(persons.mailbox_of(address))

    async def _user(self, address: str) -> User:
        try:
            return await self._users.find(address)
        except UnknownUserError:
            with suppress(UserExistsError):  # another sign-in made it meanwhile
                return await self._users.add(address)
            return await self._users.find(address)

    async def _welcome(self, user: User) -> None:
        if not self._free_credit:
            return
        digest, now = self._digest(user.email), self._clock()
        mine = await self._database.write(
            lambda transaction: persons.claim(transaction, digest, user.id, now=now), durable=True
        )
        if mine:
            # Granted before, of another amount: by a process with other settings, or one that died then.
            with suppress(ReferenceUsedError):
                await self._ledger.credit(
                    user.id,
                    self._free_credit,
                    "grant",
                    reference=persons.welcome_reference(user.id),
                    note="free credit",
                )

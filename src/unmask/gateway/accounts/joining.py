"""The way in: who has proved an address gets an account, and once the free credit."""

from __future__ import annotations

from contextlib import suppress

from unmask.errors import InputError
from unmask.gateway.accounts import identities
from unmask.gateway.accounts.addresses import parse_address
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.accounts.errors import ReferenceUsedError, UnknownUserError, UserExistsError
from unmask.gateway.accounts.identities import Identity
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.users import User, Users
from unmask.gateway.db.database import Database
from unmask.gateway.db.tables import MOST_AMOUNT


class Joining:
    """Lets people in.

    Making the user, granting the credit and marking the user verified are three steps; each may be done again, and
    changes nothing then. Where a process dies between two of them, the next sign-in does the rest.

    Args:
        database: where the accounts are.
        users: of it.
        ledger: of it.
        free_credit: micro-units for each new user; 0 for none.
        clock: the time.

    Raises:
        InputError: the free credit cannot be.
    """

    def __init__(
        self, database: Database, users: Users, ledger: Ledger, *, free_credit: int, clock: Clock = microseconds
    ) -> None:
        if not 0 <= free_credit <= MOST_AMOUNT:
            raise InputError(f"Free credit of {free_credit} micro-units cannot be. Expected 0 to {MOST_AMOUNT:,}.")
        self._database = database
        self._users = users
        self._ledger = ledger
        self._free_credit = free_credit
        self._clock = clock

    async def enter(self, email: str) -> tuple[User, bool]:
        """Let somebody in who has proved that an address is theirs.

        Returns:
            The user, and whether this was the first time.

        Raises:
            InputError: the address is none.
            DatabaseUnavailableError: the database cannot be used now; enter again.
        """
        user = await self._user(parse_address(email))
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
            IdentityTakenError: the account with this address has another identity at this provider.
            DatabaseUnavailableError: the database cannot be used now; enter again.
        """
        known = await self._database.read(lambda transaction: identities.owner(transaction, identity))
        if known is not None:
            return await self._users.get(known), False
        user, first = await self.enter(identity.email)
        now = self._clock()
        owner = await self._database.write(
            lambda transaction: identities.tie(transaction, identity, user.id, now=now), durable=True
        )
        return (user, first) if owner == user.id else (await self._users.get(owner), False)

    async def _user(self, address: str) -> User:
        try:
            return await self._users.find(address)
        except UnknownUserError:
            with suppress(UserExistsError):  # another sign-in made it meanwhile
                return await self._users.add(address)
            return await self._users.find(address)

    async def _welcome(self, user: User) -> None:
        if self._free_credit:
            # Granted before, of another amount: by a process with other settings, or one that died then.
            with suppress(ReferenceUsedError):
                await self._ledger.credit(
                    user.id, self._free_credit, "grant", reference=f"welcome:{user.id}", note="free credit"
                )

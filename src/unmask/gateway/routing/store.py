"""The providers that an admin adds while the gateway runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from unmask.errors import InputError
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Transaction
from unmask.gateway.routing import rows
from unmask.gateway.routing.addresses import Resolve, check_address, resolve
from unmask.gateway.routing.errors import ProviderExistsError, ProviderKeyError, UnknownProviderError
from unmask.gateway.routing.pins import PinsInDatabase
from unmask.gateway.routing.routes import RemoteProvider
from unmask.gateway.routing.sealing import Sealer

_LARGEST_WEIGHT: Final = 1_000_000
_LARGEST_PRICE: Final = 10**15


@dataclass(frozen=True, kw_only=True)
class StoredProvider:
    """A provider that an admin added.

    Attributes:
        id: of the row.
        slug: of the model it answers for.
        provider: itself, with its key.
        enabled: whether it is used.
        key_lost: whether it has a key that cannot be opened with the server's secret; it must be entered again.
        created_at: microseconds since 1970.
        changed_at: microseconds since 1970.
    """

    id: int
    slug: str
    provider: RemoteProvider
    enabled: bool
    key_lost: bool
    created_at: int
    changed_at: int


class ProviderStore:
    """The providers in a database.

    Args:
        database: where they are.
        secret: the server's, in no database; 32 random bytes or more. With another one no key can be opened.
        private: whether they may be on this machine or in a private network.
        resolve: finds addresses of names.
        clock: the time.

    Attributes:
        pins: which provider each model is pinned to.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(
        self,
        database: Database,
        secret: bytes,
        *,
        private: bool = False,
        resolve: Resolve = resolve,
        clock: Clock = microseconds,
    ) -> None:
        self._database = database
        self._sealer = Sealer(secret)
        self._private = private
        self._resolve = resolve
        self._clock = clock
        self.pins = PinsInDatabase(database, clock=clock)

    async def list(self, *, with_lost_keys: bool = False) -> tuple[StoredProvider, ...]:
        """Return all of them, in the order in which they were added.

        Args:
            with_lost_keys: also those whose keys cannot be opened, without keys, for an admin to mend them.

        Raises:
            ProviderKeyError: a key cannot be opened with the server's secret; names the providers.
            DatabaseUnavailableError: the database cannot be read now.
        """
        found = [self._stored(row) for row in await self._database.read(lambda each: each.rows(rows.ALL))]
        lost = [f"{each.provider.name!r} of {each.slug}" for each in found if each.key_lost]
        if lost and not with_lost_keys:
            raise ProviderKeyError(
                f"The keys of providers cannot be opened with the server's secret: {', '.join(lost)}. Start with the "
                "secret they were entered under, or enter them again."
            )
        return tuple(found)

    async def add(self, slug: str, provider: RemoteProvider, *, enabled: bool = True) -> StoredProvider:
        """Add a provider.

        Args:
            slug: of the model it answers for.
            provider: itself; ``private`` is as the operator says, whatever it says.
            enabled: whether it is used.

        Raises:
            AddressError: requests must not be sent to its address.
            InputError: another value cannot be.
            ProviderExistsError: the model has one of its name.
            DatabaseUnavailableError: the database cannot be written now.
        """
        await self._check(provider)
        values = self._values(slug, provider, enabled=enabled)

        def operation(transaction: Transaction) -> StoredProvider:
            if transaction.rows(rows.NAMED, entry=slug, title=provider.name):
                raise ProviderExistsError(f"The model {slug} has a provider {provider.name!r}. Choose another name.")
            return self._stored(transaction.rows(rows.ADD, entry=slug, title=provider.name, **values)[0])

        return await self._database.write(operation, durable=True)

    async def change(self, provider_id: int, provider: RemoteProvider, *, enabled: bool) -> StoredProvider:
        """Change everything of a provider but its model and name.

        Args:
            provider_id: of its row.
            provider: as it is to be. Without a key it keeps the one it has, unless it gets another address.
            enabled: whether it is used.

        Raises:
            AddressError: requests must not be sent to its address.
            InputError: another value cannot be; it is to have another address and keep its key, which was given for
                the old one.
            UnknownProviderError: there is none.
            DatabaseUnavailableError: the database cannot be written now.
        """
        await self._check(provider)

        def operation(transaction: Transaction) -> StoredProvider:
            before = _named(transaction.rows(rows.ONE, provider=provider_id))
            values = self._values(before["slug"], replace(provider, name=before["name"]), enabled=enabled)
            if provider.key is None and before["sealed"] is not None:
                if provider.url != before["url"]:
                    raise InputError("The provider's key was given for its old address. Give it again for the new one.")
                values["sealed"] = before["sealed"]
            return self._stored(transaction.rows(rows.CHANGE, provider=provider_id, **values)[0])

        return await self._database.write(operation, durable=True)

    async def remove(self, provider_id: int) -> None:
        """Remove a provider, and its key.

        Raises:
            UnknownProviderError: there is none.
            DatabaseUnavailableError: the database cannot be written now.
        """

        def operation(transaction: Transaction) -> None:
            if not transaction.run(rows.REMOVE, provider=provider_id):
                raise UnknownProviderError("There is no such provider.")

        await self._database.write(operation, durable=True)

    async def stamp(self) -> tuple[int, ...]:
        """Return what is another value after any change, another process's too; cheap to ask for.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        found = await self._database.read(lambda each: each.rows(rows.STAMP))
        return tuple(int(value) for value in found[0])

    async def _check(self, provider: RemoteProvider) -> None:
        for name, value, most in (
            ("weight", provider.weight, _LARGEST_WEIGHT),
            ("price", provider.price or 0, _LARGEST_PRICE),
        ):
            if value > most:
                raise InputError(f"The {name} of provider {provider.name!r} is {value}; expected at most {most}.")
        await check_address(provider.url, private=self._private, resolve=self._resolve)

    def _values(self, slug: str, provider: RemoteProvider, *, enabled: bool) -> dict[str, Any]:
        sealed = None if provider.key is None else self._sealer.seal(provider.key, slug, provider.name, provider.url)
        return {
            "address": provider.url,
            "called": provider.model,
            "sort": provider.kind,
            "sealed": sealed,
            "share": provider.weight,
            "cost": provider.price,
            "on": int(enabled),
            "now": self._clock(),
        }

    def _stored(self, row: Row) -> StoredProvider:
        values = _named([row])
        key, key_lost, sealed = None, False, values["sealed"]
        if sealed is not None:
            try:
                key = self._sealer.open(bytes(sealed), values["slug"], values["name"], values["url"])
            except ProviderKeyError:
                key_lost = True
        provider = RemoteProvider(
            **{name: values[name] for name in ("name", "url", "model", "kind", "weight", "price")},
            key=key,
            private=self._private,
        )
        return StoredProvider(
            id=values["id"],
            slug=values["slug"],
            provider=provider,
            enabled=bool(values["enabled"]),
            key_lost=key_lost,
            created_at=values["created_at"],
            changed_at=values["changed_at"],
        )


def _named(found: list[Row]) -> dict[str, Any]:
    if not found:
        raise UnknownProviderError("There is no such provider.")
    return dict(zip(rows.NAMES, found[0], strict=True))

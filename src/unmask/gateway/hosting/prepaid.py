"""Requests that are paid for: let in by a key, reserved when their tokens are known, charged when they are answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

from unmask.gateway.accounts.clock import microseconds
from unmask.gateway.accounts.errors import HoldGoneError, UnknownKeyIdError
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.keys import Key
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.money import Hold, Replay, Retry, fingerprint
from unmask.gateway.accounts.money import Order as Purchase
from unmask.gateway.api.access import AnsweredBeforeError, Order, Visit
from unmask.gateway.api.keys import bearer
from unmask.gateway.api.limits import Allowances
from unmask.gateway.catalogue import Entry, Tier
from unmask.gateway.db.errors import DatabaseUnavailableError

_log: Final = logging.getLogger("unmask.credit")

#: Seconds between tries to charge an answered request while the database is away; doubled up to the second.
_PAUSES: Final = (0.1, 5.0)
#: Share of its time after which a hold is renewed.
_RENEWED_AFTER: Final = 1 / 3


class Prepaid:
    """Lets in who has a key and credit; an :class:`~unmask.gateway.api.access.Access`.

    Args:
        keyring: of the keys.
        ledger: of the credit.
        entry: the name a model is served under → what the catalogue says of it.
        requests: a minute of each user, whatever they ask for; None for any number.
    """

    def __init__(
        self, keyring: Keyring, ledger: Ledger, entry: Callable[[str], Entry], *, requests: int | None = None
    ) -> None:
        self.keyring = keyring
        self.ledger = ledger
        self.entry = entry
        self._allowances = Allowances(requests=requests)
        self._endings: set[asyncio.Task[None]] = set()
        #: What is held for requests that somebody still answers or charges; what nobody knows any more lapses.
        self._under_way: WeakSet[_Held] = WeakSet()

    async def enter(self, authorization: bytes | None) -> Visit:
        """Begin a request; see :meth:`unmask.gateway.api.access.Access.enter`.

        Raises:
            AuthenticationError: there is no key.
            KeyRefusedError: it opens nothing.
            RateLimitError: the user's requests of this minute are used up.
            DatabaseUnavailableError: the key cannot be looked up now.
        """
        key = await self.keyring.authenticate(bearer(authorization).decode("latin-1"))
        self._allowances.of(key.user_id).take("requests")
        return PaidVisit(self, key.user_id, key.id, key)

    def resume(self, payer: str) -> Visit:
        """Begin a request of a batch; its key is looked up when it is let in."""
        user_id, key_id = map(int, payer.split("."))
        return PaidVisit(self, user_id, key_id, None)

    def hold(self, hold: Hold, entry: Entry, tier: Tier) -> _Held:
        """Return what is set aside for a request; it is renewed for as long as somebody has it."""
        held = _Held(hold, entry, tier)
        self._under_way.add(held)
        return held

    async def renew(self) -> int:
        """Have the holds of requests that are still under way lapse later; return how many were renewed.

        Called every minute it renews each about every five minutes, so one call that fails makes none lapse. All of
        them are one statement.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        held = {each.hold.id: each for each in self._under_way}
        renewed = await self.ledger.renew([each.hold for each in held.values()], spent=_RENEWED_AFTER)
        for hold in renewed:
            held[hold.id].hold = hold
        return len(renewed)

    async def close(self) -> None:
        """Charge what was answered. What the database does not take meanwhile stays held, until it lapses."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=_PAUSES[1])
        for task in self._endings:
            task.cancel()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no answer waits for; :meth:`close` does."""
        task = asyncio.get_running_loop().create_task(work)
        self._endings.add(task)  # keeps it alive
        task.add_done_callback(self._endings.discard)


class PaidVisit:
    """One request of a user; a :class:`~unmask.gateway.api.access.Visit`.

    Args:
        desk: that let it in.
        user_id: who pays.
        key_id: with which key.
        key: what is known of it; None if it is to be looked up.
    """

    def __init__(self, desk: Prepaid, user_id: int, key_id: int, key: Key | None) -> None:
        # Files, batches and shares of the engine are a user's, whichever of the keys it is.
        self.caller = f"user-{user_id}"
        self.payer = f"{user_id}.{key_id}"
        self._desk = desk
        self._user_id, self._key_id, self._key = user_id, key_id, key
        self._retry: Retry | None = None
        self._held: _Held | None = None

    def headers(self) -> Mapping[str, str]:
        """Return the limits that the key's owner set."""
        if self._key is None:
            return {}
        limits = self._key.limits
        told = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
        return {f"x-ratelimit-limit-{kind}": str(limit) for kind, limit in told.items() if limit is not None}

    def expect(self, key: str, request: bytes) -> None:
        """Take an ``Idempotency-Key``; it is the user's, whichever of the keys it comes with.

        Raises:
            InputError: it cannot be one.
        """
        self._retry = Retry(key=key, fingerprint=fingerprint(request))

    async def take(self, order: Order) -> None:
        """Reserve what the request costs.

        Raises:
            AnsweredBeforeError: it was answered, and paid.
            AccountError: the key, its limits or the balance do not permit it.
            DatabaseUnavailableError: nothing can be reserved now.
        """
        entry = self._desk.entry(order.model)
        key = self._key or await self._look_up()
        key.require_model(entry.slug)
        tokens = sum(order.tokens)
        units = tokens if entry.prices.per == "1M tokens" else len(order.tokens)
        purchase = Purchase(
            user_id=self._user_id,
            key_id=self._key_id,
            amount=entry.price_of(units, order.priority),
            model=entry.slug,
            units=units,
            tokens=tokens,
        )
        found = await self._desk.ledger.reserve(purchase, self._retry)
        if isinstance(found, Hold):
            self._held = self._desk.hold(found, entry, order.priority)
        elif found.outcome is not None:
            raise AnsweredBeforeError(found.outcome)
        else:
            assert isinstance(found, Replay), "paid before, and its answer was too long to keep: computed again, free"

    def end(self, body: bytes | None, tokens: int) -> None:
        """Charge the request if it was answered, else give its credit back; see the protocol."""
        held, self._held = self._held, None
        if held is not None:
            self._desk.later(_end(self._desk.ledger, held, body, tokens))

    async def _look_up(self) -> Key:
        found = next((key for key in await self._desk.keyring.of(self._user_id) if key.id == self._key_id), None)
        if found is None:
            raise UnknownKeyIdError("The batch was begun with a key that is gone. Begin it again with another.")
        return found


@dataclass(eq=False)
class _Held:
    """Credit set aside, and by which price."""

    hold: Hold
    entry: Entry
    tier: Tier


async def _end(ledger: Ledger, held: _Held, body: bytes | None, tokens: int) -> None:
    """Settle or release a hold, again and again while the database is away and the hold stands."""
    pause, longest = _PAUSES
    hold, entry, tier = held.hold, held.entry, held.tier
    by_tokens = entry.prices.per == "1M tokens"
    # Where the tokenizer is a provider's, more may have been set aside than was used, never less.
    amount = min(hold.amount, entry.price_of(tokens, tier)) if by_tokens else hold.amount
    while True:
        try:
            if body is None:
                await ledger.release(hold)
            else:
                kept = body if hold.retried else None
                await ledger.settle(hold, amount, units=tokens if by_tokens else None, outcome=kept)
        except DatabaseUnavailableError:
            if microseconds() >= held.hold.expires_at:  # as it was renewed meanwhile
                _log.error("an answered request is not charged: the database was away too long")
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        except HoldGoneError:
            _log.error("an answered request is not charged: its hold had lapsed")
            return
        else:
            return

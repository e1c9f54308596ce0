"""Prepaid credit, never wrong.

A request reserves what it may cost before it is worked on, and is charged when it is answered:

    hold = await ledger.reserve(order)          # refused: no credit, a limit, no database; nothing is worked on
    ...                                         # work, answer
    await ledger.settle(hold)                   # answered: charged, exactly once
    await ledger.release(hold)                  # not answered: not charged

Settle once the answer is on its way; while it takes long, renew the hold now and then. A process that dies before
leaves a hold, which lapses: the request was not answered, or not for sure, and is not billed. Where the database fails
at that moment, settle again; each of the calls may be made any number of times.

What is charged before an answer is there could be charged for nothing; what is answered before it is reserved could be
answered for nothing. Neither happens in this order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

from sqlalchemy import insert, literal, select

from unmask.errors import InputError
from unmask.gateway.accounts import reserving, retries, settling
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.errors import AccountError, OutOfCreditError, ReferenceUsedError, UnknownUserError
from unmask.gateway.accounts.money import Balance, CreditKind, Entry, Hold, Order, Replay, Retry, new_hold_id
from unmask.gateway.db.database import Database
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import MOST_AMOUNT, MOST_BALANCE, Integer64, balances, entries

_log = logging.getLogger(__name__)

#: Seconds that a hold lasts unless it is renewed.
HOLD_SECONDS: Final = 900
#: Seconds in which a retry is free.
RETRY_SECONDS: Final = 86_400

T = TypeVar("T")

_amount: Final = number("amount")
_BALANCE: Final = Statement(select(balances.c.balance, balances.c.held).where(balances.c.user_id == number("user")))
_CREDIT: Final = Statement(
    insert(entries).from_select(
        ["user_id", "kind", "amount", "at", "reference", "note"],
        select(
            balances.c.user_id,
            words("kind"),
            _amount,
            number("now"),
            words("reference"),
            words("note"),
        ).where(
            balances.c.user_id == number("user"),
            balances.c.balance + _amount >= balances.c.held,
            balances.c.balance + _amount <= literal(MOST_BALANCE, Integer64),
        ),
        include_defaults=False,
    )
)
_COLUMNS: Final = (
    *(entries.c.id, entries.c.kind, entries.c.amount, entries.c.at, entries.c.key_id),
    *(entries.c.model, entries.c.units, entries.c.reference, entries.c.note),
)
_BY_REFERENCE: Final = Statement(select(entries.c.user_id, *_COLUMNS).where(entries.c.reference == words("reference")))
_LATEST: Final = Statement(
    select(*_COLUMNS)
    .where(entries.c.user_id == number("user"), entries.c.id < number("before"))
    .order_by(entries.c.id.desc())
    .limit(number("count"))
)


class Ledger:
    """The credit of a database's users.

    Args:
        database: where it is.
        clock: the time.
        hold_seconds: that credit is held for a request which is neither answered nor given up.
    """

    def __init__(self, database: Database, *, clock: Clock = microseconds, hold_seconds: float = HOLD_SECONDS) -> None:
        self._database = database
        self._clock = clock
        self._hold = int(hold_seconds * SECOND)
        self._left: set[asyncio.Task[Any]] = set()

    async def credit(self, user_id: int, amount: int, kind: CreditKind, *, reference: str, note: str = "") -> Entry:
        """Add credit to a balance, once for each reference; a correction may take some away.

        Args:
            user_id: whose.
            amount: micro-units.
            kind: why.
            reference: of the payment, among all users; with the same one, the entry that there is is returned.
            note: for whoever reads the ledger.

        Raises:
            InputError: the amount, or the reference, cannot be.
            ReferenceUsedError: the reference stands for another payment.
            OutOfCreditError: a correction takes more than is left.
            UnknownUserError: there is no such user.
            DatabaseUnavailableError: the database cannot be written now; ask again.
        """
        if not 0 < abs(amount) <= MOST_AMOUNT or (amount < 0 and kind != "correction"):
            raise InputError(f"A {kind} of {amount} micro-units cannot be. Expected 1 to {MOST_AMOUNT:,}.")
        if not reference:
            raise InputError("A payment without a reference could be counted twice. Expected one, such as its number.")
        now = self._clock()

        def operation(transaction: Transaction) -> Entry:
            found = transaction.rows(_BY_REFERENCE, reference=reference)
            if not found:
                values: dict[str, Any] = {"user": user_id, "kind": kind, "amount": amount, "now": now}
                if not transaction.run(_CREDIT, reference=reference, note=note, **values):
                    raise _not_credited(transaction, user_id, amount)
                found = transaction.rows(_BY_REFERENCE, reference=reference)
            owner, *columns = found[0]
            entry = _entry(columns)
            if (owner, entry.kind, entry.amount) != (user_id, kind, amount):
                raise ReferenceUsedError(f"The reference {reference!r} stands for another payment. Use a new one.")
            return entry

        return await self._database.write(operation, user=user_id, durable=True)

    async def reserve(self, order: Order, retry: Retry | None = None) -> Hold | Replay:
        """Set aside what a request may cost, and count it against its key's limits; all of it or nothing.

        Args:
            order: the request.
            retry: what tells a retry of it, None if it came without an Idempotency-Key.

        Returns:
            What to settle or release; or, for a request that was paid before, its answer.

        Raises:
            OutOfCreditError: the balance does not cover it.
            LimitError: the key's limits do not permit it.
            KeyRefusedError: the key has been revoked, or has expired.
            UnknownKeyIdError: the user has no such key.
            RequestMismatchError, InProgressError: the Idempotency-Key is in use.
            DatabaseUnavailableError: the database cannot be written now. Do not answer.
        """
        now = self._clock()
        hold = Hold(
            id=new_hold_id(now),
            user_id=order.user_id,
            amount=order.amount,
            expires_at=now + self._hold,
            retried=retry is not None,
        )
        keep_until = now + RETRY_SECONDS * SECOND
        try:
            return await self._database.write(
                lambda transaction: reserving.reserve(
                    transaction, order, hold, now=now, retry=retry, keep_until=keep_until
                ),
                user=order.user_id,
            )
        except (asyncio.CancelledError, DatabaseUnavailableError):
            # It may have been done, and nobody would know its number.
            self._release_later(hold)
            raise

    async def settle(
        self, hold: Hold, amount: int | None = None, *, units: int | None = None, outcome: bytes | None = None
    ) -> int:
        """Charge a request that is answered, once; return what was charged for it, now or before.

        Args:
            hold: of the request.
            amount: micro-units, at most what is held; None for all of it.
            units: that it took; None for those that were ordered.
            outcome: the answer, kept for a retry if the request came with an Idempotency-Key.

        Raises:
            InputError: the amount is more than is held.
            HoldGoneError: it was released, or has expired; nothing is charged.
            DatabaseUnavailableError: the database cannot be written now; settle again.
        """
        charged = hold.amount if amount is None else amount
        if not 0 <= charged <= hold.amount:
            raise InputError(f"A hold of {hold.amount} cannot be charged {charged}. Expected 0 to {hold.amount}.")
        now = self._clock()
        return await self._database.write(
            lambda transaction: settling.settle(transaction, hold, charged, now=now, units=units, outcome=outcome),
            user=hold.user_id,
            hurry=False,
        )

    async def release(self, hold: Hold) -> bool:
        """Give back what was held for a request that is not answered; return whether it was still held.

        Raises:
            DatabaseUnavailableError: the database cannot be written now; release again, or let it lapse.
        """
        return await self._database.write(lambda transaction: settling.release(transaction, hold), user=hold.user_id)

    async def renew(self, held: Iterable[Hold], *, spent: float = 0.0) -> list[Hold]:
        """Have the holds of requests that are still under way lapse later: all of their time from now.

        One that was settled or released, or has lapsed, is gone and stays so.

        Args:
            held: the holds.
            spent: a share of a hold's time; those that have not spent so much of it are left as they are.

        Returns:
            Those that were renewed, as they are now.

        Raises:
            DatabaseUnavailableError: the database cannot be written now; renew them again before they lapse.
        """
        now = self._clock()
        until = now + self._hold
        due = {hold.id: hold for hold in held if hold.expires_at <= until - int(spent * self._hold)}
        if not due:
            return []
        renewed = await self._database.write(
            lambda transaction: settling.renew(transaction, due, now=now, until=until), hurry=False
        )
        return [replace(due[hold_id], expires_at=until) for hold_id in renewed]

    async def sweep(self) -> int:
        """Release the holds whose time is over, forget answers that are too old to be retried.

        Returns:
            How many holds were released.

        Raises:
            DatabaseUnavailableError: the database cannot be used now.
        """
        now = self._clock()
        expired = await self._database.read(lambda transaction: settling.expired(transaction, now))

        def expire(hold_id: str) -> Callable[[Transaction], bool]:
            return lambda transaction: settling.expire(transaction, hold_id, now=now)

        writes = (self._database.write(expire(hold), user=user) for hold, user in expired)
        # All are waited for: whoever is told that it failed must not see holds go afterwards.
        swept = await asyncio.gather(*writes, return_exceptions=True)
        for result in swept:
            if isinstance(result, BaseException):
                raise result
        await self._database.write(lambda transaction: retries.forget_old(transaction, now))
        return sum(result is True for result in swept)

    async def balance(self, user_id: int) -> Balance:
        """Return what a user has.

        Raises:
            UnknownUserError: there is no such user.
            DatabaseUnavailableError: the database cannot be read now.
        """
        rows = await self._database.read(lambda transaction: transaction.rows(_BALANCE, user=user_id))
        if not rows:
            raise UnknownUserError("There is no such user.")
        balance, held = rows[0]
        return Balance(balance=balance, held=held)

    async def entries(self, user_id: int, *, before: int | None = None, count: int = 100) -> list[Entry]:
        """Return a user's entries, the latest first.

        Args:
            user_id: whose.
            before: only those older than the one with this id; None for all.
            count: at most so many.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        values = {"user": user_id, "before": 2**63 - 1 if before is None else before, "count": count}
        return [_entry(row) for row in await self._database.read(lambda each: each.rows(_LATEST, **values))]

    def _release_later(self, hold: Hold) -> None:
        async def release() -> None:
            try:
                await self.release(hold)
            except DatabaseUnavailableError:
                _log.warning("a hold of %d micro-units may stay until it lapses", hold.amount)

        # The set keeps the task alive until it is done.
        task = asyncio.get_running_loop().create_task(release())
        self._left.add(task)
        task.add_done_callback(self._left.discard)


def _not_credited(transaction: Transaction, user_id: int, amount: int) -> AccountError:
    rows = transaction.rows(_BALANCE, user=user_id)
    if not rows:
        return UnknownUserError("There is no such user.")
    balance, held = rows[0]
    return OutOfCreditError(
        f"A correction of {amount:,} micro-units leaves a balance that cannot be; {balance - held:,} are left.",
        needed=-amount,
        available=balance - held,
    )


def _entry(row: Any) -> Entry:
    number, kind, amount, at, key_id, model, units, reference, note = row
    return Entry(
        id=number,
        kind=kind,
        amount=amount,
        at=at,
        key_id=key_id,
        model=model,
        units=units,
        reference=reference,
        note=note,
    )

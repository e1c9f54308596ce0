"""The end of a hold: charged by one INSERT of an entry, or given back by one DELETE; the triggers do the rest.

And its time, while the request is under way: moved by one UPDATE of many holds.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

from sqlalchemy import JSON, FromClause, Text, Update, cast, delete, func, insert, literal, select, update

from unmask.gateway.accounts import retries
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.errors import HoldGoneError
from unmask.gateway.accounts.money import Hold
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import entries, holds

_now: Final = number("now")
_SETTLE: Final = Statement(
    insert(entries).from_select(
        ["user_id", "key_id", "kind", "amount", "at", "hold_id", "model", "units"],
        select(
            holds.c.user_id,
            holds.c.key_id,
            literal("charge", Text),
            number("change"),
            _now,
            holds.c.id,
            holds.c.model,
            func.coalesce(number("units"), holds.c.units),
        ).where(holds.c.id == words("hold")),
        include_defaults=False,
    )
)
_CHARGED: Final = Statement(select(entries.c.amount).where(entries.c.hold_id == words("hold")))
_RELEASE: Final = Statement(delete(holds).where(holds.c.id == words("hold")))
_EXPIRE: Final = Statement(delete(holds).where(holds.c.id == words("hold"), holds.c.expires_at <= _now))
_EXPIRED: Final = Statement(
    select(holds.c.id, holds.c.user_id).where(holds.c.expires_at <= _now).order_by(holds.c.expires_at).limit(1000)
)


def _renewal(ids: FromClause) -> Update:
    return (
        update(holds)
        .where(holds.c.id.in_(select(ids.c.value)), holds.c.expires_at > _now, holds.c.expires_at < number("until"))
        .values(expires_at=number("until"))
        .returning(holds.c.id)
    )


#: The ids of many holds are one value, a list in JSON.
_RENEW: Final = Statement(
    {
        "sqlite": _renewal(func.json_each(words("ids")).table_valued("value")),
        "postgresql": _renewal(func.json_array_elements_text(cast(words("ids"), JSON)).table_valued("value")),
    }
)


def settle(
    transaction: Transaction, hold: Hold, amount: int, *, now: int, units: int | None = None, outcome: bytes | None
) -> int:
    """Charge a hold, once, and return what was charged for it: now, or when it was settled before.

    Raises:
        HoldGoneError: it was released, or has expired.
    """
    if not transaction.run(_SETTLE, hold=hold.id, change=-amount, now=now, units=units):
        rows = transaction.rows(_CHARGED, hold=hold.id)
        if not rows:
            raise HoldGoneError(
                "The credit held for this request was released, or its time is over: nothing is charged."
            )
        return -int(rows[0][0])
    if hold.retried:
        retries.answer(transaction, hold, amount, outcome)
    return amount


def release(transaction: Transaction, hold: Hold) -> bool:
    """Give a hold's credit back and return whether it was there."""
    gone = bool(transaction.run(_RELEASE, hold=hold.id))
    if gone and hold.retried:
        retries.forget(transaction, hold.id)
    return gone


def renew(transaction: Transaction, ids: Collection[str], *, now: int, until: int) -> list[str]:
    """Move the end of those holds that are still there and have not lapsed; return their ids.

    Nobody's balance is looked at or changed, so no user is kept to this process meanwhile: a hold that another one
    takes away at the same moment is gone.
    """
    return [str(hold_id) for (hold_id,) in transaction.rows(_RENEW, ids=json.dumps([*ids]), now=now, until=until)]


def expire(transaction: Transaction, hold_id: str, *, now: int) -> bool:
    """Give a hold's credit back if its time is over, and return whether it was."""
    gone = bool(transaction.run(_EXPIRE, hold=hold_id, now=now))
    if gone:
        retries.forget(transaction, hold_id)
    return gone


def expired(transaction: Transaction, now: int) -> list[Row]:
    """Return the holds whose time is over, each with its user; at most a thousand, the oldest first."""
    return transaction.rows(_EXPIRED, now=now)

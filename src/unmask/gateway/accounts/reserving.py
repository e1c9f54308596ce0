"""Setting credit aside: one INSERT of a hold, where everything permits it.

The triggers do the rest in the same statement (``r0002_credit.py``): what is held, and what the key has used.

The limits a minute are kept as the time until which the key has used them up, had it used them evenly (GCRA, the
"virtual scheduling" of ITU-T I.371): one number instead of a window of requests, and exact. A clock that goes back
locks nobody out, since no time far ahead counts.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, func, insert, literal, or_, select

from unmask.gateway.accounts import retries
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import DAY, MINUTE, SECOND
from unmask.gateway.accounts.errors import (
    AccountError,
    KeyExpiredError,
    KeyRevokedError,
    OutOfCreditError,
    RateError,
    SpendingError,
    TooLargeError,
    UnknownKeyIdError,
    UserDisabledError,
)
from unmask.gateway.accounts.money import Hold, Order, Replay, Retry
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import Integer64, balances, holds, key_usage, keys, users

_now: Final = number("now")
_minute: Final = literal(MINUTE, Integer64)


def _level(until: ColumnElement[int]) -> ColumnElement[int]:
    """Return when a key that used nothing more would be as good as new: from now to a minute ahead, or two.

    Further ahead it cannot be unless the clock went back: the key is then as good as new. The second minute is for
    processes whose clocks do not quite agree.
    """
    return case((or_(until < _now, until > _now + 2 * MINUTE), _now), else_=until)


_requests_until: Final = _level(key_usage.c.requests_until) + func.coalesce(_minute // keys.c.requests_per_minute, 0)
_tokens_until: Final = _level(key_usage.c.tokens_until) + func.coalesce(
    number("tokens") * _minute // keys.c.tokens_per_minute, 0
)
_spent: Final = case((key_usage.c.day == number("day"), key_usage.c.spent), else_=0)
_everything: Final = (
    keys.join(key_usage, key_usage.c.key_id == keys.c.id)
    .join(balances, balances.c.user_id == keys.c.user_id)
    .join(users, users.c.id == keys.c.user_id)
)
_whose: Final = and_(keys.c.id == number("key"), keys.c.user_id == number("user"))

_RESERVE: Final = Statement(
    insert(holds).from_select(
        [
            *("id", "user_id", "key_id", "amount", "model", "units"),
            *("created_at", "expires_at", "day", "requests_until", "tokens_until"),
        ],
        select(
            words("hold"),
            keys.c.user_id,
            keys.c.id,
            number("amount"),
            words("model"),
            number("units"),
            _now,
            number("expires_at"),
            number("day"),
            _requests_until,
            _tokens_until,
        )
        .select_from(_everything)
        .where(
            _whose,
            users.c.disabled_at.is_(None),
            keys.c.revoked_at.is_(None),
            or_(keys.c.expires_at.is_(None), keys.c.expires_at > _now),
            or_(keys.c.requests_per_minute.is_(None), _requests_until <= _now + _minute),
            or_(keys.c.tokens_per_minute.is_(None), _tokens_until <= _now + _minute),
            or_(keys.c.spend_per_day.is_(None), _spent + number("amount") <= keys.c.spend_per_day),
            balances.c.balance - balances.c.held >= number("amount"),
        ),
        include_defaults=False,
    )
)
_WHY: Final = Statement(
    select(
        users.c.disabled_at,
        keys.c.prefix,
        keys.c.revoked_at,
        keys.c.expires_at,
        keys.c.requests_per_minute,
        _requests_until - _now - _minute,
        keys.c.tokens_per_minute,
        _tokens_until - _now - _minute,
        keys.c.spend_per_day,
        _spent,
        balances.c.balance - balances.c.held,
    )
    .select_from(_everything)
    .where(_whose)
)


def reserve(
    transaction: Transaction, order: Order, hold: Hold, *, now: int, retry: Retry | None, keep_until: int
) -> Hold | Replay:
    """Set credit aside for a request, or return what was answered to it before.

    Args:
        transaction: to do it in.
        order: the request.
        hold: what is to be.
        now: the time.
        retry: what came with it.
        keep_until: when its answer is forgotten.

    Raises:
        AccountError: why not.
    """
    if retry is not None:
        found = retries.answered(transaction, order.user_id, retry, now)
        if found is not None:
            return found
    values: dict[str, Any] = {
        "key": order.key_id,
        "user": order.user_id,
        "amount": order.amount,
        "tokens": order.tokens,
        "now": now,
        "day": now // DAY,
    }
    added = transaction.run(
        _RESERVE, hold=hold.id, model=order.model, units=order.units, expires_at=hold.expires_at, **values
    )
    if not added:
        del values["amount"]
        raise _why_not(transaction, order, values)
    if retry is not None:
        retries.expect(transaction, order.user_id, retry, hold, keep_until)
    return hold


def _why_not(transaction: Transaction, order: Order, values: dict[str, Any]) -> AccountError:
    rows = transaction.rows(_WHY, **values)
    if not rows:
        return UnknownKeyIdError("The user has no such key.")
    (disabled_at, prefix, revoked_at, expires_at), limits, (available,) = rows[0][:4], rows[0][4:10], rows[0][10:]
    if disabled_at is not None:
        return UserDisabledError()
    if revoked_at is not None:
        return KeyRevokedError(f"The API key {prefix} was revoked. Use another.")
    if expires_at is not None and expires_at <= values["now"]:
        return KeyExpiredError(f"The API key {prefix} has expired. Use another.")
    return _beyond(order, prefix, limits, values["now"]) or OutOfCreditError(
        f"The request costs up to {order.amount:,} micro-units; {available:,} are left. Add credit.",
        needed=order.amount,
        available=available,
    )


def _beyond(order: Order, prefix: str, limits: Row, now: int) -> AccountError | None:
    """Return which limit of the key the request is beyond, None if none."""
    requests, requests_over, tokens, tokens_over, a_day, spent = limits
    if tokens is not None and order.tokens > tokens:
        return TooLargeError(
            f"The request has {order.tokens:,} tokens; the API key {prefix} may use {tokens:,} a minute. Send less.",
            kind="tokens",
            retry_after=None,
        )
    for kind, limit, over in (("requests", requests, requests_over), ("tokens", tokens, tokens_over)):
        if limit is not None and over > 0:
            return RateError(
                f"The API key {prefix} may use {limit:,} {kind} a minute, as its owner set. "
                f"Try again in {over / SECOND:.1f} s.",
                kind=kind,
                retry_after=over / SECOND,
            )
    if a_day is not None and spent + order.amount > a_day:
        return SpendingError(
            f"The API key {prefix} may spend {a_day:,} micro-units a day, as its owner set, and has spent {spent:,}; "
            f"this request costs up to {order.amount:,}. The day ends at midnight UTC.",
            kind="spending",
            retry_after=(DAY - now % DAY) / SECOND,
        )
    return None

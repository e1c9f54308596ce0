"""Retries: what was answered to a request with an ``Idempotency-Key``, and which one is being answered."""

from __future__ import annotations

from typing import Final

from sqlalchemy import LargeBinary, bindparam, delete, insert, select, update

from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.errors import InProgressError, RequestMismatchError
from unmask.gateway.accounts.money import MOST_OUTCOME, Hold, Replay, Retry
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import holds, idempotency

_FIND: Final = Statement(
    select(
        idempotency.c.fingerprint,
        idempotency.c.expires_at,
        idempotency.c.charged,
        idempotency.c.outcome,
        holds.c.id,
    )
    .select_from(idempotency.outerjoin(holds, holds.c.id == idempotency.c.hold_id))
    .where(idempotency.c.user_id == number("user"), idempotency.c.key == words("retry"))
)
_DROP: Final = Statement(
    delete(idempotency).where(idempotency.c.user_id == number("user"), idempotency.c.key == words("retry"))
)
_ADD: Final = Statement(
    insert(idempotency).values(
        user_id=number("user"),
        key=words("retry"),
        fingerprint=words("print"),
        hold_id=words("hold"),
        expires_at=number("until"),
    )
)
_ANSWER: Final = Statement(
    update(idempotency)
    .where(idempotency.c.hold_id == words("hold"))
    .values(charged=number("amount"), outcome=bindparam("answer", type_=LargeBinary))
)
_FORGET: Final = Statement(
    delete(idempotency).where(idempotency.c.hold_id == words("hold"), idempotency.c.charged.is_(None))
)
#: Answers whose time is over; at most a thousand, so that requests do not wait for it.
_FORGET_OLD: Final = Statement(
    delete(idempotency).where(
        idempotency.c.hold_id.in_(
            select(idempotency.c.hold_id)
            .where(idempotency.c.expires_at <= number("now"), idempotency.c.charged.is_not(None))
            .order_by(idempotency.c.expires_at)
            .limit(1000)
        )
    )
)


def answered(transaction: Transaction, user: int, retry: Retry, now: int) -> Replay | None:
    """Return what was answered to a request before, None if it was not.

    Raises:
        RequestMismatchError: it was another request.
        InProgressError: it is being answered.
    """
    rows = transaction.rows(_FIND, user=user, retry=retry.key)
    if not rows:
        return None
    fingerprint, expires_at, charged, outcome, open_hold = rows[0]
    if open_hold is None and (charged is None or expires_at <= now):
        return None  # its request was never answered, or long ago
    if fingerprint != retry.fingerprint:
        raise RequestMismatchError(
            "This Idempotency-Key came with another request before. Use a new one for each request."
        )
    if charged is None:
        raise InProgressError("The first request with this Idempotency-Key is still being answered. Try again soon.")
    return Replay(charged=charged, outcome=outcome)


def expect(transaction: Transaction, user: int, retry: Retry, hold: Hold, until: int) -> None:
    """Note that a request is being answered; its answer is forgotten at ``until``."""
    transaction.run(_DROP, user=user, retry=retry.key)
    transaction.run(_ADD, user=user, retry=retry.key, print=retry.fingerprint, hold=hold.id, until=until)


def answer(transaction: Transaction, hold: Hold, charged: int, outcome: bytes | None) -> None:
    """Keep the answer to a request, if it is not too large."""
    kept = outcome if outcome is None or len(outcome) <= MOST_OUTCOME else None
    transaction.run(_ANSWER, hold=hold.id, amount=charged, answer=kept)


def forget(transaction: Transaction, hold_id: str) -> None:
    """Forget a request that is not answered: its retry is a new one."""
    transaction.run(_FORGET, hold=hold_id)


def forget_old(transaction: Transaction, now: int) -> int:
    """Forget answers whose time is over, and return how many; at most a thousand."""
    return transaction.run(_FORGET_OLD, now=now)

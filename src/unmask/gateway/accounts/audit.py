"""Whether the books are right: every balance the sum of its entries, every hold counted, nothing charged twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Subquery, Table, and_, cast, func, or_, select

from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import Integer64, balances, entries, holds, idempotency, key_usage, keys, users

#: Findings of each kind that are listed.
_LISTED: Final = 100


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        users: that were looked at.
        entries: likewise.
        holds: open ones.
        credit: micro-units on all balances together.
        findings: what is wrong, a line each; empty if nothing is.
    """

    users: int
    entries: int
    holds: int
    credit: int
    findings: tuple[str, ...]


async def audit(database: Database) -> Audit:
    """Check the books as they are at one moment; requests go on meanwhile.

    Raises:
        DatabaseUnavailableError: the database cannot be read now.
    """
    return await database.read(_audit)


def _audit(transaction: Transaction) -> Audit:
    findings = tuple(words.format(*row) for words, statement in _CHECKS.items() for row in transaction.rows(statement))
    counted = [int(transaction.rows(statement)[0][0]) for statement in _COUNTS]
    return Audit(users=counted[0], entries=counted[1], holds=counted[2], credit=counted[3], findings=findings)


def _sums(table: Table) -> Subquery:
    # PostgreSQL's sum of whole numbers is of another type.
    total = cast(func.sum(table.c.amount), Integer64).label("total")
    return select(table.c.user_id, total).group_by(table.c.user_id).subquery()


def _total(sums: Subquery) -> ColumnElement[int]:
    return func.coalesce(sums.c.total, 0)


_earned, _held = _sums(entries), _sums(holds)
_books: Final = balances.outerjoin(_earned, _earned.c.user_id == balances.c.user_id).outerjoin(
    _held, _held.c.user_id == balances.c.user_id
)


_COUNTS: Final = (
    Statement(select(func.count()).select_from(users)),
    Statement(select(func.count()).select_from(entries)),
    Statement(select(func.count()).select_from(holds)),
    Statement(select(func.coalesce(cast(func.sum(balances.c.balance), Integer64), 0))),
)

#: What must not be found, and what is said of each row of it.
_CHECKS: Final = {
    words: Statement(found.limit(_LISTED))
    for words, found in {
        "user {0}: the balance is {1}, the sum of the ledger {2}": select(
            balances.c.user_id, balances.c.balance, _total(_earned)
        )
        .select_from(_books)
        .where(balances.c.balance != _total(_earned)),
        "user {0}: {1} are held, the sum of the holds is {2}": select(
            balances.c.user_id, balances.c.held, _total(_held)
        )
        .select_from(_books)
        .where(balances.c.held != _total(_held)),
        "user {0}: a balance of {1} does not cover what is held, {2}": select(
            balances.c.user_id, balances.c.balance, balances.c.held
        ).where(or_(balances.c.held < 0, balances.c.held > balances.c.balance)),
        "user {0} has no balance": select(users.c.id)
        .outerjoin(balances, balances.c.user_id == users.c.id)
        .where(balances.c.user_id.is_(None)),
        "key {0} has no usage": select(keys.c.id)
        .outerjoin(key_usage, key_usage.c.key_id == keys.c.id)
        .where(key_usage.c.key_id.is_(None)),
        "user {0}: hold {1} is open and was charged": select(holds.c.user_id, holds.c.id).join(
            entries, entries.c.hold_id == holds.c.id
        ),
        "user {0}: hold {1} is of another user's key": select(holds.c.user_id, holds.c.id)
        .join(keys, keys.c.id == holds.c.key_id)
        .where(keys.c.user_id != holds.c.user_id),
        "user {0}: entry {1} is of another user's key": select(entries.c.user_id, entries.c.id)
        .join(keys, keys.c.id == entries.c.key_id)
        .where(keys.c.user_id != entries.c.user_id),
        "user {0}: a retry waits for the answer to hold {1}, which is gone": select(
            idempotency.c.user_id, idempotency.c.hold_id
        )
        .outerjoin(holds, holds.c.id == idempotency.c.hold_id)
        .where(idempotency.c.charged.is_(None), holds.c.id.is_(None)),
        "user {0}: a retry was told that {1} were charged for hold {2}; the ledger has no such entry": select(
            idempotency.c.user_id, idempotency.c.charged, idempotency.c.hold_id
        )
        .outerjoin(
            entries,
            and_(entries.c.hold_id == idempotency.c.hold_id, entries.c.amount == -idempotency.c.charged),
        )
        .where(idempotency.c.charged.is_not(None), entries.c.id.is_(None)),
    }.items()
}

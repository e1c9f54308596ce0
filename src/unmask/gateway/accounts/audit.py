"""Whether the books are right: every balance the sum of its entries, every hold counted, nothing charged twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Select, Subquery, Table, and_, cast, func, or_, select, text

from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import (
    TRIGGERS,
    Integer64,
    balances,
    entries,
    holds,
    idempotency,
    key_usage,
    keys,
    usage_days,
    users,
)

#: Findings of each kind that are listed.
_LISTED: Final = 100


@dataclass(frozen=True, kw_only=True)
class Check:
    """Something that must hold.

    Attributes:
        claim: what.
        findings: where it does not, a line each; empty if it holds.
    """

    claim: str
    findings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        users: that were looked at.
        entries: likewise.
        holds: open ones.
        credit: micro-units on all balances together.
        checks: what was checked.
    """

    users: int
    entries: int
    holds: int
    credit: int
    checks: tuple[Check, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """All that is wrong, a line each; empty if nothing is."""
        return tuple(finding for check in self.checks for finding in check.findings)


async def audit(database: Database) -> Audit:
    """Check the books as they are at one moment; requests go on meanwhile.

    Raises:
        DatabaseUnavailableError: the database cannot be read now.
    """
    return await database.read(_audit)


def _audit(transaction: Transaction) -> Audit:
    checks = (
        _guards(transaction),
        *(
            Check(claim=claim, findings=tuple(words.format(*row) for row in transaction.rows(statement)))
            for claim, (words, statement) in _CHECKS.items()
        ),
    )
    users, entries, holds, credit = (int(transaction.rows(statement)[0][0]) for statement in _COUNTS)
    return Audit(users=users, entries=entries, holds=holds, credit=credit, checks=checks)


def _guards(transaction: Transaction) -> Check:
    there = {name for (name,) in transaction.rows(_GUARDS)}
    missing = tuple(f"the trigger {name} is missing, or does not fire" for name in sorted(TRIGGERS - there))
    return Check(claim="the triggers that keep the books are in place", findings=missing)


def _sums(table: Table, *where: ColumnElement[bool]) -> Subquery:
    # PostgreSQL's sum of whole numbers is of another type.
    total = cast(func.sum(table.c.amount), Integer64).label("total")
    return select(table.c.user_id, total).where(*where).group_by(table.c.user_id).subquery()


def _total(sums: Subquery) -> ColumnElement[int]:
    return func.coalesce(sums.c.total, 0)


_earned, _held, _used = _sums(entries), _sums(holds), _sums(usage_days)
_charged = _sums(entries, entries.c.kind == "charge")


def _unequal(one: ColumnElement[int], other: ColumnElement[int], *sums: Subquery) -> Select[Any]:
    """Return the users whose two figures are not the same, and the figures."""
    books: FromClause = balances
    for each in sums:
        books = books.outerjoin(each, each.c.user_id == balances.c.user_id)
    return select(balances.c.user_id, one, other).select_from(books).where(one != other)


#: The triggers that fire.
_GUARDS: Final = Statement(
    {
        "sqlite": text("SELECT name FROM sqlite_master WHERE type = 'trigger'"),
        "postgresql": text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"),
    }
)
_COUNTS: Final = (
    Statement(select(func.count()).select_from(users)),
    Statement(select(func.count()).select_from(entries)),
    Statement(select(func.count()).select_from(holds)),
    Statement(select(func.coalesce(cast(func.sum(balances.c.balance), Integer64), 0))),
)

#: What must hold; what is said where it does not, and the rows of which it is said.
_BOOKS: Final[dict[str, tuple[str, Select[Any]]]] = {
    "each balance is the sum of its entries": (
        "user {0}: the balance is {1}, the sum of the ledger {2}",
        _unequal(balances.c.balance, _total(_earned), _earned),
    ),
    "what is held is the sum of the open holds": (
        "user {0}: {1} are held, the sum of the holds is {2}",
        _unequal(balances.c.held, _total(_held), _held),
    ),
    "each balance covers what is held": (
        "user {0}: a balance of {1} does not cover what is held, {2}",
        select(balances.c.user_id, balances.c.balance, balances.c.held).where(
            or_(balances.c.held < 0, balances.c.held > balances.c.balance)
        ),
    ),
    "the usage by day is the sum of the charges": (
        "user {0}: the usage by day comes to {1}, the charges to {2}",
        _unequal(_total(_used), -_total(_charged), _used, _charged),
    ),
    "each user has a balance": (
        "user {0} has no balance",
        select(users.c.id).outerjoin(balances, balances.c.user_id == users.c.id).where(balances.c.user_id.is_(None)),
    ),
    "each key has a usage": (
        "key {0} has no usage",
        select(keys.c.id).outerjoin(key_usage, key_usage.c.key_id == keys.c.id).where(key_usage.c.key_id.is_(None)),
    ),
    "no hold is charged and still open": (
        "user {0}: hold {1} is open and was charged",
        select(holds.c.user_id, holds.c.id).join(entries, entries.c.hold_id == holds.c.id),
    ),
    "each hold is of a key of its user": (
        "user {0}: hold {1} is of another user's key",
        select(holds.c.user_id, holds.c.id)
        .join(keys, keys.c.id == holds.c.key_id)
        .where(keys.c.user_id != holds.c.user_id),
    ),
    "each charge is of a key of its user": (
        "user {0}: entry {1} is of another user's key",
        select(entries.c.user_id, entries.c.id)
        .join(keys, keys.c.id == entries.c.key_id)
        .where(keys.c.user_id != entries.c.user_id),
    ),
    "each retry that waits has its hold": (
        "user {0}: a retry waits for the answer to hold {1}, which is gone",
        select(idempotency.c.user_id, idempotency.c.hold_id)
        .outerjoin(holds, holds.c.id == idempotency.c.hold_id)
        .where(idempotency.c.charged.is_(None), holds.c.id.is_(None)),
    ),
    "each retry was told what was charged": (
        "user {0}: a retry was told that {1} were charged for hold {2}; the ledger has no such entry",
        select(idempotency.c.user_id, idempotency.c.charged, idempotency.c.hold_id)
        .outerjoin(
            entries,
            and_(entries.c.hold_id == idempotency.c.hold_id, entries.c.amount == -idempotency.c.charged),
        )
        .where(idempotency.c.charged.is_not(None), entries.c.id.is_(None)),
    ),
}
_CHECKS: Final = {claim: (words, Statement(found.limit(_LISTED))) for claim, (words, found) in _BOOKS.items()}

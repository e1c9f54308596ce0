"""Which addresses are one person's, as far as an address tells; who of them had the free credit.

Free credit is for each person once, and one mailbox has many addresses. What follows a ``+`` is the owner's to choose
at nearly every provider; what else some of them pass over is listed in :data:`SAME_MAILBOX`. Somebody who shares an
address's form with another person, which is rare, has an account like everybody, without the free credit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import LargeBinary, Text, bindparam, cast, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from unmask.gateway.accounts.binds import number
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import entries, users, welcomes


@dataclass(frozen=True, kw_only=True)
class Mailboxes:
    """What a mail provider takes for the same mailbox.

    Attributes:
        domains: that lead to it, whichever is used; the first stands for all.
        ignored: characters that it passes over in front of the ``@``.
    """

    domains: tuple[str, ...]
    ignored: str


#: From what the providers say of themselves, in 2026: Gmail passes over dots; Proton over dots, hyphens, underscores.
SAME_MAILBOX: Final = (
    Mailboxes(domains=("gmail.com", "googlemail.com"), ignored="."),
    Mailboxes(domains=("proton.me", "protonmail.com", "protonmail.ch", "pm.me"), ignored=".-_"),
)
_BY_DOMAIN: Final = {domain: each for each in SAME_MAILBOX for domain in each.domains}


def mailbox_of(address: str) -> str:
    """Return what the addresses of a mailbox have in common.

    Args:
        address: as :func:`unmask.gateway.accounts.addresses.parse_address` returns it.
    """
    name, _, domain = address.rpartition("@")
    rules = _BY_DOMAIN.get(domain)
    plain = name.partition("+")[0]
    if rules is not None:
        plain, domain = plain.translate(dict.fromkeys(map(ord, rules.ignored))), rules.domains[0]
    return f"{plain or name}@{domain}"


_print: Final = bindparam("print", type_=LargeBinary)
_claimed: Final = {"digest": _print, "user_id": number("user"), "created_at": number("now")}
_CLAIM: Final = Statement(
    {
        "sqlite": sqlite.insert(welcomes).values(_claimed).on_conflict_do_nothing(),
        "postgresql": postgresql.insert(welcomes).values(_claimed).on_conflict_do_nothing(),
    }
)
_OWNER: Final = Statement(select(welcomes.c.user_id).where(welcomes.c.digest == _print))
#: Who had the free credit before there was this list.
_FORMER: Final = Statement(
    select(users.c.id, users.c.email)
    .select_from(
        users.join(entries, entries.c.reference == literal("welcome:", Text) + cast(users.c.id, Text)).outerjoin(
            welcomes, welcomes.c.user_id == users.c.id
        )
    )
    .where(welcomes.c.user_id.is_(None), users.c.id > number("after"))
    .order_by(users.c.id)
    .limit(number("count"))
)


def welcome_reference(user_id: int) -> str:
    """Return the reference under which a user's free credit stands in the ledger."""
    return f"welcome:{user_id}"


def claim(transaction: Transaction, digest: bytes, user_id: int, *, now: int) -> bool:
    """Take a person's free credit for one of their accounts, and return whether it is this one's: now, or before."""
    transaction.run(_CLAIM, print=digest, user=user_id, now=now)
    return owner(transaction, digest) == user_id


def owner(transaction: Transaction, digest: bytes) -> int | None:
    """Return whose account had a person's free credit, None if it was not granted yet."""
    rows = transaction.rows(_OWNER, print=digest)
    return int(rows[0][0]) if rows else None


def former(transaction: Transaction, *, after: int, count: int) -> list[Row]:
    """Return id and address of users who had the free credit and are not in the list, by id; at most ``count``."""
    return transaction.rows(_FORMER, after=after, count=count)

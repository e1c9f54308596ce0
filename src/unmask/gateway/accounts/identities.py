"""Who somebody is at a provider of OpenID Connect, and whose account that is.

Issuer and subject are the identity: they never change, and are never given to somebody else. An address does and is;
it only finds the account at the first time, and only if the provider has verified it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, select

from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.errors import IdentityTakenError
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import identities


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Somebody, as a provider knows them.

    Attributes:
        issuer: the provider.
        subject: who, at this provider.
        email: the address, which the provider has verified, in small letters.
    """

    issuer: str
    subject: str
    email: str


_OWNER: Final = Statement(
    select(identities.c.user_id).where(identities.c.issuer == words("issuer"), identities.c.subject == words("subject"))
)
_AT: Final = Statement(
    select(identities.c.subject).where(identities.c.user_id == number("user"), identities.c.issuer == words("issuer"))
)
_ADD: Final = Statement(
    insert(identities).values(
        issuer=words("issuer"), subject=words("subject"), user_id=number("user"), created_at=number("now")
    )
)


def owner(transaction: Transaction, identity: Identity) -> int | None:
    """Return the number of the user whose identity it is, None if it is nobody's yet."""
    rows = transaction.rows(_OWNER, issuer=identity.issuer, subject=identity.subject)
    return int(rows[0][0]) if rows else None


def tie(transaction: Transaction, identity: Identity, user_id: int, *, now: int) -> int:
    """Tie an identity to a user, and return whose it is: another's, if it was tied to them meanwhile.

    Raises:
        IdentityTakenError: the user has another identity at this provider. The address may have been given to somebody
            new there.
    """
    found = owner(transaction, identity)
    if found is not None:
        return found
    if transaction.rows(_AT, user=user_id, issuer=identity.issuer):
        # PostgreSQL shows what others commit between two statements: it may be this very identity.
        found = owner(transaction, identity)
        if found is not None:
            return found
        raise IdentityTakenError(
            "The account with this e-mail address belongs to another sign-in at the same provider. "
            "Sign in by a link to the address instead."
        )
    transaction.run(_ADD, issuer=identity.issuer, subject=identity.subject, user=user_id, now=now)
    return user_id

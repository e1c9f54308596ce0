"""Disabling an account: an operator keeps its user out, and may let them in again.

From the moment it is written, nothing is reserved with the user's keys, no session begins, and those that there were
are gone: all three are held by the database's own statements. What is free is refused by this process at once, by
others within :data:`~unmask.gateway.accounts.remembered.CACHE_SECONDS`. A request that was let in before is answered
and charged as it would have been. Nobody disables themself, and only who is not disabled does it: one admin is always
left.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import delete, insert, null, select, update

from unmask.errors import InputError
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.accounts.errors import NoAdminError, UnknownUserError
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.sessions import Sessions
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import acts, sessions, users

_log: Final = logging.getLogger("unmask.audit")

Kind = Literal["disable", "enable"]
#: Characters of a reason.
LONGEST_REASON: Final = 500


@dataclass(frozen=True, kw_only=True)
class Act:
    """What an admin did to an account.

    Attributes:
        id: of it.
        at: microseconds since 1970.
        kind: what was done.
        by: the address of the admin.
        reason: in the admin's words; for admins only.
    """

    id: int
    at: int
    kind: Kind
    by: str
    reason: str


_by: Final = number("by")
#: Both users, in order: PostgreSQL would otherwise let two admins disable each other at the same time.
_LOCK: Final = Statement(
    select(users.c.id).where(users.c.id.in_([number("user"), _by])).order_by(users.c.id).with_for_update(key_share=True)
)
_MAY: Final = Statement(
    select(users.c.id).where(users.c.id == _by, users.c.is_admin == 1, users.c.disabled_at.is_(None))
)
_CHANGE: Final[dict[Kind, Statement]] = {
    "disable": Statement(
        update(users)
        .where(users.c.id == number("user"), users.c.disabled_at.is_(None))
        .values(disabled_at=number("now"))
    ),
    "enable": Statement(
        update(users).where(users.c.id == number("user"), users.c.disabled_at.is_not(None)).values(disabled_at=null())
    ),
}
_END_SESSIONS: Final = Statement(delete(sessions).where(sessions.c.user_id == number("user")))
_NOTE: Final = Statement(
    insert(acts).values(user_id=number("user"), by_id=_by, at=number("now"), kind=words("kind"), reason=words("reason"))
)
_OF_USER: Final = Statement(
    select(acts.c.id, acts.c.at, acts.c.kind, users.c.email, acts.c.reason)
    .select_from(acts.join(users, users.c.id == acts.c.by_id))
    .where(acts.c.user_id == number("user"))
    .order_by(acts.c.id.desc())
    .limit(number("count"))
)


class Disabling:
    """Keeps users of a database out.

    Args:
        database: where they are.
        keyring: of their keys.
        sessions: of theirs.
        clock: the time.
    """

    def __init__(
        self, database: Database, keyring: Keyring, sessions: Sessions, *, clock: Clock = microseconds
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._sessions = sessions
        self._clock = clock

    async def disable(self, user_id: int, *, by: int, reason: str) -> None:
        """Keep a user out, and end their sessions; one who is kept out already stays so.

        Args:
            user_id: who.
            by: the admin who does it.
            reason: for other admins.

        Raises:
            InputError: the reason is none, or the admin is the user.
            NoAdminError: who does it is no admin any more.
            UnknownUserError: there is no such user.
            DatabaseUnavailableError: the database cannot be written now; do it again.
        """
        await self._do("disable", user_id, by, reason)

    async def enable(self, user_id: int, *, by: int, reason: str) -> None:
        """Let a user in again; arguments and errors are those of :meth:`disable`."""
        await self._do("enable", user_id, by, reason)

    async def acts(self, user_id: int, *, count: int = 50) -> list[Act]:
        """Return what was done to an account, the latest first.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        rows = await self._database.read(lambda each: each.rows(_OF_USER, user=user_id, count=count))
        return [Act(id=row[0], at=row[1], kind=row[2], by=row[3], reason=row[4]) for row in rows]

    async def _do(self, kind: Kind, user_id: int, by: int, reason: str) -> None:
        said, now = reason.strip(), self._clock()
        if not 1 <= len(said) <= LONGEST_REASON or "\0" in said:
            raise InputError(f"The reason has {len(said)} characters; expected 1 to {LONGEST_REASON}.")
        if by == user_id:
            raise InputError("This is your own account. Another admin can do that.")

        def operation(transaction: Transaction) -> bool:
            there = {row[0] for row in transaction.rows(_LOCK, user=user_id, by=by)}
            if user_id not in there:
                raise UnknownUserError("There is no such user.")
            if not transaction.rows(_MAY, by=by):
                raise NoAdminError("You are no admin any more. Nothing was changed.")
            at = {"now": now} if kind == "disable" else {}
            if not transaction.run(_CHANGE[kind], user=user_id, **at):
                return False
            transaction.run(_NOTE, user=user_id, by=by, now=now, kind=kind, reason=said)
            transaction.run(_END_SESSIONS, user=user_id)
            return True

        if await self._database.write(operation, user=user_id, durable=True):
            # The reason is in the database: it may hold what no log should.
            _log.warning("an account was %sd", kind, extra={"fields": {"user": user_id, "by": by}})
        self._keyring.forget(user_id)
        self._sessions.forget(user_id)

"""Sessions: who is signed in, in which browser.

The cookie's value is 256 random bits; the database has only their keyed hash, so a copy of it signs nobody in. A new
session gets a new value, whatever the browser sent: there is none that somebody could have planted before.

**How long an ended session works.** In the process that ended it not at all, in others for what they looked up at most
:data:`~unmask.gateway.accounts.remembered.CACHE_SECONDS` ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import LargeBinary, bindparam, delete, insert, select, update

from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import MINUTE, SECOND, Clock, microseconds
from unmask.gateway.accounts.csrf import FormTokens
from unmask.gateway.accounts.errors import UnknownSessionError, UnknownUserError, UserDisabledError
from unmask.gateway.accounts.remembered import Remembered
from unmask.gateway.accounts.tokens import TOKEN_LENGTH, Keyed, new_token
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import sessions, users

#: Seconds after which a session ends that is not used, and after which one ends that is.
IDLE_SECONDS: Final = 14 * 86_400
LONGEST_SECONDS: Final = 60 * 86_400
#: Microseconds between two notes that a session is in use: not every page is worth a write.
_NOTED: Final = 10 * MINUTE


@dataclass(frozen=True, kw_only=True)
class Session:
    """Somebody who is signed in.

    Attributes:
        id: of the session.
        user_id: who.
        created_at: when they signed in; microseconds since 1970, like all times here.
        last_seen_at: when they last came, to ten minutes.
        expires_at: when it ends if they do not come again.
        agent: with what, such as ``Firefox on Windows``; empty if that is not known.
        digest: what is stored of the cookie.
    """

    id: int
    user_id: int
    created_at: int
    last_seen_at: int
    expires_at: int
    agent: str
    digest: bytes = field(repr=False)


_NAMES: Final = ("id", "user_id", "created_at", "last_seen_at", "expires_at", "agent", "digest")
_COLUMNS: Final = tuple(sessions.c[name] for name in _NAMES)
_print: Final = bindparam("print", type_=LargeBinary)
_now: Final = number("now")

_BEGIN: Final = Statement(
    insert(sessions).from_select(
        ["user_id", "digest", "created_at", "last_seen_at", "expires_at", "agent"],
        select(users.c.id, _print, _now, _now, number("until"), words("agent")).where(
            users.c.id == number("user"), users.c.disabled_at.is_(None)
        ),
        include_defaults=False,
    )
)
_STATE_OF_USER: Final = Statement(select(users.c.id).where(users.c.id == number("user")))
_FIND: Final = Statement(select(*_COLUMNS).where(sessions.c.digest == _print))
_OF_USER: Final = Statement(
    select(*_COLUMNS)
    .where(sessions.c.user_id == number("user"), sessions.c.expires_at > _now)
    .order_by(sessions.c.last_seen_at.desc(), sessions.c.id.desc())
    .limit(number("count"))
)
_NOTE: Final = Statement(
    update(sessions)
    .where(sessions.c.id == number("session"), sessions.c.expires_at > _now)
    .values(last_seen_at=_now, expires_at=number("until"))
    .returning(*_COLUMNS)
)
_END: Final = Statement(delete(sessions).where(sessions.c.digest == _print))
_END_ONE: Final = Statement(
    delete(sessions)
    .where(sessions.c.user_id == number("user"), sessions.c.id == number("session"))
    .returning(sessions.c.digest)
)
_END_ALL: Final = Statement(
    delete(sessions).where(sessions.c.user_id == number("user"), sessions.c.id != number("but"))
)
_SWEEP: Final = Statement(
    delete(sessions).where(
        sessions.c.expires_at <= _now,
        sessions.c.id.in_(
            select(sessions.c.id).where(sessions.c.expires_at <= _now).order_by(sessions.c.expires_at).limit(1000)
        ),
    )
)


class Sessions:
    """The sessions of a database's users.

    Args:
        database: where they are.
        secret: the server's. With another one nobody is signed in.
        clock: the time.
        monotonic: seconds, for what is remembered.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(
        self,
        database: Database,
        secret: bytes,
        *,
        clock: Clock = microseconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._keyed = Keyed(secret, "sessions")
        self._forms = FormTokens(secret, "sessions")
        self._clock = clock
        self._remembered = Remembered(self._fetch, monotonic)

    async def begin(self, user_id: int, *, instead_of: str | None = None, agent: str = "") -> str:
        """Sign a user in and return the value of the new session's cookie.

        Args:
            user_id: who has proved to be this user.
            instead_of: the value of the session cookie that the browser sent; that session ends.
            agent: with what they came, for their own list of sessions.

        Raises:
            UnknownUserError: there is no such user.
            UserDisabledError: an operator keeps the user out.
            DatabaseUnavailableError: the database cannot be written now; nobody is signed in.
        """
        cookie, now = new_token(), self._clock()
        values: dict[str, Any] = {"user": user_id, "print": self._keyed.digest(cookie), "now": now}
        former = None if instead_of is None else self._keyed.digest(instead_of)

        def operation(transaction: Transaction) -> None:
            if not transaction.run(_BEGIN, until=now + IDLE_SECONDS * SECOND, agent=agent, **values):
                there = transaction.rows(_STATE_OF_USER, user=user_id)
                raise UserDisabledError if there else UnknownUserError("There is no such user.")
            if former is not None:
                transaction.run(_END, print=former)

        # Beside nobody who disables the user: a session that begins then would outlive it.
        await self._database.write(operation, user=user_id)
        if former is not None:
            self._remembered.forget(former)
        return cookie

    async def find(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie's value; None if it is none, or has ended.

        Raises:
            DatabaseUnavailableError: the database would have to be asked, and cannot answer now.
        """
        if cookie is None or len(cookie) != TOKEN_LENGTH:
            return None
        digest = self._keyed.digest(cookie)
        session = await self._remembered.get(digest)
        now = self._clock()
        if session is None or session.expires_at <= now:
            return None
        return session if now - session.last_seen_at < _NOTED else await self._note(session, now)

    async def end(self, session: Session) -> None:
        """Sign out: end a session, if it has not ended.

        Raises:
            DatabaseUnavailableError: the database cannot be written now; end it again.
        """
        await self._database.write(lambda transaction: transaction.run(_END, print=session.digest), durable=True)
        self._remembered.forget(session.digest)

    async def of(self, user_id: int, *, count: int = 100) -> list[Session]:
        """Return a user's sessions that have not ended, those first that were used last.

        Args:
            user_id: whose.
            count: at most so many.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        values = {"user": user_id, "now": self._clock(), "count": count}
        return [_session(row) for row in await self._database.read(lambda each: each.rows(_OF_USER, **values))]

    async def end_one(self, user_id: int, session_id: int) -> None:
        """End a session of a user's, wherever it is.

        Raises:
            UnknownSessionError: the user has no such session.
            DatabaseUnavailableError: the database cannot be written now; end it again.
        """
        ended = await self._database.write(
            lambda transaction: transaction.rows(_END_ONE, user=user_id, session=session_id), durable=True
        )
        if not ended:
            raise UnknownSessionError("There is no such session. It may have ended.")
        self._remembered.forget(bytes(ended[0][0]))

    async def end_all(self, user_id: int, but: Session | None = None) -> int:
        """End all sessions of a user, or all but one; return how many there were.

        Raises:
            DatabaseUnavailableError: the database cannot be written now; end them again.
        """
        kept = -1 if but is None else but.id
        ended = await self._database.write(
            lambda transaction: transaction.run(_END_ALL, user=user_id, but=kept), durable=True
        )
        self.forget(user_id)
        return ended

    def forget(self, user_id: int) -> None:
        """Look a user's sessions up anew: some have ended."""
        self._remembered.forget(*self._remembered.digests(lambda each: each.user_id == user_id))

    async def sweep(self) -> int:
        """Forget the sessions that have expired, a thousand at most; return how many there were.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        now = self._clock()
        return await self._database.write(lambda transaction: transaction.run(_SWEEP, now=now), hurry=False)

    def csrf_token(self, cookie: str) -> str:
        """Return what the forms for a session hold."""
        return self._forms.of(cookie)

    def check_csrf(self, cookie: str | None, token: str | None) -> None:
        """Refuse a form that was not made for the session it comes from.

        Raises:
            CsrfError: it was not.
        """
        self._forms.check(cookie, token)

    async def _fetch(self, digest: bytes) -> Session | None:
        rows = await self._database.read(lambda transaction: transaction.rows(_FIND, print=digest))
        return _session(rows[0]) if rows else None

    async def _note(self, session: Session, now: int) -> Session | None:
        """Write down that a session is used, which makes it last longer."""
        until = min(now + IDLE_SECONDS * SECOND, session.created_at + LONGEST_SECONDS * SECOND)
        asked = self._remembered.now()
        rows = await self._database.write(
            lambda transaction: transaction.rows(_NOTE, session=session.id, now=now, until=until)
        )
        noted = _session(rows[0]) if rows else None
        self._remembered.keep(session.digest, noted, asked)
        return noted


def _session(row: Row) -> Session:
    return Session(**dict(zip(_NAMES, row, strict=True)))

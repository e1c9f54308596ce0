"""Sessions: begun, found, ended; over in time; nothing in the database that signs anybody in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("cryptography")

from tests.bank import SECRET, Bank, bank
from unmask.gateway.accounts.errors import CsrfError, UnknownUserError
from unmask.gateway.accounts.remembered import CACHE_SECONDS
from unmask.gateway.accounts.sessions import IDLE_SECONDS, LONGEST_SECONDS, Session, Sessions
from unmask.gateway.accounts.tokens import TOKEN_LENGTH, new_token
from unmask.gateway.db.errors import DatabaseUnavailableError

pytest_plugins = ("tests.databases",)

DAY = 86_400


def sessions_of(b: Bank, secret: bytes = SECRET) -> Sessions:
    """Sessions whose memory goes with the clock of the accounts."""
    return Sessions(b.database, secret, clock=b.clock, monotonic=lambda: b.clock.now / 1e6)


async def found(sessions: Sessions, cookie: str) -> Session:
    session = await sessions.find(cookie)
    assert session is not None
    return session


def test_a_session_is_its_users_and_the_cookie_is_nowhere(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, bob = await b.users.add("ada@example.org"), await b.users.add("bob@example.org")
            sessions = sessions_of(b)
            one, two, his = [await sessions.begin(user.id) for user in (ada, ada, bob)]
            assert len({one, two, his}) == 3
            assert len(one) == TOKEN_LENGTH
            session = await found(sessions, one)
            assert session.user_id == ada.id != (await found(sessions, his)).user_id
            assert session.created_at == session.last_seen_at == b.clock.now
            assert session.expires_at == b.clock.now + IDLE_SECONDS * 1_000_000
            assert session != await found(sessions, two)
            changed = one[:-1] + ("A" if one[-1] != "A" else "Q")
            for other in (None, "", new_token(), changed, one + "A", one[:-1], "é" * TOKEN_LENGTH):
                assert await sessions.find(other) is None
            assert await sessions_of(b, SECRET + b"!").find(one) is None
            shown = repr([sessions, session, b.rows("SELECT * FROM sessions")])
            assert one not in shown
            assert repr(session.digest) not in repr(session)
            with pytest.raises(UnknownUserError):
                await sessions.begin(bob.id + 1)

    asyncio.run(scenario())


def test_signing_in_ends_the_session_that_was_there(url: str) -> None:
    """Whatever cookie somebody planted before: it is nobody's, and another one is given."""

    async def scenario() -> None:
        async with bank(url) as b:
            ada, eve = await b.users.add("ada@example.org"), await b.users.add("eve@example.org")
            sessions = sessions_of(b)
            planted = await sessions.begin(eve.id)
            await found(sessions, planted)
            cookie = await sessions.begin(ada.id, instead_of=planted)
            assert cookie != planted
            assert await sessions.find(planted) is None
            free = new_token()
            assert await sessions.begin(ada.id, instead_of=free) != free
            assert await sessions.find(free) is None
            assert (await found(sessions, cookie)).user_id == ada.id

    asyncio.run(scenario())


def test_how_long_sessions_last() -> None:
    assert (IDLE_SECONDS, LONGEST_SECONDS, CACHE_SECONDS) == (14 * DAY, 60 * DAY, 5)


def test_a_session_that_is_not_used_ends(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            cookie = await sessions.begin(ada.id)
            b.clock.skip(IDLE_SECONDS - 1)
            await found(sessions, cookie)
            b.clock.skip(IDLE_SECONDS - 1)
            await found(sessions, cookie)
            b.clock.skip(IDLE_SECONDS)
            assert await sessions.find(cookie) is None

    asyncio.run(scenario())


def test_a_session_that_is_used_ends_too(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            cookie, began = await sessions.begin(ada.id), b.clock.now
            for _ in range(59):
                b.clock.skip(DAY)
                session = await found(sessions, cookie)
            assert session.expires_at == began + LONGEST_SECONDS * 1_000_000
            b.clock.skip(DAY - 1)
            await found(sessions, cookie)
            b.clock.skip(1)
            assert await sessions.find(cookie) is None

    asyncio.run(scenario())


def test_that_a_session_is_used_is_noted_every_ten_minutes(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            cookie, began = await sessions.begin(ada.id), b.clock.now
            b.clock.skip(599)
            assert (await found(sessions, cookie)).last_seen_at == began
            b.clock.skip(1)
            noted = await found(sessions, cookie)
            assert noted.last_seen_at == b.clock.now
            assert noted.expires_at == b.clock.now + IDLE_SECONDS * 1_000_000
            assert b.rows("SELECT last_seen_at FROM sessions") == [(b.clock.now,)]
            assert await found(sessions, cookie) == noted

    asyncio.run(scenario())


def test_what_was_ended_opens_nothing(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            ada, sessions, others = await b.users.add("ada@example.org"), sessions_of(b), sessions_of(elsewhere)
            cookie = await sessions.begin(ada.id)
            session = await found(sessions, cookie)
            assert await found(others, cookie) == session
            await sessions.end(session)
            assert await sessions.find(cookie) is None
            await sessions.end(session)
            elsewhere.clock.skip(CACHE_SECONDS)
            assert await others.find(cookie) == session  # as documented
            elsewhere.clock.skip(0.001)
            assert await others.find(cookie) is None

    asyncio.run(scenario())


def test_a_note_revives_no_session_that_was_ended_elsewhere(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            still = Sessions(elsewhere.database, SECRET, clock=elsewhere.clock, monotonic=lambda: 0.0)
            cookie = await sessions.begin(ada.id)
            session = await found(still, cookie)
            await sessions.end(session)
            elsewhere.clock.skip(600)
            assert await still.find(cookie) is None
            assert await still.find(cookie) is None

    asyncio.run(scenario())


def test_all_sessions_of_a_user_end_but_the_one_that_asks(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, bob = await b.users.add("ada@example.org"), await b.users.add("bob@example.org")
            sessions = sessions_of(b)
            cookies = [await sessions.begin(ada.id) for _ in range(4)]
            his = await sessions.begin(bob.id)
            here, *_ = [await found(sessions, cookie) for cookie in [*cookies, his]]
            assert await sessions.end_all(ada.id, but=here) == 3
            assert [await sessions.find(cookie) is None for cookie in cookies] == [False, True, True, True]
            assert await sessions.end_all(ada.id) == 1
            assert await sessions.find(cookies[0]) is None
            assert (await found(sessions, his)).user_id == bob.id

    asyncio.run(scenario())


def test_a_session_that_ends_while_it_is_looked_up_is_not_remembered(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            cookie = await sessions.begin(ada.id)
            read = b.database.read

            async def slow(run: Any) -> Any:
                rows = await read(run)
                await sessions.end_all(ada.id)
                return rows

            b.database.read = slow  # type: ignore[method-assign]
            await sessions.find(cookie)
            b.database.read = read  # type: ignore[method-assign]
            assert await sessions.find(cookie) is None

    asyncio.run(scenario())


def test_the_expired_are_swept(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            for _ in range(3):
                await sessions.begin(ada.id)
            b.clock.skip(IDLE_SECONDS - 1)
            cookie = await sessions.begin(ada.id)
            assert await sessions.sweep() == 0
            b.clock.skip(1)
            assert await sessions.sweep() == 3
            assert await found(sessions, cookie)

    asyncio.run(scenario())


def test_the_database_is_asked_every_five_seconds(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            cookie = await sessions.begin(ada.id)
            await found(sessions, cookie)
        b.clock.skip(CACHE_SECONDS)
        await found(sessions, cookie)
        b.clock.skip(0.001)
        with pytest.raises(DatabaseUnavailableError):  # nobody is let in
            await sessions.find(cookie)

    asyncio.run(scenario())


def test_a_form_is_of_its_session(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, sessions = await b.users.add("ada@example.org"), sessions_of(b)
            one, two = [await sessions.begin(ada.id) for _ in range(2)]
            sessions.check_csrf(one, sessions.csrf_token(one))
            assert one not in sessions.csrf_token(one)
            for cookie, token in ((one, sessions.csrf_token(two)), (None, sessions.csrf_token(one)), (one, None)):
                with pytest.raises(CsrfError):
                    sessions.check_csrf(cookie, token)

    asyncio.run(scenario())

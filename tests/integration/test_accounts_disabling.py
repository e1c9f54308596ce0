"""Disabled accounts: nothing is reserved, nobody signs in, at once and in every process; and an admin is left."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("cryptography")

from tests.bank import SECRET, Bank, bank, order, outcomes
from unmask.errors import InputError
from unmask.gateway.accounts.disabling import LONGEST_REASON, Disabling
from unmask.gateway.accounts.errors import NoAdminError, UnknownUserError, UserDisabledError
from unmask.gateway.accounts.identities import Identity
from unmask.gateway.accounts.joining import Joining
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.money import Hold
from unmask.gateway.accounts.remembered import CACHE_SECONDS
from unmask.gateway.accounts.sessions import Sessions
from unmask.gateway.db.statements import Transaction

pytest_plugins = ("tests.databases",)


def sessions_of(b: Bank) -> Sessions:
    return Sessions(b.database, SECRET, clock=b.clock, monotonic=lambda: b.clock.now / 1e6)


def disabling_of(b: Bank, keyring: Keyring | None = None, sessions: Sessions | None = None) -> Disabling:
    return Disabling(b.database, keyring or b.keyring, sessions or sessions_of(b), clock=b.clock)


def joining_of(b: Bank) -> Joining:
    return Joining(b.database, b.users, b.ledger, free_credit=10, secret=SECRET, clock=b.clock)


async def admin(b: Bank, name: str = "boss") -> int:
    user = await b.users.add(f"{name}@example.org")
    return (await b.users.set_admin(user.id, True)).id


def test_keys_open_nothing_and_what_is_under_way_is_charged(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            now = [0.0]
            remembering = Keyring(elsewhere.database, SECRET, clock=elsewhere.clock, monotonic=lambda: now[0])
            boss = await admin(b)
            ada, key, secret = await b.customer(credit=100)
            _, his, others = await b.customer(credit=10, email="bob@example.org")
            for keyring in (b.keyring, remembering):
                await keyring.authenticate(secret.reveal())
            before = [await each.ledger.reserve(order(key, 10)) for each in (b, elsewhere)]
            await disabling_of(b).disable(ada.id, by=boss, reason="does not pay")
            # For what is paid everywhere at once; for what is free here at once, elsewhere within the bound.
            for each in (b, elsewhere):
                with pytest.raises(UserDisabledError, match="is disabled. Ask whoever runs this server"):
                    await each.ledger.reserve(order(key, 0))
                with pytest.raises(UserDisabledError):
                    await each.keyring.issue(ada.id, "another")
                with pytest.raises(UserDisabledError):
                    await each.keyring.rotate(ada.id, key.id, overlap_seconds=0)
            with pytest.raises(UserDisabledError):
                await b.keyring.authenticate(secret.reveal())
            now[0] = CACHE_SECONDS
            assert (await remembering.authenticate(secret.reveal())).disabled_at is None
            now[0] = CACHE_SECONDS + 0.001
            with pytest.raises(UserDisabledError):
                await remembering.authenticate(secret.reveal())
            one, other = outcomes(before, Hold)
            assert await b.ledger.settle(one, 7) == 7
            assert await elsewhere.ledger.release(other)
            assert (await b.ledger.balance(ada.id)).available == 93
            # Nobody else is touched, and what it was before it is again.
            assert isinstance(await b.ledger.reserve(order(his)), Hold)
            await b.keyring.authenticate(others.reveal())
            await disabling_of(b).enable(ada.id, by=boss, reason="has paid")
            assert isinstance(await elsewhere.ledger.reserve(order(key)), Hold)
            assert (await b.keyring.authenticate(secret.reveal())).id == key.id
            await b.require_sound()

    asyncio.run(scenario())


def test_sessions_end_and_none_begins(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            boss, sessions, others = await admin(b), sessions_of(b), sessions_of(elsewhere)
            identity = Identity(issuer="https://id.example", subject="7", email="ada@example.org")
            ada, _ = await joining_of(b).enter_with(identity)
            bob = await b.users.add("bob@example.org")
            cookies = [await each.begin(ada.id) for each in (sessions, others, sessions)]
            his = await sessions.begin(bob.id)
            assert all([await each.find(cookie) for each in (sessions, others) for cookie in cookies])
            await disabling_of(b, sessions=sessions).disable(ada.id, by=boss, reason="x")
            assert b.rows("SELECT user_id FROM sessions") == [(bob.id,)]
            assert [await sessions.find(cookie) for cookie in cookies] == [None] * 3
            assert (await b.users.get(ada.id)).disabled_at == b.clock.now  # pages of every process look here
            elsewhere.clock.skip(CACHE_SECONDS + 0.001)
            assert [await others.find(cookie) for cookie in cookies] == [None] * 3
            assert await sessions.find(his)
            for each in (b, elsewhere):
                with pytest.raises(UserDisabledError):
                    await joining_of(each).enter("ada@example.org")
                with pytest.raises(UserDisabledError):
                    await joining_of(each).enter_with(identity)
                with pytest.raises(UserDisabledError):
                    await sessions_of(each).begin(ada.id)
            # Another address at the provider, the same account.
            moved = Identity(issuer=identity.issuer, subject="7", email="new@example.org")
            with pytest.raises(UserDisabledError):
                await joining_of(b).enter_with(moved)
            await disabling_of(b).enable(ada.id, by=boss, reason="y")
            assert (await joining_of(b).enter_with(moved))[0].id == ada.id
            assert [await sessions.find(cookie) for cookie in cookies] == [None] * 3

    asyncio.run(scenario())


def test_a_new_account_is_not_welcomed_while_it_is_disabled(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            boss, ada = await admin(b), await b.users.add("ada@example.org")
            await disabling_of(b).disable(ada.id, by=boss, reason="x")
            with pytest.raises(UserDisabledError):
                await joining_of(b).enter("ada@example.org")
            assert await b.ledger.entries(ada.id) == []
            assert (await b.users.get(ada.id)).verified_at is None

    asyncio.run(scenario())


async def disabled_while_others_ask(b: Bank, elsewhere: Bank, boss: int, email: str) -> None:
    """Disable a customer while two processes ask for everything; fail if one is let in after it was written."""
    user, key, _ = await b.customer(credit=1000, email=email)
    written = asyncio.Event()
    late: list[object] = []

    async def ask(at: Bank) -> None:
        for _ in range(12):
            over = written.is_set()
            asked = at.ledger.reserve(order(key)), sessions_of(at).begin(user.id), at.keyring.issue(user.id, "more")
            done = await asyncio.gather(*asked, return_exceptions=True)
            late.extend(done if over else [])

    async def stop() -> None:
        await asyncio.sleep(0)
        await disabling_of(b).disable(user.id, by=boss, reason="x")
        written.set()

    await asyncio.gather(ask(b), ask(elsewhere), stop())
    await asyncio.gather(ask(b), ask(elsewhere))
    assert len(late) >= 2 * 12 * 3
    assert len(outcomes(late, UserDisabledError)) == len(late)
    assert b.rows(f"SELECT count(*) FROM sessions WHERE user_id = {user.id}") == [(0,)]


def test_once_it_is_written_nothing_is_let_in_whatever_happens_at_the_same_time(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            boss = await admin(b)
            for number in range(5):
                await disabled_while_others_ask(b, elsewhere, boss, f"user{number}@example.org")
            await b.require_sound()

    asyncio.run(scenario())


def test_a_session_that_began_a_moment_before_ends_too(url: str) -> None:
    """The row of another process's session is not to be seen before it commits."""

    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            boss, ada = await admin(b), await b.users.add("ada@example.org")
            written, over, real = threading.Event(), threading.Event(), elsewhere.database.write

            async def slow(run: Callable[[Transaction], Any], **options: Any) -> Any:
                def operation(transaction: Transaction) -> Any:
                    found = run(transaction)
                    written.set()
                    if url.startswith("postgresql"):  # SQLite has one writer, and the loop itself is it
                        over.wait(0.5)
                    return found

                return await real(operation, **options)

            elsewhere.database.write = slow  # type: ignore[method-assign]
            begins = asyncio.create_task(sessions_of(elsewhere).begin(ada.id))
            await asyncio.to_thread(written.wait, 20)
            await disabling_of(b).disable(ada.id, by=boss, reason="x")
            over.set()
            await begins
            assert b.rows("SELECT count(*) FROM sessions") == [(0,)]

    asyncio.run(scenario())


def test_two_admins_who_disable_each_other_at_once_are_one_and_one(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            for number in range(10):
                one, other = await admin(b, f"one{number}"), await admin(b, f"other{number}")
                results = await asyncio.gather(
                    disabling_of(b).disable(one, by=other, reason="x"),
                    disabling_of(elsewhere).disable(other, by=one, reason="x"),
                    return_exceptions=True,
                )
                assert sorted(type(each).__name__ for each in results) == ["NoAdminError", "NoneType"]
                left = [(await b.users.get(each)).disabled_at is None for each in (one, other)]
                assert sorted(left) == [False, True]

    asyncio.run(scenario())


def test_who_may_and_why_is_kept(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            boss, second = await admin(b), await admin(b, "second")
            ada = await b.users.add("ada@example.org")
            disabling = disabling_of(b)
            with pytest.raises(InputError, match="your own account"):
                await disabling.disable(boss, by=boss, reason="x")
            for reason in ("", "  ", "x" * (LONGEST_REASON + 1), "a\0b"):
                with pytest.raises(InputError, match="expected 1 to 500"):
                    await disabling.disable(ada.id, by=boss, reason=reason)
            with pytest.raises(NoAdminError):
                await disabling.disable(boss, by=ada.id, reason="x")
            with pytest.raises(UnknownUserError):
                await disabling.disable(9999, by=boss, reason="x")
            assert await disabling.acts(ada.id) == []
            with caplog.at_level(logging.WARNING, logger="unmask.audit"):
                await disabling.disable(ada.id, by=boss, reason=" spam from ada@example.org ")
                await disabling.disable(ada.id, by=second, reason="again")  # it is already
                b.clock.skip(60)
                await disabling.enable(ada.id, by=second, reason="it was another")
            said = [(record.getMessage(), record.__dict__["fields"]) for record in caplog.records]
            assert said == [
                ("an account was disabled", {"user": ada.id, "by": boss}),
                ("an account was enabled", {"user": ada.id, "by": second}),
            ]
            assert "ada@" not in repr(said)
            latest, first = await disabling.acts(ada.id)
            assert (first.kind, first.by, first.reason) == ("disable", "boss@example.org", "spam from ada@example.org")
            assert (latest.kind, latest.by, latest.at - first.at) == ("enable", "second@example.org", 60_000_000)
            # An admin who is disabled does nothing any more.
            await disabling.disable(second, by=boss, reason="left")
            with pytest.raises(NoAdminError):
                await disabling.disable(boss, by=second, reason="revenge")

    asyncio.run(scenario())

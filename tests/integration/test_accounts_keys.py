"""Keys: made, looked up, limited to models, rotated, revoked; and never seen again."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import SECRET, bank, order, outcomes, raw
from unmask.errors import InputError
from unmask.gateway.accounts.errors import (
    KeyExpiredError,
    KeyModelError,
    KeyRefusedError,
    KeyRevokedError,
    MalformedKeyError,
    SpendingError,
    TooManyKeysError,
    UnknownKeyError,
    UnknownKeyIdError,
    UnknownUserError,
    UserExistsError,
)
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.keys import KeyLimits
from unmask.gateway.accounts.remembered import CACHE_SECONDS
from unmask.gateway.db.errors import DatabaseUnavailableError

pytest_plugins = ("tests.databases",)


def test_a_key_opens_its_account_and_no_other_does(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, secret = await b.customer()
            other, _, another = await b.customer(email="bob@example.org")
            found = await b.keyring.authenticate(secret.reveal())
            assert (found, found.user_id, found.shown) == (key, user.id, secret.shown)
            assert (await b.keyring.authenticate(another.reveal())).user_id == other.id
            with pytest.raises(UnknownKeyError):
                await b.keyring.authenticate(ApiKey.new().reveal())
            with pytest.raises(MalformedKeyError):
                await b.keyring.authenticate(secret.reveal()[:-1] + "*")
            with pytest.raises(UnknownKeyError):
                await Keyring(b.database, SECRET + b"!", clock=b.clock).authenticate(secret.reveal())

    asyncio.run(scenario())


def test_a_typing_error_is_told_without_the_database(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bank(f"sqlite:///{tmp_path}/a.db") as b:
            _, _, secret = await b.customer()
        with pytest.raises(MalformedKeyError):
            await b.keyring.authenticate(secret.reveal()[:-1] + "*")
        with pytest.raises(DatabaseUnavailableError):  # it is closed: nothing is let in
            await b.keyring.authenticate(secret.reveal())

    asyncio.run(scenario())


def test_a_key_expires(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, _, _ = await b.customer()
            key, secret = await b.keyring.issue(user.id, "short", expires_at=b.clock.now + 60_000_000)
            b.clock.skip(59.9)
            assert await b.keyring.authenticate(secret.reveal()) == key
            b.clock.skip(0.1)  # though it is remembered
            with pytest.raises(KeyExpiredError, match="has expired"):
                await b.keyring.authenticate(secret.reveal())

    asyncio.run(scenario())


def test_a_key_is_for_its_models(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, _, _ = await b.customer()
            _, secret = await b.keyring.issue(user.id, "two", models=frozenset({"a", "b"}))
            key = await b.keyring.authenticate(secret.reveal())
            key.require_model("a")
            with pytest.raises(KeyModelError, match="'c'"):
                key.require_model("c")
            free, _ = await b.keyring.issue(user.id, "all")
            free.require_model("c")

    asyncio.run(scenario())


def test_a_revoked_key_opens_nothing(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            now = [0.0]
            remembering = Keyring(other.database, SECRET, clock=other.clock, monotonic=lambda: now[0])
            user, key, secret = await one.customer(credit=10)
            await one.keyring.authenticate(secret.reveal())
            await remembering.authenticate(secret.reveal())
            one.clock.skip(1)
            revoked = await one.keyring.revoke(user.id, key.id)
            assert revoked.revoked_at == one.clock.now
            one.clock.skip(1)
            assert await one.keyring.revoke(user.id, key.id) == revoked
            # At once here, and for what is paid everywhere; elsewhere within the bound.
            with pytest.raises(KeyRevokedError, match="was revoked"):
                await one.keyring.authenticate(secret.reveal())
            with pytest.raises(KeyRevokedError):
                await other.ledger.reserve(order(key))
            now[0] = CACHE_SECONDS
            assert (await remembering.authenticate(secret.reveal())).revoked_at is None
            now[0] = CACHE_SECONDS + 0.001
            with pytest.raises(KeyRevokedError):
                await remembering.authenticate(secret.reveal())

    asyncio.run(scenario())


def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, secret = await b.customer()
            read = b.database.read

            async def slow(run: Any) -> Any:
                found = await read(run)
                await b.keyring.revoke(user.id, key.id)
                return found

            b.database.read = slow  # type: ignore[method-assign]
            await b.keyring.authenticate(secret.reveal())
            b.database.read = read  # type: ignore[method-assign]
            with pytest.raises(KeyRevokedError):
                await b.keyring.authenticate(secret.reveal())

    asyncio.run(scenario())


def test_a_key_in_use_is_looked_up_before_what_is_remembered_is_too_old(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            now = [0.0]
            keyring = Keyring(b.database, SECRET, clock=b.clock, monotonic=lambda: now[0])
            user, key, secret = await b.customer()
            await keyring.authenticate(secret.reveal())
            read, waiting, failing = b.database.read, asyncio.Event(), [True]

            async def slow(run: Any) -> Any:
                await waiting.wait()
                if failing[0]:
                    raise DatabaseUnavailableError("away")
                return await read(run)

            b.database.read = slow  # type: ignore[method-assign]
            await b.keyring.revoke(user.id, key.id)  # by another process
            now[0] = CACHE_SECONDS / 2 + 0.1
            for _ in range(3):  # answered at once, while it is looked up
                assert await keyring.authenticate(secret.reveal()) == key
            waiting.set()
            while keyring._remembered._asked:  # the database is away: what is remembered still holds
                await asyncio.sleep(0.001)
            assert await keyring.authenticate(secret.reveal()) == key  # and it is looked up again
            failing[0] = False
            while keyring._remembered._asked:
                await asyncio.sleep(0.001)
            with pytest.raises(KeyRevokedError):
                await keyring.authenticate(secret.reveal())

    asyncio.run(scenario())
    assert "never retrieved" not in caplog.text


def test_requests_at_once_share_a_look_up(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, secret = await b.customer()
            read, count = b.database.read, [0]

            async def counted(run: Any) -> Any:
                count[0] += 1
                return await read(run)

            b.database.read = counted  # type: ignore[method-assign]
            first = asyncio.create_task(b.keyring.authenticate(secret.reveal()))
            asked = [asyncio.create_task(b.keyring.authenticate(secret.reveal())) for _ in range(20)]
            await asyncio.sleep(0)
            first.cancel()  # does not cancel it for the others
            assert {found.id for found in await asyncio.gather(*asked)} == {key.id}
            assert count == [1]
            await b.keyring.authenticate(secret.reveal())
            assert count == [1]

    asyncio.run(scenario())


def test_a_rotated_key_works_beside_the_new_one_for_a_while(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            limits = KeyLimits(spend_per_day=10, requests_per_minute=100)
            user, _, _ = await b.customer(credit=100)
            old, before = await b.keyring.issue(user.id, "mine", models=frozenset("m"), limits=limits)
            await b.ledger.reserve(order(old, 6))
            new, after = await b.keyring.rotate(user.id, old.id, overlap_seconds=60)
            assert after.reveal() != before.reveal()
            assert (new.name, new.models, new.limits, new.expires_at) == ("mine", old.models, limits, None)
            for secret in (before, after):
                await b.keyring.authenticate(secret.reveal())
            # Rotating is no way around a limit.
            with pytest.raises(SpendingError):
                await b.ledger.reserve(order(new, 5))
            b.clock.skip(60)
            with pytest.raises(KeyExpiredError):
                await b.keyring.authenticate(before.reveal())
            with pytest.raises(KeyExpiredError):
                await b.keyring.rotate(user.id, old.id, overlap_seconds=60)
            assert await b.keyring.authenticate(after.reveal()) == new
            await b.require_sound()

    asyncio.run(scenario())


def test_rotating_never_makes_a_key_last_longer(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, _, _ = await b.customer()
            end = b.clock.now + 30_000_000
            old, _ = await b.keyring.issue(user.id, "short", expires_at=end)
            new, _ = await b.keyring.rotate(user.id, old.id, overlap_seconds=3600)
            assert [key.expires_at for key in await b.keyring.of(user.id)][1:] == [end, end]
            with pytest.raises(InputError, match="overlap"):
                await b.keyring.rotate(user.id, new.id, overlap_seconds=-1)
            await b.keyring.revoke(user.id, new.id)
            with pytest.raises(KeyRevokedError):
                await b.keyring.rotate(user.id, new.id, overlap_seconds=0)

    asyncio.run(scenario())


def test_nobody_touches_another_users_keys(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, key, secret = await b.customer()
            bob, _, _ = await b.customer(email="bob@example.org")
            with pytest.raises(UnknownKeyIdError):
                await b.keyring.revoke(bob.id, key.id)
            with pytest.raises(UnknownKeyIdError):
                await b.keyring.rotate(bob.id, key.id, overlap_seconds=0)
            assert [each.user_id for each in await b.keyring.of(bob.id)] == [bob.id]
            assert (await b.keyring.authenticate(secret.reveal())).user_id == ada.id
            with pytest.raises(UnknownUserError):
                await b.keyring.issue(ada.id + 99, "nobody's")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "a\nb"},
        {"name": "a" * 101},
        {"expires_at": 1},
        {"models": frozenset()},
        {"models": frozenset(map(str, range(1001)))},
    ],
)
def test_keys_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with bank(f"sqlite:///{tmp_path}/a.db") as b:
            user, _, _ = await b.customer()
            with pytest.raises(InputError):
                await b.keyring.issue(user.id, **({"name": "good"} | options))
            assert len(await b.keyring.of(user.id)) == 1

    asyncio.run(scenario())


def test_the_last_use_is_known(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=10)
            assert (await b.keyring.of(user.id))[0].last_used_at is None
            b.clock.skip(5)
            await b.ledger.reserve(order(key))
            assert (await b.keyring.of(user.id))[0].last_used_at == b.clock.now

    asyncio.run(scenario())


def test_users_have_an_address_each(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user = await b.users.add(" Ada@Example.org ")
            assert user.email == "ada@example.org"
            assert await b.users.get(user.id) == await b.users.find("ADA@example.org") == user
            with pytest.raises(UserExistsError):
                await b.users.add("ada@example.org")
            with pytest.raises(UnknownUserError):
                await b.users.get(user.id + 1)
            with pytest.raises(UnknownUserError):
                await b.users.find("bob@example.org")
            for address in ("", "ada", "@b", "a@", "a b@c", "a@b\n.c", "a" * 251 + "@b.c"):
                with pytest.raises(InputError):
                    await b.users.add(address)

    asyncio.run(scenario())


def test_two_processes_that_add_a_user_make_one(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            asked = [gateway.users.add("ada@example.org") for _ in range(8) for gateway in (one, other)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(result, UserExistsError) for result in results) == 15
            await one.require_sound()

    asyncio.run(scenario())


def test_no_key_is_seen_again(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the database, in what is logged, in what objects show, nor in errors and their causes."""
    seen: list[str] = []

    async def scenario() -> None:
        async with bank(url) as b:
            user, key, secret = await b.customer(credit=1)
            _, expired = await b.keyring.issue(user.id, "short", expires_at=b.clock.now + 1)
            b.clock.skip(1)
            rotated, newer = await b.keyring.rotate(user.id, key.id, overlap_seconds=0)
            secrets.extend([secret, expired, newer, ApiKey.new()])
            await b.keyring.revoke(user.id, rotated.id)
            wrong = newer.reveal()[:-1] + ("a" if newer.reveal()[-1] != "a" else "b")
            for text in [*(each.reveal() for each in secrets), wrong, newer.reveal() + "\n"]:
                try:
                    seen.append(repr(await b.keyring.authenticate(text)))
                except KeyRefusedError as error:
                    seen.append("".join(traceback.format_exception(error)))
            seen.extend(repr(each) for each in [secrets, key, rotated, b, b.keyring, await b.keyring.of(user.id)])
            tables = ("keys", "users", "entries", "key_usage")
            seen.extend(repr(raw(url, f"SELECT * FROM {table}")) for table in tables)
            assert SECRET.decode() not in "".join(seen)
        try:
            await b.keyring.authenticate(secrets[3].reveal())
        except DatabaseUnavailableError as error:
            seen.append("".join(traceback.format_exception(error)))

    secrets: list[ApiKey] = []
    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario(), debug=True)
    everything = "".join(seen) + caplog.text
    assert "revoked" in everything
    for secret in secrets:
        for place in range(7, 33):
            assert secret.reveal()[place : place + 8] not in everything


def test_a_user_has_so_many_keys_that_work_and_no_race_gets_more(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b, bank(url) as elsewhere:
            rings = [Keyring(each.database, SECRET, most_keys=5, clock=b.clock) for each in (b, elsewhere)]
            ada, bob = await b.users.add("ada@example.org"), await b.users.add("bob@example.org")
            asked = [rings[number % 2].issue(ada.id, f"key {number}") for number in range(24)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert len(outcomes(results, tuple)) == 5
            assert len(outcomes(results, TooManyKeysError)) == 19
            assert "You have 5 keys that work" in str(outcomes(results, TooManyKeysError)[0])
            # A rotation with both at work needs room, too; without overlap it takes the other's.
            first, *_ = await rings[0].of(ada.id)
            rotated = await asyncio.gather(
                *(ring.rotate(ada.id, first.id, overlap_seconds=60) for ring in rings), return_exceptions=True
            )
            assert len(outcomes(rotated, TooManyKeysError)) == 2
            await rings[0].rotate(ada.id, first.id, overlap_seconds=0)
            assert sum(key.is_live(b.clock.now) for key in await rings[0].of(ada.id)) == 5
            # What was revoked or has ended makes room; others' keys take none.
            await rings[1].issue(bob.id, "his")
            with pytest.raises(TooManyKeysError):
                await rings[1].issue(ada.id, "sixth")
            await rings[1].revoke(ada.id, (await rings[1].of(ada.id))[-1].id)
            await rings[0].issue(ada.id, "short", expires_at=b.clock.now + 1_000_000)
            with pytest.raises(TooManyKeysError):
                await rings[0].issue(ada.id, "sixth")
            b.clock.skip(1)
            results = await asyncio.gather(
                *(ring.issue(ada.id, "last") for ring in rings for _ in range(4)), return_exceptions=True
            )
            assert len(outcomes(results, tuple)) == 1

    asyncio.run(scenario())

"""What pages show of accounts: users, usage by day, wishes, calls; on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import Bank, bank, raw
from unmask.errors import InputError
from unmask.gateway.accounts.errors import UnknownUserError
from unmask.gateway.accounts.keys import Key
from unmask.gateway.accounts.money import Hold, Order
from unmask.gateway.accounts.pulls import Calls
from unmask.gateway.accounts.usage import DayUsage, Usage, UserUsage, date_of, day_of
from unmask.gateway.accounts.wishes import Wishes
from unmask.gateway.db.migrating import downgrade, upgrade

pytest_plugins = ("tests.databases",)

#: That of the clock.
TODAY = date(2026, 11, 23)
DAY = 86_400


async def spend(b: Bank, key: Key, model: str, units: int, amount: int) -> None:
    """Have a request answered and charged."""
    some = Order(user_id=key.user_id, key_id=key.id, amount=amount, model=model, units=units, tokens=units)
    hold = await b.ledger.reserve(some)
    assert isinstance(hold, Hold)
    await b.ledger.settle(hold)


def used(day: date, model: str, requests: int, units: int, amount: int) -> DayUsage:
    return DayUsage(day=day, model=model, requests=requests, units=units, amount=amount)


def test_usage_by_day_is_what_was_charged(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            usage = Usage(b.database, clock=b.clock)
            ada, key, _ = await b.customer(credit=1000)
            bob, other, _ = await b.customer(credit=1000, email="bob@example.org")
            assert await usage.by_day(ada.id) == []
            await spend(b, key, "m", 10, 3)
            b.clock.skip(DAY)
            for _ in range(2):
                await spend(b, key, "m", 10, 4)
            await spend(b, key, "n", 5, 0)
            await spend(b, other, "m", 7, 70)
            # Neither is charged: nothing was used.
            held = await b.ledger.reserve(Order(user_id=ada.id, key_id=key.id, amount=9, model="m", units=9, tokens=9))
            await b.ledger.release(held)  # type: ignore[arg-type]
            await b.ledger.credit(ada.id, -1, "correction", reference="c")
            tomorrow = TODAY + timedelta(days=1)
            assert await usage.by_day(ada.id) == [
                used(TODAY, "m", 1, 10, 3),
                used(tomorrow, "m", 2, 20, 8),
                used(tomorrow, "n", 1, 5, 0),
            ]
            assert await usage.by_day(ada.id, days=1) == [used(tomorrow, "m", 2, 20, 8), used(tomorrow, "n", 1, 5, 0)]
            assert await usage.totals(days=1) == [used(tomorrow, "m", 3, 27, 78), used(tomorrow, "n", 1, 5, 0)]
            first = UserUsage(user_id=bob.id, email="bob@example.org", requests=1, units=7, amount=70)
            second = UserUsage(user_id=ada.id, email="ada@example.org", requests=4, units=35, amount=11)
            assert await usage.top_users() == [first, second]
            assert await usage.top_users(count=1) == [first]
            b.clock.skip(30 * DAY)
            assert await usage.by_day(ada.id) == await usage.totals() == []
            assert await usage.top_users() == []
            await b.require_sound()

    asyncio.run(scenario())


def test_moving_up_adds_the_charges_up(url: str) -> None:
    async def before() -> list[DayUsage]:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            for _ in range(3):
                await spend(b, key, "m", 2, 5)
            b.clock.skip(DAY)
            await spend(b, key, "m", 1, 1)
            return await Usage(b.database, clock=b.clock).by_day(key.user_id)

    async def after() -> list[DayUsage]:
        async with bank(url) as b:
            await b.require_sound()
            b.clock.skip(DAY)
            return await Usage(b.database, clock=b.clock).by_day(1)

    found = asyncio.run(before())
    assert [each.amount for each in found] == [15, 1]
    downgrade(url, "0004")
    upgrade(url)
    assert asyncio.run(after()) == found


def test_days_are_counted_from_1970() -> None:
    assert (date_of(0), day_of(date(1970, 1, 2))) == (date(1970, 1, 1), 1)
    assert date_of(day_of(TODAY)) == TODAY


def test_a_wish_counts_once_a_user(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            wishes = [Wishes(each.database, clock=one.clock) for each in (one, other)]
            ada, _, _ = await one.customer()
            bob, _, _ = await one.customer(email="bob@example.org")
            asked = [each.wish(ada.id, "llama") for each in wishes * 4]
            assert set(await asyncio.gather(*asked)) == {1}
            assert await wishes[1].wish(bob.id, "llama") == 2
            await wishes[0].wish(bob.id, "mistral")
            assert await wishes[0].counts() == {"llama": 2, "mistral": 1}
            assert await wishes[1].of_user(bob.id) == {"llama", "mistral"}
            for _ in range(2):
                assert await wishes[0].unwish(ada.id, "llama") == 1
            assert await wishes[0].of_user(ada.id) == set()
            assert await wishes[0].unwish(bob.id, "llama") == 0
            assert await wishes[0].counts() == {"mistral": 1}
            with pytest.raises(UnknownUserError):
                await wishes[0].wish(bob.id + 99, "llama")
            for slug in ("", "a" * 201, "a\nb"):
                with pytest.raises(InputError):
                    await wishes[0].wish(bob.id, slug)

    asyncio.run(scenario())


def test_calls_of_a_month(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            counts = [Calls(each.database, clock=one.clock) for each in (one, other)]
            assert await counts[0].last_month() == {}
            await asyncio.gather(*(each.add("m", TODAY, 10) for each in counts * 8))
            await counts[0].add("m", TODAY - timedelta(days=29), 5)
            await counts[0].add("m", TODAY - timedelta(days=30), 1000)
            await counts[0].add("n", TODAY, 2)
            assert await counts[1].last_month() == {"m": 165, "n": 2}
            for count in (0, -1):
                with pytest.raises(InputError):
                    await counts[0].add("m", TODAY, count)
            # Old counts do not stay for ever.
            one.clock.skip(400 * DAY)
            await counts[0].add("n", TODAY + timedelta(days=400), 1)
            assert raw(url, "SELECT slug, count FROM calls") == [("n", 1)]

    asyncio.run(scenario())


def test_an_address_is_verified_once(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            user = await one.users.add("ada@example.org")
            assert (user.verified_at, user.admin) == (None, False)
            results = await asyncio.gather(*(each.users.verify(user.id) for each in (one, other) * 8))
            assert sorted(results) == [False] * 15 + [True]
            found = await other.users.get(user.id)
            assert found.verified_at == one.clock.now
            one.clock.skip(1)
            assert not await one.users.verify(user.id)
            assert await one.users.find("ada@example.org") == found
            with pytest.raises(UnknownUserError):
                await one.users.verify(user.id + 99)

    asyncio.run(scenario())


def test_an_operator_is_made_and_unmade(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            ada, bob = [await b.users.add(f"{name}@example.org") for name in ("ada", "bob")]
            assert (await b.users.set_admin(ada.id, True)).admin
            assert (await b.users.get(ada.id)).admin
            assert not (await b.users.get(bob.id)).admin
            assert not (await b.users.set_admin(ada.id, False)).admin
            with pytest.raises(UnknownUserError):
                await b.users.set_admin(bob.id + 99, True)

    asyncio.run(scenario())


def test_users_are_listed_and_searched(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            addresses = ["ada@example.org", "a_b@example.org", "axb@example.com", "50%!@example.com"]
            users = [await b.users.add(address) for address in addresses]
            latest = list(reversed(users))
            assert await b.users.list() == latest
            assert await b.users.list(count=2) == latest[:2]
            assert await b.users.list(before=latest[1].id) == latest[2:]
            for query, found in (
                ("EXAMPLE.org ", users[1::-1]),
                ("a_b", users[1:2]),
                ("%", users[3:]),
                ("%!", users[3:]),
            ):
                assert await b.users.list(query) == found
            assert await b.users.list("nobody") == []

    asyncio.run(scenario())

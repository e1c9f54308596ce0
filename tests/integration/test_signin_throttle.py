"""What is done too often is refused, by all processes together."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("cryptography")

import psycopg

from tests.bank import SECRET, bank, outcomes
from tests.postgresql import Cluster
from unmask.errors import InputError
from unmask.gateway.accounts.errors import ThrottledError
from unmask.gateway.accounts.throttle import Limit, Throttle

pytest_plugins = ("tests.databases",)

HOURLY = Limit(name="tries", count=5, seconds=3600)
WIDE = Limit(name="of a client", count=8, seconds=3600)


def test_so_many_times_at_once_then_one_by_one(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            throttle = Throttle(b.database, SECRET, clock=b.clock)
            for _ in range(5):
                await throttle.take((HOURLY, "ada"))
            with pytest.raises(ThrottledError, match="Try again in 12 minutes") as refusal:
                await throttle.take((HOURLY, "ada"))
            assert refusal.value.retry_after == 720
            await throttle.take((HOURLY, "bob"))
            await throttle.take((Limit(name="other tries", count=1, seconds=3600), "ada"))
            b.clock.skip(719.5)
            with pytest.raises(ThrottledError, match="Try again in 1 s"):
                await throttle.take((HOURLY, "ada"))
            b.clock.skip(0.5)
            await throttle.take((HOURLY, "ada"))
            with pytest.raises(ThrottledError):
                await throttle.take((HOURLY, "ada"))
            b.clock.skip(3600)
            for _ in range(5):
                await throttle.take((HOURLY, "ada"))
            with pytest.raises(ThrottledError):
                await throttle.take((HOURLY, "ada"))

    asyncio.run(scenario())


def test_of_two_limits_both_count_or_neither(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            throttle = Throttle(b.database, SECRET, clock=b.clock)
            for _ in range(5):
                await throttle.take((HOURLY, "ada"), (WIDE, "client"))
            for _ in range(5):
                with pytest.raises(ThrottledError):
                    await throttle.take((WIDE, "client"), (HOURLY, "ada"))
            for _ in range(3):
                await throttle.take((WIDE, "client"))
            with pytest.raises(ThrottledError):
                await throttle.take((HOURLY, "bob"), (WIDE, "client"))
            for _ in range(5):
                await throttle.take((HOURLY, "bob"))

    asyncio.run(scenario())


def test_what_was_not_done_after_all_is_given_back(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            throttle = Throttle(b.database, SECRET, clock=b.clock)
            for _ in range(12):
                await throttle.take((HOURLY, "ada"))
                await throttle.give_back((HOURLY, "ada"))
            b.clock.skip(60)
            for _ in range(5):
                await throttle.take((HOURLY, "ada"))
            with pytest.raises(ThrottledError):
                await throttle.take((HOURLY, "ada"))

    asyncio.run(scenario())


def test_processes_count_together(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            throttles = [Throttle(each.database, SECRET, clock=each.clock) for each in (one, other)]
            # In both orders: neither waits for the other for ever.
            acts = ((HOURLY, "ada"), (WIDE, "client")), ((WIDE, "client"), (HOURLY, "ada"))
            asked = [throttle.take(*acts[i % 2]) for i in range(10) for throttle in throttles]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert results.count(None) == 5
            assert len(outcomes(results, ThrottledError)) == 15
            for _ in range(3):
                await throttles[0].take((WIDE, "client"))
            with pytest.raises(ThrottledError):
                await throttles[1].take((WIDE, "client"))

    asyncio.run(scenario())


def test_what_another_process_takes_in_between_counts(cluster: Cluster, postgresql_template: str) -> None:
    url = cluster.create(postgresql_template)

    async def scenario() -> None:
        async with bank(url) as b:
            throttle = Throttle(b.database, SECRET, clock=b.clock)
            for _ in range(HOURLY.count - 1):
                await throttle.take((HOURLY, "ada"))
            with psycopg.connect(url) as other:
                other.execute("UPDATE throttle SET used_until = used_until + %s", [HOURLY.cost])
                asked = asyncio.create_task(throttle.take((HOURLY, "ada")))
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                while b.rows(waiting) == [(0,)]:  # it has seen four of five, and waits for the row
                    await asyncio.sleep(0.01)
                other.commit()
            with pytest.raises(ThrottledError):
                await asked

    asyncio.run(scenario())
    cluster.drop(url)


def test_a_clock_that_goes_back_locks_nobody_out(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            throttle = Throttle(b.database, SECRET, clock=b.clock)
            await throttle.take((HOURLY, "ada"))
            b.clock.skip(-86_400)
            for _ in range(5):
                await throttle.take((HOURLY, "ada"))
            with pytest.raises(ThrottledError):
                await throttle.take((HOURLY, "ada"))

    asyncio.run(scenario())


def test_rows_say_nothing_and_go(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            throttle = Throttle(b.database, SECRET, clock=b.clock)
            await throttle.take((HOURLY, "ada@example.org"), (WIDE, "192.0.2.1"))
            shown = repr(b.rows("SELECT * FROM throttle"))
            assert "ada" not in shown
            assert "192" not in shown
            b.clock.skip(719)
            assert await throttle.sweep() == 1  # the client's eighth of an hour is over
            b.clock.skip(1)
            assert await throttle.sweep() == 1
            assert b.rows("SELECT count(*) FROM throttle") == [(0,)]

    asyncio.run(scenario())


@pytest.mark.parametrize(("count", "seconds"), [(0, 1), (1, 0), (10**9, 1)])
def test_limits_that_permit_nothing_are_refused(count: int, seconds: float) -> None:
    with pytest.raises(InputError):
        Limit(name="a", count=count, seconds=seconds)

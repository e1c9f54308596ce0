"""What was seen of providers: added up over processes and restarts, by hour, for 90 days; on both databases."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import bank, raw
from tests.integration.test_api_support import wait_until
from tests.integration.test_hosting_support import MODEL, embed, hosted
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.db.migrating import downgrade, upgrade
from unmask.gateway.routing.histograms import Histogram, bucket_of
from unmask.gateway.routing.history import KEPT, Figures, History, together
from unmask.gateway.routing.meters import percentile
from unmask.gateway.routing.tallies import Cell, Figure, Tallies

pytest_plugins = ("tests.databases",)

HOUR = 3600


def cells(hour: int, provider: str = "here", model: str = "m", **counts: int) -> dict[Cell, int]:
    """Return plain counts of a provider in an hour."""
    figures: dict[str, Figure] = {"answered": "answered", "failed": "failed", "up": "up", "down": "down"}
    return {Cell(model, provider, figures[name], hour, 0): count for name, count in counts.items()}


def test_several_processes_add_to_the_same_hour_and_nothing_is_lost(url: str) -> None:
    async def scenario() -> None:
        chance = random.Random(1)
        took = [chance.lognormvariate(-4, 0.7) for _ in range(600)]
        async with bank(url) as one, bank(url) as other:
            hour = one.clock.now // 1_000_000 // HOUR
            histories = [History(each.database, clock=one.clock) for each in (one, other)]

            async def process(history: History, values: Sequence[float]) -> None:
                tallies = Tallies(lambda: one.clock.now / 1e6)
                for start in range(0, len(values), 20):
                    for seconds in values[start : start + 20]:
                        tallies.of("m", "here").answered(seconds, 50)
                        tallies.of("m", "there").failed()
                    tallies.of("m", "here").checked(up=start > 0)
                    await history.add(tallies.take())

            await asyncio.gather(*(process(histories[number % 2], took[number::4]) for number in range(4)))
            # In one more process, and after a restart, it is the same.
            async with bank(url) as third:
                found = await History(third.database, clock=one.clock).of("m", hours=24, step=1)
            here = found.now["here"]
            assert (here.answered, here.failed, here.up, here.down) == (600, 0, 28, 4)
            assert here.latency == Histogram(Counter(map(bucket_of, took)))
            assert here.throughput == Histogram(Counter(bucket_of(50 / seconds) for seconds in took))
            for share in (0.5, 0.9, 0.99):
                latency, rate = here.latency.at_most(share), here.throughput.at_least(share)
                assert latency == pytest.approx(percentile(sorted(took), share), rel=0.06)
                assert rate == pytest.approx(50 / percentile(sorted(took), share), rel=0.13)
            assert found.now["there"] == Figures(failed=600)
            assert found.uptime == {"here": 28 / 32}
            assert found.starts == tuple(range(hour - 23, hour + 1))
            assert [each.answered for each in found.all()] == [0] * 23 + [600]
            assert found.all()[-1] == together([here, found.now["there"]])

    asyncio.run(scenario())


def test_hours_are_put_together_as_is_asked_for(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            history = History(b.database, clock=b.clock)
            hour = b.clock.now // 1_000_000 // HOUR
            assert await history.of("m", hours=24, step=1) == await history.of("none", hours=24, step=1)
            assert (await history.of("m", hours=24, step=1)).all() == (Figures(),) * 24
            counts: dict[Cell, int] = {}
            for back in range(14 * 24):
                counts |= cells(hour - back, answered=1, up=9, down=1) | cells(hour - back, model="n", up=1)
            await history.add(counts)
            found = await history.of("m", hours=168, step=6)
            assert len(found.starts) == 28
            assert all(start % 6 == 0 for start in found.starts)
            assert [each.answered for each in found.steps["here"]] == [6] * 27 + [hour % 6 + 1]
            assert found.now["here"].answered == 2
            assert found.uptime == {"here": 0.9}
            assert await history.uptimes() == {("m", "here"): 0.9, ("n", "here"): 1.0}
            # Of the provider that only checks know of, and of one that is gone by now.
            await history.add(cells(hour - 25, "gone", answered=5))
            assert "gone" not in (await history.of("m", hours=24, step=1)).steps
            assert sum(each.answered for each in (await history.of("m", hours=168, step=6)).steps["gone"]) == 5
            assert (await history.of("m", hours=168, step=6)).steps["here"] == found.steps["here"]
            b.clock.skip(31 * 24 * HOUR)
            assert await history.uptimes() == {}
            assert (await history.of("m", hours=24, step=1)).now == {}

    asyncio.run(scenario())


def test_what_is_older_than_90_days_goes(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            history = History(b.database, clock=b.clock)
            hour = b.clock.now // 1_000_000 // HOUR
            for age in (0, KEPT * 24, KEPT * 24 + 1, KEPT * 24 + 500):
                await history.add(cells(hour - age, answered=1))
            await history.add({})
            assert await history.sweep() == 2
            assert await history.sweep() == 0
            assert raw(url, "SELECT hour FROM traffic ORDER BY hour") == [(hour - KEPT * 24,), (hour,)]

    asyncio.run(scenario())


def test_names_are_data_and_each_write_is_one_statement(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            history = History(b.database, clock=b.clock)
            hour = b.clock.now // 1_000_000 // HOUR
            evil = "'); DROP TABLE traffic; -- \" $[0] \\ é ✓"
            run: list[Any] = []
            write = b.database.write

            async def counted(operation: Any, **options: Any) -> Any:
                class Spy:
                    def __init__(self, transaction: Any) -> None:
                        self.transaction = transaction

                    def run(self, statement: Any, **values: Any) -> int:
                        run.append(statement)
                        return int(self.transaction.run(statement, **values))

                return await write(lambda transaction: operation(Spy(transaction)), **options)

            b.database.write = counted  # type: ignore[method-assign, assignment]
            await history.add(cells(hour, evil, model=evil, answered=3, failed=1) | cells(hour - 1, evil, up=2))
            assert len(run) == 1
            found = await history.of(evil, hours=24, step=1)
            assert found.now[evil] == Figures(answered=3, failed=1)

    asyncio.run(scenario())


def test_moving_down_drops_the_figures_and_keeps_the_rest(url: str) -> None:
    async def before() -> int:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            hour = b.clock.now // 1_000_000 // HOUR
            await History(b.database, clock=b.clock).add(cells(hour, answered=4))
            return key.user_id

    async def after(user: int, answered: int) -> None:
        async with bank(url) as b:
            history = History(b.database, clock=b.clock)
            assert (await b.ledger.balance(user)).balance == 100
            found = (await history.of("m", hours=24, step=1)).now
            assert sum(each.answered for each in found.values()) == answered
            await history.add(cells(b.clock.now // 1_000_000 // HOUR, answered=1))
            await b.require_sound()

    user = asyncio.run(before())
    asyncio.run(after(user, 4))
    downgrade(url, "0005")
    tables = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }
    there = {name for (name,) in raw(url, tables[url.partition(":")[0]])}
    assert "calls" in there
    assert not there & {"traffic", "pulls", "pull_marks"}
    upgrade(url)
    asyncio.run(after(user, 0))


# --- the whole gateway ---------------------------------------------------------------------------


def answered(gateway: Any) -> tuple[int, int]:
    """Return the answers of the model's provider in this hour and the one before, and how many of them were timed."""
    found = gateway.do(gateway.gateway.services.history.of(MODEL, hours=24, step=1)).now
    here = found.get("local", Figures())
    return here.answered, here.latency.total


def test_two_gateways_and_one_that_comes_later_tell_the_same(tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path}/shared.db"
    with hosted(tmp_path / "a", database=shared) as one, hosted(tmp_path / "b", database=shared) as other:
        customer = one.customer()
        for gateway, count in ((one, 5), (other, 2)):
            with gateway.client(customer) as client:
                for _ in range(count):
                    assert embed(client).status_code == 200
            gateway.do(gateway.gateway._traffic.flush())
        assert answered(one) == answered(other) == (7, 7)
        with other.client() as visitor:
            page = visitor.get(f"/models/{MODEL}").text
            assert 'aria-labelledby="latency-t latency-d"' in page
            assert 'aria-labelledby="throughput-t throughput-d"' in page
            assert "7 requests in 24 hours" in page
        with other.client(customer) as client:
            assert embed(client).status_code == 200  # written down when it ends
    with hosted(tmp_path / "a", database=shared) as later:
        assert answered(later) == (8, 8)
        with later.client() as visitor:
            assert "8 requests in 24 hours" in visitor.get(f"/models/{MODEL}").text


def test_counts_are_kept_while_the_database_is_away_and_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hosted(tmp_path) as gateway:
        customer = gateway.customer()
        traffic, history = gateway.gateway._traffic, gateway.gateway.services.history
        with gateway.client(customer) as client:
            assert embed(client).status_code == 200
        add = history.add

        async def away(counts: Any) -> None:
            raise DatabaseUnavailableError("It is away.")

        monkeypatch.setattr(history, "add", away)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailableError):
                gateway.do(traffic.flush())
        assert answered(gateway) == (0, 0)
        monkeypatch.setattr(history, "add", add)
        with gateway.client(customer) as client:
            assert embed(client).status_code == 200
        for _ in range(2):
            gateway.do(traffic.flush())
        assert answered(gateway) == (2, 2)


def test_a_process_adds_what_it_counted_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.gateway.hosting.gateway._COUNTS", 0.05)
    with hosted(tmp_path) as gateway:
        with gateway.client(gateway.customer()) as client:
            assert embed(client).status_code == 200
        wait_until(lambda: answered(gateway) == (1, 1))
        # The engine of this process is looked after like any other provider.
        wait_until(lambda: gateway.do(gateway.gateway.services.history.uptimes()) == {(MODEL, "local"): 1.0})

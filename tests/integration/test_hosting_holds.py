"""What is held for requests that take long: renewed while somebody answers them, and lapsed when nobody does."""

from __future__ import annotations

import asyncio
import functools
import gc
from pathlib import Path

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import Bank, Clock, bank, break_statements, order, raw
from tests.integration.test_hosting_support import hosted
from unmask.gateway.accounts.errors import HoldGoneError
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.accounts.ledger import HOLD_SECONDS
from unmask.gateway.accounts.money import Hold
from unmask.gateway.api.access import Order
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.hosting import prepaid
from unmask.gateway.hosting.prepaid import PaidVisit, Prepaid

pytest_plugins = ("tests.databases",)

MODEL = "smollm2-135m-unsup"
#: Tokens of a request, and what they cost.
TOKENS, COST = 400, 4


@functools.cache
def catalogue() -> Catalogue:
    return Catalogue.load()


def desk_of(b: Bank) -> Prepaid:
    return Prepaid(b.keyring, b.ledger, catalogue().find)


async def taken(desk: Prepaid, secret: ApiKey) -> PaidVisit:
    """Let a request in."""
    visit = await desk.enter(f"Bearer {secret.reveal()}".encode())
    assert isinstance(visit, PaidVisit)
    await visit.take(Order(model=MODEL, tokens=[TOKENS], priority="realtime"))
    return visit


def ends(url: str) -> list[int]:
    """Return when each hold lapses, in seconds since the tests' own morning."""
    return sorted((end - Clock().now) // 1_000_000 for (end,) in raw(url, "SELECT expires_at FROM holds"))


def test_a_request_that_takes_two_hours_is_charged_and_a_dead_processs_lapses(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, secret = await b.customer(credit=100)
            desk = desk_of(b)
            visit = await taken(desk, secret)
            dead = await b.ledger.reserve(order(key, 10))  # by a process that is gone
            assert isinstance(dead, Hold)
            swept = 0
            for _ in range(120):
                b.clock.skip(60)
                await desk.renew()
                swept += await b.ledger.sweep()
                await b.require_sound()
            assert swept == 1
            assert (await b.ledger.balance(user.id)).held == COST
            visit.end(b"answer", TOKENS)
            await desk.close()
            assert (await b.ledger.balance(user.id)).balance == 100 - COST
            with pytest.raises(HoldGoneError):
                await b.ledger.settle(dead)

    asyncio.run(scenario())


def test_all_that_are_due_are_one_statement_and_young_ones_none(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            faults = break_statements(b.database)
            secrets = [(await b.customer(credit=100, email=f"{number}@example.org"))[2] for number in range(3)]
            desk = desk_of(b)
            old = [await taken(desk, secret) for secret in secrets for _ in range(20)]
            b.clock.skip(299)
            faults.set(None)
            assert (await desk.renew(), faults.seen) == (0, [])
            b.clock.skip(1)
            young = await taken(desk, secrets[0])
            faults.set(None)
            assert await desk.renew() == 60
            assert sum("holds" in sql for sql in faults.seen) == 1
            assert ends(url) == [300 + 900] * 61
            b.clock.skip(240)
            assert await desk.renew() == 0
            for visit in (*old, young):
                visit.end(None, 0)
            await desk.close()
            assert (ends(url), await desk.renew()) == ([], 0)

    asyncio.run(scenario())


def test_nobody_renews_what_was_forgotten_has_lapsed_or_is_gone(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, _, secret = await b.customer(credit=100)
            desk = desk_of(b)
            forgotten, released, late = [await taken(desk, secret) for _ in range(3)]
            b.clock.skip(600)
            del forgotten  # nobody will ever end it
            gc.collect()
            assert released._held is not None
            await b.ledger.release(released._held.hold)  # as a sweep of another process with a fast clock would
            assert await desk.renew() == 1
            assert ends(url) == [900, 1500]
            b.clock.skip(900)
            assert await desk.renew() == 0
            assert ends(url) == [900, 1500]
            assert await b.ledger.sweep() == 2
            late.end(b"answer", TOKENS)
            await desk.close()
            assert raw(url, "SELECT count(*) FROM entries WHERE kind = 'charge'") == [(0,)]
            await b.require_sound()

    asyncio.run(scenario())


def test_a_clock_that_goes_back_takes_no_time_from_a_hold(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, _, secret = await b.customer(credit=100)
            desk = desk_of(b)
            visit = await taken(desk, secret)
            b.clock.skip(-3600)
            assert (await desk.renew(), ends(url)) == (0, [900])
            visit.end(None, 0)
            await desk.close()

    asyncio.run(scenario())


def test_while_the_database_is_away_an_answered_request_is_charged_until_its_renewed_time_is_over(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, _, secret = await b.customer(credit=100)
            monkeypatch.setattr(prepaid, "microseconds", b.clock)
            monkeypatch.setattr(prepaid, "_PAUSES", (0.001, 5.0))
            desk, settle, away = desk_of(b), b.ledger.settle, [True]

            async def settled(*arguments: object, **options: object) -> int:
                if away and away.pop():
                    b.clock.skip(600)
                    assert await desk.renew() == 1  # it was only away for a moment, and for this statement
                    b.clock.skip(600)
                    raise DatabaseUnavailableError("It is away.")
                return await settle(*arguments, **options)  # type: ignore[arg-type]

            monkeypatch.setattr(b.ledger, "settle", settled)
            visit = await taken(desk, secret)
            visit.end(b"answer", TOKENS)
            await desk.close()
            assert (await b.ledger.balance(user.id)).balance == 100 - COST
            assert away == []

    asyncio.run(scenario())


def test_a_gateway_renews_what_it_answers_well_before_it_lapses(tmp_path: Path) -> None:
    with hosted(tmp_path) as running:
        (chore,) = [each for each in running.gateway._housework._chores if each.name == "holds under way"]
        assert 1.1 * 3 * chore.seconds < HOLD_SECONDS * 2 / 3  # two in a row may fail
        desk = running.gateway.api._access
        assert isinstance(desk, Prepaid)
        assert chore.work == desk.renew

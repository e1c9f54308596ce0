"""Gateways in processes of their own: they share an account's credit, and one may be killed at any moment."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import START, bank
from unmask.gateway.accounts.keys import Key, KeyLimits
from unmask.gateway.accounts.money import Balance

pytest_plugins = ("tests.databases",)

ROOT = Path(__file__).parents[2]


def spender(url: str, key: Key, count: int) -> subprocess.Popen[str]:
    """Start a gateway that spends."""
    numbers = map(str, (key.id, key.user_id, count, START))
    command = [sys.executable, "-m", "tests.spender", url, *numbers]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def customer(url: str, credit: int, limits: KeyLimits | None = None) -> Key:
    async with bank(url) as b:
        return (await b.customer(credit=credit, limits=limits))[1]


@pytest.mark.parametrize(
    ("credit", "limits"),
    [(10, None), (1000, KeyLimits(requests_per_minute=10)), (1000, KeyLimits(spend_per_day=10))],
    ids=["credit", "requests a minute", "spending a day"],
)
def test_processes_share_credit_and_limits(url: str, credit: int, limits: KeyLimits | None) -> None:
    key = asyncio.run(customer(url, credit, limits))
    processes = [spender(url, key, 64) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    served = [int(process.communicate()[0]) for process in processes]
    assert sum(served) == 10

    async def after() -> None:
        async with bank(url) as b:
            assert await b.ledger.balance(key.user_id) == Balance(balance=credit, held=10)
            await b.require_sound()

    asyncio.run(after())


def test_a_gateway_that_is_killed_leaves_the_books_right(url: str) -> None:
    credit = 1_000_000
    key = asyncio.run(customer(url, credit))
    with spender(url, key, 0) as process:
        assert process.stdout is not None
        told = sum(process.stdout.readline() == "charged\n" for _ in range(100))
        process.kill()
        told += sum(line == "charged\n" for line in process.stdout)
    assert told >= 100

    async def after() -> None:
        async with bank(url) as b:
            await b.require_sound()
            found = await b.ledger.balance(key.user_id)
            # What was told is charged; of what was under way each request is, or is still held.
            assert told <= credit - found.balance <= told + 8
            assert found.held <= 8
            b.clock.skip(86_400 * 365 * 100)
            assert await b.ledger.sweep() == found.held
            assert (await b.ledger.balance(key.user_id)).held == 0
            await b.require_sound()

    asyncio.run(after())

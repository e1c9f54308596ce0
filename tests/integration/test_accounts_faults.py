"""A crash between every two statements: what was asked for is done whole or not at all, and can be asked for again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import Bank, Faults, all_rows, bank, break_statements, order
from unmask.gateway.accounts.keys import Key
from unmask.gateway.accounts.money import Hold, Retry
from unmask.gateway.db.errors import DatabaseUnavailableError

pytest_plugins = ("tests.databases",)


@dataclass
class Case:
    """An account before something happens to it."""

    bank: Bank
    key: Key
    hold: Hold
    retried: Hold


Operation = Callable[[Case], Awaitable[Any]]

#: What may be asked for again and again.
REPEATABLE: dict[str, Operation] = {
    "credit": lambda case: case.bank.ledger.credit(case.key.user_id, 7, "grant", reference=f"for {case.key.user_id}"),
    "settle": lambda case: case.bank.ledger.settle(case.hold, 6),
    "settle and keep": lambda case: case.bank.ledger.settle(case.retried, 6, outcome=b"answer"),
    "release": lambda case: case.bank.ledger.release(case.hold),
    "give up": lambda case: case.bank.ledger.release(case.retried),
    "reserve": lambda case: case.bank.ledger.reserve(order(case.key, 10)),
    "reserve once": lambda case: case.bank.ledger.reserve(order(case.key, 10), Retry(key="new", fingerprint="f")),
    "revoke": lambda case: case.bank.keyring.revoke(case.key.user_id, case.key.id),
}
#: What makes a key, which is shown once: after a failure there may be one that nobody has seen.
ONCE: dict[str, Operation] = {
    "issue": lambda case: case.bank.keyring.issue(case.key.user_id, "another"),
    "rotate": lambda case: case.bank.keyring.rotate(case.key.user_id, case.key.id, overlap_seconds=60),
}


async def prepare(b: Bank, name: str) -> Case:
    """Make a user with credit of 100 and two requests under way, the second with an Idempotency-Key."""
    _, key, _ = await b.customer(credit=100, email=f"{name}@example.org")
    hold = await b.ledger.reserve(order(key, 10))
    retried = await b.ledger.reserve(order(key, 20), Retry(key="k", fingerprint="f"))
    assert isinstance(hold, Hold)
    assert isinstance(retried, Hold)
    return Case(b, key, hold, retried)


def state(case: Case) -> list[list[tuple[Any, ...]]]:
    """Return what is to be seen of an account, numbers that come out otherwise each time apart."""
    mine = f"WHERE user_id = {case.key.user_id}"
    return all_rows(
        case.bank.url,
        f"SELECT balance, held FROM balances {mine}",
        f"SELECT kind, amount FROM entries {mine} ORDER BY id",
        f"SELECT amount FROM holds {mine} ORDER BY amount",
        f"SELECT key, charged, outcome FROM idempotency {mine} ORDER BY key",
        f"SELECT name, revoked_at IS NULL, expires_at FROM keys {mine} ORDER BY id",
        f"SELECT spent FROM key_usage JOIN keys ON keys.id = key_id {mine} ORDER BY key_id",
    )


async def strike(case: Case, operation: Operation, faults: Faults, at: int, *, late: bool) -> tuple[bool, str | None]:
    """Have a statement fail; return whether the operation was refused, and the statement, None if there is none."""
    faults.set(at, late=late)
    try:
        await operation(case)
        refused = False
    except DatabaseUnavailableError:
        refused = True
    await case.bank.left()
    struck = faults.seen[at] if len(faults.seen) > at else None
    faults.set(None)
    return refused, struck


def begins(statement: str) -> bool:
    """Return whether a statement begins a transaction: where it fails, it is done again on a new connection."""
    return statement.startswith(("PRAGMA", "BEGIN"))


@pytest.mark.parametrize("late", [False, True], ids=["not done", "done, and the answer lost"])
@pytest.mark.parametrize("name", [*REPEATABLE, *ONCE])
def test_it_is_done_whole_or_not_at_all(url: str, name: str, late: bool) -> None:
    operation = {**REPEATABLE, **ONCE}[name]

    async def scenario() -> None:
        async with bank(url) as b:
            faults = break_statements(b.database)
            whole = await prepare(b, "whole")
            before = state(whole)
            await operation(whole)
            after = state(whole)
            assert after != before
            for at in itertools.count():
                case = await prepare(b, f"at{at}")
                refused, struck = await strike(case, operation, faults, at, late=late)
                assert refused == (struck is not None and not begins(struck))
                assert state(case) in (before, after)
                if not refused:
                    assert state(case) == after
                elif name in REPEATABLE:
                    await operation(case)
                    assert state(case) == after
                await b.require_sound()
                if struck is None:
                    break
                hit.append(struck)
            assert any("BEGIN" in each for each in hit)
            assert hit[-1] == "COMMIT"

    hit: list[str] = []
    asyncio.run(scenario())


def test_a_sweep_that_breaks_off_is_gone_on_with(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            faults = break_statements(b.database)
            _, key, _ = await b.customer(credit=1000)
            for at in range(12):
                for number in range(3):
                    await b.ledger.reserve(order(key, 10), Retry(key=f"{at} {number}", fingerprint="f"))
                b.clock.skip(901)
                faults.set(at)
                try:
                    await b.ledger.sweep()
                except DatabaseUnavailableError:
                    assert len(faults.seen) > at
                faults.set(None)
                await b.require_sound()
                await b.ledger.sweep()
                assert b.rows("SELECT count(*) FROM holds") == [(0,)]
            assert (await b.ledger.balance(key.user_id)).available == 1000

    asyncio.run(scenario())


def test_a_sweep_that_failed_does_nothing_afterwards(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=1000)
            for _ in range(2):
                await b.ledger.reserve(order(key, 10))
            b.clock.skip(901)
            own, calls = b.database.write, itertools.count()

            async def first_fails_second_is_slow(work: Any, **options: Any) -> Any:
                if next(calls) == 0:
                    raise DatabaseUnavailableError("broken")
                await asyncio.sleep(0.05)
                return await own(work, **options)

            monkeypatch.setattr(b.database, "write", first_fails_second_is_slow)
            with pytest.raises(DatabaseUnavailableError, match="broken"):
                await b.ledger.sweep()
            assert b.rows("SELECT count(*) FROM holds") == [(1,)]
            await asyncio.sleep(0.1)
            assert b.rows("SELECT count(*) FROM holds") == [(1,)]
            monkeypatch.undo()
            assert await b.ledger.sweep() == 1

    asyncio.run(scenario())

"""Credit: what is served, what is refused, what is charged; on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import START, Bank, bank, order, outcomes, raw
from unmask.errors import InputError
from unmask.gateway.accounts.audit import audit
from unmask.gateway.accounts.errors import (
    HoldGoneError,
    InProgressError,
    KeyExpiredError,
    KeyRevokedError,
    OutOfCreditError,
    RateError,
    ReferenceUsedError,
    RequestMismatchError,
    SpendingError,
    TooLargeError,
    UnknownKeyIdError,
    UnknownUserError,
)
from unmask.gateway.accounts.keys import KeyLimits
from unmask.gateway.accounts.money import MOST_OUTCOME, Balance, Hold, Order, Replay, Retry

pytest_plugins = ("tests.databases",)

DAY = 86_400


async def held(bank: Bank, some: Order, retry: Retry | None = None) -> Hold:
    """Reserve something that was not asked before."""
    hold = await bank.ledger.reserve(some, retry)
    assert isinstance(hold, Hold)
    return hold


def test_of_64_requests_at_once_credit_for_10_serves_10(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=72)
            asked = [b.ledger.reserve(order(key, 7)) for _ in range(64)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            holds, refused = outcomes(results, Hold), outcomes(results, OutOfCreditError)
            assert (len(holds), len(refused)) == (10, 54)
            assert {(error.needed, error.available) for error in refused} == {(7, 2)}
            assert await b.ledger.balance(user.id) == Balance(balance=72, held=70)
            assert await asyncio.gather(*(b.ledger.settle(hold) for hold in holds)) == [7] * 10
            assert await b.ledger.balance(user.id) == Balance(balance=2, held=0)
            await b.require_sound()

    asyncio.run(scenario())


def test_two_gateways_serve_what_one_would(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            _, key, _ = await one.customer(credit=10)
            asked = [gateway.ledger.reserve(order(key)) for _ in range(32) for gateway in (one, other)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert len(outcomes(results, Hold)) == 10
            assert len(outcomes(results, OutOfCreditError)) == 54
            # Each of the two can settle what the other reserved.
            await asyncio.gather(*(other.ledger.settle(hold) for hold in outcomes(results, Hold)))
            assert (await one.ledger.balance(key.user_id)).balance == 0
            await one.require_sound()

    asyncio.run(scenario())


def test_a_hold_is_charged_once(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=100)
            hold = await held(b, order(key, 30))
            assert await b.ledger.settle(hold, 20) == 20
            assert await b.ledger.settle(hold, 30) == 20
            assert await asyncio.gather(*(b.ledger.settle(hold) for _ in range(5))) == [20] * 5
            assert not await b.ledger.release(hold)
            assert await b.ledger.balance(user.id) == Balance(balance=80, held=0)
            charge, credit = await b.ledger.entries(user.id)
            assert (charge.kind, charge.amount, charge.model, charge.units, charge.key_id) == (
                "charge",
                -20,
                "m",
                1,
                key.id,
            )
            assert (credit.kind, credit.amount, credit.reference) == ("top_up", 100, "first of ada@example.org")
            assert await b.ledger.entries(user.id, before=charge.id) == [credit]
            assert await b.ledger.entries(user.id, count=1) == [charge]
            await b.require_sound()

    asyncio.run(scenario())


def test_a_request_that_is_not_answered_is_not_billed(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=100)
            hold = await held(b, order(key, 30))
            assert await b.ledger.release(hold)
            assert not await b.ledger.release(hold)
            with pytest.raises(HoldGoneError):
                await b.ledger.settle(hold)
            assert await b.ledger.balance(user.id) == Balance(balance=100, held=0)
            await b.require_sound()

    asyncio.run(scenario())


def test_of_settling_and_releasing_at_once_one_wins(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            user, key, _ = await one.customer(credit=1000)
            charged = 0
            for _ in range(20):
                hold = await held(one, order(key, 10))
                settled, released = await asyncio.gather(
                    one.ledger.settle(hold), other.ledger.release(hold), return_exceptions=True
                )
                assert (settled == 10, released) in {(True, False), (False, True)}
                charged += 10 if settled == 10 else 0
            assert await one.ledger.balance(user.id) == Balance(balance=1000 - charged, held=0)
            await one.require_sound()

    asyncio.run(scenario())


def test_more_than_was_held_is_not_charged(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            hold = await held(b, order(key, 30))
            for amount in (31, -1):
                with pytest.raises(InputError, match=f"of 30 cannot be charged {amount}"):
                    await b.ledger.settle(hold, amount)
            assert await b.ledger.settle(hold, 0) == 0
            await b.require_sound()

    asyncio.run(scenario())


def test_expired_holds_are_swept_and_no_others(url: str) -> None:
    async def scenario() -> None:
        async with bank(url, hold_seconds=60) as b:
            user, key, _ = await b.customer(credit=100)
            old = await held(b, order(key, 30), Retry(key="k", fingerprint="f"))
            b.clock.skip(30)
            young = await held(b, order(key, 20))
            assert await b.ledger.sweep() == 0
            b.clock.skip(30)
            assert await b.ledger.sweep() == 1
            assert await b.ledger.balance(user.id) == Balance(balance=100, held=20)
            with pytest.raises(HoldGoneError):
                await b.ledger.settle(old)
            assert await b.ledger.settle(young) == 20
            # Its retry is a new request: the first was never answered.
            again = await held(b, order(key, 30), Retry(key="k", fingerprint="f"))
            assert await b.ledger.settle(again) == 30
            await b.require_sound()

    asyncio.run(scenario())


def test_a_retry_is_free(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=30)
            retry = Retry(key="k", fingerprint="one")
            hold = await held(b, order(key, 30), retry)
            with pytest.raises(InProgressError) as waiting:
                await b.ledger.reserve(order(key, 30), retry)
            assert waiting.value.retry_after == 1
            await b.ledger.settle(hold, 25, outcome=b"the answer")
            for _ in range(3):
                assert await b.ledger.reserve(order(key, 30), retry) == Replay(charged=25, outcome=b"the answer")
            with pytest.raises(RequestMismatchError):
                await b.ledger.reserve(order(key, 1), Retry(key="k", fingerprint="two"))
            assert await b.ledger.balance(user.id) == Balance(balance=5, held=0)
            # Another user's key of this name is another key.
            _, other, _ = await b.customer(credit=30, email="bob@example.org")
            assert isinstance(await b.ledger.reserve(order(other, 30), retry), Hold)
            await b.require_sound()

    asyncio.run(scenario())


def test_of_retries_at_once_one_is_served(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            _, key, _ = await one.customer(credit=100)
            retry = Retry(key="k", fingerprint="f")
            asked = [gateway.ledger.reserve(order(key), retry) for _ in range(16) for gateway in (one, other)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert (len(outcomes(results, Hold)), len(outcomes(results, InProgressError))) == (1, 31)
            await one.require_sound()

    asyncio.run(scenario())


def test_a_request_that_was_given_up_is_a_new_one(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            hold = await held(b, order(key), Retry(key="k", fingerprint="one"))
            await b.ledger.release(hold)
            assert isinstance(await b.ledger.reserve(order(key), Retry(key="k", fingerprint="two")), Hold)
            await b.require_sound()

    asyncio.run(scenario())


def test_a_refused_request_leaves_no_trace(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=10)
            retry = Retry(key="k", fingerprint="f")
            with pytest.raises(OutOfCreditError):
                await b.ledger.reserve(order(key, 11), retry)
            assert b.rows("SELECT count(*) FROM idempotency") == [(0,)]
            assert b.rows("SELECT spent, last_used_at, requests_until FROM key_usage") == [(0, None, 0)]
            await b.ledger.credit(user.id, 1, "top_up", reference="more")
            assert isinstance(await b.ledger.reserve(order(key, 11), retry), Hold)

    asyncio.run(scenario())


def test_answers_are_kept_for_a_day_and_up_to_a_size(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            for name, size in (("small", MOST_OUTCOME), ("large", MOST_OUTCOME + 1)):
                hold = await held(b, order(key), Retry(key=name, fingerprint="f"))
                await b.ledger.settle(hold, outcome=b"x" * size)
            small = await b.ledger.reserve(order(key), Retry(key="small", fingerprint="f"))
            assert small == Replay(charged=1, outcome=b"x" * MOST_OUTCOME)
            assert await b.ledger.reserve(order(key), Retry(key="large", fingerprint="f")) == Replay(
                charged=1, outcome=None
            )
            b.clock.skip(DAY - 1)
            await b.ledger.sweep()
            assert isinstance(await b.ledger.reserve(order(key), Retry(key="small", fingerprint="f")), Replay)
            b.clock.skip(1)
            assert isinstance(await b.ledger.reserve(order(key), Retry(key="small", fingerprint="f")), Hold)
            await b.ledger.sweep()
            assert b.rows("SELECT key FROM idempotency") == [("small",)]
            await b.require_sound()

    asyncio.run(scenario())


def test_requests_a_minute(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=1000, limits=KeyLimits(requests_per_minute=7))
            results = await asyncio.gather(*(b.ledger.reserve(order(key)) for _ in range(20)), return_exceptions=True)
            refused = outcomes(results, RateError)
            assert (len(outcomes(results, Hold)), len(refused)) == (7, 13)
            assert {error.kind for error in refused} == {"requests"}
            assert all(abs(error.retry_after - 60 / 7) < 0.01 for error in refused)
            b.clock.skip(60 / 7 - 0.01)
            with pytest.raises(RateError):
                await b.ledger.reserve(order(key))
            b.clock.skip(0.01)
            await b.ledger.reserve(order(key))
            with pytest.raises(RateError):
                await b.ledger.reserve(order(key))

    asyncio.run(scenario())


def test_tokens_a_minute(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=1000, limits=KeyLimits(tokens_per_minute=600))
            with pytest.raises(TooLargeError, match="601 tokens") as never:
                await b.ledger.reserve(order(key, tokens=601))
            assert never.value.retry_after is None
            await b.ledger.reserve(order(key, tokens=400))
            with pytest.raises(RateError) as refusal:
                await b.ledger.reserve(order(key, tokens=300))
            assert (refusal.value.kind, refusal.value.retry_after) == ("tokens", 10.0)
            await b.ledger.reserve(order(key, tokens=200))
            b.clock.skip(10)
            await b.ledger.reserve(order(key, tokens=100))

    asyncio.run(scenario())


def test_spending_a_day(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=1000, limits=KeyLimits(spend_per_day=100))
            first = await held(b, order(key, 60))
            with pytest.raises(SpendingError) as refusal:
                await b.ledger.reserve(order(key, 41))
            assert refusal.value.retry_after == 15 * 3600
            second = await held(b, order(key, 40))
            # What was not spent may be spent.
            await b.ledger.settle(first, 10)
            await b.ledger.release(second)
            assert b.rows("SELECT spent FROM key_usage") == [(10,)]
            third = await held(b, order(key, 90))
            b.clock.skip(15 * 3600)
            await b.ledger.reserve(order(key, 100))
            # Yesterday's hold is of no account to today.
            await b.ledger.release(third)
            with pytest.raises(SpendingError):
                await b.ledger.reserve(order(key, 1))
            await b.require_sound()

    asyncio.run(scenario())


def test_clocks_that_jump_lock_nobody_out(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            limits = KeyLimits(requests_per_minute=2, tokens_per_minute=100, spend_per_day=50)
            _, key, _ = await b.customer(credit=1000, limits=limits)
            hold = await held(b, order(key, 50, tokens=100))
            for jump in (-400 * DAY, 800 * DAY, -400 * DAY):
                b.clock.skip(jump)
                b.clock.skip(60)
                again = await held(b, order(key, 50, tokens=100))
                with pytest.raises(RateError):
                    await b.ledger.reserve(order(key, 0, tokens=1))
                await b.ledger.settle(again)
            assert await b.ledger.settle(hold) == 50
            await b.require_sound()
            # Holds of a day that came twice.
            b.clock.now = START + 2 * DAY * 1_000_000
            early = await held(b, order(key, 50, tokens=1))
            b.clock.skip(DAY)
            await held(b, order(key, 10, tokens=1))
            b.clock.skip(-DAY)
            assert await b.ledger.release(early)
            await b.require_sound()

    asyncio.run(scenario())


def test_keys_that_open_nothing_reserve_nothing(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=100)
            other, foreign, _ = await b.customer(credit=100, email="bob@example.org")
            stolen = Order(user_id=user.id, key_id=foreign.id, amount=1, model="m", units=1, tokens=1)
            with pytest.raises(UnknownKeyIdError):
                await b.ledger.reserve(stolen)
            short, _ = await b.keyring.issue(user.id, "short", expires_at=b.clock.now + 1_000_000)
            await b.ledger.reserve(order(short))
            b.clock.skip(1)
            with pytest.raises(KeyExpiredError):
                await b.ledger.reserve(order(short))
            await b.keyring.revoke(user.id, key.id)
            with pytest.raises(KeyRevokedError):
                await b.ledger.reserve(order(key))
            assert await b.ledger.balance(other.id) == Balance(balance=100, held=0)
            await b.require_sound()

    asyncio.run(scenario())


def test_a_payment_counts_once(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            user, _, _ = await one.customer()
            paid = [gateway.ledger.credit(user.id, 500, "top_up", reference="pi_1") for gateway in (one, other) * 8]
            assert len({entry.id for entry in await asyncio.gather(*paid)}) == 1
            assert (await one.ledger.balance(user.id)).balance == 500
            somebody, _, _ = await one.customer(email="bob@example.org")
            for user_id, amount, kind in (
                (user.id, 499, "top_up"),
                (user.id, 500, "grant"),
                (somebody.id, 500, "top_up"),
            ):
                with pytest.raises(ReferenceUsedError):
                    await one.ledger.credit(user_id, amount, kind, reference="pi_1")  # type: ignore[arg-type]
            await one.require_sound()

    asyncio.run(scenario())


def test_credit_that_cannot_be_is_refused(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=100)
            await b.ledger.reserve(order(key, 60))
            with pytest.raises(OutOfCreditError, match="40 are left"):
                await b.ledger.credit(user.id, -41, "correction", reference="c1")
            await b.ledger.credit(user.id, -40, "correction", reference="c2", note="paid twice")
            assert (await b.ledger.entries(user.id))[0].note == "paid twice"
            assert await b.ledger.balance(user.id) == Balance(balance=60, held=60)
            for amount, kind, reference in (
                (0, "grant", "r"),
                (-1, "grant", "r"),
                (-1, "top_up", "r"),
                (10**15 + 1, "top_up", "r"),
                (1, "grant", ""),
            ):
                with pytest.raises(InputError):
                    await b.ledger.credit(user.id, amount, kind, reference=reference)  # type: ignore[arg-type]
            with pytest.raises(UnknownUserError):
                await b.ledger.credit(user.id + 99, 1, "grant", reference="r")
            with pytest.raises(UnknownUserError):
                await b.ledger.balance(user.id + 99)
            await b.require_sound()

    asyncio.run(scenario())


def test_a_cancelled_reservation_holds_nothing(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=100)
            for steps in range(4):
                task = asyncio.create_task(b.ledger.reserve(order(key, 10)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if not task.cancel():  # it was faster
                    assert steps > 1
                    await b.ledger.release(task.result())  # type: ignore[arg-type]
                else:
                    with pytest.raises(asyncio.CancelledError):
                        await task
                await b.left()
                assert await b.ledger.balance(user.id) == Balance(balance=100, held=0)
            await b.require_sound()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("UPDATE balances SET balance = balance + 1", "the balance is 101, the sum of the ledger 100"),
        ("UPDATE balances SET held = 0", "0 are held, the sum of the holds is 10"),
        ("UPDATE idempotency SET hold_id = 'gone'", "waits for the answer to hold gone, which is gone"),
        ("UPDATE idempotency SET charged = 3", "told that 3 were charged"),
        ("DELETE FROM key_usage WHERE key_id NOT IN (SELECT key_id FROM holds)", "has no usage"),
    ],
)
def test_an_audit_finds_what_is_wrong(url: str, damage: str, finding: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, key, _ = await b.customer(credit=100)
            await b.keyring.issue(user.id, "unused")
            await b.ledger.reserve(order(key, 10), Retry(key="k", fingerprint="f"))
            found = await audit(b.database)
            assert (found.users, found.entries, found.holds, found.credit, found.findings) == (1, 1, 1, 100, ())
            raw(url, damage)
            findings = (await audit(b.database)).findings
            assert len(findings) == 1
            assert finding in findings[0]

    asyncio.run(scenario())

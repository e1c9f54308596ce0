"""Credit against a model of it: two gateways, requests at once, crashes between statements, clocks that jump.

What hypothesis draws never depends on what happened before: of two gateways, either may come first, and each time
another one. What a rule has nothing to do for, it leaves.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.bank import SECRET, Bank, Clock, Faults, break_statements, order, outcomes
from unmask.gateway.accounts.audit import audit
from unmask.gateway.accounts.errors import (
    AccountError,
    HoldGoneError,
    InProgressError,
    OutOfCreditError,
    RequestMismatchError,
)
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.keys import Key, KeyLimits
from unmask.gateway.accounts.ledger import HOLD_SECONDS, RETRY_SECONDS, Ledger
from unmask.gateway.accounts.money import Hold, Replay, Retry
from unmask.gateway.accounts.users import Users
from unmask.gateway.db.backends import parse_url
from unmask.gateway.db.database import Database
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.db.statements import Connection

pytest_plugins = ("tests.databases",)

T = TypeVar("T")

#: Of a hold.
OPEN, GONE = "open", "gone"
Fate = str | int
FAULTS = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 12), st.booleans()))
RELEASES = st.sampled_from(["", "first", "last"])
GATEWAYS = st.integers(0, 1)
NAMES = itertools.count()


class Books(RuleBasedStateMachine):
    """One account, and what may have become of each of its holds: open, gone, or charged so much."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.gateways = [self.open(), self.open()]
        self.credits: dict[str, tuple[int, set[bool]]] = {}
        self.given: dict[str, Hold] = {}
        self.holds: dict[str, Hold] = {}
        self.fates: dict[str, set[Fate]] = {}
        self.retries: dict[str, tuple[str, str, int]] = {}
        self.unsure: set[str] = set()
        self.lost = 0

    def open(self) -> tuple[Bank, Faults]:
        database = Database(self.url)
        bank = Bank(
            database,
            self.clock,
            Users(database, clock=self.clock),
            Keyring(database, SECRET, clock=self.clock),
            Ledger(database, clock=self.clock),
            self.url,
        )
        return bank, break_statements(database)

    def teardown(self) -> None:
        if hasattr(self, "observer"):
            self.observer.close()
        for bank, _ in self.gateways:
            self.run(bank.database.close())
        self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize(credit=st.integers(0, 200))
    def begin(self, credit: int) -> None:
        address, backend = parse_url(self.url)
        self.observer: Connection = backend.connect(address)
        bank, _ = self.gateways[0]
        email = f"{next(NAMES)}@example.org"
        _, self.key, _ = self.run(bank.customer(credit, email=email))
        if credit:
            self.credits[f"first of {email}"] = (credit, {True})
        limits = KeyLimits(spend_per_day=40)
        self.limited: Key = self.run(bank.keyring.issue(self.key.user_id, "limited", limits=limits))[0]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        cursor = self.observer.cursor()
        cursor.execute(sql.replace("?", str(self.key.user_id)))
        return [tuple(row) for row in cursor.fetchall()]

    def available(self) -> int:
        ((available,),) = self.rows("SELECT balance - held FROM balances WHERE user_id = ?")
        return int(available)

    def fate(self, hold_id: str) -> Fate:
        (fate,) = self.fates[hold_id]
        return fate

    async def gather(self, fault: tuple[int, bool] | None, *asked: Coroutine[Any, Any, Any]) -> list[Any]:
        """Ask for things at once, while a statement fails on each of the gateways."""
        for _, faults in self.gateways:
            faults.set(*fault[:1] if fault else [None], late=bool(fault and fault[1]))
        results = await asyncio.gather(*asked, return_exceptions=True)
        for bank, faults in self.gateways:
            await bank.left()
            faults.set(None)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, (AccountError, DatabaseUnavailableError)):
                raise result
        failures = outcomes(results, DatabaseUnavailableError)
        assert fault or not failures
        return results

    def took(self, hold: Hold) -> None:
        self.holds[hold.id] = self.given[hold.id] = hold
        self.fates[hold.id] = {OPEN}

    @rule(amount=st.integers(1, 60), fault=FAULTS, gateway=GATEWAYS)
    def credit(self, amount: int, fault: tuple[int, bool] | None, gateway: int) -> None:
        reference = f"payment {next(NAMES)}"
        ledger = self.gateways[gateway][0].ledger
        user = self.key.user_id
        asked = [ledger.credit(user, amount, "top_up", reference=reference) for _ in range(2)]
        results = self.run(self.gather(fault, *asked))
        done = any(not isinstance(result, Exception) for result in results)
        self.credits[reference] = (amount, {True} if done else {True, False})

    @rule(count=st.integers(1, 8), amount=st.integers(0, 30), fault=FAULTS, limited=st.booleans())
    def ask(self, count: int, amount: int, fault: tuple[int, bool] | None, limited: bool) -> None:
        some = order(self.limited if limited else self.key, amount)
        available = self.available()
        asked = [self.gateways[number % 2][0].ledger.reserve(some) for number in range(count)]
        results = self.run(self.gather(fault, *asked))
        served = outcomes(results, Hold)
        for hold in served:
            self.took(hold)
        failed = len(outcomes(results, DatabaseUnavailableError))
        self.lost += failed
        can = min(count, available // amount) if amount else count
        assert len(served) <= can
        if not failed and not limited:
            assert len(served) == can
            assert len(outcomes(results, OutOfCreditError)) == count - can

    @rule(back=st.integers(0, 9), share=st.floats(0, 1), times=st.integers(0, 3), release=RELEASES, fault=FAULTS)
    def finish(self, back: int, share: float, times: int, release: str, fault: tuple[int, bool] | None) -> None:
        if not self.holds:
            return
        hold = list(self.holds.values())[-1 - back % len(self.holds)]
        fate, amount = self.fate(hold.id), int(hold.amount * share)
        ledgers = [bank.ledger for bank, _ in self.gateways]
        releases = [ledgers[1].release(hold)] if release else []
        settles = [ledgers[(number + 1) % 2].settle(hold, amount, outcome=b"answer") for number in range(times)]
        if release == "last":
            results = self.run(self.gather(fault, *settles, *releases))
            settled, released = results[:times], results[times:]
        else:
            results = self.run(self.gather(fault, *releases, *settles))
            released, settled = results[: len(releases)], results[len(releases) :]
        charged = {result for result in settled if isinstance(result, int)}
        if fate == OPEN:
            ends: set[Fate] = {amount} if times else set()
            ends |= {GONE} if release else set()
            known = charged | ({GONE} if any(result is True for result in released) else set())
            known |= {GONE} if outcomes(settled, HoldGoneError) else set()
            assert len(known) <= 1
            assert known <= ends
            self.fates[hold.id] = known or {OPEN, *ends}
        else:
            assert charged <= {fate}
            assert not any(result is True for result in released)
            assert fate == GONE or not outcomes(settled, HoldGoneError)

    @rule(name=st.sampled_from("ab"), print_=st.sampled_from("12"), amount=st.integers(0, 20), fault=FAULTS)
    def retry(self, name: str, print_: str, amount: int, fault: tuple[int, bool] | None) -> None:
        ledger = self.gateways[0][0].ledger
        available = self.available()
        (result,) = self.run(
            self.gather(fault, ledger.reserve(order(self.key, amount), Retry(key=name, fingerprint=print_)))
        )
        if isinstance(result, DatabaseUnavailableError):
            self.lost += 1
            self.unsure.add(name)
            return
        if isinstance(result, Hold):
            self.took(result)
        if name in self.unsure:
            return
        before, hold_id, until = self.retries.get(name, ("", "", 0))
        fate = self.fate(hold_id) if hold_id else GONE
        if fate == GONE or (fate != OPEN and until <= self.clock.now):
            assert isinstance(result, Hold if available >= amount else OutOfCreditError)
            if isinstance(result, Hold):
                self.retries[name] = (print_, result.id, self.clock.now + RETRY_SECONDS * 1_000_000)
        elif before != print_:
            assert isinstance(result, RequestMismatchError)
        elif fate == OPEN:
            assert isinstance(result, InProgressError)
        else:
            assert result == Replay(charged=int(fate), outcome=b"answer")

    @rule(seconds=st.sampled_from([-90 * 86_400, -7200, -1, 1, 899, 901, 86_400, 90 * 86_400]))
    def jump(self, seconds: int) -> None:
        self.clock.skip(seconds)

    @rule(
        seconds=st.sampled_from([0, 600, 901]),
        count=st.integers(1, 6),
        stale=st.booleans(),
        fault=FAULTS,
        gateway=GATEWAYS,
    )
    def renew(self, seconds: int, count: int, stale: bool, fault: tuple[int, bool] | None, gateway: int) -> None:
        """Renew some holds, whatever has become of them: those that are open and have not lapsed, and no others."""
        self.clock.skip(seconds)
        some = list(self.holds.values())[-count:]
        asked = [self.given[hold.id] for hold in some] if stale else some  # as it was when it was reserved
        (result,) = self.run(self.gather(fault, self.gateways[gateway][0].ledger.renew(asked)))
        until = self.clock.now + HOLD_SECONDS * 1_000_000
        ends = dict(self.rows("SELECT id, expires_at FROM holds WHERE user_id = ?"))
        renewed = {} if isinstance(result, Exception) else {hold.id: hold for hold in result}
        for hold in some:
            lasts = self.fate(hold.id) == OPEN and self.clock.now < hold.expires_at < until
            if not isinstance(result, Exception):
                assert (hold.id in renewed) == lasts
            if hold.id in renewed:
                assert renewed[hold.id].expires_at == until
            if hold.id in ends:
                assert ends[hold.id] in ({hold.expires_at, until} if lasts else {hold.expires_at})
                assert hold.id not in renewed or ends[hold.id] == until
                self.holds[hold.id] = replace(hold, expires_at=ends[hold.id])

    @rule(fault=FAULTS, gateway=GATEWAYS)
    def sweep(self, fault: tuple[int, bool] | None, gateway: int) -> None:
        (result,) = self.run(self.gather(fault, self.gateways[gateway][0].ledger.sweep()))
        failed = isinstance(result, Exception)
        for hold in self.holds.values():
            if self.fate(hold.id) == OPEN and hold.expires_at <= self.clock.now:
                self.fates[hold.id] = {OPEN, GONE} if failed else {GONE}
        for name, (_, _, until) in list(self.retries.items()):
            if until <= self.clock.now:
                self.unsure.add(name)

    @rule(gateway=GATEWAYS)
    def restart(self, gateway: int) -> None:
        self.run(self.gateways[gateway][0].database.close())
        self.gateways[gateway] = self.open()

    @invariant()
    def books_are_right(self) -> None:
        if not hasattr(self, "key"):
            return
        found = dict(self.rows("SELECT id, amount FROM holds WHERE user_id = ?"))
        charges = {
            hold: -amount
            for hold, amount in self.rows("SELECT hold_id, amount FROM entries WHERE user_id = ? AND kind = 'charge'")
        }
        for hold_id, fates in self.fates.items():
            actual: Fate = OPEN if hold_id in found else charges.get(hold_id, GONE)
            assert actual in fates, f"{hold_id} is {actual}; expected one of {fates}"
            self.fates[hold_id] = {actual}
        # A reservation whose answer was lost is given back at once, and this, too, may fail: it lapses.
        unknown = set(found) - set(self.fates)
        assert len(unknown) <= self.lost
        assert set(charges) <= set(self.fates)
        came_in = dict(self.rows("SELECT reference, amount FROM entries WHERE user_id = ? AND kind <> 'charge'"))
        for reference, (amount, present) in self.credits.items():
            assert (reference in came_in) in present
            assert came_in.get(reference, amount) == amount
            self.credits[reference] = (amount, {reference in came_in})
        ((balance, held),) = self.rows("SELECT balance, held FROM balances WHERE user_id = ?")
        assert balance == sum(came_in.values()) - sum(charges.values())
        assert held == sum(found.values())
        assert 0 <= held <= balance
        assert self.run(audit(self.gateways[0][0].database)).findings == ()


def never_wrong(url: str, examples: int, steps: int, phases: Sequence[Phase]) -> None:
    machine = type("BooksOfOne", (Books,), {"url": url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_credit_is_never_wrong(url: str) -> None:
    # To find the shortest way to a failure takes minutes, which the long run has.
    never_wrong(url, examples=25, steps=20, phases=[Phase.generate])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_credit_is_never_wrong_in_a_long_time(url: str) -> None:
    never_wrong(url, examples=300, steps=50, phases=[Phase.generate, Phase.shrink])

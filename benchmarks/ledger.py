"""What credit costs a request: the statements alone, then the ledger under load, then beside an API's own work.

    python benchmarks/ledger.py [--url URL] [--pairs 4000] [--rate 1000] [--seconds 10] [--out FILE]

1. The floor: the same two statements, reserve and settle, on the driver's own cursor, in one thread that does nothing
   else, one and many to a transaction. Nothing that commits can be cheaper.
2. The ledger: clients that reserve, settle, and begin again; pairs a second, processor time a pair, and how long a
   reservation takes. With everything put on the disk before it is answered, too.
3. Beside an API: requests come at random moments, so many a second; each takes 0.4 ms of the event loop's processor
   time, which is what our API takes, with the key's check and the reservation in the middle and without. What the
   checks add is the difference between the two, at the median and at the 99th percentile.

The database is a new SQLite file, or the empty PostgreSQL database that URL names. On a machine that does other
things, times say little; processor time is comparable all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unmask.gateway.accounts import reserving, settling
from unmask.gateway.accounts.audit import audit
from unmask.gateway.accounts.clock import DAY, microseconds
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.keys import Key
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.money import Hold, Order, new_hold_id
from unmask.gateway.accounts.users import Users
from unmask.gateway.db.backends import parse_url
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Transaction

#: Seconds of processor time that the API takes for a request of its own, before and after the work.
API_SECONDS = 0.0004
SECRET = os.urandom(32)
GROUPS = (1, 8, 64)
CLIENTS = (1, 8, 64, 256)


class Times:
    """Seconds that something took, many times."""

    def __init__(self) -> None:
        self.all: list[float] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        """Measure one."""
        started = time.perf_counter()
        yield
        self.all.append(time.perf_counter() - started)

    def milliseconds(self, share: float) -> float:
        """Return the time that a share of them did not exceed."""
        return round(sorted(self.all)[min(len(self.all) - 1, int(share * len(self.all)))] * 1000, 3)

    def summary(self) -> dict[str, float]:
        """Return the median and the 99th percentile in milliseconds."""
        return {"p50_ms": self.milliseconds(0.5), "p99_ms": self.milliseconds(0.99)}


class Work:
    """What was done, and what it took."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def of(self, pairs: int) -> dict[str, float]:
        """Return pairs a second and microseconds of this process a pair."""
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        return {"pairs_per_second": round(pairs / wall), "processor_us_per_pair": round(processor / pairs * 1e6, 1)}


def order(key: Key) -> Order:
    """Return a request."""
    return Order(user_id=key.user_id, key_id=key.id, amount=1, model="m", units=1, tokens=1)


async def open_account(url: str) -> tuple[Key, ApiKey]:
    """Make a user with credit and a key; other runs on the same database do not matter."""
    async with Database(url) as database:
        user = await Users(database).add(f"{time.time_ns()}@example.org")
        await Ledger(database).credit(user.id, 10**12, "grant", reference=f"benchmark {user.id}")
        return await Keyring(database, SECRET).issue(user.id, "benchmark")


def floor(url: str, key: Key, pairs: int, group: int) -> dict[str, float]:
    """Reserve and settle on the driver's cursor, so many to a transaction."""
    address, backend = parse_url(url)
    connection = backend.connect(address)
    cursor = connection.cursor()
    durable = False

    def commit(run: Callable[[Transaction], object]) -> None:
        cursor.execute(backend.begin(durable, [key.user_id]), **backend.unprepared)
        run(Transaction(cursor, backend.dialect))
        cursor.execute("COMMIT")

    def reserve(transaction: Transaction) -> None:
        for hold in holds:
            reserving.reserve(transaction, order(key), hold, now=now, retry=None, keep_until=0)

    def settle(transaction: Transaction) -> None:
        for hold in holds:
            settling.settle(transaction, hold, 1, now=now, outcome=None)

    work = Work()
    for _ in range(pairs // group):
        now = microseconds()
        holds = [
            Hold(id=new_hold_id(now), user_id=key.user_id, amount=1, expires_at=now + DAY, retried=False)
            for _ in range(group)
        ]
        commit(reserve)
        commit(settle)
    found = work.of(pairs // group * group)
    connection.close()
    return found


async def closed_loop(url: str, key: Key, pairs: int, clients: int, *, always_durable: bool) -> dict[str, float]:
    """Have clients reserve and settle, each one thing at a time."""
    async with Database(url, always_durable=always_durable) as database:
        ledger, times, left = Ledger(database), Times(), iter(range(pairs))

        async def client() -> None:
            for _ in left:
                with times.one():
                    hold = await ledger.reserve(order(key))
                assert isinstance(hold, Hold)
                await ledger.settle(hold)

        work = Work()
        await asyncio.gather(*(client() for _ in range(clients)))
        found = {**work.of(pairs), **times.summary()}
        report = await audit(database)
        assert report.findings == (), report
        return found


def spin(seconds: float) -> None:
    """Use the processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def beside_an_api(
    url: str, key: Key, secret: str, rate: float, seconds: float, *, checked: bool
) -> dict[str, Any]:
    """Have requests come at random moments, each with an API's own work, and return how long they take."""
    rng = random.Random(0)  # noqa: S311 - not a secret
    async with Database(url) as database:
        ledger, keyring, times, checks = Ledger(database), Keyring(database, SECRET), Times(), Times()
        settled: set[asyncio.Task[int]] = set()

        async def check() -> Hold:
            with checks.one():
                found = await keyring.authenticate(secret)
                hold = await ledger.reserve(order(found))
            assert isinstance(hold, Hold)
            return hold

        async def request(due: float) -> None:
            spin(API_SECONDS / 2)
            hold = await check() if checked else None
            spin(API_SECONDS / 2)
            times.all.append(time.perf_counter() - due)
            if hold is not None:  # the answer is on its way
                task = asyncio.create_task(ledger.settle(hold))
                settled.add(task)
                task.add_done_callback(settled.discard)

        loop, over = asyncio.get_running_loop(), asyncio.Event()
        requests: list[asyncio.Task[None]] = []

        def arrive() -> None:
            """Be the network: an event loop's own timers go by milliseconds, and would bring requests in bursts."""
            due = started = time.perf_counter()

            def come(due: float) -> None:
                requests.append(loop.create_task(request(due)))

            while due < started + seconds:
                due += rng.expovariate(rate)
                time.sleep(max(0.0, due - time.perf_counter()))
                loop.call_soon_threadsafe(come, due)
            loop.call_soon_threadsafe(over.set)

        work = Work()
        network = threading.Thread(target=arrive)
        network.start()
        await over.wait()
        await asyncio.gather(*requests)
        await asyncio.gather(*settled)
        found: dict[str, Any] = {"requests": len(requests), **work.of(len(requests)), **times.summary()}
        if checked:
            found["checks"] = checks.summary()
        return found


def run(work: Awaitable[Any]) -> Any:
    """Run on the event loop that the server runs on."""

    async def main() -> Any:
        return await work

    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def measure(url: str, pairs: int, rate: float, seconds: float) -> dict[str, Any]:
    """Take all measurements, the floor first."""
    key, secret = run(open_account(url))
    found: dict[str, Any] = {"floor": {}, "ledger": {}, "durable": {}, "api": {}}
    for group in GROUPS:
        found["floor"][group] = floor(url, key, pairs, group)
        print(f"floor, {group} to a transaction: {found['floor'][group]}", flush=True)
    for name, always in (("ledger", False), ("durable", True)):
        for clients in CLIENTS:
            found[name][clients] = run(closed_loop(url, key, pairs, clients, always_durable=always))
            print(f"{name}, {clients} clients: {found[name][clients]}", flush=True)
    for name, checked, interval in (
        ("without", False, 0.005),
        ("with", True, 0.005),
        ("with, handed over", True, 0.0005),
    ):
        sys.setswitchinterval(interval)
        found["api"][name] = run(beside_an_api(url, key, secret.reveal(), rate, seconds, checked=checked))
        print(f"an API at {rate:g} requests a second, {name} checks: {found['api'][name]}", flush=True)
    added = {
        share: round(found["api"]["with"][share] - found["api"]["without"][share], 3) for share in ("p50_ms", "p99_ms")
    }
    found["api"]["added"] = added
    print(f"added by the checks: {added}", flush=True)
    return found


def main() -> None:
    """Measure, print, and write the figures if a file is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite:///{folder}/ledger.db"
        found = measure(url, options.pairs, options.rate, options.seconds)
    if options.out:
        found |= {
            "kind": parse_url(options.url)[1].name if options.url else "sqlite",
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
            "rate": options.rate,
        }
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

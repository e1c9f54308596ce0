"""The writer: groups, refusals among them, a database that fails, and its end."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

import psycopg
from sqlalchemy import insert, select

from tests.bank import Faults, break_statements, raw
from tests.postgresql import Cluster
from unmask.errors import InputError, UnmaskError
from unmask.gateway.db import backends, checkpoints, writer
from unmask.gateway.db.backends import parse_url
from unmask.gateway.db.database import Database
from unmask.gateway.db.errors import DatabaseError, DatabaseUnavailableError
from unmask.gateway.db.migrating import prepare
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import users

pytest_plugins = ("tests.databases",)

_EMAILS = Statement(select(users.c.email).order_by(users.c.email))


def add(email: str) -> Callable[[Transaction], int]:
    """Return an operation that adds a user."""
    statement = Statement(insert(users).values(email=email, created_at=0))
    return lambda transaction: transaction.run(statement)


def refuse(after: Callable[[Transaction], object] = lambda _: None) -> Callable[[Transaction], int]:
    """Return an operation that refuses, after another one."""

    def operation(transaction: Transaction) -> int:
        after(transaction)
        raise UnmaskError("no")

    return operation


def fail(transaction: Transaction) -> int:
    """Be an operation with a mistake in it."""
    raise ZeroDivisionError


class Gate:
    """An operation that keeps the writer's thread busy until it is opened: what comes meanwhile is one group."""

    def __init__(self) -> None:
        self.opened, self.entered = threading.Event(), threading.Event()

    def __call__(self, transaction: Transaction) -> None:
        self.entered.set()
        self.opened.wait()

    async def shut(self, database: Database) -> asyncio.Task[None]:
        """Keep a writer busy from now on."""
        # What is durable is done in the thread, whatever the database.
        task = asyncio.create_task(database.write(self, durable=True))
        await asyncio.to_thread(self.entered.wait)
        return task


async def together(
    database: Database, *operations: Callable[[Transaction], object], faults: Faults | None = None, at: int = 0
) -> list[object]:
    """Have operations done in one group and return what each gave or raised; a statement from then on may fail."""
    gate = Gate()
    first = await gate.shut(database)
    tasks = [asyncio.create_task(database.write(operation)) for operation in operations]
    await asyncio.sleep(0)
    if faults is not None:
        faults.set(at)
    gate.opened.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def emails(url: str) -> list[str]:
    return [row[0] for row in raw(url, "SELECT email FROM users ORDER BY email")]


def test_what_waits_is_one_transaction(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            assert await together(database, *(add(str(number)) for number in range(50))) == [1] * 50
            commits = [sql for sql in faults.seen if sql == "COMMIT"]
            assert len(commits) == 2
            assert len(await database.read(lambda transaction: transaction.rows(_EMAILS))) == 50

    asyncio.run(scenario())


def test_a_group_has_a_bound(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GROUP", 10)

    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            await together(database, *(add(str(number)) for number in range(25)))
            assert faults.seen.count("COMMIT") == 4

    asyncio.run(scenario())


def test_a_refusal_undoes_nothing_of_others(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            results = await together(database, add("a"), refuse(), add("b"))
            assert (results[0], str(results[1]), results[2]) == (1, "no", 1)
            assert faults.seen.count("COMMIT") == 2  # nothing was done again

    asyncio.run(scenario())
    assert emails(url) == ["a", "b"]


@pytest.mark.parametrize("bad", [refuse(add("x")), fail, add("a")], ids=["refuses late", "fails", "is no statement"])
def test_an_operation_that_fails_is_alone_in_that(url: str, bad: Callable[[Transaction], int]) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            results = await together(database, add("a"), bad, add("b"))
            assert (results[0], results[2]) == (1, 1)
            assert isinstance(results[1], (UnmaskError, ZeroDivisionError))
            assert await database.write(add("c")) == 1

    asyncio.run(scenario())
    assert emails(url) == ["a", "b", "c"]


def test_what_the_database_refuses_is_no_outage(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            await database.write(add("a"))
            with pytest.raises(DatabaseError, match="refused an operation") as refusal:
                await database.write(add("a"))
            assert not isinstance(refusal.value, DatabaseUnavailableError)

    asyncio.run(scenario())


def test_nobody_waits_for_an_answer_in_vain_when_the_database_is_gone(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            await database.write(add("before"))
            # First the gate's end, what begins the group, some of its additions.
            results = await together(database, *(add(str(number)) for number in range(5)), faults=faults, at=6)
            assert "INSERT" in faults.seen[6]
            assert {type(result) for result in results} == {DatabaseUnavailableError}
            assert len({id(result) for result in results}) == 5
            assert emails(url) == ["before"]
            # It comes back by itself.
            assert await database.write(add("after")) == 1

    asyncio.run(scenario())
    assert emails(url) == ["after", "before"]


def test_a_writer_that_was_idle_takes_up_a_new_connection(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            await database.write(add("a"))
            faults.set(0)  # the first statement: nothing is lost by another try
            assert await database.write(add("b")) == 1

    asyncio.run(scenario())


def test_connections_that_the_server_ends_are_opened_again(cluster: Cluster, postgresql_template: str) -> None:
    url = cluster.create(postgresql_template)

    async def scenario() -> None:
        async with Database(url) as database:
            await database.write(add("a"))
            await database.read(lambda transaction: transaction.rows(_EMAILS))
            with psycopg.connect(url, autocommit=True) as other:
                others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                other.execute(f"SELECT pg_terminate_backend(pid) {others}")
            assert await database.write(add("b")) == 1
            rows = await database.read(lambda transaction: transaction.rows(_EMAILS))
            assert [row[0] for row in rows] == ["a", "b"]

    asyncio.run(scenario())
    cluster.drop(url)


@pytest.mark.parametrize("durable", [False, True])
def test_a_database_that_somebody_locks_is_unavailable(tmp_path: Path, durable: bool) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    address, backend = parse_url(url)

    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            await database.write(add("a"), durable=durable)
            be_impatient(database)
            faults.set(None)
            other = backend.connect(address)
            other.cursor().execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailableError, match="OperationalError"):
                await database.write(add("b"), durable=durable)
            # It waits once, on the thread; a new connection would only wait again.
            waits = [sql for sql in faults.seen if sql == "BEGIN IMMEDIATE"]
            assert len(waits) == (1 if durable else 2)
            # Readers do not care.
            assert len(await database.read(lambda transaction: transaction.rows(_EMAILS))) == 1
            other.close()
            assert await database.write(add("b"), durable=durable) == 1

    asyncio.run(scenario())


def be_impatient(database: Database) -> None:
    """Have a SQLite database's writer wait for others no more than 20 ms."""
    link = database._writer._link
    link._backend = replace(link._backend, patience=("PRAGMA busy_timeout = 0", "PRAGMA busy_timeout = 20"))
    link._modes.clear()


def test_a_write_waits_for_another_process_and_holds_up_nobody(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    address, backend = parse_url(url)

    async def scenario() -> None:
        async with Database(url) as database:
            await database.write(add("a"))
            other = backend.connect(address)
            other.cursor().execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(database.write(add("b")))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not task.done()
            other.close()
            assert await task == 1
            # On the event loop it does not wait at all, in the thread it does.
            patience = []
            for durable in (False, True):
                await database.write(add(f"{durable}"), durable=durable)
                patience += raw_rows(database, "PRAGMA busy_timeout")
            assert patience == [(0,), (5000,)]

    asyncio.run(scenario())


def raw_rows(database: Database, sql: str) -> list[tuple[int]]:
    """Return what a statement gives on the writer's own connection."""
    cursor = database._writer._link._cursor
    cursor.execute(sql)
    return list(cursor.fetchall())


def test_a_file_that_another_process_sets_up_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        other.close()

    monkeypatch.setattr(backends, "time", SimpleNamespace(sleep=sleep))
    prepare(f"sqlite:///{tmp_path}/a.db")
    assert len(slept) == 1


def test_a_writer_that_does_not_keep_up_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING", 3)

    async def scenario() -> None:
        async with Database(f"sqlite:///{tmp_path}/a.db") as database:
            results = await together(database, *(add(str(number)) for number in range(5)))
            assert results[:3] == [1] * 3
            assert all("does not keep up" in str(result) for result in results[3:])

    asyncio.run(scenario())


def test_what_waits_when_it_is_closed_is_done(url: str) -> None:
    async def scenario() -> None:
        database = Database(url)
        gate = Gate()
        first = await gate.shut(database)
        tasks = [asyncio.create_task(database.write(add(str(number)))) for number in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, closing)
        assert await asyncio.gather(*tasks) == [1] * 20
        for asked in (database.write(add("x")), database.read(lambda transaction: None)):
            with pytest.raises(DatabaseUnavailableError, match="closed"):
                await asked
        await database.close()  # once more is no harm

    asyncio.run(scenario())
    assert len(emails(url)) == 20


def test_what_nobody_waits_for_any_more_is_done_all_the_same(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            gate = Gate()
            first = await gate.shut(database)
            task = asyncio.create_task(database.write(add("a")))
            await asyncio.sleep(0)
            task.cancel()
            gate.opened.set()
            await first
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
    assert emails(url) == ["a"]


def test_what_has_no_hurry_goes_along_or_by_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            assert await database.write(add("a"), hurry=False) == 1
            monkeypatch.setattr(writer, "LEISURE", 3600)
            leisurely = asyncio.create_task(database.write(add("b"), hurry=False))
            for _ in range(10):
                await asyncio.sleep(0)
            others = [database.write(add(name)) for name in ("c", "d")]
            assert await asyncio.gather(leisurely, *others) == [1] * 3
            assert faults.seen.count("COMMIT") == 2

    asyncio.run(scenario())


def test_only_what_must_outlive_a_power_cut_waits_for_the_disk(url: str) -> None:
    async def last(database: Database, faults: Faults, *, durable: bool) -> bool:
        await database.write(add(f"{durable} {time.monotonic_ns()}"), durable=durable)
        modes = [sql for sql in faults.seen if "synchronous" in sql or sql == "BEGIN"]
        return bool(modes) and modes[-1] in {"PRAGMA synchronous = FULL", "BEGIN; SET LOCAL synchronous_commit = on"}

    async def scenario() -> None:
        async with Database(url) as database:
            faults = break_statements(database)
            for durable in (False, True, True, False, True):
                assert await last(database, faults, durable=durable) is durable
            # A new connection begins anew.
            faults.set(0)
            assert not await last(database, faults, durable=False)
        async with Database(url, always_durable=True) as database:
            assert await last(database, break_statements(database), durable=False)

    asyncio.run(scenario())


def test_the_log_is_flushed_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FLUSH_SECONDS", 0.001)
    path = tmp_path / "a.db"

    async def scenario() -> None:
        async with Database(f"sqlite:///{path}") as database:
            before = path.read_bytes()
            await database.write(add("a"))
            while path.read_bytes() == before:  # pytest's own limit ends it
                await asyncio.sleep(0.001)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://root:secret@host/x", "of the kind 'mysql'"),
        ("secret", "cannot be read"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_urls_that_cannot_be_used_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        Database(url)
    assert "secret" not in str(refusal.value)


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="OperationalError") as refusal:
        Database(f"postgresql://ada:secret@/x?host={tmp_path}")
    assert "ada:***@" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_process_that_hangs_lets_go_of_its_locks(cluster: Cluster) -> None:
    address, backend = parse_url(cluster.url("postgres"))
    connection = backend.connect(address)
    cursor = connection.cursor()
    for setting, value in (("lock_timeout", "5s"), ("idle_in_transaction_session_timeout", "30s")):
        cursor.execute(f"SHOW {setting}")
        assert cursor.fetchall() == [(value,)]
    connection.close()


def test_accounts_need_no_torch() -> None:
    code = (
        "import sys; import unmask.gateway.accounts.ledger, unmask.gateway.accounts.keyring; "
        "import unmask.gateway.accounts.audit, unmask.gateway.db.backup; "
        "assert not {'torch', 'transformers', 'numpy', 'starlette'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

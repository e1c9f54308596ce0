"""The schema: set up by itself, moved up and down with data in it, and what it refuses by itself."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

import psycopg
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.bank import bank, order, raw
from unmask.gateway.accounts.money import Balance, Hold, Retry
from unmask.gateway.db.database import Database
from unmask.gateway.db.errors import SchemaError
from unmask.gateway.db.migrating import current, downgrade, exclusive, head, prepare, upgrade
from unmask.gateway.db.tables import TRIGGERS, metadata

pytest_plugins = ("tests.databases",)

REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError)


def open_and_close(url: str) -> None:
    """Do what a gateway does first and last."""

    async def scenario() -> None:
        async with Database(url):
            pass

    asyncio.run(scenario())


def test_a_new_database_needs_no_set_up(empty_url: str) -> None:
    assert current(empty_url) is None
    open_and_close(empty_url)
    assert current(empty_url) == head()
    open_and_close(empty_url)


def test_the_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    with exclusive(url) as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


def test_the_migrations_make_the_triggers_that_the_audit_looks_for(url: str) -> None:
    listed = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'entries_stay'",
    }
    assert {name for (name,) in raw(url, listed[url.partition(":")[0]])} == TRIGGERS


def test_a_foreign_database_is_left_alone(empty_url: str) -> None:
    raw(empty_url, "CREATE TABLE mine (id INTEGER)")
    with pytest.raises(SchemaError, match="tables that are not Unmask's"):
        Database(empty_url)
    assert raw(empty_url, "SELECT count(*) FROM mine") == [(0,)]


def test_an_older_database_is_refused_until_it_is_migrated(empty_url: str) -> None:
    upgrade(empty_url, "0001")
    with pytest.raises(SchemaError, match=f"version 0001; expected {head()}. .* unmask gateway migrate"):
        Database(empty_url)
    upgrade(empty_url)
    open_and_close(empty_url)


def test_moving_up_gives_every_user_a_balance_and_every_key_a_usage(empty_url: str) -> None:
    upgrade(empty_url, "0001")
    raw(
        empty_url,
        "INSERT INTO users (email, created_at) VALUES ('ada@example.org', 1), ('bob@example.org', 2)",
        "INSERT INTO keys (user_id, name, digest, prefix, created_at) VALUES (1, 'old', '\\x01', 'gr-', 1)"
        if empty_url.startswith("postgresql")
        else "INSERT INTO keys (user_id, name, digest, prefix, created_at) VALUES (1, 'old', x'01', 'gr-', 1)",
    )
    upgrade(empty_url)

    async def scenario() -> None:
        async with bank(empty_url) as b:
            ada = await b.users.find("ada@example.org")
            assert await b.ledger.balance(ada.id) == Balance(balance=0, held=0)
            await b.ledger.credit(ada.id, 10, "grant", reference="welcome")
            key = (await b.keyring.of(ada.id))[0]
            await b.ledger.reserve(order(key, 10))
            # Ids go on after those that there were.
            assert (await b.users.add("eve@example.org")).id == 3
            await b.require_sound()

    asyncio.run(scenario())


def test_moving_down_keeps_users_and_keys(url: str) -> None:
    async def before() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            hold = await b.ledger.reserve(order(key, 10), Retry(key="k", fingerprint="f"))
            await b.ledger.settle(hold)  # type: ignore[arg-type]
            await b.ledger.reserve(order(key, 10))

    async def after() -> None:
        async with bank(url) as b:
            ada = await b.users.find("ada@example.org")
            assert [key.name for key in await b.keyring.of(ada.id)] == ["test"]
            assert await b.ledger.balance(ada.id) == Balance(balance=0, held=0)
            await b.customer(credit=5, email="bob@example.org")
            await b.require_sound()

    asyncio.run(before())
    downgrade(url, "0001")
    assert raw(url, "SELECT email FROM users") == [("ada@example.org",)]
    raw(url, "INSERT INTO users (email, created_at) VALUES ('eve@example.org', 1)")
    upgrade(url)
    asyncio.run(after())
    downgrade(url, "base")
    assert current(url) is None
    prepare(url)


def test_a_migration_that_fails_changes_nothing(empty_url: str) -> None:
    upgrade(empty_url, "0001")
    raw(empty_url, "CREATE TABLE idempotency (id INTEGER)")
    with pytest.raises(Exception, match="idempotency"):
        upgrade(empty_url)
    assert current(empty_url) == "0001"
    raw(empty_url, "DROP TABLE idempotency")
    upgrade(empty_url)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE entries SET amount = 1", "append-only"),
        ("UPDATE entries SET note = 'x'", "append-only"),
        ("DELETE FROM entries", "append-only"),
        ("UPDATE holds SET amount = 1", "never changes"),
        ("UPDATE holds SET id = 'b', expires_at = expires_at + 1", "never changes"),
        ("UPDATE holds SET day = day + 1, expires_at = expires_at + 1", "never changes"),
        ("UPDATE holds SET expires_at = expires_at - 1", "never changes"),
        ("UPDATE balances SET balance = -1, held = 0", "covered"),
        ("UPDATE balances SET held = balance + 1", "covered"),
        ("UPDATE balances SET held = -1", "covered"),
        ("INSERT INTO entries (user_id, kind, amount, at) VALUES (1, 'correction', -91, 0)", "covered"),
        ("INSERT INTO entries (user_id, kind, amount, at) VALUES (1, 'grant', -1, 0)", "kind"),
        ("INSERT INTO entries (user_id, kind, amount, at) VALUES (1, 'gift', 1, 0)", "kind"),
        ("INSERT INTO entries (user_id, kind, amount, at) VALUES (9, 'grant', 1, 0)", "(?i)foreign key|fk_entries"),
        (
            "INSERT INTO entries (user_id, key_id, kind, amount, at, hold_id) VALUES (1, 1, 'charge', -1, 0, 'none')",
            "settles a hold",
        ),
        (
            "INSERT INTO entries (user_id, key_id, kind, amount, at, hold_id) "
            "SELECT 1, 1, 'charge', -11, 0, id FROM holds",
            "settles a hold",
        ),
        (
            "INSERT INTO holds SELECT 'b', user_id, key_id, 81, model, units, 0, 0, 0, 0, 0 FROM holds",
            "covered",
        ),
        (
            "INSERT INTO holds SELECT 'b', user_id, key_id, -1, model, units, 0, 0, 0, 0, 0 FROM holds",
            "amount",
        ),
        ("DELETE FROM balances", "(?i)foreign key|fk_"),
        ("DELETE FROM users", "(?i)foreign key|fk_"),
        ("DELETE FROM keys", "(?i)foreign key|fk_"),
    ],
)
def test_the_database_itself_refuses(url: str, statement: str, message: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            hold = await b.ledger.reserve(order(key, 10))
            await b.ledger.settle(hold)  # type: ignore[arg-type]
            await b.ledger.reserve(order(key, 10))
            with pytest.raises(REFUSED, match=message):
                raw(url, statement)
            assert await b.ledger.balance(1) == Balance(balance=90, held=10)
            await b.require_sound()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "column", ["user_id", "key_id", "amount", "units", "created_at", "day", "requests_until", "tokens_until"]
)
def test_of_a_hold_only_the_end_moves_and_only_on(url: str, column: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            await b.ledger.reserve(order(key, 10))
            with pytest.raises(REFUSED, match="never changes"):
                raw(url, f"UPDATE holds SET {column} = {column} + 1")
            raw(url, "UPDATE holds SET expires_at = expires_at + 1")
            await b.require_sound()

    asyncio.run(scenario())


def test_moving_below_pins_forgets_them_and_has_holds_end_as_they_were_to(url: str) -> None:
    pin = (
        "INSERT INTO pins (model, provider, since, mark, probes, texts, dimension, vectors) VALUES ('m', 'a', 1, 'x', "
    )
    vectors = "'\\x0000803f00000040'" if url.startswith("postgresql") else "x'0000803f00000040'"

    async def before() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            await b.ledger.reserve(order(key, 10))

    async def after() -> None:
        async with bank(url) as b:
            await b.ledger.release(hold)
            await b.require_sound()

    asyncio.run(before())
    for wrong in (f"'p', 1, 1, {vectors})", "'p', 1, 1, NULL)", f"'p', -1, -2, {vectors})"):
        with pytest.raises(REFUSED, match="shape"):
            raw(url, pin + wrong)
    raw(url, pin + f"'p', 1, 2, {vectors})")
    ((hold_id, until),) = raw(url, "UPDATE holds SET expires_at = expires_at + 5 RETURNING id, expires_at")
    hold = Hold(id=hold_id, user_id=1, amount=10, expires_at=until, retried=False)
    downgrade(url, "0007")
    with pytest.raises(REFUSED, match="never changes"):
        raw(url, "UPDATE holds SET expires_at = expires_at + 1")
    assert raw(url, "SELECT expires_at FROM holds") == [(until,)]
    upgrade(url)
    assert raw(url, "SELECT count(*) FROM pins") == [(0,)]
    raw(url, "UPDATE holds SET expires_at = expires_at + 1")
    asyncio.run(after())


def test_no_entry_can_be_replaced_or_all_be_emptied(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            await b.customer(credit=100)
            if url.startswith("sqlite"):
                replace = "INSERT OR REPLACE INTO entries (id, user_id, kind, amount, at) VALUES (1, 1, 'grant', 1, 0)"
                with pytest.raises(REFUSED, match="append-only"):
                    raw(url, replace)
                with pytest.raises(REFUSED, match="append-only"):
                    raw(
                        url,
                        replace.replace("(id, user_id", "(reference, user_id").replace(
                            "(1, 1", "('first of ada@example.org', 1"
                        ),
                    )
            else:
                with pytest.raises(REFUSED, match="append-only"):
                    raw(url, "TRUNCATE entries")
            await b.require_sound()

    asyncio.run(scenario())


def test_amounts_are_whole_numbers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    prepare(url)
    raw(url, "INSERT INTO users (email, created_at) VALUES ('a', 0)")
    for value in ("1.5", "'many'"):
        with pytest.raises(sqlite3.IntegrityError, match="cannot store"):
            raw(url, f"INSERT INTO entries (user_id, kind, amount, at) VALUES (1, 'grant', {value}, 0)")

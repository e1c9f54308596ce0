"""Backups: made under load, put back whole, and never over anything."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import bank, order
from tests.postgresql import Cluster, binaries
from unmask.gateway.accounts.money import Balance, Hold
from unmask.gateway.db.backup import backup, restore
from unmask.gateway.db.errors import BackupError

pytest_plugins = ("tests.databases",)


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the programs of the server that is tested with."""
    found = binaries()
    if found is not None:
        monkeypatch.setenv("PATH", f"{found}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def another(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for the same kind of database."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/restored.db"
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.create()


def test_a_backup_under_load_is_one_moment(url: str, another: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"

    async def spend(b: object, key: object) -> None:
        while not file.exists():
            hold = await b.ledger.reserve(order(key, 1))  # type: ignore[arg-type,attr-defined]
            await b.ledger.settle(hold)  # type: ignore[attr-defined]

    async def scenario() -> Balance:
        async with bank(url) as b:
            user, key, secret = await b.customer(credit=1_000_000)
            secrets.append(secret.reveal())
            open_hold = await b.ledger.reserve(order(key, 10))
            assert isinstance(open_hold, Hold)
            holds.append(open_hold)
            spending = [asyncio.create_task(spend(b, key)) for _ in range(4)]
            await asyncio.to_thread(backup, url, file)
            await asyncio.gather(*spending)
            return await b.ledger.balance(user.id)

    async def restored(last: Balance) -> None:
        async with bank(another) as b:
            await b.require_sound()
            key = await b.keyring.authenticate(secrets[0])
            found = await b.ledger.balance(key.user_id)
            assert last.balance <= found.balance <= 1_000_000
            assert 10 <= found.held <= 14
            # It goes on: holds are settled, entries are added, the ledger is still only added to.
            assert await b.ledger.settle(holds[0]) == 10
            await b.ledger.credit(key.user_id, 5, "grant", reference="after")
            assert (await b.users.add("eve@example.org")).id == key.user_id + 1
            await b.require_sound()

    secrets: list[str] = []
    holds: list[Hold] = []
    last = asyncio.run(scenario())
    restore(another, file)
    asyncio.run(restored(last))
    assert sorted(path.name for path in tmp_path.iterdir() if "draft" in path.name) == []


def test_nothing_is_overwritten(url: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    backup(url, file)
    with pytest.raises(BackupError, match="there already"):
        backup(url, file)
    with pytest.raises(BackupError, match="there already|has tables"):
        restore(url, file)


def test_what_is_no_backup_is_not_put_back(url: str, another: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    with pytest.raises(BackupError, match="no backup"):
        restore(another, file)
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(BackupError, match="not a database|not appear to be a valid archive"):
        restore(another, file)
    backup(url, tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(BackupError):
        restore(another, file)
    assert not (tmp_path / "restored.db").exists()
    restore(another, tmp_path / "good")


def test_a_backup_that_fails_leaves_nothing(url: str, tmp_path: Path) -> None:
    with pytest.raises(BackupError):
        backup(url, tmp_path / "no folder" / "backup")
    with pytest.raises(BackupError):
        backup(url.replace("gateway.db", "other.db").replace("/test_", "/no_test_"), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_missing_program_is_named(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="no pg_dump here"):
        backup(cluster.url("postgres"), tmp_path / "backup")

"""unmask gateway audit, migrate, backup, restore: what they print, and how they end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import bank, order, raw
from tests.postgresql import Cluster, binaries
from unmask.cli import app
from unmask.cli.outcome import run
from unmask.gateway.accounts.money import Hold, Retry
from unmask.gateway.db.migrating import current, downgrade, head, upgrade

pytest_plugins = ("tests.databases",)

#: Takes the arguments of a command; returns its status, standard output and standard error.
Command = Callable[..., tuple[int, str, str]]

#: How an owner of the database gets past two of its triggers.
GUARDS = ("entries_never_change", "entries_never_go")
UNGUARDED = {"sqlite": "DROP TRIGGER {}", "postgresql": "ALTER TABLE entries DISABLE TRIGGER {}"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run one of the commands in this process."""
    found = binaries()
    if found is not None:
        monkeypatch.setenv("PATH", f"{found}{os.pathsep}{os.environ['PATH']}")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        status = run(app, ["gateway", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def fill(url: str) -> None:
    """Make a user with credit, charges, a request under way and one that may be retried."""

    async def scenario() -> None:
        async with bank(url) as b:
            _, key, _ = await b.customer(credit=100)
            for retry in (None, Retry(key="k", fingerprint="f")):
                hold = await b.ledger.reserve(order(key, 10), retry)
                assert isinstance(hold, Hold)
                await b.ledger.settle(hold)
            await b.ledger.reserve(order(key, 10))

    asyncio.run(scenario())


def test_an_audit_says_what_it_checked(url: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(url)
    monkeypatch.setenv("UNMASK_DATABASE", url)
    status, out, err = command("audit")
    assert (status, err) == (0, "")
    *checks, last = out.splitlines()
    assert "ok     each balance is the sum of its entries" in checks
    assert all(line.startswith("ok     ") for line in checks)
    assert last == "1 users, 3 entries, 1 open holds, 80 micro-units of credit: nothing wrong."


@pytest.mark.parametrize(
    ("tampering", "findings"),
    [
        (
            "UPDATE balances SET balance = balance + 1",
            {"each balance is the sum of its entries": ["user 1: the balance is 81, the sum of the ledger 80"]},
        ),
        (
            "DELETE FROM entries WHERE id = 3",
            {
                "each balance is the sum of its entries": ["user 1: the balance is 80, the sum of the ledger 90"],
                "the usage by day is the sum of the charges": [
                    "user 1: the usage by day comes to 20, the charges to 10"
                ],
                "each retry was told what was charged": ["user 1: a retry was told that 10 were charged for hold "],
            },
        ),
        (
            "UPDATE entries SET amount = amount + 5 WHERE id = 2",
            {
                "each balance is the sum of its entries": ["user 1: the balance is 80, the sum of the ledger 85"],
                "the usage by day is the sum of the charges": [
                    "user 1: the usage by day comes to 20, the charges to 15"
                ],
            },
        ),
    ],
    ids=["a balance", "a missing entry", "an entry"],
)
def test_an_audit_finds_what_was_tampered_with(
    url: str, command: Command, tampering: str, findings: dict[str, list[str]]
) -> None:
    fill(url)
    raw(url, *(UNGUARDED[url.partition(":")[0]].format(guard) for guard in GUARDS), tampering)
    findings = {
        "the triggers that keep the books are in place": [f"the trigger {guard} is missing" for guard in GUARDS],
        **findings,
    }
    status, out, err = command("audit", "--database", url)
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert [line[7:] for line in lines if line.startswith("WRONG  ")] == list(findings)
    for claim, said in findings.items():
        at = lines.index(f"WRONG  {claim}")
        assert [line[7 : 7 + len(words)] for line, words in zip(lines[at + 1 :], said, strict=False)] == said
    assert lines[-1].endswith(f": {sum(map(len, findings.values()))} wrong.")


def test_migrating_up_and_down(empty_url: str, command: Command) -> None:
    upgrade(empty_url, "0001")
    status, _, err = command("audit", "--database", empty_url)
    assert status == 2
    assert f"version 0001; expected {head()}" in err
    assert command("migrate", "--database", empty_url) == (
        0,
        "",
        f"The database was of version 0001 and is of version {head()}.\n",
    )
    assert command("audit", "--database", empty_url)[0] == 0
    assert command("migrate", "-d", empty_url, "--down-to", "0002")[0] == 0
    assert current(empty_url) == "0002"
    for version in ("0003", "9999"):  # it lies ahead, and nowhere
        status, out, err = command("migrate", "-d", empty_url, "--down-to", version)
        assert (status, out) == (2, "")
        assert "cannot be moved" in err
        assert current(empty_url) == "0002"


def test_a_newer_database_is_left_alone(url: str, command: Command) -> None:
    raw(url, "UPDATE alembic_version SET version_num = '9999'")
    for name in ("audit", "migrate"):
        status, out, err = command(name, "-d", url)
        assert (status, out) == (2, "")
        assert "9999" in err
        assert len(err.splitlines()) == 1
    assert raw(url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_foreign_database_is_not_migrated(empty_url: str, command: Command) -> None:
    raw(empty_url, "CREATE TABLE mine (id INTEGER)")
    status, _, err = command("migrate", "-d", empty_url)
    assert status == 2
    assert "not Unmask's" in err


def test_a_backup_is_put_back(url: str, command: Command, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    fill(url)
    file = tmp_path / "backup"
    status, out, err = command("backup", file, "-d", url)
    assert (status, out) == (0, "")
    assert f"Wrote {file}: " in err
    another = f"sqlite:///{tmp_path}/new/restored.db"
    if url.startswith("postgresql"):
        cluster: Cluster = request.getfixturevalue("cluster")
        another = cluster.create()
    assert command("restore", file, "-d", another)[0] == 0
    assert command("audit", "-d", another)[1] == command("audit", "-d", url)[1]
    # Neither is written over anything.
    for name, target in (("backup", url), ("restore", another)):
        status, out, err = command(name, file, "-d", target)
        assert (status, out) == (2, "")
        assert "there already" in err or "has tables" in err
        assert len(err.splitlines()) == 1


def test_what_is_not_there_is_not_made(command: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/typing/error.db"
    for arguments in (("audit",), ("migrate",), ("backup", tmp_path / "backup")):
        status, out, err = command(*arguments, "-d", url)
        assert (status, out) == (2, "")
        assert "There is no database" in err
        assert len(err.splitlines()) == 1
    assert command("restore", tmp_path / "none", "-d", url)[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql://root:secret@host/x", "secret", "sqlite://"])
@pytest.mark.parametrize("arguments", [("audit",), ("migrate",), ("backup", "f"), ("restore", "f")])
def test_urls_that_cannot_be_used_are_one_line(command: Command, url: str, arguments: tuple[str, ...]) -> None:
    status, out, err = command(*arguments, "-d", url)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "secret" not in err


def test_no_database_is_a_mistake(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMASK_DATABASE", raising=False)
    status, _, err = command("audit")
    assert status == 2
    assert "--database" in err


def test_going_back_keeps_the_ledger(url: str, command: Command) -> None:
    fill(url)
    downgrade(url, "0004")
    assert command("migrate", "-d", url)[0] == 0
    assert command("audit", "-d", url)[0] == 0

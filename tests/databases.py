"""Databases for tests: SQLite in a file, PostgreSQL from a cluster of its own.

A test module that says ``pytest_plugins = ("tests.databases",)`` gets the fixture ``url``: an empty-but-migrated
database of each kind in turn, with nothing of other tests in it. Nothing imports this module: it is a plugin.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgresql import Cluster, binaries, empty, start, stop
from unmask.gateway.db import backends
from unmask.gateway.db.migrating import prepare


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server for the whole run; skips where it is not installed."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    try:
        cluster, server = start(folder)
        try:
            yield cluster
        finally:
            stop(server, folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    prepare(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(cluster: Cluster) -> str:
    """The name of a migrated PostgreSQL database, to be copied."""
    url = cluster.create()
    prepare(url)
    return url.rpartition("?")[0].rpartition("/")[2]


@pytest.fixture(scope="session")
def emptied(cluster: Cluster, postgresql_template: str) -> list[str]:
    """The migrated database without a row that the next test may have; a new one costs more than emptying the last."""
    return [cluster.create(postgresql_template)]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no session of PostgreSQL end by the clock: a machine may be put to sleep in the middle of a test."""
    for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
        monkeypatch.setitem(backends.POSTGRESQL_SETTINGS, name, 0)
    monkeypatch.setitem(backends.POSTGRESQL_REACHABLE, "connect_timeout", 3600)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, unhurried: None) -> Iterator[str]:
    """Each kind of database, migrated and without a row."""
    if request.param == "sqlite":
        path = tmp_path / "gateway.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    emptied: list[str] = request.getfixturevalue("emptied")
    url = emptied.pop() if emptied else cluster.create(request.getfixturevalue("postgresql_template"))
    yield url
    try:
        empty(url)
        emptied.append(url)
    except (psycopg.Error, AssertionError):  # the test changed its schema, or left somebody who uses it
        cluster.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path, unhurried: None) -> Iterator[str]:
    """Each kind of database, without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.create()
        yield url
        cluster.drop(url)

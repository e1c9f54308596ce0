"""Databases for tests: SQLite in a file, PostgreSQL from a cluster of its own on a Unix socket.

A test module that says ``pytest_plugins = ("tests.databases",)`` gets the fixture ``url``: an empty-but-migrated
database of each kind in turn, with nothing of other tests in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from unmask.gateway.db.migrating import prepare

_USERS = ("postgres", "nobody")
#: Tests lose nothing in a power cut.
_SETTINGS = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=16MB")


@dataclass
class Cluster:
    """A PostgreSQL server.

    Attributes:
        folder: of its socket.
        user: superuser, over the socket, without a password.
        made: databases so far.
    """

    folder: Path
    user: str
    made: int = 0

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{self.user}@/{name}?host={self.folder}"

    def create(self, template: str | None = None) -> str:
        """Make a database and return its URL."""
        self.made += 1
        name = f"test_{self.made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = url.rpartition("?")[0].rpartition("/")[2]
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def binaries() -> Path | None:
    """Return where PostgreSQL's programs are, None if it is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


def start(folder: Path, settings: tuple[str, ...] = _SETTINGS) -> tuple[Cluster, subprocess.Popen[bytes]]:
    """Start a server on the data in a folder, which is made if there is none.

    Args:
        folder: of data and socket; short, for a socket's path has at most 107 bytes.
        settings: arguments of the server.

    Returns:
        The server, and its process, which ends when it is interrupted.
    """
    programs = binaries()
    assert programs is not None
    become, user = _other_user(folder)
    data = folder / "data"
    if not data.exists():
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-A",
            "trust",
            "-U",
            user,
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run([*become, *map(str, initdb)], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [*become, programs / "postgres", "-D", data, "-k", folder, *settings], stdout=log, stderr=log, cwd=folder
        )
    ready: list[str | Path] = [programs / "pg_isready", "--quiet", "--host", folder]
    for _ in range(600):
        if subprocess.run(ready, check=False, timeout=10).returncode == 0:
            return Cluster(folder, user), server
        if server.poll() is not None:
            break
    server.terminate()
    raise AssertionError((folder / "log").read_text())


def stop(server: subprocess.Popen[bytes], folder: Path, *, kill: bool = False) -> None:
    """End a server: in order, or as a crash would."""
    pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    if kill:
        # The postmaster's children end by themselves.
        os.kill(pid, 9)
    else:
        os.kill(pid, 2)
    server.wait(30)


def _other_user(folder: Path) -> tuple[list[str], str]:
    """Return how to run a program as somebody who may run a server, and who that is."""
    if os.geteuid() != 0:
        import getpass

        return [], getpass.getuser()
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next(name for name in _USERS if name in known)
    shutil.chown(folder, user)
    return ["runuser", "-u", user, "--"], user


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


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Each kind of database, migrated and without a row."""
    if request.param == "sqlite":
        path = tmp_path / "gateway.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        template = request.getfixturevalue("postgresql_template")
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.create(template)
        yield url
        cluster.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Each kind of database, without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.create()
        yield url
        cluster.drop(url)

"""A PostgreSQL server of the tests' own, on a Unix socket; Debian's package is enough, and need not run.

What tests import; the fixtures are in ``tests/databases.py``, which pytest must be the first to import.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from unmask.gateway.db.migrating import head

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
    while server.poll() is None:  # a server that does not come up ends; pytest's own limit ends one that hangs
        if subprocess.run(ready, check=False).returncode == 0:
            return Cluster(folder, user), server
        time.sleep(0.02)
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


def empty(url: str) -> None:
    """Remove all rows of a migrated database; the ledger's triggers stand in the way of everybody else."""
    with psycopg.connect(url) as connection:
        connection.execute("SET lock_timeout = 2000; SET session_replication_role = replica")
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head(),)]
        assert not connection.execute("SELECT 1 FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'D'").fetchall()
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        named = ", ".join(name for (name,) in tables if name != "alembic_version")
        connection.execute(f"TRUNCATE {named} RESTART IDENTITY CASCADE")

"""Backups: made while the gateway runs, whole or not at all; put back only where nothing is lost by it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from unmask.gateway.db.backends import parse_url, postgresql_address, shown
from unmask.gateway.db.errors import BackupError
from unmask.gateway.db.migrating import exclusive, tables_of

_DRAFT: Final = ".draft"


def backup(url: str, target: Path) -> None:
    """Write a database as it is at one moment to a file; requests go on meanwhile.

    Args:
        url: of the database.
        target: the file. SQLite's is a database file, PostgreSQL's an archive of ``pg_dump``.

    Raises:
        BackupError: the file is there already, or it fails; then there is no file.
        InputError: the URL cannot be used.
    """
    address, backend = parse_url(url)
    _require_none(target)
    draft = target.with_name(target.name + _DRAFT)
    draft.unlink(missing_ok=True)
    try:
        if backend.name == "sqlite":
            _copy_sqlite(Path(str(address.database)), draft)
        else:
            _run("pg_dump", ["--format=custom", f"--file={draft}"], address)
        _keep(draft, target)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"The backup {target} cannot be written: {error}. Nothing was written.") from error
    finally:
        draft.unlink(missing_ok=True)


def restore(url: str, source: Path) -> None:
    """Put a backup in the place of a database that is not there (SQLite) or has no tables (PostgreSQL).

    What happened after the backup is lost: payments, charges, revoked keys. Look them up before requests are let in.

    Args:
        url: of the database.
        source: the file.

    Raises:
        BackupError: there is a database, or the file is no good; then nothing is changed.
        DatabaseUnavailableError: the database cannot be reached.
        InputError: the URL cannot be used.
    """
    address, backend = parse_url(url)
    if not source.is_file():
        raise BackupError(f"There is no backup {source}. Check its path.")
    if backend.name == "sqlite":
        _put_back_sqlite(source, Path(str(address.database)))
        return
    with exclusive(url) as connection:
        if tables_of(connection):
            raise BackupError(f"The database {shown(address)} has tables. Restore into a new one: createdb NAME")
    _run("pg_restore", ["--exit-on-error", "--single-transaction", "--no-owner", str(source)], address)


def _copy_sqlite(database: Path, draft: Path) -> None:
    if not database.is_file():
        raise BackupError(f"There is no database {database}. Check its path.")
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        connection.execute("VACUUM INTO ?", (str(draft),))
    _require_sound(draft)


def _put_back_sqlite(source: Path, database: Path) -> None:
    for file in (database, Path(f"{database}-wal")):
        _require_none(file)
    draft = database.with_name(database.name + _DRAFT)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft)
        _require_sound(draft)
        _keep(draft, database)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"The backup {source} cannot be put back: {error}. Nothing was written.") from error
    finally:
        draft.unlink(missing_ok=True)


def _require_sound(file: Path) -> None:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    if found != "ok" or tables != (1,):
        raise BackupError(f"{file} is no sound database of Unmask's: {found}. Nothing was written.")


def _require_none(file: Path) -> None:
    if file.exists():
        raise BackupError(f"{file} is there already. Move it away, or choose another name; nothing is overwritten.")


def _keep(draft: Path, target: Path) -> None:
    """Put a file on the disk, and then under its name."""
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    draft.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _run(program: str, arguments: Sequence[str], url: URL) -> None:
    found = shutil.which(program)
    if found is None:
        raise BackupError(f"There is no {program} here. Install PostgreSQL's client programs.")
    # Everybody on the machine sees a program's arguments; its environment only its owner.
    secret = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    address = postgresql_address(url.set(password=None))
    outcome = subprocess.run(  # noqa: S603
        [found, f"--dbname={address}", "--no-password", *arguments],
        env={**os.environ, **secret},
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode:
        lines = outcome.stderr.strip().splitlines() or [f"exit status {outcome.returncode}"]
        raise BackupError(f"{program} failed: {lines[-1]}. Nothing was changed.")

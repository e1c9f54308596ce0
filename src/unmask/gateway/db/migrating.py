"""The schema's versions: set up, moved up, moved down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError

from unmask.gateway.db.backends import parse_url, set_up_sqlite, shown
from unmask.gateway.db.errors import DatabaseError, DatabaseUnavailableError, SchemaError

_SCRIPTS: Final = Path(__file__).with_name("migrations")
#: Any number, the same in every process: only one migrates at a time.
_LOCK: Final = 7_237_021
_NEWER: Final = "A newer Unmask made it: install that one."


def head() -> str:
    """Return the version that this Unmask works on."""
    found = ScriptDirectory(str(_SCRIPTS)).get_current_head()
    assert found is not None
    return found


def current(url: str) -> str | None:
    """Return the version that a database has, None if it has no tables of ours.

    Raises:
        DatabaseUnavailableError: it cannot be reached.
    """
    with exclusive(url) as connection:
        return _version(connection)


def prepare(url: str) -> None:
    """Set up a database without tables, and make sure that another has those of this version.

    Raises:
        SchemaError: its tables are of another version, or not ours.
        DatabaseUnavailableError: it cannot be reached.
    """
    address, backend = parse_url(url)
    if backend.name == "sqlite":
        Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
    with exclusive(url) as connection:
        version = _version(connection)
        if version == head():
            return
        if version is not None:
            remedy = "Back it up, then run: unmask gateway migrate" if version in _versions() else _NEWER
            raise SchemaError(
                f"The database {_name(url)} has the tables of version {version}; expected {head()}. {remedy}"
            )
        _require_no_others(connection, url)
        command.upgrade(_config(connection), "head")


def require_there(url: str) -> None:
    """Make sure that a database is there; opening SQLite's file would make it.

    Raises:
        DatabaseUnavailableError: it is not there, or cannot be reached.
    """
    address, backend = parse_url(url)
    if backend.name == "sqlite" and not Path(str(address.database)).is_file():
        raise DatabaseUnavailableError(f"There is no database {address.database}. Check its path.")
    current(url)


def upgrade(url: str, version: str = "head") -> None:
    """Move a database's schema up, its data with it. All of it or nothing is done.

    Args:
        url: of the database. Stop the gateway, and back it up first.
        version: to move to.

    Raises:
        SchemaError: there is no such version, or its tables are not ours.
        DatabaseUnavailableError: it cannot be reached, or somebody uses it.
        DatabaseError: it refuses a step; nothing is changed.
    """
    with exclusive(url) as connection:
        if _version(connection) is None:
            _require_no_others(connection, url)
        command.upgrade(_config(connection), version)


def downgrade(url: str, version: str) -> None:
    """Move a database's schema down; what the older schema has no place for is lost. All of it or nothing is done.

    Args:
        url: of the database. Stop the gateway, and back it up first.
        version: to move to; ``base`` for none.

    Raises:
        SchemaError: it has no such version to go back to.
        DatabaseUnavailableError: it cannot be reached, or somebody uses it.
        DatabaseError: it refuses a step; nothing is changed.
    """
    with exclusive(url) as connection:
        command.downgrade(_config(connection), version)


@contextmanager
def exclusive(url: str) -> Iterator[Connection]:
    """Open a database for one transaction that no other migration runs beside.

    Raises:
        DatabaseUnavailableError: it cannot be reached, or somebody uses it.
        SchemaError: it cannot be moved to the version that is asked for; the transaction is undone.
        DatabaseError: it refuses a statement; likewise.
    """
    address, backend = parse_url(url)
    engine = create_engine(address, poolclass=NullPool, hide_parameters=True)
    begun = False
    if backend.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            if backend.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            begun = True
            yield connection
    except CommandError as error:
        raise SchemaError(f"The database {shown(address)} cannot be moved: {error}. Nothing was changed.") from error
    except DBAPIError as error:
        if begun:
            raise DatabaseError(
                f"The database {shown(address)} refused: {str(error.orig).splitlines()[0]}. Nothing was changed."
            ) from error
        raise DatabaseUnavailableError(
            f"The database {shown(address)} cannot be used now: {type(error.orig).__name__}. "
            "Check its address, and that it runs."
        ) from error


def _require_no_others(connection: Connection, url: str) -> None:
    if tables_of(connection):
        raise SchemaError(f"The database {_name(url)} has tables that are not Unmask's. Choose an empty one.")


def _versions() -> set[str]:
    return {script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}


def tables_of(connection: Connection) -> set[str]:
    """Return the names of a database's tables, the one apart that its version is in."""
    return set(inspect(connection).get_table_names()) - {"alembic_version"}


def _set_up_sqlite(connection: Any, _: object) -> None:
    # The driver would otherwise commit before it changes a table.
    connection.isolation_level = None
    set_up_sqlite(connection)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _name(url: str) -> str:
    return shown(parse_url(url)[0])

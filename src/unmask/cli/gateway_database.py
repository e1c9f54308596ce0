"""``unmask gateway audit | migrate | backup | restore``: the gateway's database, looked after."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.common import made, quoted

if TYPE_CHECKING:
    from unmask.gateway.accounts.audit import Audit

DatabaseOption = Annotated[
    str,
    typer.Option("--database", "-d", envvar="UNMASK_DATABASE", help="sqlite:///FILE or postgresql://USER@HOST/NAME."),
]


def audit(url: DatabaseOption) -> None:
    """Check that every balance is the sum of its ledger, and nothing is charged twice; the gateway may run.

    The exit status is 1 if something is wrong.

    Examples:
        unmask gateway audit --database sqlite:///gateway.db
    """
    from unmask.gateway.accounts.audit import audit as look
    from unmask.gateway.db.database import Database
    from unmask.gateway.db.migrating import require_there

    async def read() -> Audit:
        async with Database(url) as opened:
            return await look(opened)

    require_there(url)
    found = asyncio.run(read())
    for check in found.checks:
        typer.echo(f"{'WRONG' if check.findings else 'ok':5}  {check.claim}")
        for finding in check.findings:
            typer.echo(f"       {finding}")
    typer.echo(
        f"{found.users:,} users, {found.entries:,} entries, {found.holds:,} open holds, "
        f"{found.credit:,} micro-units of credit: {len(found.findings) or 'nothing'} wrong."
    )
    if found.findings:
        raise typer.Exit(1)


def migrate(
    url: DatabaseOption,
    down_to: Annotated[
        str | None,
        typer.Option(
            "--down-to", metavar="VERSION", help="Go back to an older version; what it has no place for is lost."
        ),
    ] = None,
) -> None:
    """Move the database's tables to the version that this Unmask works on. Stop the gateway and back it up first.

    Examples:
        unmask gateway migrate --database sqlite:///gateway.db
        unmask gateway migrate --database sqlite:///gateway.db --down-to 0002
    """
    from unmask.gateway.db.migrating import current, downgrade, require_there, upgrade

    require_there(url)
    before = current(url)
    if down_to is None:
        upgrade(url)
    else:
        downgrade(url, down_to)
    made(f"The database was of version {before or 'none'} and is of version {current(url) or 'none'}.")


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
    url: DatabaseOption,
) -> None:
    """Write the database as it is at one moment to a file; the gateway may run.

    Examples:
        unmask gateway backup gateway-2026-11-23.db --database sqlite:///gateway.db
        unmask gateway backup gateway-2026-11-23.dump --database postgresql://gateway@localhost/gateway
    """
    from unmask.gateway.db.backup import backup as write

    write(url, file)
    made(
        f"Wrote {file}: {file.stat().st_size / 1e6:,.1f} MB. The server's secret is not in it.",
        f"unmask gateway restore {quoted(file)} --database URL",
    )


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `unmask gateway backup` wrote.")],
    url: DatabaseOption,
) -> None:
    """Put a backup where there is no database yet. What happened after the backup is lost: see docs/gateway.md.

    Examples:
        unmask gateway restore gateway-2026-11-23.db --database sqlite:///gateway.db
    """
    from unmask.gateway.db.backup import restore as put_back

    put_back(url, file)
    made(f"Put {file} back.", "unmask gateway audit --database URL")

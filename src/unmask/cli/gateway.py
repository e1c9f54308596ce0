"""``unmask gateway``: the hosted API, with its site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unmask.cli.common import print_json
from unmask.cli.serve import setting

_FLAGS = "Any other setting, such as currency=EUR; repeatable. --show-config lists them all."


def gateway(  # noqa: PLR0917 - typer reads the parameters
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Encoder to serve, by any name in the catalogue.")
    ] = None,
    rerankers: Annotated[
        list[str] | None, typer.Option("--reranker", metavar="MODEL", help="Cross-encoder to serve, likewise.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="UNMASK_CONFIG", help="TOML file of settings.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Default: 8000.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of files, batches and the database.")] = None,
    database: Annotated[
        str | None, typer.Option("--database", "-d", help="sqlite:///FILE or postgresql://USER@HOST/NAME.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_FLAGS)] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the settings, secrets masked, and stop.")
    ] = (False),
) -> None:
    """Run the hosted API: catalogue, accounts, keys, prepaid credit, and the site around them.

    Without settings it runs for you alone: on this machine, on SQLite, with a demo account, and says where to look.
    Settings come from flags, then the environment (UNMASK_SITE_URL=…), then the file: see docs/hosting.md.

    Examples:
        unmask gateway
        unmask gateway --config gateway.toml
        unmask gateway audit --database sqlite:///gateway.db
    """
    if context.invoked_subcommand is not None:
        return
    from unmask.gateway.api.settings import load
    from unmask.gateway.hosting.settings import GatewaySettings

    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "data": data,
        "database": database,
        "models": {name: {} for name in models} if models else None,
        "rerankers": {name: {} for name in rerankers} if rerankers else None,
    }
    settings = load(GatewaySettings, config, flags | dict(setting(each) for each in set_ or ()))
    settings.check()
    if show_config:
        print_json(settings.shown())
        return
    from unmask.gateway.hosting.running import run_gateway

    run_gateway(settings, say=typer.echo)

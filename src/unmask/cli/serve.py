"""``unmask serve``: encoders behind the API that OpenAI's clients speak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unmask.cli.common import print_json, require

_FLAGS = "Any other setting, such as body_bytes=1000000; repeatable. --show-config lists them all."

#: Settings that stand nowhere on a command line: other users of the machine can read it.
_SECRETS = ("api_keys", "secret", "smtp_password", "openid_client_secret")


def serve(  # noqa: PLR0917 - typer reads the parameters
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Short names, folders, GGUF files or hub names.")
    ] = None,
    rerankers: Annotated[
        list[str] | None,
        typer.Option("--reranker", metavar="MODEL", help="Cross-encoder for /v1/rerank, a folder or hub name."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="UNMASK_CONFIG", help="TOML file of settings.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="0 for any; default: 8000.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of files and batches.")] = None,
    api_keys_file: Annotated[
        Path | None, typer.Option("--api-keys-file", help="File of API keys, one a line; or UNMASK_API_KEYS=key,key.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_FLAGS)] = None,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the settings, keys masked, and stop.")] = (
        False
    ),
) -> None:
    """Serve encoders over HTTP: /v1/embeddings, /v1/rerank, /v1/models, /v1/files, /v1/batches; see /docs.

    Settings come from flags, then the environment (UNMASK_PORT=9000), then the file. Without API keys only this
    machine may call.

    Examples:
        unmask serve --show-config
        unmask serve smollm2-135m-unsup --port 8000
        unmask serve --reranker cross-encoder/ms-marco-MiniLM-L6-v2
        UNMASK_API_KEYS=$(openssl rand -hex 24) unmask serve --host 0.0.0.0
    """
    from unmask.gateway.api.settings import load_settings

    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "data": data,
        "api_keys_file": api_keys_file,
        "models": {name: {} for name in models} if models else None,
        "rerankers": {name: {} for name in rerankers} if rerankers else None,
    }
    settings = load_settings(config, flags | dict(setting(each) for each in set_ or ()))
    settings.check()
    if show_config:
        print_json(settings.shown())
        return
    from unmask.engine.engine import Engine
    from unmask.engine.pairs import RERANKER
    from unmask.gateway.api.server import run_server

    pairs = settings.reranker_engine()
    run_server(settings, Engine(settings.engine()), Engine(pairs, worker=RERANKER) if pairs else None)


def setting(given: str) -> tuple[str, str]:
    """Return name and value of a ``--set``.

    Raises:
        InputError: it has none, or names what nobody else may read.
    """
    name, equals, value = given.partition("=")
    remedy = "UNMASK_API_KEYS or --api-keys-file" if name == "api_keys" else f"UNMASK_{name.upper()} or --config"
    require(name not in _SECRETS, f"{name} cannot be set by --set, which others can read. Use {remedy}.")
    require(bool(equals) and bool(name), f"--set has {given!r}; expected NAME=VALUE, such as body_bytes=1000000.")
    return name, value

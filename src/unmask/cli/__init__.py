"""The command ``unmask``: one short module a subcommand.

Nothing here imports torch: each command imports what it needs when it runs, so that help and version
come at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from unmask._version import __version__
from unmask.cli.bench import bench
from unmask.cli.compare import compare
from unmask.cli.convert import convert
from unmask.cli.encode import encode
from unmask.cli.eval import evaluate
from unmask.cli.gateway import gateway
from unmask.cli.gateway_database import audit, backup, migrate, restore
from unmask.cli.info import info
from unmask.cli.mine import mine
from unmask.cli.outcome import run
from unmask.cli.pull import pull
from unmask.cli.search import search
from unmask.cli.serve import serve
from unmask.cli.similarity import similarity
from unmask.cli.train import mntp, recipe, simcse, supervised

_STYLE: Final[dict[str, Any]] = {
    "add_completion": False,
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 110},
}

app = typer.Typer(name="unmask", **_STYLE)
train = typer.Typer(name="train", **_STYLE)
evaluation = typer.Typer(name="eval", invoke_without_command=True, **_STYLE)
hosting = typer.Typer(name="gateway", invoke_without_command=True, **_STYLE | {"no_args_is_help": False})


def _help(command: Callable[..., None]) -> str:
    """Return the docstring of a command with its examples marked as lines to be kept as they are."""
    return inspect.cleandoc(command.__doc__ or "").replace("Examples:", "\b\nExamples:")


for command in (pull, convert, info, encode, similarity, search, mine, serve, bench):
    app.command(help=_help(command))(command)
for stage in (mntp, simcse, supervised, recipe):
    train.command(help=_help(stage))(stage)
evaluation.callback(help=_help(evaluate))(evaluate)
evaluation.command(help=_help(compare))(compare)
app.add_typer(train, help="Train an encoder: one stage, or a whole recipe (see: unmask train recipe --list).")
hosting.callback(help=_help(gateway))(gateway)
for chore in (audit, migrate, backup, restore):
    hosting.command(help=_help(chore))(chore)
app.add_typer(evaluation)
app.add_typer(hosting)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unmask {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn any decoder-only language model into a text encoder, and use it.

    Start with: unmask search --help
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit status: 0, 1 (the system), 2 (the input), 130 (Ctrl-C)."""
    sys.exit(run(app, sys.argv[1:] if arguments is None else arguments))

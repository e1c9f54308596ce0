"""What several commands share: their options, loading a model, tables, and the closing lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from unmask.errors import InputError
from unmask.hub.catalogue import DEFAULT

if TYPE_CHECKING:
    from unmask.encoder import Encoder

DEFAULT_MODEL: Final = DEFAULT
#: What is trained where nothing else is named.
DEFAULT_BASE: Final = "smollm2-135m"
#: Columns of a table where no terminal says how many there are.
_WIDTH: Final = 120

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Short name (see: unmask pull --list), folder, GGUF file or hub name.")
]
FieldOption = Annotated[
    str | None, typer.Option("--field", help="Field of the text; default: 'text', or the only field of strings.")
]
MaxLengthOption = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Most tokens of a text; default: as the model says, or 512.")
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype", help="auto (bfloat16 on a GPU, else float32), float32, bfloat16, float16, fp8 (linear layers)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def load(
    model: str,
    *,
    adapters: Sequence[str] = (),
    max_length: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Encoder:
    """Load an encoder, and show what takes long."""
    from unmask.encoder import Encoder

    return Encoder.load(model, adapters=adapters, max_length=max_length, device=device, dtype=dtype, progress=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table on standard output; text columns fold, numbers are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(lines) and all(_is_number(line[number]) for line in lines)
        table.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric or number == 0
        )
    for line in lines:
        # As Text: brackets in a text are no markup.
        table.add_row(*(Text(str(cell)) for cell in line))
    Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False).print(table)


def _is_number(cell: object) -> bool:
    return isinstance(cell, int) or (isinstance(cell, str) and cell.replace(".", "", 1).lstrip("-").isdigit())


def print_json(data: Any) -> None:
    """Print JSON on standard output."""
    import json

    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))


def made(what: str, *following: str) -> None:
    """Say on standard error what was made, and which command to run next."""
    typer.echo(what, err=True)
    for number, command in enumerate(following):
        typer.echo(("Next: " if number == 0 else "      ") + command, err=True)


def quoted(argument: object) -> str:
    """Return an argument as a shell wants it."""
    import shlex

    return shlex.quote(str(argument))


def option_model(model: str) -> str:
    """Return the option that names ``model`` in a command, nothing for the default."""
    return "" if model == DEFAULT_MODEL else f" --model {quoted(model)}"


def is_file(argument: str) -> bool:
    """Return whether an argument is the path of a file; a long text is none."""
    try:
        return Path(argument).is_file()
    except (OSError, ValueError):
        return False


def one_line(text: str, length: int = 300) -> str:
    """Return the beginning of ``text`` on one line."""
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def require(condition: bool, message: str) -> None:
    """Raise :class:`InputError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InputError(message)

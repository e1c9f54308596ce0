"""``unmask convert``: any layout → a folder of our own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.common import load, made, quoted, require


def convert(
    source: Annotated[str, typer.Argument(help="Short name, folder of any layout, GGUF file or hub name.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="Adapter to merge on top; may be given several times, in order."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace FOLDER if it exists.")] = False,
) -> None:
    """Write a model, adapters merged, as a folder that loads here and in sentence-transformers.

    Examples:
        unmask convert smollm2-135m my-encoder
        unmask convert smollm2-135m my-encoder --replace
    """
    require(
        replace or not folder.exists(),
        f"{folder} exists already; expected a new folder. Choose another name, or give --replace.",
    )
    encoder = load(source, adapters=adapter or ())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        encoder.save(folder, replace_existing=replace)
    notes = [f"Note: {' '.join(str(note.message).split())}\n" for note in caught if note.category is UserWarning]
    files = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    made(
        f"{''.join(notes)}Wrote {folder}: {files / 1e6:,.1f} MB, vectors of {encoder.dimension} dimensions.",
        f"unmask info {quoted(folder)}",
        f"unmask encode texts.txt -o vectors.npy --model {quoted(folder)}",
    )

"""Files of rows: read, checked, hashed, and drawn from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from unmask.errors import InputError
from unmask.evaluation.tasks import Options
from unmask.files.lines import read_lines

T = TypeVar("T")

#: Characters of a malformed line that an error shows.
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a line, and where it stands."""

    cells: tuple[str, ...]
    where: str


def read_table(file: Path, columns: Sequence[str], *, heading: Callable[[str], bool] | None = None) -> list[Row]:
    """Return the rows of a file of tab-separated cells. Quotation marks are text; blank lines are left out.

    Args:
        file: what to read.
        columns: names of the columns, for errors.
        heading: whether a first line that begins with this cell is a heading; None: there is none.

    Raises:
        InputError: the file cannot be read, holds no row, or a row has other cells than ``columns`` or a blank one.
    """
    form = "<TAB>".join(columns)
    rows: list[Row] = []
    for number, (where, line) in enumerate(read_lines(file)):
        row = Row(tuple(line.split("\t")), where)
        if not line.strip() or (number == 0 and heading is not None and heading(row.cells[0])):
            continue
        if len(row.cells) != len(columns) or not all(cell.strip() for cell in row.cells):
            raise malformed(row, form)
        rows.append(row)
    if not rows:
        raise InputError(f"{file} holds no row; expected lines of {form}. Fill it, or remove it.")
    return rows


def malformed(row: Row, form: str) -> InputError:
    """Return the error for a row that is not of the form."""
    line = "\t".join(row.cells)
    shown = line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
    return InputError(f"{row.where}: got {shown!r}; expected {form}. Correct the line.")


def digest(*files: Path) -> str:
    """Return a hash of the contents of files, so that figures of changed data are not taken for old ones."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:16]


def draw(items: Sequence[T], options: Options, *, count: int | None = None) -> list[T]:
    """Return at most ``count`` items, by default the limit of ``options``, in their order; the same for a seed."""
    most = options.limit if count is None else count
    if most is None or most >= len(items):
        return list(items)
    chosen = np.random.default_rng(options.seed).choice(len(items), most, replace=False)
    return [items[number] for number in np.sort(chosen)]


def settings_of(options: Options, *files: Path, **samples: tuple[int, int]) -> dict[str, Any]:
    """Return the settings that every task has: the data's hash, and of what a sample was drawn.

    Args:
        options: as given.
        files: the data.
        samples: by what is sampled, how many were taken and how many there are.
    """
    settings: dict[str, Any] = {"data": digest(*files)}
    drawn = {what: f"{taken:,} of {whole:,}" for what, (taken, whole) in samples.items() if taken < whole}
    if drawn:
        settings |= {"sample": drawn, "sample_seed": options.seed}
    return settings

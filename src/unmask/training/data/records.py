"""Records of files, folders and Hugging Face data sets, one at a time.

A record is a whole text (a line of ``.txt``) or a mapping from field to value (a JSON object, a row).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from unmask.errors import InputError
from unmask.files.lines import COMPRESSIONS, read_lines, split_name
from unmask.files.records import as_object, parse_json

#: Kinds of files, compressed or not.
KINDS: Final = (".txt", ".jsonl")
#: Where the record stands, for errors, and the record.
Located = tuple[str, str | dict[str, Any]]


def files_at(path: Path) -> list[Path]:
    """Return the file ``path``, or the text files below the folder ``path`` in sorted order, hidden ones left out.

    Raises:
        InputError: there is nothing at ``path``, it is of another kind, or the folder has no such file.
    """
    expected = f"{' or '.join(KINDS)} (also with {', '.join(COMPRESSIONS)})"
    if path.is_dir():
        below = (file for file in path.rglob("*") if split_name(file)[1] in KINDS and file.is_file())
        files = sorted(file for file in below if not _is_hidden(file.relative_to(path)))
        if not files:
            raise InputError(f"The folder {path} has no text file; expected at least one {expected} in it or below.")
        return files
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a file or folder of texts. Check the path.")
    kind = split_name(path)[1]
    if kind not in KINDS:
        raise InputError(
            f"{path} ends in {kind or 'nothing'!r}; expected {expected}. Convert it, or give the folder of a "
            "Parquet data set as hf:FOLDER."
        )
    return [path]


def file_records(files: Iterable[Path]) -> Generator[Located, None, None]:
    """Yield the records of ``.txt`` and ``.jsonl`` files, one file after the other; blank lines are blank texts.

    Raises:
        InputError: a file cannot be read, or a line is not a JSON object; names the file and line.
    """
    for file in files:
        is_json = split_name(file)[1] == ".jsonl"
        for where, line in read_lines(file):
            yield where, as_object(parse_json(line, where), where) if is_json and line.strip() else line


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def hub_records(name: str, config: str | None, split: str) -> Generator[Located, None, None]:
    """Yield the rows of a Hugging Face data set as they are downloaded.

    Args:
        name: ``owner/name``, or a folder in a form that the datasets library knows.
        config: which of the data set's configurations; its only one, or its default, if None.
        split: which of its splits.

    Raises:
        InputError: the datasets library is not installed, there is no such data set, configuration or
            split, or it cannot be read.
    """
    datasets = _datasets(name)
    # Scripts of a data set are refused with a RuntimeError; Arrow's and the hub's errors are ValueError and OSError.
    failures = (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError)
    number = 0
    try:
        for row in datasets.load_dataset(name, config, split=split, streaming=True):
            number += 1
            yield f"{name}, row {number}", row
    except failures as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{name} is neither a file or folder here nor a Hugging Face data set that can be read "
            f"(split {split!r}, {number} rows read): {reason}. Check the path or name, the config and the split."
        ) from error


def _datasets(name: str) -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"{name} is no file or folder here, and to read a Hugging Face data set the datasets library is needed. "
            'Install it with: pip install "unmask[train]"'
        ) from error

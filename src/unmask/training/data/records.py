"""Records of files and of Hugging Face data sets, one at a time.

A record is a whole text (a line of ``.txt``) or a mapping from field to value (a JSON object, a row).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from unmask.errors import InputError
from unmask.training.data.lines import read_lines, split_name

#: Where the record stands, for errors, and the record.
Located = tuple[str, str | dict[str, Any]]


def file_records(files: Iterable[Path]) -> Generator[Located, None, None]:
    """Yield the records of ``.txt`` and ``.jsonl`` files, one file after the other; blank lines are blank texts.

    Raises:
        InputError: a file cannot be read, or a line is not a JSON object; names the file and line.
    """
    for file in files:
        is_json = split_name(file)[1] == ".jsonl"
        for where, line in read_lines(file):
            yield where, _parse(line, where) if is_json and line.strip() else line


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(
            f"{where}: not JSON ({reason}); expected one JSON object a line. Repair or remove the line."
        ) from error
    if not isinstance(data, dict):
        raise InputError(
            f"{where}: a JSON {json_type(data)}; expected an object with a field of text. Repair or remove the line."
        )
    return data


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


def json_type(value: object) -> str:
    """Return what JSON calls the type of ``value``."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null or missing" if value is None else names.get(type(value), type(value).__name__)

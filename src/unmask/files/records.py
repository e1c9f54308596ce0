"""Records: JSON objects and other rows of named values, and the texts in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unmask.errors import InputError


def parse_json(line: str, where: str) -> Any:
    """Return what a line of JSON holds.

    Raises:
        InputError: it is not JSON; says ``where`` it stands, as all errors here do.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(
            f"{where}: not JSON ({reason}); expected one JSON object a line. Repair or remove the line."
        ) from error


def as_object(value: object, where: str) -> dict[str, Any]:
    """Return a JSON value that must be an object.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON {json_type(value)}; expected an object. Repair or remove the line.")
    return value


def json_type(value: object) -> str:
    """Return what JSON calls the type of a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null or missing" if value is None else names.get(type(value), type(value).__name__)


def choose_field(
    names: Sequence[str],
    textual: Sequence[str],
    *,
    asked: str | None,
    other: str | None = None,
    where: str,
    option: str,
) -> str:
    """Return the field of the text: the one asked for, or ``text``, or the only one that holds a string.

    Args:
        names: all fields.
        textual: those that hold strings.
        asked: the one asked for, None to find it out.
        other: a field that is asked for beside it, and so is hardly the text.
        where: the record, for errors.
        option: the caller's name for ``asked``, for errors.

    Raises:
        InputError: there is no such field, or none or several that may be it.
    """
    listed = ", ".join(names) or "none"
    if asked is not None:
        if asked not in names:
            raise InputError(f"{where}: no field {asked!r}; expected one of: {listed}. Name it with {option}.")
        return asked
    if "text" in textual:
        return "text"
    left = [name for name in textual if name != other]
    if len(left) == 1:
        return left[0]
    raise InputError(
        f"{where}: {len(left) or 'no'} fields hold strings and none of them is called text; the fields are: {listed}. "
        f"Name the text's with {option}."
    )


def string_in(record: Mapping[str, Any], field: str, where: str) -> str:
    """Return the string in a field.

    Raises:
        InputError: there is no such field, or it holds something else.
    """
    if field not in record:
        raise InputError(
            f"{where}: no field {field!r}; its fields are: {', '.join(record) or 'none'}. Add or rename it."
        )
    value = record[field]
    if not isinstance(value, str):
        raise InputError(
            f"{where}: field {field!r} is {json_type(value)}; expected a string. Repair or remove the row."
        )
    return value


def bytes_of(text: str, where: str) -> int:
    """Return the bytes of a text in UTF-8.

    Raises:
        InputError: it cannot be encoded: JSON can hold half a surrogate pair.
    """
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which is not "
            "Unicode text. Repair or remove the row."
        ) from error

"""Bytes of a body → a request that is checked; what is wrong is said in terms of the request."""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from unmask.gateway.api.errors import RequestError

Request = TypeVar("Request", bound=BaseModel)

#: A letter or digit written as an escape, which could hide a key and which no encoder writes.
_NEEDLESS_ESCAPE: Final = re.compile(rb"\\u00[3-7]")
#: What pydantic calls what is wrong → the code of the error; ``invalid_value`` for all others.
_CODES: Final = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "string_type": "invalid_type",
    "int_type": "invalid_type",
    "bool_type": "invalid_type",
    "list_type": "invalid_type",
    "dict_type": "invalid_type",
    "input_form": "invalid_type",
    "too_long": "array_above_max_length",
    "too_short": "empty_array",
    "string_too_short": "empty_string",
    "string_pattern_mismatch": "empty_string",
}
#: Said instead of what pydantic says.
_MESSAGES: Final = {"string_pattern_mismatch": "it is blank; expected some text"}
#: Marks that pydantic puts into the place of an error, of unions whose members have names.
_TAGS: Final = frozenset(("string", "strings", "tokens", "token_arrays"))


def parse(kind: type[Request], body: bytes) -> Request:
    """Return a body as a request.

    Raises:
        RequestError: it is not JSON, or not as the schema says; the message never repeats a value of the body.
    """
    return validate(kind, load_object(body))


def load_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body.

    Raises:
        RequestError: it is no JSON in UTF-8, too deep, no object, or names a key twice.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"The body is not JSON: {error}. Expected one JSON object in UTF-8.", code="invalid_json"
        ) from error
    if not isinstance(value, dict):
        raise RequestError("The body is JSON, but no object. Expected an object.", code="invalid_json")
    # A key that stands there once cannot be there twice: only doubtful bodies are parsed again, slowly.
    if any(body.count(b'"%s"' % key.encode()) != 1 for key in value) or _NEEDLESS_ESCAPE.search(body):
        _refuse_twins(body)
    return value


def _refuse_twins(body: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) < len(pairs):
            raise RequestError("An object of the body names a key twice. Name it once.", code="invalid_json")

    try:
        json.loads(body, object_pairs_hook=once)
    except RecursionError as error:
        raise RequestError("The body is nested too deeply.", code="invalid_json") from error


def validate(kind: type[Request], value: dict[str, Any]) -> Request:
    """Return a JSON object as a request.

    Raises:
        RequestError: it is not as the schema says.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        param = _path(first["loc"])
        message = _MESSAGES.get(first["type"], first["msg"])
        said = f"{message}." if param is None else f"Invalid {param!r}: {_uncapitalised(message)}."
        raise RequestError(said, param=param, code=_CODES.get(first["type"], "invalid_value")) from error


def _path(location: tuple[int | str, ...]) -> str | None:
    """Return where an error is as ``input[3][0]``; None for the whole body."""
    path = ""
    for number, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif number == 0:
            path = part[:64]
        elif part not in _TAGS:
            path += "" if "[" in part or "'" in part else f".{part[:64]}"
    return path or None


def _uncapitalised(message: str) -> str:
    return message[:1].lower() + message[1:]

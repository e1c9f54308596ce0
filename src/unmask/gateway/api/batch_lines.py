"""The lines of a batch: requests read and checked, answers written."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from unmask.gateway.api.batch_schemas import BatchError
from unmask.gateway.api.batch_store import Line
from unmask.gateway.api.errors import Refusal

#: Most requests of a batch.
MAX_REQUESTS: Final = 50_000
#: Longest ``custom_id`` in characters.
_LONGEST_ID: Final = 256
#: Lines, and bytes, that are read at once.
_BLOCK_LINES: Final = 256
_BLOCK_BYTES: Final = 4_000_000
#: What may be wrong with a line, by the error's code, which ends with the field.
_WRONG: Final = {
    "invalid_custom_id": f"custom_id must be a string of 1 to {_LONGEST_ID} characters.",
    "duplicate_custom_id": "The custom_id stands on an earlier line, too. Give every request its own.",
    "invalid_method": "method must be 'POST'.",
    "invalid_url": "url must be {url!r}, the batch's endpoint.",
    "invalid_body": "body must be an object.",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A line of an input file.

    Attributes:
        custom_id: by which its answer is known.
        body: of the request.
    """

    custom_id: str
    body: dict[str, Any]


def check_requests(path: Path, endpoint: str) -> tuple[int, list[BatchError]]:
    """Return how many requests a file holds, and what is wrong with it.

    Args:
        path: the file.
        endpoint: that all requests must be for.

    Raises:
        OSError: it cannot be read.
    """
    seen: set[str] = set()
    errors: list[BatchError] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            found = _check(text, endpoint, seen)
            if isinstance(found, BatchError):
                errors.append(found.model_copy(update={"line": number}))
            else:
                seen.add(found)
            if len(seen) > MAX_REQUESTS:
                message = f"The file has more than {MAX_REQUESTS:,} requests. Split it into several batches."
                return 0, [BatchError(code="too_many_requests", message=message)]
    if not seen and not errors:
        errors.append(BatchError(code="empty_file", message="The file holds no request; expected one a line."))
    return len(seen), errors


def _check(text: bytes, endpoint: str, seen: set[str]) -> str | BatchError:
    """Return a line's ``custom_id``, or what is wrong with it."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return BatchError(code="invalid_json_line", message=f"Not JSON: {error}. Expected one object a line.")
    if not isinstance(value, dict):
        return BatchError(code="invalid_json_line", message="JSON, but no object. Expected one object a line.")
    custom_id = value.get("custom_id")
    named = isinstance(custom_id, str) and 0 < len(custom_id) <= _LONGEST_ID
    found = {
        "invalid_custom_id": not named,
        "duplicate_custom_id": named and custom_id in seen,
        "invalid_method": value.get("method") != "POST",
        "invalid_url": value.get("url") != endpoint,
        "invalid_body": not isinstance(value.get("body"), dict),
    }
    code = next((code for code, wrong in found.items() if wrong), None)
    if code is None:
        return str(custom_id)
    return BatchError(code=code, message=_WRONG[code].format(url=endpoint), param=code.split("_", 1)[1])


def read_requests(path: Path) -> Iterator[list[Request]]:
    """Yield the requests of a checked file, some at a time.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        while texts := _block(file):
            values = [orjson.loads(text) for text in texts if text.strip()]
            yield [Request(custom_id=value["custom_id"], body=value["body"]) for value in values]


def _block(file: Iterator[bytes]) -> list[bytes]:
    texts: list[bytes] = []
    size = 0
    for text in file:
        texts.append(text)
        size += len(text)
        if len(texts) == _BLOCK_LINES or size > _BLOCK_BYTES:
            break
    return texts


def good_line(custom_id: str, body: bytes) -> Line:
    """Return the line of a request that succeeded, with the response's body as it is."""
    return _responded(custom_id, 200, body, good=True)


def refused_line(custom_id: str, refusal: Refusal) -> Line:
    """Return the line of a request that was answered with an error."""
    return _responded(custom_id, refusal.status, refusal.body, good=False)


def undone_line(custom_id: str, code: str, message: str) -> Line:
    """Return the line of a request that was never answered."""
    text = orjson.dumps(
        {
            "id": _line_id(),
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )
    return Line(custom_id=custom_id, good=False, text=text)


def _responded(custom_id: str, status: int, body: bytes, *, good: bool) -> Line:
    text = (
        b'{"id":"%b","custom_id":%b,"response":{"status_code":%d,"request_id":"req_%b","body":%b},"error":null}\n'
        % (_line_id().encode(), orjson.dumps(custom_id), status, uuid.uuid4().hex.encode(), body)
    )
    return Line(custom_id=custom_id, good=good, text=text)


def _line_id() -> str:
    return f"batch_req_{uuid.uuid4().hex}"

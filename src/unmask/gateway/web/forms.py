"""What a browser sends with a form, and what is wrong with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

#: Bytes and fields of a form; the largest is the box to try a model with.
_MOST_BYTES: Final = 64_000
#: Seconds in which a form must arrive.
_SECONDS: Final = 20.0
_MOST_FIELDS: Final = 500
_TYPE: Final = "application/x-www-form-urlencoded"
_UNIT: Final = 1_000_000
#: Digits of an amount or a number that can be meant.
_LONGEST: Final = 18
_AMOUNT: Final = re.compile(r"-?\d{1,12}(\.\d{0,6})?", re.ASCII)


class Form:
    """The fields of a form as they were typed, and by field what is wrong; shown again as it is.

    Args:
        values: by field, every value it was sent with.
    """

    def __init__(self, values: Mapping[str, Sequence[str]] | None = None) -> None:
        self._values = dict(values or {})
        self.wrong: dict[str, str] = {}

    @classmethod
    def of(cls, **values: str) -> Form:
        """Return a form that was filled in already."""
        return cls({name: [value] for name, value in values.items()})

    def get(self, name: str, default: str = "") -> str:
        """Return a field without the space around it."""
        found = self._values.get(name)
        return found[0].strip() if found else default

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return list(self._values.get(name, ()))

    def fail(self, name: str, sentence: str) -> None:
        """Note what is wrong with a field; the first thing stands."""
        self.wrong.setdefault(name, sentence)

    def require(self, name: str, sentence: str) -> str:
        """Return a field, and note that something is wrong if it is empty."""
        found = self.get(name)
        if not found:
            self.fail(name, sentence)
        return found

    def number(self, name: str, *, least: int = 1) -> int | None:
        """Return a whole number, commas and spaces left out; None if the field is empty or wrong, which is noted."""
        text = self.get(name).replace(",", "").replace(" ", "")
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST and int(text) >= least):
            self.fail(name, f"Expected a whole number of {least:,} or more, or nothing.")
            return None
        return int(text)

    def amount(self, name: str, *, negative: bool = False) -> int | None:
        """Return an amount of money in micro-units; None if the field is empty or wrong, which is noted."""
        text = self.get(name).replace(",", "").replace(" ", "").replace("−", "-")
        if not text:
            return None
        if not _AMOUNT.fullmatch(text) or (text.startswith("-") and not negative):
            self.fail(name, "Expected an amount such as 5 or 0.25, with at most six digits behind the point.")
            return None
        return int(Decimal(text) * _UNIT)


async def read_form(request: Request) -> Form:
    """Return the form that a request has for a body.

    Raises:
        HTTPException: 415 if it is none, 413 if it is too large, 408 if it does not arrive, 400 if it has a
            character that no text has.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != _TYPE:
        raise HTTPException(415)
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BYTES:
                    raise HTTPException(413)
    except TimeoutError as error:
        raise HTTPException(408) from error
    try:
        # Whatever is no UTF-8 becomes a replacement character, as browsers do.
        text = body.decode("utf-8", "replace")
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(413) from error
    if any("\0" in value for values in fields.values() for value in values):
        raise HTTPException(400)  # PostgreSQL takes no such text
    return Form(fields)

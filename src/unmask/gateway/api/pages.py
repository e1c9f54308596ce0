"""Lists, a page at a time, as OpenAI's clients walk through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel

from unmask.gateway.api.errors import RequestError
from unmask.gateway.api.http import Answer, answer_json


class _Listed(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=BaseModel)

_ORDERS: Final = ("asc", "desc")


def page_parameters(*, default: int, most: int) -> dict[str, dict[str, Any]]:
    """Return the schemas of the parameters that :func:`page` reads."""
    return {
        "limit": {"type": "integer", "minimum": 1, "maximum": most, "default": default},
        "after": {"type": "string", "description": "The id behind which the page begins."},
        "order": {"type": "string", "enum": list(_ORDERS), "default": "desc", "description": "By time."},
    }


def page(items: Sequence[Item], query: Mapping[str, str], parameters: Mapping[str, Mapping[str, Any]]) -> Answer:
    """Answer with a page of items.

    Args:
        items: all of them, the oldest first; each has an ``id``.
        query: what was asked for.
        parameters: as :func:`page_parameters` returns them.

    Raises:
        RequestError: a parameter is out of range.
    """
    limit = _limit(query.get("limit"), parameters["limit"])
    order = query.get("order", "desc")
    if order not in _ORDERS:
        raise RequestError(f"Invalid 'order': expected {' or '.join(_ORDERS)}.", param="order", code="invalid_value")
    sorted_ = list(items) if order == "asc" else list(reversed(items))
    ids = [_id(item) for item in sorted_]
    first = 0
    if (after := query.get("after")) is not None:
        if after not in ids:
            raise RequestError("Invalid 'after': nothing has this id.", param="after", code="invalid_value")
        first = ids.index(after) + 1
    chosen = sorted_[first : first + limit]
    return answer_json(
        {
            "object": "list",
            "data": [item.model_dump() for item in chosen],
            "first_id": _id(chosen[0]) if chosen else None,
            "last_id": _id(chosen[-1]) if chosen else None,
            "has_more": first + limit < len(sorted_),
        }
    )


def _id(item: Any) -> str:
    listed: _Listed = item
    return listed.id


def _limit(given: str | None, schema: Mapping[str, Any]) -> int:
    if given is None:
        return int(schema["default"])
    if not (given.isascii() and given.isdigit() and schema["minimum"] <= int(given[:9]) <= schema["maximum"]):
        expected = f"a number from {schema['minimum']} to {schema['maximum']}"
        raise RequestError(f"Invalid 'limit': expected {expected}.", param="limit", code="invalid_value")
    return int(given)

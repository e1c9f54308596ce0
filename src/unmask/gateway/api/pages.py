"""Lists, a page at a time, as OpenAI's clients walk through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from unmask.gateway.api.errors import RequestError
from unmask.gateway.api.http import Answer, answer_json
from unmask.gateway.api.storing import Thing

_ORDERS: Final = ("asc", "desc")


def page_parameters(*, default: int, most: int) -> dict[str, dict[str, Any]]:
    """Return the schemas of the parameters that :func:`page` reads."""
    return {
        "limit": {"type": "integer", "minimum": 1, "maximum": most, "default": default},
        "after": {"type": "string", "description": "The id behind which the page begins."},
        "order": {"type": "string", "enum": list(_ORDERS), "default": "desc", "description": "By time."},
    }


def page(items: Sequence[Thing], query: Mapping[str, str], parameters: Mapping[str, Mapping[str, Any]]) -> Answer:
    """Answer with a page of items.

    Args:
        items: all of them, the oldest first.
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
    ids = [item.id for item in sorted_]
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
            "first_id": chosen[0].id if chosen else None,
            "last_id": chosen[-1].id if chosen else None,
            "has_more": first + limit < len(sorted_),
        }
    )


def _limit(given: str | None, schema: Mapping[str, Any]) -> int:
    if given is None:
        return int(schema["default"])
    if not (given.isascii() and given.isdigit() and schema["minimum"] <= int(given[:9]) <= schema["maximum"]):
        expected = f"a number from {schema['minimum']} to {schema['maximum']}"
        raise RequestError(f"Invalid 'limit': expected {expected}.", param="limit", code="invalid_value")
    return int(given)

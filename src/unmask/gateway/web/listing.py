"""The list of models: what is asked for stands in the address, and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.responses import Response

from unmask.errors import InputError
from unmask.gateway.catalogue import ORDERS, STATUSES, Listing, Query, Status, choices, select
from unmask.gateway.catalogue.fields import Task
from unmask.gateway.web.visit import Visit

#: What a model is made for, in the words of a page.
TASKS: Final[dict[str, str]] = {
    "sentence-similarity": "Vectors of texts",
    "feature-extraction": "States of words",
    "text-ranking": "Reranking",
    "text-generation": "Language model",
}
_ORDERS: Final[dict[str, str]] = {
    "status": "Live first",
    "title": "Title",
    "newest": "Newest",
    "updated": "Last updated",
    "smallest": "Smallest",
    "largest": "Largest",
    "dimensions": "Dimensions",
    "cheapest": "Cheapest",
}
_FIRST: Final = next(iter(_ORDERS))
assert list(_ORDERS) == list(ORDERS), "every order has its words"
#: An order of our own: the catalogue does not know how much its models are used.
_MOST_USED: Final = "downloads"


@dataclass(frozen=True, kw_only=True)
class Size:
    """A range of sizes that can be asked for.

    Attributes:
        words: for people.
        least: parameters, None for any number.
        most: likewise.
    """

    words: str
    least: int | None = None
    most: int | None = None


SIZES: Final[dict[str, Size]] = {
    "small": Size(words="Up to 500M", most=500_000_000),
    "medium": Size(words="500M to 3B", least=500_000_001, most=3_000_000_000),
    "large": Size(words="Over 3B", least=3_000_000_001),
}


@dataclass(frozen=True, kw_only=True)
class Option:
    """A box that can be ticked.

    Attributes:
        name: of the field.
        value: of it.
        text: beside it.
        count: how many models have it, None where that is not said.
        on: whether it is ticked.
    """

    name: str
    value: str
    text: str
    count: int | None
    on: bool


def query_of(params: QueryParams) -> Query:
    """Return what an address asks for.

    Raises:
        InputError: it asks for what cannot be.
    """
    size = SIZES.get(params.get("size", ""), Size(words=""))
    return Query(
        text=params.get("q", "")[:200],
        tasks=tuple(_known(params, "task", get_args(Task))),
        statuses=tuple(_statuses(params)),
        licences=tuple(params.getlist("licence")),
        dimensions=tuple(_numbers(params.getlist("dimension"))),
        min_parameters=size.least,
        max_parameters=size.most,
        order=order if (order := params.get("sort") or _FIRST) != _MOST_USED else _FIRST,
    )


async def show(visit: Visit) -> Response:
    """Answer with the models that are asked for."""
    params = visit.request.query_params
    listings = visit.services.listings()
    query = query_of(params)
    found = select(listings, query)
    calls, pulls = await visit.services.calls.last_month(), await visit.services.pulls.last_month()
    used = Counter(calls) + Counter(pulls) + Counter(visit.services.downloads())
    sort = params.get("sort") or query.order
    if sort == _MOST_USED:
        found.sort(key=lambda each: -used[each.entry.slug])
    return visit.page(
        "models.html",
        found=found,
        total=len(listings),
        query=query,
        sort=sort,
        size=params.get("size", ""),
        sizes=SIZES,
        tasks=TASKS,
        orders=_ORDERS | {_MOST_USED: "Downloads a month"},
        filters=_filters(listings, params),
        filtered=any(params.get(name) for name in ("q", "task", "status", "licence", "dimension", "size")),
        calls=calls,
        pulls=pulls,
    )


def _filters(listings: Sequence[Listing], params: QueryParams) -> dict[str, list[Option]]:
    there = choices(listings)
    fields: dict[str, tuple[str, dict[str, int]]] = {
        "Task": ("task", there.tasks),
        "Status": ("status", there.statuses),
        "Dimensions": ("dimension", {str(length): count for length, count in there.dimensions.items()}),
        "Licence": ("licence", there.licences),
    }
    return {
        title: [
            Option(
                name=name,
                value=value,
                text=_words(name, value),
                count=count,
                on=value in params.getlist(name),
            )
            for value, count in counts.items()
        ]
        for title, (name, counts) in fields.items()
    }


def _words(name: str, value: str) -> str:
    if name == "dimension":
        return f"{int(value):,}"
    return TASKS[value] if name == "task" else value


def _known(params: QueryParams, name: str, values: Sequence[Task]) -> list[Task]:
    given = params.getlist(name)
    unknown = sorted(set(given) - set(values))
    if unknown:
        raise InputError(f"The {name} is {unknown[0][:80]!r}; expected one of {', '.join(values)}. Choose one.")
    return [value for value in values if value in given]


def _statuses(params: QueryParams) -> list[Status]:
    given = params.getlist("status")
    unknown = sorted(set(given) - set(STATUSES))
    if unknown:
        raise InputError(f"The status is {unknown[0][:80]!r}; expected one of {', '.join(STATUSES)}. Choose one.")
    return [status for status in STATUSES if status in given]


def _numbers(texts: Sequence[str]) -> list[int]:
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise InputError(f"The dimension is {text[:80]!r}; expected a whole number. Choose one of the list.")
    return [int(text) for text in texts]


def address_of(slugs: Sequence[str]) -> str:
    """Return the address of a page that compares models."""
    return f"/compare?{urlencode([('model', slug) for slug in slugs])}"

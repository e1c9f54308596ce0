"""Lists of models: searched, filtered, sorted, and what there is to filter by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from unmask.errors import InputError
from unmask.gateway.catalogue.fields import Task
from unmask.gateway.catalogue.status import STATUSES, Listing, Status


@dataclass(frozen=True, kw_only=True)
class Order:
    """How a list is sorted.

    Attributes:
        key: of a model; None for one of which it is not known, which comes last.
        falling: largest first.
    """

    key: Callable[[Listing], Any]
    falling: bool = False


#: By the name of the order. What is alike stays in the order of the slugs.
ORDERS: Final[Mapping[str, Order]] = {
    "status": Order(key=lambda each: STATUSES.index(each.status)),
    "title": Order(key=lambda each: each.entry.title.casefold()),
    "newest": Order(key=lambda each: each.entry.published, falling=True),
    "updated": Order(key=lambda each: each.entry.updated, falling=True),
    "smallest": Order(key=lambda each: each.entry.parameters),
    "largest": Order(key=lambda each: each.entry.parameters, falling=True),
    "dimensions": Order(key=lambda each: each.entry.dimensions),
    "cheapest": Order(key=lambda each: each.entry.prices.realtime),
}


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a list is to show; every condition must hold, of a tuple any one value, and an empty one asks nothing.

    Attributes:
        text: words that must all occur in what the catalogue says of a model.
        tasks: its task is one of these.
        statuses: likewise.
        licences: its own licence is one of these, by SPDX name or name.
        dimensions: its vectors have one of these lengths.
        min_parameters: it has at least so many; a model of unknown size has neither few nor many.
        max_parameters: it has at most so many.
        order: a name in ``ORDERS``.

    Raises:
        InputError: there is no such order.
    """

    text: str = ""
    tasks: tuple[Task, ...] = ()
    statuses: tuple[Status, ...] = ()
    licences: tuple[str, ...] = ()
    dimensions: tuple[int, ...] = ()
    min_parameters: int | None = None
    max_parameters: int | None = None
    order: str = "status"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(f"The order is {self.order[:80]!r}; expected one of {', '.join(ORDERS)}. Choose one.")

    def matches(self, listing: Listing) -> bool:
        """Return whether a model is to be shown."""
        entry = listing.entry
        return (
            (not self.tasks or entry.task in self.tasks)
            and (not self.statuses or listing.status in self.statuses)
            and (not self.licences or entry.licence.label in self.licences)
            and (not self.dimensions or entry.dimensions in self.dimensions)
            and self._is_of_size(entry.parameters)
            and all(word in _text(listing) for word in self.text.casefold().split())
        )

    def _is_of_size(self, parameters: int | None) -> bool:
        if self.min_parameters is None and self.max_parameters is None:
            return True
        return parameters is not None and (
            (self.min_parameters or 0) <= parameters
            and (self.max_parameters is None or parameters <= self.max_parameters)
        )


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a list can be filtered by, each with how many models have it.

    Attributes:
        tasks: in falling order of how many.
        statuses: in their own order.
        licences: in falling order of how many.
        dimensions: from short to long.
    """

    tasks: dict[str, int]
    statuses: dict[str, int]
    licences: dict[str, int]
    dimensions: dict[int, int]


def select(listings: Iterable[Listing], query: Query) -> list[Listing]:
    """Return the models that a query asks for, in its order."""
    order = ORDERS[query.order]
    found = sorted(filter(query.matches, listings), key=lambda each: each.entry.slug)
    known = sorted((each for each in found if order.key(each) is not None), key=order.key, reverse=order.falling)
    return known + [each for each in found if order.key(each) is None]


def choices(listings: Iterable[Listing]) -> Choices:
    """Return what there is to filter by."""
    models = tuple(listings)
    statuses = Counter(each.status for each in models)
    lengths = Counter(each.entry.dimensions for each in models if each.entry.dimensions is not None)
    return Choices(
        tasks=dict(Counter(each.entry.task for each in models).most_common()),
        statuses={status: statuses[status] for status in STATUSES if status in statuses},
        licences=dict(Counter(each.entry.licence.label for each in models).most_common()),
        dimensions=dict(sorted(lengths.items())),
    )


def _text(listing: Listing) -> str:
    """Return what is searched, in small letters."""
    entry = listing.entry
    parts = [entry.title, *entry.accepted, entry.task, listing.status, entry.licence.label, entry.architecture]
    parts += [*entry.languages, entry.about, *entry.strengths, *entry.best_for]
    return "\n".join(parts).casefold()

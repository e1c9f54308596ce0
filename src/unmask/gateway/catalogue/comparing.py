"""Several models side by side: one row a property, one value a model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from unmask.gateway.catalogue.catalogue import Catalogue
from unmask.gateway.catalogue.status import Listing

#: What stands where nothing is known.
NONE: Final = "–"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A property of the models that are compared.

    Attributes:
        label: what it is.
        about: a word more: where a figure is from, and on what.
        texts: one a model, for people; a dash where nothing is known.
        numbers: one a model, for plots and for marking the best; None where nothing is known or it is no number.
    """

    label: str
    about: str = ""
    texts: tuple[str, ...]
    numbers: tuple[float | None, ...]

    @property
    def differs(self) -> bool:
        """Whether the models are not all alike."""
        return len(set(self.texts)) > 1


def compare(catalogue: Catalogue, listings: Sequence[Listing]) -> tuple[Row, ...]:
    """Return what can be said of some models side by side, in the order given.

    Figures stand in one row only if they are of the same benchmark and metric, and measured ones only if data, number
    of items and length of texts are the same, too; a published figure is never beside one of ours.

    Args:
        catalogue: that the models are from.
        listings: any number of them.
    """
    properties = [
        _row(label, [value(catalogue, listing) for listing in listings]) for label, value in _PROPERTIES.items()
    ]
    return (*properties, *_figures(listings))


def _row(label: str, values: Iterable[str | int | None]) -> Row:
    found = tuple(values)
    return Row(
        label=label,
        texts=tuple(NONE if value in (None, "") else _shown(value) for value in found),
        numbers=tuple(value if isinstance(value, int) else None for value in found),
    )


def _shown(value: str | int | None) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


_PROPERTIES: Final[Mapping[str, Callable[[Catalogue, Listing], str | int | None]]] = {
    "status": lambda _, each: each.status,
    "task": lambda _, each: each.entry.task,
    "made from": lambda all_, each: all_.find(each.entry.base).title if each.entry.base else None,
    "architecture": lambda _, each: each.entry.architecture,
    "parameters": lambda _, each: each.entry.parameters,
    "dimensions": lambda _, each: each.entry.dimensions,
    "max length, tokens": lambda _, each: each.entry.max_length,
    "pooling": lambda _, each: each.entry.pooling,
    "languages": lambda _, each: ", ".join(each.entry.languages),
    "licence": lambda all_, each: ", ".join(licence.label for licence in all_.licences(each.entry)),
    "published": lambda _, each: each.entry.published,
    "updated": lambda _, each: each.entry.updated,
    "price, realtime": lambda _, each: each.entry.prices.shown("realtime"),
    "price, batch": lambda _, each: each.entry.prices.shown("batch"),
}


def _figures(listings: Sequence[Listing]) -> list[Row]:
    """Return a row for each thing that was measured alike."""
    labels: dict[Hashable, tuple[str, str]] = {}
    values: dict[Hashable, dict[int, tuple[str, float]]] = {}
    for place, listing in enumerate(listings):
        for key, label, text, value in _of(listing):
            labels.setdefault(key, label)
            values.setdefault(key, {})[place] = (text, value)
    return [
        Row(
            label=label,
            about=about,
            texts=tuple(values[key][place][0] if place in values[key] else NONE for place in range(len(listings))),
            numbers=tuple(values[key][place][1] if place in values[key] else None for place in range(len(listings))),
        )
        for key, (label, about) in labels.items()
    ]


def _of(listing: Listing) -> Iterable[tuple[Hashable, tuple[str, str], str, float]]:
    """Yield a model's figures: what makes them comparable, what a row of them is called, text, value."""
    entry = listing.entry
    for each in entry.benchmarks:
        key = ("published", each.name, each.metric)
        yield key, (f"{each.name}, {each.metric}", f"published: {each.source}"), f"{each.value:g}", each.value
    if entry.measured is None:
        return
    length = entry.measured.max_length
    for figure in entry.measured.figures:
        about = f"measured by unmask eval: {figure.items:,} items, texts of at most {length:,} tokens"
        text = f"{figure.value:.1f}"
        if figure.low is not None and figure.high is not None:
            text += f" ({figure.low:.1f}–{figure.high:.1f})"
        alike = ("measured", figure.name, figure.metric, figure.data, figure.items, length)
        yield alike, (f"{figure.name}, {figure.metric}", about), text, figure.value

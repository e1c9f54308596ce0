"""What the pages draw, from the catalogue's figures and from usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from unmask.gateway.accounts.usage import DayUsage
from unmask.gateway.catalogue import Entry, Listing, Row
from unmask.gateway.web.charts import Bar, Chart, Dot, DotRow, bars, dots
from unmask.gateway.web.drawing import SERIES
from unmask.gateway.web.planes import Point, columns, line, scatter

#: Micro-units of one unit of the currency.
_UNIT: Final = 1_000_000
#: Figures are shares times 100.
_MOST: Final = 100.0
#: What tasks are called, by kind.
_KINDS: Final = {
    "sts": "likeness of sentences",
    "retrieval": "search",
    "pairs": "paraphrases",
    "classification": "classification",
    "clustering": "clustering",
    "tokens": "words",
    "spans": "groups of words",
}


def measured(entry: Entry) -> Chart | None:
    """Return our own figures of a model, None if there are none."""
    if entry.measured is None or not entry.measured.figures:
        return None
    kinds = list(_KINDS)
    figures = sorted(
        entry.measured.figures,
        key=lambda each: (kinds.index(each.kind) if each.kind in _KINDS else len(kinds), each.name),
    )
    rows = [
        DotRow(
            label=f"{each.name} · {_KINDS.get(each.kind, each.kind)}, {each.metric}",
            about=f"{each.items:,} items",
            dots=(Dot(value=each.value, low=each.low, high=each.high),),
        )
        for each in figures
    ]
    return dots("measured", "Measured by us, with 95 % intervals", rows, ("value",))


def published(entry: Entry) -> Chart | None:
    """Return what others published of a model, None if there is nothing."""
    if not entry.benchmarks:
        return None
    items = [
        Bar(label=f"{each.name}, {each.metric}", value=max(each.value, 0.0), shown=f"{each.value:g}")
        for each in entry.benchmarks
    ]
    return bars("published", "Published by others", items, most=_MOST)


def side_by_side(rows: Sequence[Row], listings: Sequence[Listing]) -> list[Chart]:
    """Return charts of what several models were measured on alike: as many as there is something to compare in."""
    titles = [each.entry.title for each in listings]
    charts = []
    for name, start, title in (
        ("ours", "measured", "Measured by us, each task on the same data"),
        ("theirs", "published", "Published by others"),
    ):
        chosen = [row for row in rows if row.about.startswith(start) and _known(row) > 1]
        if chosen:
            charts.append(dots(name, title, [_dots(row, listings) for row in chosen], titles))
    plot = _size_and_quality(rows, listings)
    return [plot, *charts] if plot else charts


def usage_by_day(usage: Sequence[DayUsage], today: date, currency: str, *, days: int = 30) -> Chart | None:
    """Return what each day cost, by model; None if nothing was used.

    Args:
        usage: of those days.
        today: the last of them, UTC.
        currency: of the amounts.
        days: so many.
    """
    if not usage:
        return None
    sums: Counter[str] = Counter()
    for each in usage:
        sums[each.model] += each.amount
    names = [name for name, _ in sums.most_common()]
    shown = names if len(names) <= SERIES else names[: SERIES - 1]
    dates = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    amounts: dict[tuple[date, str], int] = {}
    for each in usage:
        key = each.day, each.model if each.model in shown else "others"
        amounts[key] = amounts.get(key, 0) + each.amount
    series = [
        (name, [amounts.get((day, name), 0) / _UNIT for day in dates])
        for name in [*shown, *(["others"] if len(shown) < len(names) else [])]
    ]
    return columns("usage", f"Spent a day, {currency}", [_day(day) for day in dates], series)


def requests_by_day(usage: Sequence[DayUsage], today: date, *, days: int = 30) -> Chart:
    """Return how many requests were charged each day; arguments as of :func:`usage_by_day`."""
    counts: Counter[date] = Counter()
    for each in usage:
        counts[each.day] += each.requests
    dates = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    return line(
        "requests", "Requests a day", [_day(day) for day in dates], [counts[day] for day in dates], head="requests"
    )


def _size_and_quality(rows: Sequence[Row], listings: Sequence[Listing]) -> Chart | None:
    """Return parameters against the figure that most of the models have, None if fewer than two have one."""
    figures = [row for row in rows if row.about]
    if not figures:
        return None
    row = max(figures, key=_known)
    points = [
        Point(label=each.entry.title, x=each.entry.parameters, y=value)
        for each, value in zip(listings, row.numbers, strict=True)
        if each.entry.parameters is not None and value is not None
    ]
    if len({point.x for point in points}) < 2:
        return None
    return scatter("size", f"{row.label}, by size ({row.about})", points, x="parameters", y=row.label)


def _dots(row: Row, listings: Sequence[Listing]) -> DotRow:
    return DotRow(
        label=row.label,
        about=row.about,
        dots=tuple(
            None if value is None else _with_interval(row.label, value, listing)
            for value, listing in zip(row.numbers, listings, strict=True)
        ),
    )


def _with_interval(label: str, value: float, listing: Listing) -> Dot:
    figures = listing.entry.measured.figures if listing.entry.measured else ()
    found = next((each for each in figures if f"{each.name}, {each.metric}" == label and each.value == value), None)
    return Dot(value=value, low=found.low, high=found.high) if found else Dot(value=value)


def _known(row: Row) -> int:
    return sum(value is not None for value in row.numbers)


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"

"""Charts as SVG that a server renders: no script, no inline style, readable at any width, and a table of the same data.

Across, positions are percentages of the drawing's width, and down they are pixels, so text keeps its size on a phone.
Colours come from the style sheet by class; series differ in their mark's shape, too.

    chart = bars("speed", "Tokens a second", [Bar(label="ours", value=485, shown="485")])
    chart.svg, chart.heads, chart.rows      # for the template's macro
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from unmask.gateway.web.drawing import (
    across,
    axis,
    kind,
    mark,
    place,
    svg,
    text,
    ticks,
)

#: Pixels from one line of a chart to the next, and from one series to the next within it.
_ROW: Final = 46
_APART: Final = 11
_NONE: Final = "–"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing, and the same as a table.

    Attributes:
        name: of it, unique on its page.
        title: what it shows.
        svg: the drawing.
        heads: of the columns of its table.
        rows: of its table; the first cell is the row's head.
        legend: of its series, in their order; empty for one alone.
    """

    name: str
    title: str
    svg: Markup
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar.

    Attributes:
        label: what it is of.
        value: its length, at least 0.
        shown: the value, for people.
    """

    label: str
    value: float
    shown: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval.

    Attributes:
        value: where it is.
        low: lower end of the interval, None without one.
        high: upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def shown(self) -> str:
        """The value, for people."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.1f} ({self.low:.1f}–{self.high:.1f})"


@dataclass(frozen=True, kw_only=True)
class DotRow:
    """What one line of a chart of dots shows.

    Attributes:
        label: what was measured.
        about: a word more, for the table.
        dots: one a series, None where it was not measured.
    """

    label: str
    about: str = ""
    dots: tuple[Dot | None, ...]


def bars(name: str, title: str, items: Sequence[Bar], *, most: float = 0.0, head: str = "value") -> Chart:
    """Return a bar an item, one below the other.

    Args:
        name: of the chart, unique on its page.
        title: what it shows.
        items: from top to bottom.
        most: value of a bar of full length, or the largest that there is.
        head: of the column of values.
    """
    most = max((most, *(item.value for item in items))) or 1.0
    parts = []
    for number, item in enumerate(items):
        top = number * _ROW
        wide = across(100 * max(item.value, 0.0) / most)
        parts += [
            text("0", top + 16, item.label),
            text("100%", top + 16, item.shown, "end"),
            Markup('<rect class="track" x="0" y="{}" width="100%" height="8" rx="4"/>').format(top + 25),
            Markup('<rect class="s0" x="0" y="{}" width="{}" height="8" rx="4"/>').format(top + 25, wide),
        ]
    told = "; ".join(f"{item.label}: {item.shown}" for item in items)
    return Chart(
        name=name,
        title=title,
        svg=svg(name, title, told, len(items) * _ROW, parts),
        heads=("", head),
        rows=tuple((item.label, item.shown) for item in items),
    )


def dots(name: str, title: str, rows: Sequence[DotRow], series: Sequence[str]) -> Chart:
    """Return values with their intervals on one axis, a line each thing that was measured.

    Args:
        name: of the chart, unique on its page.
        title: what it shows.
        rows: from top to bottom.
        series: whose dots they are; one alone needs no legend.
    """
    ends = [end for row in rows for dot in row.dots if dot for end in (dot.value, dot.low, dot.high) if end is not None]
    low, high, step = axis(min(ends, default=0.0), max(ends, default=1.0))
    tall = _ROW + _APART * (len(series) - 1)
    parts, height = [], len(rows) * tall
    for tick in ticks(low, high, step):
        at = across(place(tick, low, high))
        parts.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="4" y2="{1}"/>').format(at, height))
        parts.append(text(at, height + 18, f"{tick:g}", "tick mid"))
    for line_, row in enumerate(rows):
        top = line_ * tall
        parts.append(text("0", top + 18, row.label, "halo"))
        for number, dot in enumerate(row.dots):
            y = top + 32 + _APART * number
            parts.append(Markup('<line class="track" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(y))
            if dot is not None:
                parts += _dot(dot, number, y, low, high)
    told = "; ".join(
        f"{row.label}: " + ", ".join(f"{one} {dot.shown}" for one, dot in zip(series, row.dots, strict=True) if dot)
        for row in rows
    )
    return Chart(
        name=name,
        title=title,
        svg=svg(name, title, told, height + 26, parts),
        heads=("", *series),
        rows=tuple((_full(row), *(dot.shown if dot else _NONE for dot in row.dots)) for row in rows),
        legend=tuple(series) if len(series) > 1 else (),
    )


def legend_mark(number: int) -> Markup:
    """Return the mark of a series by itself."""
    return Markup('<svg class="mark" width="14" height="14" aria-hidden="true">{}</svg>').format(mark(number, "7", 7))


def _dot(dot: Dot, number: int, y: float, low: float, high: float) -> list[Markup]:
    parts = [mark(number, across(place(dot.value, low, high)), y, dot.shown)]
    if dot.low is not None and dot.high is not None:
        ends = across(place(dot.low, low, high)), across(place(dot.high, low, high))
        between = Markup('<line class="range r{}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
        parts.insert(0, between.format(kind(number), *ends, y=y))
    return parts


def _full(row: DotRow) -> str:
    return f"{row.label} ({row.about})" if row.about else row.label

"""Charts with two axes: columns, a line, points; see :mod:`unmask.gateway.web.charts`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from unmask.gateway.web.charts import Chart
from unmask.gateway.web.drawing import LEFT, RIGHT, TALL, across, axis, down, kind, levels, mark, svg, text

#: How powers of ten are written.
_POWERS: Final = {3: "1k", 4: "10k", 5: "100k", 6: "1M", 7: "10M", 8: "100M", 9: "1B", 10: "10B", 11: "100B"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a scatter chart.

    Attributes:
        label: what it is of.
        x: where it is, across; above 0.
        y: how high.
    """

    label: str
    x: float
    y: float


def columns(name: str, title: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]) -> Chart:
    """Return columns side by side, each made of its series one upon the other.

    Args:
        name: of the chart, unique on its page.
        title: what it shows.
        labels: of the columns; as many as there is room for are drawn.
        series: of each, its label and as many values as there are columns, each at least 0.
    """
    sums = [sum(values[at] for _, values in series) for at in range(len(labels))]
    _, high, step = axis(0.0, max(sums, default=0.0))
    wide = (RIGHT - LEFT) / max(len(labels), 1)
    lefts = [LEFT + wide * (at + 0.15) for at in range(len(labels))]
    parts = levels(0.0, high, step)
    for at, label in enumerate(labels):
        below = 0.0
        for number, (of, values) in enumerate(series):
            if values[at] > 0:
                top, bottom = down(below + values[at], 0.0, high), down(below, 0.0, high)
                tip = f"{label}, {of}: {values[at]:,.6g}"
                parts.append(
                    Markup('<rect class="s{}" x="{}" y="{:.1f}" width="{}" height="{:.1f}"><title>{}</title></rect>')
                    .format(kind(number), across(lefts[at]), top, across(wide * 0.7), bottom - top, tip)
                )  # fmt: skip
                below += values[at]
    return Chart(
        name=name,
        title=title,
        svg=svg(name, title, _sums(labels, sums), TALL + 28, [*parts, *_below(lefts, labels)]),
        heads=("", *(of for of, _ in series)),
        rows=tuple(
            (label, *(f"{values[at]:,.6g}" for _, values in series)) for at, label in enumerate(labels) if sums[at]
        ),
        legend=tuple(of for of, _ in series) if len(series) > 1 else (),
    )


def line(name: str, title: str, labels: Sequence[str], values: Sequence[float], *, head: str = "value") -> Chart:
    """Return a line through values that follow one another.

    Args:
        name: of the chart, unique on its page.
        title: what it shows.
        labels: of the values; as many as there is room for are drawn.
        values: at least 0.
        head: of the column of values.
    """
    _, high, step = axis(0.0, max(values, default=0.0))
    wide = (RIGHT - LEFT) / max(len(values), 1)
    xs = [across(LEFT + wide * (at + 0.5)) for at in range(len(values))]
    ys = [down(value, 0.0, high) for value in values]
    parts = levels(0.0, high, step)
    for at in range(1, len(values)):
        parts.append(
            Markup('<line class="path" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(
                xs[at - 1], ys[at - 1], xs[at], ys[at]
            )
        )
    for at, label in enumerate(labels):
        tip = f"{label}: {values[at]:,.6g}"
        parts.append(
            Markup('<circle class="s0" cx="{}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
                xs[at], ys[at], tip
            )
        )
    lefts = [LEFT + wide * (at + 0.15) for at in range(len(labels))]
    return Chart(
        name=name,
        title=title,
        svg=svg(name, title, _sums(labels, values), TALL + 28, [*parts, *_below(lefts, labels)]),
        heads=("", head),
        rows=tuple((label, f"{value:,.6g}") for label, value in zip(labels, values, strict=True) if value),
    )


def scatter(name: str, title: str, points: Sequence[Point], *, x: str, y: str) -> Chart:
    """Return points on two axes; the one across is logarithmic.

    Args:
        name: of the chart, unique on its page.
        title: what it shows.
        points: at least one; each is a series of its own.
        x: what the axis across is.
        y: what the other one is.
    """
    low, high, step = axis(min(point.y for point in points), max(point.y for point in points))
    logs = [math.log10(point.x) for point in points]
    first = math.floor(min(logs))
    last = max(math.ceil(max(logs)), first + 1)
    parts = levels(low, high, step)
    for power in range(first, last + 1):
        at = across(_wide(power, first, last))
        parts.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="10" y2="{1}"/>').format(at, TALL))
        parts.append(text(at, TALL + 18, _POWERS.get(power, f"1e{power}"), "tick mid"))
    for number, (point, power_) in enumerate(zip(points, logs, strict=True)):
        told = f"{point.label}: {point.y:g}"
        parts.append(mark(number, across(_wide(power_, first, last)), down(point.y, low, high), told))
    parts.append(text(across(RIGHT), TALL + 38, f"{x} →", "tick end"))
    told = "; ".join(f"{point.label}: {point.x:,.6g} and {point.y:g}" for point in points)
    return Chart(
        name=name,
        title=title,
        svg=svg(name, title, told, TALL + 46, parts),
        heads=("", x, y),
        rows=tuple((point.label, f"{point.x:,.6g}", f"{point.y:g}") for point in points),
        legend=tuple(point.label for point in points),
    )


def _below(lefts: Sequence[float], labels: Sequence[str]) -> list[Markup]:
    """Return every so many labels: on a phone, more than four would touch."""
    step = max(1, -(-len(labels) // 4))
    return [text(across(lefts[at]), TALL + 18, labels[at], "tick") for at in range(0, len(labels), step)]


def _wide(value: float, low: float, high: float) -> float:
    return LEFT + 3 + (RIGHT - LEFT - 6) * (value - low) / (high - low)


def _sums(labels: Sequence[str], sums: Sequence[float]) -> str:
    told = "; ".join(f"{label}: {value:,.6g}" for label, value in zip(labels, sums, strict=True) if value)
    return told or "nothing"

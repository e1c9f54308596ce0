"""The plots of a comparison: score a task with intervals, quality against speed, and against dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from unmask.evaluation.compare.comparing import Column, Comparison
from unmask.evaluation.compare.drawing import (
    COLOURS,
    WIDTH,
    Scale,
    fitted,
    labels,
    line,
    marker,
    path,
    shortened,
    svg,
    text,
    ticks,
)
from unmask.evaluation.compare.layout import described, hundredths, interval
from unmask.evaluation.outcome import Metric

_ROW: Final = 22
_TOP: Final = 8
_FOOT: Final = 26
_HEIGHT: Final = 280
_LEFT: Final = 44
#: Most characters of a model's name beside a plot, and pixels of one.
_NAME: Final = 20
_LETTER: Final = 6.3
#: A ratio of largest to smallest beyond which equal ratios are drawn as equal distances.
_WIDE: Final = 8


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture with its title.

    Attributes:
        title: above it.
        below: a word more on what is drawn.
        image: as SVG.
    """

    title: str
    below: str
    image: str


@dataclass(frozen=True, kw_only=True)
class _Point:
    number: int
    name: str
    x: float
    y: float


def scores(comparison: Comparison) -> list[Plot]:
    """Return a dot and its interval for each model, a plot a task; published figures as hollow dots."""
    return [_task(comparison, column) for column in comparison.columns]


def against_cost(comparison: Comparison) -> list[Plot]:
    """Return the average against speed, against dimension, and the quality of cut vectors where it was measured."""
    rows = list(enumerate(comparison.rows))
    speeds = [
        _Point(number=number, name=row.model.name, x=row.model.tokens_per_second, y=100 * row.overall)
        for number, row in rows
        if row.model.tokens_per_second
    ]
    dimensions = [
        _Point(number=number, name=row.model.name, x=row.model.dimension, y=100 * row.overall) for number, row in rows
    ]
    average = "average of the common tasks"
    plots = [_scatter("Quality and dimension", f"{average}, components of a vector", dimensions, "components")]
    if speeds:
        plots.insert(0, _scatter("Quality and speed", f"{average}, tokens a second", speeds, "tokens/s"))
    for measure in dict.fromkeys(row.cut.measure for _, row in rows if row.cut):
        cut = [
            _Point(number=number, name=row.model.name, x=size, y=100 * quality)
            for number, row in rows
            if row.cut and row.cut.measure == measure
            for size, quality in row.cut.points
        ]
        below = f"{measure}; components that are kept"
        plots.append(_scatter("Quality of cut vectors", below, cut, "components", joined=True))
    return plots


def _task(comparison: Comparison, column: Column) -> Plot:
    figures: list[tuple[str, Metric, bool]] = [
        (row.model.name, row.scores[column.task], False) for row in comparison.rows if column.task in row.scores
    ]
    figures += [
        (row.model, Metric(value=row.figures[column.task] / 100), True)
        for row in comparison.published
        if column.task in row.figures
    ]
    names = [shortened(name, _NAME) for name, _, _ in figures]
    left = 12 + _LETTER * max(len(name) for name in names)
    ends = [
        100 * value for _, score, _ in figures for value in (score.low, score.value, score.high) if value is not None
    ]
    scale = fitted(ends, left, WIDTH - 10)
    bottom = _TOP + _ROW * len(figures)
    parts = _below_axis(scale, bottom, _TOP, lambda value: f"{value:g}")
    numbers = {row.model.name: number for number, row in enumerate(comparison.rows)}
    for place, (name, score, published) in enumerate(figures):
        y = _TOP + _ROW * (place + 0.5)
        number = numbers.get(name, len(numbers)) if not published else len(numbers) + place
        tip = f"{name}{' (published)' if published else ''}: {hundredths(score.value, 2)} {interval(score, 2)}".rstrip()
        parts.append(
            text(left - 10, y + 4, names[place], anchor="end", style="name published" if published else "name")
        )
        if score.low is not None and score.high is not None:
            ends_at = scale(100 * score.low), scale(100 * score.high)
            parts.append(line(ends_at[0], y, ends_at[1], y, f"whisker s{number % COLOURS}"))
        parts.append(marker(scale(100 * score.value), y, number, tip, hollow=published))
    said = "; ".join(
        f"{name}{' (published)' if published else ''} {hundredths(score.value)} {interval(score)}".rstrip()
        for name, score, published in figures
    )
    alt = f"{column.task}, {column.metric}, times 100: {said}."
    below = described(column)
    return Plot(title=column.task, below=below, image=svg(bottom + _FOOT, alt, parts))


def _scatter(title: str, below: str, points: Sequence[_Point], unit: str, *, joined: bool = False) -> Plot:
    smallest, largest = min(point.x for point in points), max(point.x for point in points)
    right = WIDTH - 14
    across = fitted([point.x for point in points], _LEFT, right, log=joined or largest > _WIDE * smallest)
    if not across.log:
        across = Scale(low=0, high=1.12 * largest, start=_LEFT, end=right)
    bottom = _HEIGHT - _FOOT
    up = fitted([point.y for point in points], bottom, _TOP + 6)
    parts = _below_axis(across, bottom, _TOP, lambda value: f"{value:,.0f}")
    for value in ticks(up):
        parts += [
            line(_LEFT, up(value), right, up(value), "grid"),
            text(_LEFT - 6, up(value) + 4, f"{value:g}", anchor="end"),
        ]
    models = {point.number: [each for each in points if each.number == point.number] for point in points}
    if joined:
        parts += [
            path([(across(point.x), up(point.y)) for point in line_of], f"joined s{number % COLOURS}")
            for number, line_of in models.items()
        ]
    parts += [
        marker(across(point.x), up(point.y), point.number, f"{point.name}: {point.y:.2f} at {point.x:,.0f} {unit}")
        for point in points
    ]
    lasts = [line_of[-1] for line_of in models.values()]
    heights = labels([up(point.y) + 4 for point in lasts], _TOP + 8, bottom - 2)
    spots = [(across(point.x), up(point.y)) for point in points]
    for point, height in zip(lasts, heights, strict=True):
        parts.append(_label(point.name, across(point.x), height - (9 if joined else 0), spots, right))
    said = "; ".join(f"{point.name} {point.y:.1f} at {point.x:,.0f} {unit}" for point in points)
    return Plot(title=title, below=below, image=svg(_HEIGHT, f"{title}, {below}: {said}.", parts))


def _label(name: str, x: float, y: float, spots: Sequence[tuple[float, float]], right: float) -> str:
    """Return a model's name beside its mark: to the right, or to the left if it would run into something there."""
    shown = shortened(name, 2 * _NAME)
    end = x + 10 + _LETTER * len(shown)
    taken = any(x + 10 < spot_x < end + 6 and y - 14 < spot_y < y + 6 for spot_x, spot_y in spots)
    if end > right or taken:
        return text(x - 10, y, shown, anchor="end", style="name")
    return text(x + 10, y, shown, style="name")


def _below_axis(scale: Scale, bottom: float, top: float, write: Callable[[float], str]) -> list[str]:
    parts = [line(min(scale.start, scale.end), bottom, max(scale.start, scale.end), bottom, "axis")]
    for value in ticks(scale):
        parts += [
            line(scale(value), top, scale(value), bottom, "grid"),
            text(scale(value), bottom + 16, write(value), anchor="middle"),
        ]
    return parts

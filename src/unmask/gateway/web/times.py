"""Charts of what went on over time: curves, and strips of bars; see :mod:`unmask.gateway.web.charts`.

Across, the steps of time are the units of an inner drawing that is stretched to the width there is, so a curve is one
path, however many steps it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from unmask.gateway.web.charts import Chart
from unmask.gateway.web.drawing import LEFT, RIGHT, across, kind, mark, svg, text

#: Pixels from the top of a curve's plane to its bottom, and above it.
_TALL: Final = 150
_TOP: Final = 10
#: Pixels of a strip's line, and of a bar; what is not nothing is seen.
_ROW: Final = 62
_BAR: Final = 24
_LEAST: Final = 3
#: More levels than these are written at powers of ten alone.
_LEVELS: Final = 6
_NONE: Final = "–"


@dataclass(frozen=True, kw_only=True)
class Times:
    """The steps of time that a chart is of.

    Attributes:
        steps: each as people write it.
        labelled: every so many of them stand below the chart, without what is behind a comma.
    """

    steps: tuple[str, ...]
    labelled: int

    def below(self, y: float, left: float, right: float) -> list[Markup]:
        """Return what stands below a chart whose plane lies between two places, per cent across."""
        wide, every = (right - left) / len(self.steps), range(0, len(self.steps), self.labelled)
        return [text(across(left + wide * at), y, self.steps[at].partition(",")[0], "tick") for at in every]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A line of bars, one a step of time.

    Attributes:
        label: what it is of.
        shown: all of it together, for people.
        shares: of each step, 0 to 1; None where nothing is known.
    """

    label: str
    shown: str
    shares: tuple[float | None, ...]


def curves(
    name: str,
    title: str,
    times: Times,
    series: Sequence[tuple[str, Sequence[float | None]]],
    shown: Callable[[float], str],
) -> Chart:
    """Return curves over time, their values on a logarithmic axis.

    Args:
        name: of the chart, unique on its page.
        title: what it shows.
        times: of the steps.
        series: of each, its label and a value above 0 for each step, None where there is none; at least one value.
        shown: a value, for people.
    """
    values = [value for _, each in series for value in each if value is not None]
    low, high, levels = _levels(min(values), max(values))
    parts = []
    for level in levels:
        y = _down(level, low, high)
        line = Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(line.format(across(LEFT), across(RIGHT), y=y))
        parts.append(text(across(LEFT - 1.5), y + 4, _short(level), "tick end"))
    parts.append(_plane(times, series, low, high, shown))
    for number, (_, each) in enumerate(series):
        last = next((at for at in range(len(each) - 1, -1, -1) if each[at] is not None), None)
        if last is not None and (value := each[last]) is not None:
            parts.append(mark(number, _middle(last, len(times.steps)), _down(value, low, high), shown(value)))
    cells = [
        [_NONE if each[at] is None else shown(each[at] or 0) for _, each in series] for at in range(len(times.steps))
    ]
    known = [at for at in range(len(times.steps)) if any(each[at] is not None for _, each in series)]
    told = "; ".join(
        f"{of}: the latest {next(cells[at][number] for at in reversed(known) if each[at] is not None)}, "
        f"between {shown(min(found))} and {shown(max(found))}"
        for number, (of, each) in enumerate(series)
        if (found := [value for value in each if value is not None])
    )
    return Chart(
        name=name,
        title=title,
        svg=svg(name, title, told, _TOP + _TALL + 28, [*parts, *times.below(_TOP + _TALL + 18, LEFT, RIGHT)]),
        heads=("", *(of for of, _ in series)),
        rows=tuple((times.steps[at], *cells[at]) for at in known),
        legend=tuple(of for of, _ in series),
    )


def strips(name: str, title: str, times: Times, rows: Sequence[Strip]) -> Chart:
    """Return a line of bars for each of several things, one bar a step of time.

    A bar is as high as its share; what is less than all, or nothing at all, has another colour besides.

    Args:
        name: of the chart, unique on its page.
        title: what it shows.
        times: of the steps.
        rows: from top to bottom.
    """
    parts = []
    for number, row in enumerate(rows):
        top = number * _ROW
        parts += [text("0", top + 16, row.label), text("100%", top + 16, row.shown, "end")]
        bars = [_bar(at, share, time) for at, (share, time) in enumerate(zip(row.shares, times.steps, strict=True))]
        parts.append(
            Markup(
                '<svg y="{}" width="100%" height="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
            ).format(top + 25, _BAR, len(times.steps), _BAR, Markup("").join(bars))
        )
    height = len(rows) * _ROW
    parts += times.below(height + 6, 0.0, 100.0)
    known = [at for at in range(len(times.steps)) if any(row.shares[at] is not None for row in rows)]
    return Chart(
        name=name,
        title=title,
        svg=svg(name, title, "; ".join(_told(row, times.steps) for row in rows), height + 12, parts),
        heads=("", *(row.label for row in rows)),
        rows=tuple((times.steps[at], *(_share(row.shares[at]) for row in rows)) for at in known),
    )


def _plane(
    times: Times,
    series: Sequence[tuple[str, Sequence[float | None]]],
    low: float,
    high: float,
    shown: Callable[[float], str],
) -> Markup:
    """Return the curves, and over them a field for each step that says its values to a pointer."""
    paths = []
    for number, (_, values) in enumerate(series):
        path, pen = [], False
        for at, value in enumerate(values):
            if value is None:
                pen = False
                continue
            y = _down(value, low, high) - _TOP
            # A value alone is a short line.
            path.append(f"{'L' if pen else 'M'}{at + (0.5 if pen else 0.4):g} {y:.1f}{'' if pen else 'h.1'}")
            pen = True
        paths.append(Markup('<path class="curve r{} d{}" d="{}"/>').format(kind(number), kind(number), "".join(path)))
    fields = [
        Markup('<rect x="{}" width="1" height="{}"><title>{}</title></rect>').format(
            at, _TALL, f"{time}: " + ", ".join(f"{of} {shown(each[at] or 0)}" for of, each in series if each[at])
        )
        for at, time in enumerate(times.steps)
        if any(each[at] for _, each in series)
    ]
    return Markup(
        '<svg class="plane" x="{}" y="{}" width="{}" height="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">'
        "{}</svg>"
    ).format(
        across(LEFT), _TOP, across(RIGHT - LEFT), _TALL, len(times.steps), _TALL, Markup("").join([*paths, *fields])
    )


def _bar(at: int, share: float | None, time: str) -> Markup:
    if share is None:
        look, high = "none", float(_LEAST)
    else:
        look = "s0" if share >= 1 else "part" if share > 0 else "down"
        high = max(_BAR * share, _LEAST)
    return Markup('<rect class="{}" x="{}" y="{:g}" width=".8" height="{:g}"><title>{}</title></rect>').format(
        look, f"{at}.1", round(_BAR - high, 1), round(high, 1), f"{time}: {_share(share)}"
    )


def _told(row: Strip, times: Sequence[str]) -> str:
    """Return a strip in a sentence: what was not well, by its times."""
    bad = [f"{time} {_share(share)}" for time, share in zip(times, row.shares, strict=True) if (share or 0) < 1]
    ill = [each for each in bad if not each.endswith(_NONE)]
    return f"{row.label}: {row.shown}" + (f", less at {', '.join(ill)}" if ill else "")


def _share(share: float | None) -> str:
    if share is None:
        return _NONE
    # Less than all is never written as all.
    return f"{math.floor(share * 1000) / 10:.1f} %"


def _levels(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return round ends of a logarithmic axis that holds both values, and the levels that are written."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    begin = max((level for level in every if level <= low * (1 + 1e-9)), default=every[0])
    end = min((level for level in every if level >= high * (1 - 1e-9)), default=every[-1])
    if begin == end:
        end = every[every.index(end) + 1]
    found = [level for level in every if begin <= level <= end]
    if len(found) > _LEVELS:
        found = [level for level in found if math.isclose(math.log10(level) % 1, 0, abs_tol=1e-9)]
    return begin, end, found


def _short(level: float) -> str:
    """Return a round value in a few characters: there is room for no more on a phone."""
    return f"{level / 1000:g}k" if level >= 1000 else f"{level:g}"


def _down(value: float, low: float, high: float) -> float:
    return _TOP + _TALL * (1 - math.log(value / low) / math.log(high / low))


def _middle(at: int, steps: int) -> str:
    return across(LEFT + (RIGHT - LEFT) * (at + 0.5) / steps)

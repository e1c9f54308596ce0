"""Axes and marks as SVG, drawn so that a style sheet decides every colour: the page follows the reader's scheme.

Pictures are as wide as a phone shows without shrinking; a page sets several side by side where there is room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 360
#: Pixels between a picture's edge and the outermost mark.
_PAD: Final = 10
_MARKERS: Final = ("circle", "square", "diamond", "triangle", "down")
#: Colours that the style sheet defines, ``s0`` to ``s5``; with five shapes, thirty models stay distinct.
COLOURS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Figures → pixels.

    Attributes:
        low: figure at ``start``.
        high: figure at ``end``.
        start: pixel.
        end: pixel; smaller than ``start`` where up is more.
        log: whether equal ratios are equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a figure."""
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def fitted(values: Iterable[float], start: float, end: float, *, log: bool = False) -> Scale:
    """Return a scale that shows all ``values`` with a margin on both sides, of width even for a single figure."""
    found = list(values)
    low, high = min(found), max(found)
    if log:
        edge = max((high / low) ** 0.12, 1.15)
        return Scale(low=low / edge, high=high * edge, start=start, end=end, log=True)
    edge = max(0.08 * (high - low), 0.01 * max(abs(high), abs(low)), 0.2)
    return Scale(low=low - edge, high=high + edge, start=start, end=end)


def ticks(scale: Scale, most: int = 5) -> list[float]:
    """Return round figures inside a scale, at most ``most``."""
    if scale.log:
        powers = range(math.ceil(math.log2(scale.low)), math.floor(math.log2(scale.high)) + 1)
        step = max(1, math.ceil(len(powers) / most))
        return [2.0**power for power in powers[::step]]
    rough = (scale.high - scale.low) / most
    power = 10 ** math.floor(math.log10(rough))
    step_size = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    first = math.ceil(scale.low / step_size)
    return [place * step_size for place in range(first, math.floor(scale.high / step_size) + 1)]


def svg(height: float, alt: str, parts: Iterable[str]) -> str:
    """Return a picture with a text for those who do not see it."""
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" role="img" aria-label="{escape(alt)}">{body}</svg>'


def text(x: float, y: float, content: str, *, anchor: str = "start", style: str = "") -> str:
    """Return a line of text; ``style`` is a class of the style sheet."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def path(points: Sequence[tuple[float, float]], style: str) -> str:
    """Return a line through points."""
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{style}"/>'


def marker(x: float, y: float, number: int, tip: str, *, hollow: bool = False) -> str:
    """Return the mark of the model of a ``number``, which says ``tip`` when it is pointed at."""
    r = 5.0
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>',
        "square": f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>',
        "diamond": _polygon(x, y, ((0, -6.2), (6.2, 0), (0, 6.2), (-6.2, 0))),
        "triangle": _polygon(x, y, ((0, -5.8), (5.8, 4.4), (-5.8, 4.4))),
        "down": _polygon(x, y, ((0, 5.8), (5.8, -4.4), (-5.8, -4.4))),
    }
    # Both advance together: their numbers have no common divisor, so no pair comes twice before all have come.
    shape = shapes[_MARKERS[number % len(_MARKERS)]]
    style = f"mark s{number % COLOURS}{' hollow' if hollow else ''}"
    target = f'<rect x="{x - 12:.1f}" y="{y - 11:.1f}" width="24" height="22" class="target"/>'
    return f'<g class="{style}" data-tip="{escape(tip)}">{target}{shape}</g>'


def labels(wanted: Sequence[float], low: float, high: float, apart: float = 13) -> list[float]:
    """Return heights for labels, as near to those ``wanted`` as can be without two touching."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = [0.0] * len(wanted)
    above = low - apart
    for place in order:
        above = placed[place] = max(wanted[place], above + apart)
    below = high + apart
    for place in reversed(order):
        below = placed[place] = min(placed[place], below - apart)
    return placed


def shortened(name: str, most: int) -> str:
    """Return a name with its middle left out if it is too long: relatives differ at the end."""
    if len(name) <= most:
        return name
    return f"{name[: (most - 1) // 2]}…{name[-(most // 2) :]}"


def _polygon(x: float, y: float, corners: Iterable[tuple[float, float]]) -> str:
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"/>'

"""What charts are drawn with: axes, marks, texts, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

#: Colours and shapes that series have in turn; more of them share the last.
SERIES: Final = 6
#: Where the plane of a chart with two axes begins and ends, per cent across and pixels down.
LEFT: Final = 11.0
RIGHT: Final = 97.0
TALL: Final = 240
_TOP: Final = 10

#: What tells series apart besides their colour.
_SHAPES: Final = (
    Markup('<circle r="5"/>'),
    Markup('<rect x="-4.5" y="-4.5" width="9" height="9"/>'),
    Markup('<path d="M0-6 6 0 0 6-6 0z"/>'),
    Markup('<path d="M0-6 5.5 4.5h-11z"/>'),
    Markup('<path d="M0 6 5.5-4.5h-11z"/>'),
    Markup('<path d="M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z"/>'),
)


def kind(number: int) -> int:
    """Return which colour and shape a series has."""
    return min(number, SERIES - 1)


def svg(name: str, title: str, told: str, height: float, parts: Iterable[Markup]) -> Markup:
    """Return a whole drawing, with its title and the same in words for who does not see it."""
    return Markup(
        '<svg class="chart" role="img" width="100%" height="{height:.0f}" aria-labelledby="{name}-t {name}-d">'
        '<title id="{name}-t">{title}</title><desc id="{name}-d">{told}</desc>{parts}</svg>'
    ).format(name=name, title=title, told=told, height=height, parts=Markup("").join(parts))


def text(x: str, y: float, words: str, kind: str = "") -> Markup:
    """Return a text; ``kind`` is its class in the style sheet."""
    return Markup('<text class="{}" x="{}" y="{:.0f}">{}</text>').format(kind, x, y, words)


def mark(number: int, x: str, y: float, told: str = "") -> Markup:
    """Return the mark of a series at a place; ``told`` is said when a pointer rests on it."""
    # An inner drawing can be placed in per cent, a path cannot.
    shape = _SHAPES[kind(number)]
    tip = Markup("<title>{}</title>").format(told) if told else Markup("")
    return Markup('<svg class="spot s{}" x="{}" y="{:.1f}">{}{}</svg>').format(kind(number), x, y, shape, tip)


def levels(low: float, high: float, step: float) -> list[Markup]:
    """Return the lines of an axis that goes up, with their numbers."""
    parts = []
    for tick in ticks(low, high, step):
        y = down(tick, low, high)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
                across(LEFT), across(RIGHT), y=y
            )
        )
        parts.append(text(across(LEFT - 1.5), y + 4, f"{tick:,.6g}", "tick end"))
    return parts


def axis(low: float, high: float) -> tuple[float, float, float]:
    """Return round ends and a round step for an axis that has both values on it."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if span / (factor * power) <= 5)
    bottom = math.floor(low / step + 1e-9) * step
    top = math.ceil(high / step - 1e-9) * step
    return bottom, top if top > bottom else bottom + step, step


def ticks(low: float, high: float, step: float) -> list[float]:
    """Return the round values of an axis."""
    return [round(low + step * number, 10) for number in range(round((high - low) / step) + 1)]


def place(value: float, low: float, high: float) -> float:
    """Return where a value lies across, in per cent; the ends keep room for their marks."""
    return 2 + 96 * (value - low) / (high - low)


def down(value: float, low: float, high: float) -> float:
    """Return where a value lies down, in pixels."""
    return TALL - (TALL - _TOP) * (value - low) / (high - low)


def across(share: float) -> str:
    """Return per cent as SVG writes them."""
    return f"{share:.2f}%"

"""Values as people read them: money, counts, sizes, times."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

from markupsafe import Markup

_UNIT: Final = 1_000_000
_EPOCH: Final = date(1970, 1, 1)
_SIZES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def money(micros: int, currency: str) -> str:
    """Return an amount, exact, with at least two digits behind the point: ``5.00 EUR``, ``0.000062 EUR``.

    Args:
        micros: millionths of the currency's unit.
        currency: its name.
    """
    whole, _, digits = f"{Decimal(micros) / _UNIT:,.6f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')} {currency}".replace("-", "−")


def count(number: int | None) -> str:
    """Return a whole number with commas; a dash where there is none."""
    return "–" if number is None else f"{number:,}"


def size(number: int | None) -> str:
    """Return a large number in three digits or so: ``135M``, ``1.28B``; a dash where there is none."""
    if number is None:
        return "–"
    for unit, letter in _SIZES:
        if number >= unit:
            shown = f"{number / unit:.3g}"
            return f"{shown}{letter}"
    return str(number)


def moment(micros: int | None) -> Markup:
    """Return a time as an element, to the minute; a dash where there is none.

    Args:
        micros: microseconds since 1970.
    """
    if micros is None:
        return Markup("–")
    at = datetime.fromtimestamp(micros // _UNIT, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), f"{at.day} {at:%b %Y, %H:%M} UTC"
    )


def day(number: int) -> str:
    """Return a day, counted since 1970, as ``2026-11-23``."""
    return (_EPOCH + timedelta(days=number)).isoformat()


def short_day(number: int) -> str:
    """Return a day, counted since 1970, as ``23 Nov``."""
    at = _EPOCH + timedelta(days=number)
    return f"{at.day} {at:%b}"


def milliseconds(value: float | None) -> str:
    """Return a duration; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.1f} ms" if value < 10 else f"{value:,.0f} ms"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share, 0 to 1, times 100; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, which blank lines part, each on one line."""
    return [" ".join(part.split()) for part in text.strip().split("\n\n") if part.strip()]

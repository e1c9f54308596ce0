"""In which order providers that agree are asked."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from unmask.gateway.routing.routes import Choice

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate(Generic[T]):
    """A provider that could be asked.

    Attributes:
        provider: what is ordered.
        price: of an answer, None if not known.
        latency: seconds that half of its answers took at most, None if it has not been measured.
        weight: its share.
    """

    provider: T
    price: int | None
    latency: float | None
    weight: int


def order(
    candidates: Sequence[Candidate[T]], choice: Choice, *, explore: float, chance: random.Random
) -> list[Candidate[T]]:
    """Return candidates, the one to ask first first.

    Args:
        candidates: in the operator's order, which decides between equals.
        choice: by what.
        explore: share of requests for which ``latency`` takes another first than the fastest.
        chance: what is left to it.
    """
    if len(candidates) < 2:
        return list(candidates)
    return _ORDERS[choice](candidates, explore, chance)


def _by_price(candidates: Sequence[Candidate[T]], explore: float, chance: random.Random) -> list[Candidate[T]]:
    return sorted(candidates, key=lambda each: math.inf if each.price is None else each.price)


def _by_latency(candidates: Sequence[Candidate[T]], explore: float, chance: random.Random) -> list[Candidate[T]]:
    """The fastest first; one that was never measured before it, and now and then any other."""
    found = sorted(candidates, key=lambda each: -1.0 if each.latency is None else each.latency)
    if chance.random() < explore:
        found.insert(0, found.pop(chance.randrange(1, len(found))))
    return found


def _by_weight(candidates: Sequence[Candidate[T]], explore: float, chance: random.Random) -> list[Candidate[T]]:
    """By lot, without putting back: the smallest of exponential times whose rates are the weights."""

    def time(each: Candidate[T]) -> float:
        return -math.log(1 - chance.random()) / each.weight if each.weight else math.inf

    timed = [(time(each), each) for each in candidates]
    return [each for _, each in sorted(timed, key=lambda pair: pair[0])]


_Order = Callable[[Sequence[Candidate[T]], float, random.Random], list[Candidate[T]]]
_ORDERS: Final[Mapping[Choice, _Order]] = {  # type: ignore[type-arg]
    "price": _by_price,
    "latency": _by_latency,
    "weight": _by_weight,
}

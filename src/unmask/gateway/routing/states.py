"""What a router knows of its providers while it runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from unmask.errors import ModelColdError, ModelUnavailableError, QueueFullError, ServingError, UnknownModelError
from unmask.gateway.routing.agreement import Agreement
from unmask.gateway.routing.breaker import Breaker
from unmask.gateway.routing.budget import RetryBudget
from unmask.gateway.routing.choosing import Candidate, order
from unmask.gateway.routing.errors import ProviderRefusedError
from unmask.gateway.routing.meters import Meter
from unmask.gateway.routing.parts import Listed
from unmask.gateway.routing.pinning import Pinning
from unmask.gateway.routing.pins import Pins
from unmask.gateway.routing.remote import Remote
from unmask.gateway.routing.routes import Provider, Route, RoutingSettings
from unmask.gateway.routing.tallies import Tallies, Tally

#: Seconds that a provider is left alone at most because it asked to be, and that it counts as cold.
_LONGEST_REST: Final = 60.0
_LONGEST_COLD: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a router is given by its caller, and by tests.

    Attributes:
        settings: how it behaves.
        clock: seconds, from any origin.
        now: seconds since 1970.
        sleep: waits some seconds.
        chance: what is left to it.
        tallies: counts of what the providers do.
        pins: which provider each model is pinned to.
    """

    settings: RoutingSettings
    clock: Callable[[], float]
    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    chance: random.Random
    tallies: Tallies
    pins: Pins


class ProviderState:
    """A provider, and how it does.

    Args:
        provider: what the operator says of it.
        remote: talks to it; None for this process.
        tally: counts what it does.
        around: clocks and the like.

    Attributes:
        provider: what the operator says of it.
        remote: talks to it; None for this process.
        breaker: its circuit.
        meter: how fast it is, and how often it failed.
        tally: what is counted of it for good.
        listed: what it says of its model, None if it does not.
        problem: what the operator must mend, None if nothing.
        checked_at: seconds since 1970 of the last check, None before the first.
    """

    def __init__(self, provider: Provider, remote: Remote | None, tally: Tally, around: Surroundings) -> None:
        self.provider = provider
        self.remote = remote
        self.breaker = Breaker(around.settings, around.clock)
        self.meter = Meter(around.clock, tally)
        self.tally = tally
        self.listed: Listed | None = None
        self.problem: str | None = None
        self.checked_at: float | None = None
        self._clock = around.clock
        self._rests_until = self._cold_until = float("-inf")

    @property
    def name(self) -> str:
        """How answers and pages call it."""
        return self.provider.name

    @property
    def rest_left(self) -> float:
        """Seconds for which it asked to be left alone."""
        return max(0.0, self._rests_until - self._clock())

    @property
    def cold(self) -> bool:
        """Whether it said a moment ago that it is loading the model."""
        return self._clock() < self._cold_until

    def answered(self) -> None:
        """It does well."""
        self.problem = None
        self._rests_until = self._cold_until = float("-inf")

    def note(self, error: ServingError) -> None:
        """Remember what an attempt's failure says about the next ones."""
        after = error.retry_after or 0.0
        if isinstance(error, QueueFullError) and self.remote is not None:
            # The engine here is fair: it may be full for one caller alone.
            self._rests_until = self._clock() + min(after, _LONGEST_REST)
        elif isinstance(error, ModelColdError):
            self._cold_until = self._clock() + min(after, _LONGEST_COLD)
        elif isinstance(error, (ProviderRefusedError, ModelUnavailableError, UnknownModelError)):
            self.problem = str(error)


class RouteState:
    """A model's providers, and how they do together.

    Args:
        model: its name.
        route: what the operator says.
        providers: in the operator's order.
        agreement: which of them may answer.
        around: clocks and the like.

    Attributes:
        budget: for further attempts.
        pinning: keeps the agreement in step with the model's pin.
    """

    def __init__(
        self,
        model: str,
        route: Route,
        providers: tuple[ProviderState, ...],
        agreement: Agreement,
        around: Surroundings,
    ) -> None:
        self.model = model
        self.route = route
        self.providers = providers
        self.agreement = agreement
        self.budget = RetryBudget(around.settings.retry_share, around.clock)
        self.pinning = Pinning(model, agreement, around.pins)
        self._seen: int | None = None
        self._around = around
        self._users = 0
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def is_local(self) -> bool:
        """Whether nobody but the engine of this process answers."""
        return len(self.providers) == 1 and self.providers[0].remote is None

    @property
    def dimension(self) -> int | None:
        """Components of a vector; None before the first answer."""
        if self.route.dimension is not None or len(self.providers) == 1:
            return self.route.dimension or self._seen
        row = self.agreement.row
        return None if row is None or row.reference is None else row.reference.shape[1]

    def saw(self, dimension: int) -> None:
        """Take note of an answer's dimension; where there are several providers, the pin's counts."""
        self._seen = self._seen or dimension

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have those who would close its connections wait."""
        self._users += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self.idle.set()

    def candidates(self) -> list[ProviderState]:
        """Return the providers that may be asked now, the one to ask first first.

        Those that are well come before those that are cold, and both before those whose circuit wants a probe.
        """
        allowed = [each for each in self.providers if self.agreement.may_ask(each.name) and not each.rest_left]
        states = {each.name: each.breaker.state for each in allowed}
        closed = [each for each in allowed if states[each.name] == "closed"]
        well = [each for each in closed if not each.cold]
        if self.agreement.pin is not None:
            well = self._chosen(well)
        cold = [each for each in closed if each.cold]
        return [*well, *cold, *(each for each in allowed if states[each.name] == "half-open")]

    def is_first(self, name: str) -> bool:
        """Return whether no provider before ``name`` in the operator's order is well."""
        for each in self.providers:
            if each.name == name:
                return True
            if each.breaker.state == "closed":
                return False
        return False

    def seconds_to_wait(self) -> float:
        """Return after how many seconds some provider may be asked again; at least 1."""
        left = [max(each.rest_left, each.breaker.seconds_left) for each in self.providers]
        return max(1.0, min(left))

    def _chosen(self, providers: list[ProviderState]) -> list[ProviderState]:
        candidates = [
            Candidate(
                provider=each, price=each.provider.price, latency=each.meter.median(), weight=each.provider.weight
            )
            for each in providers
        ]
        explore, chance = self._around.settings.explore, self._around.chance
        return [each.provider for each in order(candidates, self.route.choice, explore=explore, chance=chance)]

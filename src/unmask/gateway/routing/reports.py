"""What pages, ``/v1/models`` and the API are told of models and their providers; no address, no key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unmask.engine.contract import Served, State
from unmask.gateway.routing.agreement import Standing
from unmask.gateway.routing.meters import Speed, speed_of
from unmask.gateway.routing.routes import Choice, RemoteProvider
from unmask.gateway.routing.states import ProviderState, RouteState

#: ``misconfigured``: the operator must mend something. ``resting``: it asked to be left alone for a moment.
ProviderStatus = Literal["up", "cold", "resting", "down", "misconfigured"]


@dataclass(frozen=True, kw_only=True)
class ProviderReport:
    """How a provider of a model does.

    Attributes:
        name: how answers call it.
        kind: ``local`` for the engine of this process.
        status: at this moment.
        answers: whether it may answer now: it is well, and its vectors are the model's.
        problem: what the operator must mend, None if nothing; for the operator alone.
        cosine: least cosine of its vectors with those that the model is pinned to, which are the pin's own when the
            model was pinned to it; None before they were compared.
        speed: latency and throughput in this process, None without an answer in the last quarter of an hour.
        successes: answers since the start.
        failures: failed attempts since the start.
        openings: how often its circuit opened since the start.
        checked_at: seconds since 1970 of the last check, None before the first.
        weight: its share when chosen by weight.
        price: what an answer costs the operator, millionths for 1M tokens; for the operator alone.
    """

    name: str
    kind: Literal["local", "openai", "unmask"]
    status: ProviderStatus
    answers: bool
    problem: str | None
    cosine: float | None
    speed: Speed | None
    successes: int
    failures: int
    openings: int
    checked_at: float | None
    weight: int
    price: int | None


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """How a model's providers do.

    Attributes:
        model: its name.
        choice: how one of several is chosen.
        agreement: whether they give the same vectors.
        pinned_to: the provider whose vectors are the model's; None before the first answer, and of a single one.
        speed: of all together, None without an answer in the last quarter of an hour.
        retries_left: further attempts that may be made now.
        providers: in the operator's order.
    """

    model: str
    choice: Choice
    agreement: Standing
    pinned_to: str | None
    speed: Speed | None
    retries_left: float
    providers: tuple[ProviderReport, ...]


def report_on(route: RouteState) -> ModelReport:
    """Return how a model's providers do."""
    standing = route.agreement.standing
    candidates = {each.name for each in route.candidates()}
    return ModelReport(
        model=route.model,
        choice=route.route.choice,
        agreement=standing,
        pinned_to=None if standing == "single" else route.agreement.pin,
        speed=speed_of([each.meter for each in route.providers]),
        retries_left=route.budget.saved,
        providers=tuple(_report(route, each, each.name in candidates) for each in route.providers),
    )


def status_of(provider: ProviderState) -> ProviderStatus:
    """Return how a provider does at this moment."""
    if provider.breaker.state != "closed":
        return "misconfigured" if provider.problem else "down"
    if provider.rest_left:
        return "resting"
    listed_cold = provider.listed is not None and provider.listed.state != "ready"
    return "cold" if provider.cold or listed_cold else "up"


def _report(route: RouteState, state: ProviderState, answers: bool) -> ProviderReport:
    provider = state.provider
    return ProviderReport(
        name=state.name,
        kind=provider.kind if isinstance(provider, RemoteProvider) else "local",
        status=status_of(state),
        answers=answers,
        problem=state.problem,
        cosine=route.agreement.figures.get(state.name),
        speed=state.meter.speed(),
        successes=state.meter.successes,
        failures=state.meter.failures,
        openings=state.breaker.openings,
        checked_at=state.checked_at,
        weight=provider.weight,
        price=provider.price,
    )


def served(state: RouteState, own: Mapping[str, Served]) -> Served:
    """Return what is known of a model from the engine of this process, its providers and the operator.

    Args:
        state: of the model's route.
        own: what the engine of this process serves.
    """
    route = state.route
    here = own[route.local.model] if route.local else None
    listed = [each.listed for each in state.providers if each.listed]
    dimensions = (here.dimension if here else None, state.dimension, *(each.dimension for each in listed))
    lengths = (here.max_length if here else None, route.max_length, *(each.max_length for each in listed))
    standing = _state_of(state, here)
    error = "No provider of the model can be asked now." if standing == "failed" else None
    return Served(
        name=state.model,
        state=standing,
        dimension=next((size for size in dimensions if size is not None), None),
        max_length=next((size for size in lengths if size is not None), None),
        query_instruction=here.query_instruction if here else route.query_instruction,
        error=here.error if here and here.error else error,
    )


def _state_of(state: RouteState, here: Served | None) -> State:
    """Return whether a model can be asked: as the best of those who may answer can."""
    found = {status_of(each) for each in state.candidates() if each.remote is not None}
    if "up" in found or (here and here.state == "ready"):
        return "ready"
    if here is not None and here.state != "failed":
        return here.state
    if "cold" in found:
        return "cold"
    return "cold" if any(each.rest_left for each in state.providers) else "failed"

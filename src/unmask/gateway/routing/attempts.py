"""One request: admitted once, tried on one provider after the other, answered by one of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from unmask.engine.contract import Embedded, EmbeddingEngine
from unmask.errors import (
    EncodingFailedError,
    ModelColdError,
    ModelUnavailableError,
    QueueFullError,
    ServingError,
    UnknownModelError,
)
from unmask.gateway.db.errors import DatabaseError
from unmask.gateway.routing.admission import Entrance, Request
from unmask.gateway.routing.errors import ProviderError, ProviderRefusedError, ProvidersFailedError
from unmask.gateway.routing.probing import probe
from unmask.gateway.routing.remote import REQUEST_ID, Remote
from unmask.gateway.routing.routes import LocalProvider
from unmask.gateway.routing.states import ProviderState, RouteState, Surroundings

_log: Final = logging.getLogger("unmask.routing")

#: What an attempt says of its provider: that it fails, that it cannot be used, or nothing.
Verdict = Literal["failed", "refused", "dropped"]

#: The failures after which another provider is asked: all others are the request's own, and end it.
VERDICTS: Final[Mapping[type[ServingError], Verdict]] = {
    ProviderError: "failed",
    ProviderRefusedError: "refused",
    ModelUnavailableError: "refused",
    UnknownModelError: "refused",
    # A worker fails on one text: nobody shall open a provider's circuit by sending it.
    EncodingFailedError: "dropped",
    QueueFullError: "dropped",
    ModelColdError: "dropped",
}
#: Failures after which the same provider may be asked again.
_PASSING: Final = ("connection", "status")
#: Seconds before a provider is asked again, doubled each time, more or less a half.
_PAUSE: Final = 0.05


@dataclass
class _Failures:
    """What went wrong so far: a provider's last failure each."""

    of: dict[str, ServingError] = field(default_factory=dict)

    def kinds(self, *kinds: type[ServingError]) -> list[ServingError]:
        return [error for error in self.of.values() if isinstance(error, kinds)]


class Attempts:
    """The one loop that tries again.

    Args:
        route: of the model.
        request: to be answered.
        engine: of this process.
        around: clocks and the like.
    """

    def __init__(self, route: RouteState, request: Request, engine: EmbeddingEngine, around: Surroundings) -> None:
        self._route = route
        self._request = request
        self._engine = engine
        self._around = around
        self._made = 0
        self._started = around.clock()
        self._deadline = self._started + around.settings.seconds + request.wait
        self._failures = _Failures()
        self._entrance = Entrance(request, route.route, engine)

    async def answer(self) -> Embedded:
        """Return the vectors, and whose they are; raises as the contract says."""
        self._route.budget.pay_in()
        # With others at hand nobody waits for a cold one; who asks to wait does so when all have been asked.
        wait = self._request.wait if len(self._route.providers) == 1 else 0.0
        while (found := await self._next()) is not None:
            provider, permit = found
            self._made += 1
            embedded = await self._try(provider, permit, wait)
            if embedded is not None:
                return embedded
        return await self._wait_for_cold(wait)

    async def _wait_for_cold(self, waited: float) -> Embedded:
        """Wait for the first provider that is loading the model, if the caller is ready to; else fail."""
        left = self._started + self._request.wait - self._around.clock()
        cold = [each for each in self._route.providers if isinstance(self._failures.of.get(each.name), ModelColdError)]
        if cold and left > 0 and not waited:
            permit = cold[0].breaker.ask()
            if permit is not None and (embedded := await self._try(cold[0], permit, left)) is not None:
                return embedded
        raise self._failure()

    async def _next(self) -> tuple[ProviderState, int] | None:
        """Return whom to ask next, and the permit; None if nobody is to be asked any more."""
        around = self._around
        if self._made >= around.settings.attempts or around.clock() >= self._deadline:
            return None
        found = [each for each in self._route.candidates() if each.name not in self._failures.of]
        if not found:
            found = [each for each in self._route.candidates() if self._may_pass(each)]
            if found:
                await around.sleep(_PAUSE * 2**self._made * around.chance.uniform(0.5, 1.5))
        for provider in found:
            permit = provider.breaker.ask()
            if permit is None:
                continue
            if self._made and not self._route.budget.withdraw():
                provider.breaker.dropped(permit)
                return None
            return provider, permit
        return None

    def _may_pass(self, provider: ProviderState) -> bool:
        error = self._failures.of.get(provider.name)
        return isinstance(error, ProviderError) and error.kind in _PASSING

    async def _try(self, provider: ProviderState, permit: int, wait: float) -> Embedded | None:
        """Return one provider's answer; None where another one may be asked instead."""
        breaker = provider.breaker
        conclude = breaker.dropped
        try:
            embedded, seconds = await self._ask(provider, wait)
            conclude = breaker.succeeded
        except tuple(VERDICTS) as error:
            if error is self._request.admission.refused:
                raise
            verdict = next(VERDICTS[kind] for kind in type(error).__mro__ if kind in VERDICTS)
            conclude = {"failed": breaker.failed, "refused": breaker.refused, "dropped": breaker.dropped}[verdict]
            provider.note(error)
            self._failures.of[provider.name] = error
            if verdict != "dropped":
                provider.meter.failed()
                _warn(self._route.model, provider.name, error)
            return None
        finally:
            conclude(permit)
            if breaker.state == "open":
                self._route.agreement.forget(provider.name)
        provider.answered()
        provider.meter.answered(None if wait else seconds, sum(embedded.tokens))
        return embedded if self._route.agreement.allows(provider.name) or await self._proves(provider) else None

    async def _proves(self, provider: ProviderState) -> bool:
        """Return whether the vectors of a provider that has just answered are the model's."""
        name = provider.name
        seconds = None if provider.remote is None else self._seconds(provider.remote)
        try:
            if await self._route.pinning.prove(name, lambda: probe(provider, self._route.route, self._engine, seconds)):
                return True
        except tuple(VERDICTS) as error:
            self._failures.of[name] = error
            return False
        except DatabaseError as error:
            raise ProvidersFailedError(
                f"Whose vectors are those of the model {self._route.model!r} cannot be known now. Ask again in 1 s.",
                retry_after=1.0,
            ) from error
        self._failures.of[name] = ProviderError("Its vectors are not the model's.", kind="refused")
        return False

    async def _ask(self, provider: ProviderState, wait: float) -> tuple[Embedded, float]:
        """Return a provider's answer and the seconds it took."""
        request = self._request
        if isinstance(provider.provider, LocalProvider):
            started = self._around.clock()
            embedded = await self._engine.embed(
                provider.provider.model,
                request.texts,
                caller=request.caller,
                priority=request.priority,
                truncate=request.truncate,
                wait=wait,
                most_tokens=request.most_tokens,
                admit=request.admission,
            )
            return replace(embedded, provider=provider.name), self._around.clock() - started
        assert provider.remote is not None, "a provider is local or remote"
        count = await self._entrance.pass_to(provider.remote, self._seconds(provider.remote))
        started = self._around.clock()
        vectors = await provider.remote.embed(
            request.texts,
            truncate=request.truncate,
            wait=wait,
            priority=request.priority,
            dimension=self._route.dimension,
            seconds=self._seconds(provider.remote) + wait,
        )
        tokens = count.used(vectors.tokens, provider.name)
        self._route.saw(vectors.array.shape[1])
        return Embedded(vectors=vectors.array, tokens=tokens, provider=provider.name), self._around.clock() - started

    def _seconds(self, remote: Remote) -> float:
        left = max(0.001, self._deadline - self._request.wait - self._around.clock())
        return min(remote.provider.timeouts.total, left)

    def _failure(self) -> ServingError:
        """Return what the caller is told: that it may try again, if it may."""
        failures, model = self._failures, repr(self._route.model)
        if len(self._route.providers) == 1 and (only := failures.kinds(ModelColdError, QueueFullError)):
            return only[0]
        for kind, what in ((ModelColdError, "is being loaded"), (QueueFullError, "is busy")):
            if found := failures.kinds(kind):
                after = min(error.retry_after or 1.0 for error in found)
                return kind(f"The model {model} {what}. Ask again in {max(1, round(after))} s.", retry_after=after)
        if all(each.problem for each in self._route.providers):
            return ModelUnavailableError(f"No provider of the model {model} can be used. Tell its operator.")
        after = self._route.seconds_to_wait()
        if not failures.of and all(each.rest_left for each in self._route.providers):
            return QueueFullError(f"The model {model} is busy. Ask again in {after:.0f} s.", retry_after=after)
        asked = ", ".join(failures.of) or "none could be asked"
        return ProvidersFailedError(
            f"No provider of the model {model} answered ({asked}). Ask again in {after:.0f} s.", retry_after=after
        )


def _warn(model: str, provider: str, error: ServingError) -> None:
    fields = {"model": model, "provider": provider, "error": type(error).__name__, "reason": str(error)}
    _log.warning("provider failed", extra={"fields": {**fields, "request_id": REQUEST_ID.get()}})

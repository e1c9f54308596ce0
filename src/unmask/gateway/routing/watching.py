"""Looks after one provider of a route: is it there, does it work again, does it agree with the others?

Every quarter of a minute or so it is asked for its models. One whose circuit has cooled down, and one that has not been
compared with the others yet, embeds the probe texts: so no caller's request is spent on finding out.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from unmask.engine.contract import EmbeddingEngine
from unmask.errors import InputError, ModelColdError, ModelUnavailableError, QueueFullError, StoppingError
from unmask.gateway.db.errors import DatabaseError
from unmask.gateway.routing.errors import ProviderError, ProviderRefusedError
from unmask.gateway.routing.probing import probe
from unmask.gateway.routing.routes import LocalProvider
from unmask.gateway.routing.states import ProviderState, RouteState, Surroundings

_log: Final = logging.getLogger("unmask.routing")

#: Seconds that a check may take.
_CHECK: Final = 10.0
#: What says that a provider is there, though it cannot answer this moment.
_BUSY: Final = (ModelColdError, QueueFullError)


class Watch:
    """Looks after one provider.

    Args:
        route: of the model.
        provider: to be looked after.
        engine: of this process.
        around: clocks and the like.
    """

    def __init__(
        self, route: RouteState, provider: ProviderState, engine: EmbeddingEngine, around: Surroundings
    ) -> None:
        self._route = route
        self._provider = provider
        self._engine = engine
        self._around = around
        self._up: bool | None = None

    async def run(self) -> None:
        """Look after it until cancelled; pauses differ, so that not all gateways ask at the same moment."""
        seconds = self._around.settings.check_seconds
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - nobody waits for it, and the next look may go well
                fields = {"model": self._route.model, "provider": self._provider.name, "error": type(error).__name__}
                _log.exception("looking after a provider failed", extra={"fields": fields})
            await self._around.sleep(seconds * self._around.chance.uniform(0.8, 1.2))

    async def look(self) -> bool:
        """Check it once; return whether it is up."""
        provider, breaker = self._provider, self._provider.breaker
        up = False
        permit = breaker.ask()
        if permit is not None:
            conclude = breaker.dropped
            try:
                conclude = breaker.succeeded if await self._works() else breaker.dropped
                up = True
            except (ProviderRefusedError, ModelUnavailableError) as error:
                conclude = breaker.refused
                provider.note(error)
            except ProviderError:
                conclude = breaker.failed
            except StoppingError:
                return False
            finally:
                conclude(permit)
        if breaker.state == "open":
            self._route.agreement.forget(provider.name)
        provider.checked_at = self._around.now()
        provider.tally.checked(up=up)
        self._tell(up)
        return up

    async def _works(self) -> bool:
        """Return whether it embedded the probes, False where there was no need to; raises what is wrong with it."""
        try:
            if not await self._answers():
                return False
            needed = self._route.agreement.needs(self._provider.name)
            if self._provider.breaker.state == "closed" and not needed:
                await self._settle()
                return False
            vectors_ND = await probe(self._provider, self._route.route, self._engine)
        except _BUSY as error:
            self._provider.note(error)
            return False
        except InputError:
            # It is there, and will not embed them: what cannot be compared does not answer for others.
            self._warn("provider refuses the probes")
            return False
        self._provider.answered()
        self._route.saw(vectors_ND.shape[1])
        self._route.agreement.probed(self._provider.name, vectors_ND)
        await self._settle()
        return True

    async def _settle(self) -> None:
        """Do to the model's pin what is to be done; what cannot be done now is done at the next look."""
        name = self._provider.name
        try:
            await self._route.pinning.settle(name if self._route.is_first(name) else None)
        except DatabaseError as error:
            fields: dict[str, Any] = {"model": self._route.model, "error": str(error)}
            _log.warning("a model's pin cannot be read or changed now", extra={"fields": fields})

    async def _answers(self) -> bool:
        """Return whether it can answer now without loading the model first; raises what is wrong with it."""
        remote = self._provider.remote
        if remote is not None:
            self._provider.listed = listed = await remote.check(_CHECK)
            return listed is None or listed.state == "ready"
        assert isinstance(self._provider.provider, LocalProvider), "a provider is local or remote"
        model = self._provider.provider.model
        state = next((each.state for each in self._engine.served() if each.name == model), "failed")
        if state == "failed":
            raise ModelUnavailableError("The engine of this process could not load the model. Its log says why.")
        return state == "ready"

    def _tell(self, up: bool) -> None:
        """Log when it goes down, or comes up again."""
        if up is not self._up and not (up and self._up is None):
            self._warn("provider is up again" if up else "provider is down")
        self._up = up

    def _warn(self, message: str) -> None:
        fields: dict[str, Any] = {"model": self._route.model, "provider": self._provider.name}
        _log.warning(message, extra={"fields": {**fields, "problem": self._provider.problem}})

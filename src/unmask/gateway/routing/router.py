"""The router: an engine whose models are computed here, elsewhere, or both.

    Router ──► Attempts ──► the engine of this process
       │           └──────► Remote ══HTTP══► a provider
       └─ Watch, one a provider: is it there, does it agree?

What is above sees one :class:`~unmask.engine.contract.EmbeddingEngine`: it cuts, converts and writes vectors of
whatever origin alike.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import httpx

from unmask.engine.contract import PATIENCE, Admit, Embedded, EmbeddingEngine, Load, Priority, Served
from unmask.errors import InputError, ModelColdError, QueueFullError, ServingError, StoppingError
from unmask.gateway.routing.admission import Admission, Request
from unmask.gateway.routing.attempts import Attempts
from unmask.gateway.routing.clients import connect
from unmask.gateway.routing.errors import ProviderError
from unmask.gateway.routing.fleet import Fleet
from unmask.gateway.routing.pins import Pins, PinsInMemory
from unmask.gateway.routing.reports import ModelReport, report_on, served
from unmask.gateway.routing.routes import LocalProvider, RemoteProvider, Route, RoutingSettings
from unmask.gateway.routing.states import RouteState, Surroundings
from unmask.gateway.routing.tallies import Tallies
from unmask.text import Text, TokenizedText

#: What says nothing against the engine of this process.
_NO_FAILURES: Final = (ModelColdError, QueueFullError, StoppingError)


class Router:
    """An :class:`~unmask.engine.contract.EmbeddingEngine` over the engine of this process and providers elsewhere.

    Made anywhere, started and used in one event loop.

    Args:
        engine: of this process; its models that no route names are answered by it alone. Started and stopped along.
        routes: by the names of models.
        settings: how it behaves.
        http: makes a client for each provider elsewhere.
        clock: seconds, from any origin.
        now: seconds since 1970.
        sleep: waits some seconds.
        chance: what is left to it.
        pins: which provider each model is pinned to; None: known to this process alone, and forgotten with it.

    Attributes:
        tallies: what the providers did since somebody last took it, to write it down.

    Raises:
        InputError: a route names a model that the engine does not have.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        routes: Mapping[str, Route],
        *,
        settings: RoutingSettings | None = None,
        http: Callable[[RemoteProvider], httpx.AsyncClient] = connect,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
        pins: Pins | None = None,
    ) -> None:
        self._engine = engine
        self.tallies = Tallies(now)
        self._around = Surroundings(
            settings=settings or RoutingSettings(),
            clock=clock,
            now=now,
            sleep=sleep,
            chance=chance or random.Random(),  # noqa: S311 - nobody gains from guessing it
            tallies=self.tallies,
            pins=pins or PinsInMemory(),
        )
        self._fleet = Fleet(engine, http, self._around)
        self._stopping = False
        self._taken = 0
        self._nothing_taken = asyncio.Event()
        self._nothing_taken.set()
        self.update(routes)

    # --- life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engine of this process, and begin to look after providers."""
        await self._engine.start()
        self._fleet.watch()

    async def stop(self, grace: float) -> None:
        """Take nothing more, finish what was taken within ``grace`` seconds, close all connections."""
        self._stopping = True
        self._fleet.unwatch()
        await asyncio.gather(self._engine.stop(grace), self._drain(grace))
        await self._fleet.close()

    async def _drain(self, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                await self._nothing_taken.wait()
        except TimeoutError:
            self._fleet.stop()
        await self._nothing_taken.wait()

    def update(self, routes: Mapping[str, Route]) -> None:
        """Use other routes from now on; requests under way finish on those they began with.

        Providers that stay as they are keep what is known of them. Call it in the event loop, once started.

        Args:
            routes: all of them, by the names of models.

        Raises:
            InputError: a route names a model that the engine does not have; all stays as it was.
        """
        self._fleet.update(routes)

    async def refresh_pins(self) -> None:
        """Go by the pins as they are now, whoever changed them; call it every few seconds where others may.

        Raises:
            DatabaseUnavailableError: they cannot be read now; those that are known stay.
        """
        await self._fleet.refresh_pins()

    # --- what it says ------------------------------------------------------------------------------

    def served(self) -> tuple[Served, ...]:
        """Return every model that has a route, those of the engine of this process first."""
        own = {each.name: each for each in self._engine.served()}
        return tuple(served(route, own) for route in self._fleet)

    def load(self) -> Load:
        """Return how busy the engine of this process is."""
        return self._engine.load()

    def report(self) -> tuple[ModelReport, ...]:
        """Return how every model's providers do."""
        return tuple(report_on(route) for route in self._fleet)

    # --- requests ----------------------------------------------------------------------------------

    async def tokenize(
        self, model: str, texts: Sequence[Text], *, truncate: bool = True, wait: float = PATIENCE
    ) -> list[TokenizedText]:
        """Return the tokens of ``texts``, from here or from an Unmask server; see the contract.

        Raises:
            InputError: no provider of the model has a tokenizer, too.
        """
        route = self._fleet.find(model)
        if route.route.local is not None:
            return await self._engine.tokenize(route.route.local.model, texts, truncate=truncate, wait=wait)
        if not texts:
            return []
        failure: ServingError | None = None
        with self._taking(), route.used():
            for each in route.candidates():
                if each.remote is not None and each.remote.provider.kind == "unmask":
                    try:
                        return await each.remote.tokenize(texts, truncate=truncate, seconds=wait)
                    except (ProviderError, ModelColdError, QueueFullError) as error:
                        failure = error
        raise failure or InputError(f"The tokens of {model!r} cannot be had here: its providers give none. Send texts.")

    async def detokenize(self, model: str, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts that token arrays stand for; see the contract.

        Raises:
            InputError: the model's tokenizer is not here, too.
        """
        local = self._fleet.find(model).route.local
        if local is None:
            raise InputError(f"The tokenizer of {model!r} is not here: its inputs cannot be tokens. Send texts.")
        return await self._engine.detokenize(local.model, ids)

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        caller: str,
        priority: Priority = "realtime",
        truncate: bool = True,
        wait: float = 0.0,
        most_tokens: int | None = None,
        admit: Admit | None = None,
    ) -> Embedded:
        """Encode ``texts`` here or elsewhere; see the contract.

        ``admit`` is awaited once, whatever happens then. Where the model's tokenizer is not here it is told how many
        tokens there can be at most, and ``most_tokens`` is left to the provider.

        Raises:
            ProvidersFailedError: no provider answered, too.
        """
        route = self._fleet.find(model)
        if not texts:
            raise InputError("No text is given; expected at least one.")
        request = Request(
            texts=texts,
            caller=caller,
            priority=priority,
            truncate=truncate,
            wait=wait,
            most_tokens=most_tokens,
            admission=Admission(admit),
        )
        if route.is_local:
            return await self._embed_here(route, request, admit)
        with self._taking(), route.used():
            return await Attempts(route, request, self._engine, self._around).answer()

    async def _embed_here(self, route: RouteState, request: Request, admit: Admit | None) -> Embedded:
        """Have the engine of this process answer; it does by itself what can be done."""
        (state,) = route.providers
        assert isinstance(state.provider, LocalProvider), "the only provider is this process"
        started = self._around.clock()
        try:
            embedded = await self._engine.embed(
                state.provider.model,
                request.texts,
                caller=request.caller,
                priority=request.priority,
                truncate=request.truncate,
                wait=request.wait,
                most_tokens=request.most_tokens,
                admit=admit,
            )
        except _NO_FAILURES:
            raise
        except ServingError:
            state.meter.failed()
            raise
        state.meter.answered(self._around.clock() - started, sum(embedded.tokens))
        return embedded

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """Have :meth:`stop` wait for a request."""
        if self._stopping:
            raise StoppingError("The server shuts down and takes nothing more. Ask another server.")
        self._taken += 1
        self._nothing_taken.clear()
        try:
            yield
        finally:
            self._taken -= 1
            if not self._taken:
                self._nothing_taken.set()

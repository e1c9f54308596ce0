"""The routes that a router has now, and how it comes from those to others while requests are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx

from unmask.engine.contract import EmbeddingEngine
from unmask.errors import InputError, UnknownModelError
from unmask.gateway.routing.agreement import Agreement
from unmask.gateway.routing.remote import Remote
from unmask.gateway.routing.routes import LocalProvider, Provider, RemoteProvider, Route
from unmask.gateway.routing.states import ProviderState, RouteState, Surroundings
from unmask.gateway.routing.watching import Watch


class Fleet:
    """All routes of a router.

    Args:
        engine: of this process; its models that no route names are answered by it alone.
        http: makes a client for each provider elsewhere.
        around: clocks and the like.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        http: Callable[[RemoteProvider], httpx.AsyncClient],
        around: Surroundings,
    ) -> None:
        self._engine = engine
        self._http = http
        self._around = around
        self._routes: dict[str, RouteState] = {}
        self._watches: dict[RouteState, list[asyncio.Task[None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._leaving: list[ProviderState] = []
        self._watching = False

    def __iter__(self) -> Iterator[RouteState]:
        return iter(self._routes.values())

    def find(self, model: str) -> RouteState:
        """Return the route of a model.

        Raises:
            UnknownModelError: it has none.
        """
        route = self._routes.get(model)
        if route is None:
            shown = model[:200]
            raise UnknownModelError(f"Model {shown!r} is not served here. GET /v1/models lists those that are.")
        return route

    def watch(self) -> None:
        """Begin to look after all providers."""
        self._watching = True
        for route in self:
            self._watch(route)

    def unwatch(self) -> None:
        """Look after no provider any more."""
        self._watching = False
        for route in self:
            self._unwatch(route)

    def stop(self) -> None:
        """End all requests to providers: this process stops."""
        for each in [*self._leaving, *(provider for route in self for provider in route.providers)]:
            if each.remote is not None:
                each.remote.stop()

    async def close(self) -> None:
        """Close all connections."""
        for route in self:
            await _close(route.providers)
        await asyncio.gather(*self._closing)

    def update(self, routes: Mapping[str, Route]) -> None:
        """Use other routes from now on; see :meth:`unmask.gateway.routing.router.Router.update`."""
        names = [each.name for each in self._engine.served()]
        for model, route in routes.items():
            if route.local is not None and route.local.model not in names:
                raise InputError(
                    f"The route of {model!r} names {route.local.model!r}, which is not served here; expected one of "
                    f"{', '.join(names)}."
                )
        taken = {*routes, *(route.local.model for route in routes.values() if route.local)}
        alone = {name: Route(providers=(LocalProvider(model=name),)) for name in names if name not in taken}
        old = self._routes
        self._routes = {
            model: self._state(model, route, old.get(model)) for model, route in {**alone, **routes}.items()
        }
        for model in {**old, **self._routes}:
            before, after = old.get(model), self._routes.get(model)
            if before is not after:
                self._replace(before, after)

    async def refresh_pins(self) -> None:
        """Go by the pins as they are now; see :meth:`unmask.gateway.routing.router.Router.refresh_pins`."""
        before = {route.model: route.agreement.row for route in self}
        marks = {model: row.mark if row else None for model, row in before.items()}
        for model, row in (await self._around.pins.news(marks)).items():
            route = self._routes.get(model)
            # What it has learnt by itself meanwhile is newer.
            if route is not None and route.agreement.row is before[model]:
                route.agreement.adopt(row)

    def _state(self, model: str, route: Route, before: RouteState | None) -> RouteState:
        if before is not None and before.route == route:
            return before
        known = {each.provider: each for each in before.providers} if before else {}
        providers = tuple(known.get(each) or self._new(model, each) for each in route.providers)
        names = [each.name for each in route.providers]
        agreement = (
            before.agreement.carried(names, [each.name for each in providers if each.provider in known])
            if before
            else Agreement(model, names)
        )
        return RouteState(model, route, providers, agreement, self._around)

    def _new(self, model: str, provider: Provider) -> ProviderState:
        remote = Remote(provider, self._http(provider)) if isinstance(provider, RemoteProvider) else None
        return ProviderState(provider, remote, self._around.tallies.of(model, provider.name), self._around)

    def _replace(self, before: RouteState | None, after: RouteState | None) -> None:
        """Look after a route instead of another, whose connections are closed when nobody uses it any more."""
        if before is not None:
            self._unwatch(before)
            gone = [each for each in before.providers if after is None or each not in after.providers]
            if any(each.remote for each in gone):
                self._leaving += gone
                task = asyncio.get_running_loop().create_task(self._close_unused(before, gone))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        if after is not None and self._watching:
            self._watch(after)

    def _watch(self, route: RouteState) -> None:
        loop = asyncio.get_running_loop()
        watches = (Watch(route, each, self._engine, self._around) for each in route.providers)
        self._watches[route] = [loop.create_task(watch.run()) for watch in watches]

    def _unwatch(self, route: RouteState) -> None:
        for task in self._watches.pop(route, ()):
            task.cancel()

    async def _close_unused(self, route: RouteState, providers: Sequence[ProviderState]) -> None:
        await route.idle.wait()
        self._leaving = [each for each in self._leaving if each not in providers]
        await _close(providers)


async def _close(providers: Sequence[ProviderState]) -> None:
    for each in providers:
        if each.remote is not None:
            await each.remote.close()

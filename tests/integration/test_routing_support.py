"""What the tests of routing share: a clock that goes where it is told, providers that fail on demand, a router."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import orjson

from unmask.engine.fake import FakeEngine
from unmask.gateway.routing.agreement import PROBES
from unmask.gateway.routing.counting import joined
from unmask.gateway.routing.pins import Pins
from unmask.gateway.routing.router import Router
from unmask.gateway.routing.routes import (
    Choice,
    LocalProvider,
    Provider,
    ProviderKey,
    RemoteProvider,
    Route,
    RoutingSettings,
    Timeouts,
)
from unmask.text import Text

KEY = "sk-a-provider-key-0123456789-wxyz"
DIMENSION = 16
#: The probes in both forms.
_PROBED = {form for probe in PROBES for form in (probe.content, joined(probe))}
#: What a provider answers instead of vectors.
Reply = Callable[[httpx.Request], Awaitable[httpx.Response]]


@dataclass
class Clock:
    """A clock that stands still, and whoever sleeps on it with it."""

    now: float = 1_000_000.0
    sleepers: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)
    naps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if seconds < 1:  # between two attempts: nobody else is waited for
            self.naps.append(seconds)
            self.now += seconds
            return
        future = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, future))
        await future

    async def skip(self, seconds: float) -> None:
        """Go on, wake who slept so long, and let everybody do what there is to do."""
        self.now += seconds
        awake = [each for each in self.sleepers if each[0] <= self.now]
        self.sleepers = [each for each in self.sleepers if each[0] > self.now]
        for _, future in awake:
            if not future.done():
                future.set_result(None)
        await settle()


async def settle() -> None:
    """Let everybody do what there is to do without waiting."""
    for _ in range(200):
        await asyncio.sleep(0)


def vectors_of(
    strings: list[str], salt: str = "m", dimension: int = DIMENSION
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return what the fake engine makes of texts."""
    engine = FakeEngine((salt,), dimension=dimension)
    embedding = engine.embed(salt, [Text("", each) for each in strings], caller="x")
    try:
        embedding.send(None)
    except StopIteration as done:
        return np.asarray(done.value.vectors)
    raise AssertionError("the fake engine waits for nothing")


def answer(
    strings: list[str], *, salt: str = "m", dimension: int = DIMENSION, usage: Any = "real", plain: bool = False
) -> bytes:
    """Return the body of a good answer."""
    rows = vectors_of(strings, salt, dimension)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": row.tolist() if plain else base64.b64encode(row.tobytes()).decode(),
        }
        for index, row in enumerate(rows)
    ]
    tokens = sum(len(each.encode()) for each in strings)
    used = {"prompt_tokens": tokens, "total_tokens": tokens} if usage == "real" else usage
    return orjson.dumps({"object": "list", "data": data, "model": salt, "usage": used})


@dataclass
class Fake:
    """A provider without a network.

    Attributes:
        salt: providers of one salt give the same vectors.
        script: what it answers next to texts, one after the other; well when nothing is left.
        always: what it answers to everything, None for well.
        asked: texts of each request that came.
        requests: all that came for texts.
        probed: how often it was asked for the probes.
        checks: how often it was asked for its models.
    """

    salt: str = "m"
    script: list[Reply] = field(default_factory=list)
    always: Reply | None = None
    health: Reply | None = None
    asked: list[list[str]] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    probed: int = 0
    checks: int = 0
    models: list[Mapping[str, Any]] = field(default_factory=lambda: [{"id": "there", "status": "ready"}])
    cancelled: int = 0
    closed: bool = False

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/models"):
            self.checks += 1
            reply = self.health or self.always
            return await reply(request) if reply else httpx.Response(200, json={"data": self.models})
        body = orjson.loads(request.content)
        strings = body["input"]
        if body.get("instruction"):
            strings = [f"{body['instruction']} {each.strip()}" for each in strings]
        if request.url.path.endswith("/tokenize"):
            data = [{"tokens": list(each.encode()), "content_start": 0} for each in strings]
            return httpx.Response(200, json={"data": data})
        if set(body["input"]) <= _PROBED:
            self.probed += 1
            if self.always is not None:
                return await self.always(request)
            return httpx.Response(200, content=answer(strings, salt=self.salt))
        self.asked.append(strings)
        self.requests.append(request)
        reply = self.script.pop(0) if self.script else self.always
        try:
            return await reply(request) if reply else httpx.Response(200, content=answer(strings, salt=self.salt))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def says(status: int, content: bytes | str = b"", **headers: str) -> Reply:
    """Return an answer that is always the same."""

    async def reply(request: httpx.Request) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, content=content, headers=named)

    return reply


def fails(error: type[httpx.TransportError] = httpx.ConnectError) -> Reply:
    """Return an answer that does not come."""

    async def reply(request: httpx.Request) -> httpx.Response:
        raise error("as the test wants it", request=request)

    return reply


async def hangs(request: httpx.Request) -> httpx.Response:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for first in range(0, len(self._body), 1000):
            yield self._body[first : first + 1000]


class Rig:
    """A router whose providers are fakes.

    Args:
        fakes: by their names, in the operator's order.
        local: put the engine of this process in front.
        choice: how one is chosen.
        settings: of the router.
        pins: which provider each model is pinned to; None for those of this router alone.
        provider: of every provider elsewhere.
    """

    def __init__(
        self,
        *fakes: str | tuple[str, Fake],
        local: bool = False,
        choice: Choice = "price",
        settings: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
        pins: Pins | None = None,
        **provider: Any,
    ) -> None:
        self.clock = Clock()
        self.engine = FakeEngine(("m",), dimension=DIMENSION)
        self.fakes = dict(each if isinstance(each, tuple) else (each, Fake()) for each in fakes)
        self.provider = provider
        providers: list[Provider] = [self.remote(name) for name in self.fakes]
        if local:
            providers.insert(0, LocalProvider(model="m"))
        self.route = Route(providers=tuple(providers), choice=choice, **(route or {}))
        self.router = Router(
            self.engine,
            {"model": self.route},
            settings=RoutingSettings(**(settings or {})),
            http=self.http,
            clock=self.clock,
            now=self.clock,
            sleep=self.clock.sleep,
            chance=random.Random(1),
            pins=pins,
        )

    def remote(self, name: str, **more: Any) -> RemoteProvider:
        options: dict[str, Any] = {"key": ProviderKey(KEY), "timeouts": Timeouts(total=0.2)} | self.provider | more
        return RemoteProvider(name=name, url=f"https://{name}.example/v1", model="there", **options)

    def http(self, provider: RemoteProvider) -> httpx.AsyncClient:
        fake = self.fakes[provider.name]

        class Transport(httpx.MockTransport):
            closed = False

            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                assert not self.closed, "its client is closed"
                found = await super().handle_async_request(request)
                return httpx.Response(found.status_code, headers=found.headers, stream=Pieces(found.content))

            async def aclose(self) -> None:
                self.closed = fake.closed = True

        return httpx.AsyncClient(transport=Transport(fake))

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Rig]:
        """Look after the providers meanwhile."""
        await self.router.start()
        await settle()
        try:
            yield self
        finally:
            await self.router.stop(1)

    async def ask(self, *strings: str, **options: Any) -> str | None:
        """Return who answers; what it answers must be right."""
        texts = [Text("", each) for each in strings or ("a text",)]
        found = await self.router.embed("model", texts, caller="me", **options)
        expected = vectors_of([each.content for each in texts])
        assert found.vectors.dtype == np.float32
        assert np.array_equal(found.vectors, expected)
        assert sum(found.tokens) == sum(len(each.content.encode()) for each in texts)
        return found.provider

    def counts(self) -> dict[str, int]:
        """Return how often each provider was asked."""
        return {name: len(fake.asked) for name, fake in self.fakes.items()}

    def closed(self) -> set[str]:
        """Return the providers whose connections were closed."""
        return {name for name, fake in self.fakes.items() if fake.closed}

    def report(self) -> Any:
        """Return what is reported of the model."""
        return next(each for each in self.router.report() if each.model == "model")

"""Providers on loopback that misbehave as real ones do, and one that is another Unmask server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

pytest.importorskip("cryptography")

from tests.integration.test_api_support import KEY, RecordingEngine, serving, wait_until
from tests.integration.test_routing_support import DIMENSION, answer, vectors_of
from unmask.engine.fake import FakeEngine
from unmask.errors import InputError, ModelColdError, ModelUnavailableError, QueueFullError
from unmask.gateway.routing.addresses import GuardedTransport, check_address
from unmask.gateway.routing.clients import connect
from unmask.gateway.routing.errors import AddressError, ProviderError
from unmask.gateway.routing.remote import REQUEST_ID, Remote
from unmask.gateway.routing.router import Router
from unmask.gateway.routing.routes import LocalProvider, ProviderKey, RemoteProvider, Route, Timeouts
from unmask.text import Text

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = answer(["a text"])
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


@asynccontextmanager
async def serves(handler: Handler) -> AsyncIterator[str]:
    """Serve connections in this event loop."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        await server.wait_closed()


def provider(url: str, **more: Any) -> RemoteProvider:
    timeouts = more.pop("timeouts", Timeouts(connect=5, read=10, total=20))
    return RemoteProvider(name="far", url=url, model="m", private=True, timeouts=timeouts, **more)


async def embed(url: str, **timeouts: float) -> Any:
    there = provider(url, timeouts=Timeouts(**{"connect": 5, "read": 10, "total": 20} | timeouts))
    remote = Remote(there, connect(there))
    try:
        return await remote.embed(
            [Text("", "a text")],
            truncate=True,
            wait=0,
            priority="realtime",
            dimension=None,
            seconds=there.timeouts.total,
        )
    finally:
        await remote.close()


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD % len(BODY) + BODY)
    await writer.drain()


async def truncates(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD % len(BODY) + BODY[:-20])
    await writer.drain()


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD % len(BODY))
    for number in range(len(BODY)):
        writer.write(BODY[number : number + 1])
        await writer.drain()
        await asyncio.sleep(0.05)


async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    await writer.drain()


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"data": "')
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


def test_a_good_answer_comes_through() -> None:
    async def scenario() -> None:
        async with serves(well) as url:
            found = await embed(url)
        assert np.array_equal(found.array, vectors_of(["a text"]))
        assert found.tokens == 6

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("handler", "kind", "timeouts"),
    [
        (truncates, "connection", {}),
        (closes, "connection", {}),
        (no_http, "connection", {}),
        (floods, "malformed", {}),
        (hangs, "time-out", {"read": 0.05}),
        (hangs, "time-out", {"total": 0.05}),
        (trickles, "time-out", {"read": 5, "total": 0.3}),
    ],
)
def test_a_provider_that_misbehaves_fails(handler: Handler, kind: str, timeouts: dict[str, float]) -> None:
    async def scenario() -> None:
        async with serves(handler) as url:
            with pytest.raises(ProviderError) as raised:
                await embed(url, **timeouts)
        assert raised.value.kind == kind

    asyncio.run(scenario())


def test_a_provider_that_is_not_there_fails() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(ProviderError) as raised:
            await embed(f"http://127.0.0.1:{port}/v1")
        assert raised.value.kind == "connection"

    asyncio.run(scenario())


def test_redirects_are_not_followed() -> None:
    async def scenario() -> None:
        asked = []

        async def redirects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(1)
            writer.write(b"HTTP/1.1 308 Permanent Redirect\r\nlocation: /v1/embeddings\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()

        async with serves(redirects) as url:
            with pytest.raises(ProviderError) as raised:
                await embed(url)
        assert raised.value.kind == "refused"
        assert asked == [1]

    asyncio.run(scenario())


# --- addresses -----------------------------------------------------------------------------------


def test_an_address_is_checked_when_it_is_added_and_when_it_is_used() -> None:
    async def scenario() -> None:
        addresses = {
            "good.example": ["93.184.216.34"],
            "evil.example": ["127.0.0.1"],
            "half.example": ["1.1.1.1", "::1"],
        }

        async def resolve(host: str, port: int) -> list[str]:
            if host not in addresses:
                raise socket.gaierror
            return addresses[host]

        await check_address("https://good.example/v1", private=False, resolve=resolve)
        for host in ("evil.example", "half.example", "none.example"):
            with pytest.raises(AddressError):
                await check_address(f"https://{host}/v1", private=False, resolve=resolve)
        await check_address("http://evil.example/v1", private=True, resolve=resolve)
        with pytest.raises(AddressError):
            await check_address("http://good.example/v1", private=True, resolve=resolve)

        sent: list[tuple[str, str, str]] = []

        async def inner(request: httpx.Request) -> httpx.Response:
            sent.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
            if request.url.host == "1.1.1.1":
                raise httpx.ConnectError("down")
            return httpx.Response(200)

        now = [0.0]
        guarded = GuardedTransport(httpx.MockTransport(inner), private=False, resolve=resolve, clock=lambda: now[0])
        async with httpx.AsyncClient(transport=guarded) as client:
            await client.get("https://good.example/v1/models")
            # To the address that was checked, and no other; for the host that was named.
            assert sent == [("93.184.216.34", "good.example", "good.example")]
            addresses["good.example"] = ["10.0.0.1"]  # the name stands for another one now
            now[0] = 31
            with pytest.raises(AddressError):
                await client.get("https://good.example/v1/models")
            addresses["good.example"] = ["1.1.1.1", "127.0.0.1", "2606:4700::1111"]
            await client.get("https://good.example/v1/models")
            assert [address for address, _, _ in sent[1:]] == ["1.1.1.1", "2606:4700::1111"]

    asyncio.run(scenario())


def test_this_machine_is_not_asked_unless_the_operator_says_so() -> None:
    async def scenario() -> None:
        asked = []

        async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(1)

        async with serves(counts) as url:
            there = RemoteProvider(name="far", url=url, model="m")
            remote = Remote(there, connect(there))
            with pytest.raises(ProviderError) as raised:
                await remote.check(5)
            await remote.close()
        assert raised.value.kind == "refused"
        assert not asked

    asyncio.run(scenario())


# --- another Unmask server -----------------------------------------------------------------------


def routed(url: str, *, local: bool = False, **more: Any) -> Router:
    there = provider(url + "/v1", kind="unmask", key=ProviderKey(KEY), **more)
    here: tuple[LocalProvider, ...] = (LocalProvider(model="m"),) if local else ()
    engine = FakeEngine(("m",), dimension=DIMENSION)
    return Router(engine, {"model": Route(providers=(*here, there))})


def test_another_unmask_server_is_a_provider(tmp_path: Path) -> None:
    async def scenario(url: str, engine: RecordingEngine) -> None:
        router = routed(url)
        await router.start()
        try:
            texts = [
                Text("Say:", "a"),
                Text("", "é" * 5000),
                Text("", "Given a question, retrieve passages that answer it: b"),
            ]
            admitted: list[tuple[int, ...]] = []

            async def admit(tokens: Any) -> None:
                admitted.append(tuple(tokens))

            token = REQUEST_ID.set("req_of_the_caller")
            found = await router.embed("model", texts, caller="me", wait=30.0, priority="batch", admit=admit)
            REQUEST_ID.reset(token)
            alone = await engine.embed("m", texts, caller="me")
            assert np.array_equal(found.vectors, alone.vectors)
            assert found.tokens == alone.tokens
            assert admitted == [alone.tokens]  # it has the tokenizer, and was asked
            assert found.provider == "far"
            asked = engine.knobs.asked[0]
            assert (asked.wait, asked.priority) == (30.0, "batch")
            (tokens,) = await router.tokenize("model", [Text("", "é")])
            assert tokens.ids == list("é".encode())
            with pytest.raises(InputError, match="more than max_length"):
                await router.embed("model", [Text("", "x" * 600)], caller="me", truncate=False)
            served = next(each for each in router.served() if each.name == "model")
            assert (served.state, served.dimension, served.max_length) == ("ready", DIMENSION, 512)
            engine.knobs.failures = [ModelColdError("loading", retry_after=9)]
            with pytest.raises(ModelColdError) as cold:
                await router.embed("model", [Text("", "x")], caller="me")
            assert cold.value.retry_after == 9
            engine.knobs.failures = [QueueFullError("full", retry_after=0.2)]
            with pytest.raises(QueueFullError):
                await router.embed("model", [Text("", "x")], caller="me")
        finally:
            await router.stop(5)

    engine = RecordingEngine(("m",), dimension=DIMENSION)
    with serving(tmp_path, engine=engine, api_keys=(KEY,)) as server:
        asyncio.run(scenario(server.url, engine))


def test_a_wrong_key_and_a_wrong_name_are_the_operators_business(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        for wrong in ({"key": ProviderKey("gr-wrong")}, {"model": "none"}):
            options: dict[str, Any] = {"model": "m", "key": ProviderKey(KEY), **wrong}
            there = RemoteProvider(name="far", url=url + "/v1", kind="unmask", private=True, **options)
            router = Router(FakeEngine(("here",)), {"model": Route(providers=(there,))})
            for _ in range(2):
                with pytest.raises(ModelUnavailableError, match="Tell its operator"):
                    await router.embed("model", [Text("", "x")], caller="me")
            report = next(each for each in router.report() if each.model == "model")
            assert report.providers[0].status == "misconfigured"
            await router.stop(5)

    with serving(tmp_path, engine=RecordingEngine(("m",)), api_keys=(KEY,)) as server:
        asyncio.run(scenario(server.url))


def test_a_caller_who_goes_ends_the_work_there(tmp_path: Path) -> None:
    async def scenario(url: str, engine: RecordingEngine) -> None:
        router = routed(url)
        engine.knobs.seconds = 30
        task = asyncio.create_task(router.embed("model", [Text("", "x")], caller="me"))
        await asyncio.to_thread(wait_until, lambda: engine.knobs.running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: engine.knobs.cancelled == 1)
        engine.knobs.seconds = 0
        assert (await router.embed("model", [Text("", "x")], caller="me")).provider == "far"
        await router.stop(5)

    engine = RecordingEngine(("m",), dimension=DIMENSION)
    with serving(tmp_path, engine=engine, api_keys=(KEY,)) as server:
        asyncio.run(scenario(server.url, engine))


def test_the_api_says_the_same_of_a_model_wherever_it_is_computed(tmp_path: Path) -> None:
    far = FakeEngine(("m",), dimension=DIMENSION)
    with serving(tmp_path / "far", engine=far, models={"m": {}}, api_keys=(KEY,)) as there:
        router = routed(there.url)
        with serving(tmp_path / "near", engine=router) as here, here.client() as client:
            wait_until(lambda: client.get("/ready").status_code == 200)
            for extra in (
                {},
                {"encoding_format": "base64"},
                {"dimensions": 5},
                {"embedding_types": "int8"},
                {"embedding_types": "binary", "encoding_format": "base64"},
                {"normalize": False, "instruction": "Say:"},
                {"input_type": "document"},
            ):
                bodies = []
                for model in ("m", "model"):
                    said = client.post("/v1/embeddings", json={"model": model, "input": ["a", "é b"], **extra})
                    assert said.status_code == 200, said.text
                    bodies.append(orjson.loads(said.content) | {"model": ""})
                assert bodies[0] == bodies[1]
            ranked = [
                client.post("/v1/rerank", json={"model": model, "query": "a", "documents": ["b", "c"]}).json()[
                    "results"
                ]
                for model in ("m", "model")
            ]
            assert ranked[0] == ranked[1]

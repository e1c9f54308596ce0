"""What makes an answer cheap changes nothing of it: joined writes, logs written together, one timer a request."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.test_api_support import serving
from unmask.gateway.api.connections import JoiningTransport
from unmask.gateway.api.errors import SlowBodyError
from unmask.gateway.api.limits import Body, BodyLimits, ClientGoneError
from unmask.gateway.api.logs import JsonFormatter, TurnHandler, request_record
from unmask.gateway.api.watching import Watch


class Recorder(asyncio.Transport):
    """A transport that records calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.calls.append(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.calls.append(tuple(list_of_data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.calls.append("close")


def test_a_head_goes_with_the_first_of_its_body() -> None:
    recorder = Recorder()
    transport = JoiningTransport(recorder)
    for data in (b"HTTP/1.1 100 Continue\r\n\r\n", b"head 1", b"body", b"more"):
        transport.write(data)
    transport.end()
    transport.write(b"head 2")
    transport.end()  # a response without a body
    transport.write(b"head 3")
    transport.close()
    joined = [b"HTTP/1.1 100 Continue\r\n\r\n", (b"head 1", b"body"), b"more", b"head 2", b"head 3", "close"]
    assert recorder.calls == joined
    transport.write(b"head 4")
    transport.end()  # nobody is there any more
    assert recorder.calls == joined


def test_every_kind_of_response_arrives_whole(tmp_path: Path) -> None:
    """Without a body, pipelined, after a 100, and with the connection's end."""
    expect = b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n"
    body = b'{"model":"fake","input":"a"}'
    with serving(tmp_path) as running, socket.create_connection(running.address) as connection:
        connection.settimeout(5)
        connection.sendall(b"HEAD /health HTTP/1.1\r\nhost: a\r\n\r\n")
        assert _until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
        connection.sendall(2 * b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        found = b""
        while found.count(b'{"status":"ok"}') < 2:
            found += _until(connection, b"}")
        assert found.count(b"HTTP/1.1 200 OK") == 2
        connection.sendall(expect + b"content-length: %d\r\n\r\n" % len(body))
        assert _until(connection, b"100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert _until(connection, b"}}").startswith(b"HTTP/1.1 200 OK")
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert _until(connection, None).endswith(b'{"status":"ok"}')


def _until(connection: socket.socket, end: bytes | None) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
        if end is not None and found.endswith(end):
            break
    return found


def logger(stream: io.StringIO) -> logging.Logger:
    handler = TurnHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    made = logging.Logger("here")
    made.addHandler(handler)
    return made


class Counted(io.StringIO):
    """A stream that counts its writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_what_is_logged_in_a_turn_is_written_together() -> None:
    stream = Counted()
    log = logger(stream)

    async def turns() -> None:
        log.info("a")
        log.info("b")
        assert stream.getvalue() == ""
        await asyncio.sleep(0)
        assert (stream.getvalue(), stream.writes) == ("a\nb\n", 1)
        log.info("c")
        log.warning("d")  # what goes wrong is not kept back
        assert (stream.getvalue(), stream.writes) == ("a\nb\nc\nd\n", 2)
        log.info("e")

    asyncio.run(turns())
    log.info("f")
    assert stream.getvalue() == "a\nb\nc\nd\ne\nf\n"


def test_a_record_of_a_request_is_as_logging_would_make_it(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("unmask.requests")
    with caplog.at_level(logging.INFO, "unmask.requests"):
        log.info("request", extra={"fields": {"status": 200}})
        log.handle(request_record({"status": 200}))
    usual, ours = caplog.records
    assert set(vars(usual)) == set(vars(ours))
    lines = [orjson.loads(JsonFormatter().format(record)) for record in caplog.records]
    times = [line.pop("time") for line in lines]
    assert lines[0] == lines[1]
    assert times[0][:15] == times[1][:15]
    assert abs(ours.created - usual.created) < 10
    assert ours.msecs == pytest.approx(ours.created % 1 * 1000, abs=1)


def _receiver(*messages: bytes | None) -> Any:
    """Return an ASGI ``receive`` that gives parts of a body; None stands for a wait without end."""
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        part = next(left)
        if part is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": part, "more_body": part != b"end"}

    return receive


def test_one_timer_does_for_the_body_and_the_answer() -> None:
    async def watched(limit: float, *parts: bytes | None) -> bytes:
        body = Body(_receiver(*parts, b"end"), None, BodyLimits(size=20_000, seconds=limit))
        with Watch(_receiver(None), 60, body):
            return await body.read()

    assert asyncio.run(watched(5, b"a", b"b")) == b"abend"
    loop = asyncio.new_event_loop()
    start = loop.time()
    with pytest.raises(SlowBodyError, match="1 bytes so far"):
        loop.run_until_complete(watched(0.1, b"a", None))
    assert 0.05 < loop.time() - start < 2
    start = loop.time()
    with pytest.raises(SlowBodyError, match="10000 bytes so far"):  # which earn it another second
        loop.run_until_complete(watched(0.1, b"a" * 10_000, None))
    assert 1 < loop.time() - start < 3
    loop.close()


def test_a_client_is_watched_once_its_body_is_there() -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def watched() -> None:
        async def slow() -> dict[str, Any]:
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b"end", "more_body": False}

        body = Body(slow, None, BodyLimits(size=100, seconds=5))
        with Watch(gone, 60, body):
            assert await body.read() == b"end"
            await asyncio.sleep(30)

    with pytest.raises(ClientGoneError):
        asyncio.run(watched())

"""Answers, sent: with the headers that every answer has, and whatever the client does meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

from unmask.gateway.api.http import Answer, Call

_BLOCK: Final = 1 << 18
#: Seconds and bytes of a refused body that are still taken, so that a client that is sending reads the refusal.
_DRAIN_SECONDS: Final = 1.0
_DRAIN_BYTES: Final = 4_000_000


async def send_answer(call: Call, answer: Answer) -> None:
    """Send an answer; one that closes the connection is left open for :func:`drain`."""
    size = answer.file.stat().st_size if answer.file else len(answer.body)
    headers = [
        (b"content-type", answer.type.encode()),
        (b"content-length", b"%d" % size),
        (b"x-request-id", call.request_id.encode()),
        (b"openai-processing-ms", b"%d" % (call.seconds * 1000)),
        (b"x-content-type-options", b"nosniff"),
    ]
    more = {**answer.headers, **(call.visit.headers() if call.visit else {})}
    if answer.close:
        more["connection"] = "close"
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in more.items()]
    await call.send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.file and call.scope["method"] != "HEAD":
        await _send_file(call, answer)
        return
    await call.send({"type": "http.response.body", "body": answer.body, "more_body": answer.close})


async def _send_file(call: Call, answer: Answer) -> None:
    assert answer.file is not None
    with answer.file.open("rb") as file:
        while block := await asyncio.to_thread(file.read, _BLOCK):
            await call.send({"type": "http.response.body", "body": block, "more_body": True})
    await call.send({"type": "http.response.body", "body": b""})


async def drain(call: Call) -> None:
    """Take a little of what the client is still sending, then end the response and with it the connection.

    A connection that is closed on a client that still sends loses the answer on its way.
    """
    size, more = 0, True
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while more and size < _DRAIN_BYTES:
                message = await call.receive()
                more = message.get("more_body", False)
                size += len(message.get("body", b""))
    except TimeoutError:
        pass
    await call.send({"type": "http.response.body", "body": b""})

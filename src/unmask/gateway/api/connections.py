"""Connections that cannot hold a server up: a head that comes too slowly or grows too long, and thousands that idle."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unmask.gateway.api.errors import RequestError, refusal_of

#: Bytes of a request's first line and headers.
_LONGEST_HEAD: Final = 65_536
#: What is sent ahead of a response's head.
_CONTINUE: Final = b"HTTP/1.1 100 "


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """What connections may do; shared by all of a server.

    Attributes:
        head_seconds: in which the head of a request must arrive.
        idle: connections without a request that may be open; of more, the one that waits longest is closed.
        waiting: those there are, the one that waits longest first.
    """

    head_seconds: float
    idle: int
    waiting: dict[Connection, None] = field(default_factory=dict)


class JoiningTransport:
    """A transport that sends a response's head with what follows it: one call of the system and one packet less.

    It has what uvicorn's protocol asks of a transport.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._at_head = True
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Send something; a head waits for what is written next."""
        if self._at_head and not data.startswith(_CONTINUE):
            self._head, self._at_head = data, False
        elif self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        else:
            self._transport.write(data)

    def end(self) -> None:
        """End a response: what is written next is a head."""
        head, self._head, self._at_head = self._head, None, True
        if head is not None and not self._transport.is_closing():
            self._transport.write(head)

    def close(self) -> None:
        """Close when all is sent."""
        self.end()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's with limits until its request's head is there."""

    transport: JoiningTransport  # type: ignore[assignment]

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, and close who waits longest if too many do."""
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]
        self._arm()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, fewer than a head may have until it is whole."""
        if self._in_head:
            self._head_size += len(data)
        super().data_received(data)
        # Most heads come whole, and need no timer.
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()
        if self._in_head and self._head_size > _LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is longer than {_LONGEST_HEAD:,} bytes.")

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End the head: from here on the application's limits hold."""
        self._in_head = False
        self._head_size = 0
        self._disarm()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.transport.end()
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, in the API's own shape."""
        body = refusal_of(RequestError(msg, code="invalid_http")).body
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _wait(self) -> None:
        waiting = self._limits.waiting
        waiting[self] = None
        if len(waiting) > self._limits.idle:
            longest = next(iter(waiting))
            del waiting[longest]
            longest.transport.close()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self._limits.head_seconds, self.timeout_keep_alive_handler)

    def _disarm(self) -> None:
        self._limits.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

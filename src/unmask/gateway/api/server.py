"""The server process: a socket, an event loop, and an end within a limit when it is told to stop."""

from __future__ import annotations

import gc
import logging
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn

from unmask.engine.contract import EmbeddingEngine
from unmask.errors import InputError
from unmask.gateway.api.app import ANSWERS, Application
from unmask.gateway.api.connections import Connection, ConnectionLimits
from unmask.gateway.api.logs import configure_logs
from unmask.gateway.api.settings import Settings

_log: Final = logging.getLogger("unmask.server")

_BACKLOG: Final = 4096


class _Server(uvicorn.Server):
    """Uvicorn's server, which ends with status 0 when it is told to stop, and says where it listens."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays: the collector need not go through it again and again while answers wait.
        gc.collect()
        gc.freeze()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            _log.info("listening", extra={"fields": {"host": host, "port": port, "open_files": files}})


def run_server(settings: Settings, engine: EmbeddingEngine, rerankers: EmbeddingEngine | None = None) -> None:
    """Serve until told to stop, by SIGTERM or Ctrl-C; arguments are those of an :class:`Application`.

    Raises:
        InputError: the settings cannot be used, or the port is taken.
    """
    configure_logs(settings.log_level)
    app = Application(settings, engine, rerankers)
    if not settings.keys():
        _log.warning("no API key is set: only this machine may call", extra={"fields": {"host": settings.host}})
    run_app(settings, app)


def run_app(settings: Settings, app: Any) -> None:
    """Serve an ASGI application until told to stop, by SIGTERM or Ctrl-C.

    Raises:
        InputError: the port is taken.
    """
    _raise_file_limit()
    with _listen(settings.host, settings.port) as listener:
        _Server(server_config(settings, app)).run([listener])


def server_config(settings: Settings, app: Any, **more: Any) -> uvicorn.Config:
    """Return how uvicorn is to serve an application."""
    limits = ConnectionLimits(head_seconds=settings.header_seconds, idle=settings.idle_connections)
    return uvicorn.Config(
        app,
        http=partial(Connection, limits=limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.idle_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=settings.shutdown_seconds * ANSWERS,  # type: ignore[arg-type]
        **more,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), port), family=family, backlog=_BACKLOG)
        # Connections have it from their listener; asyncio sets it only on its own sockets. Without it the second
        # part of an answer waits 40 ms, until the client says that the first has come.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise InputError(
            f"The server cannot listen on {host}, port {port}: {error.strerror or error}. Choose another with --port."
        ) from error
    return listener


def _raise_file_limit() -> None:
    """Let the process have as many connections as the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

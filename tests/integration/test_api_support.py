"""What the tests of the API share: a fake engine that records, and servers in a thread or in a process of their own.

``python -m tests.integration.test_api_support FOLDER SECONDS`` serves on a free port, and is meant to be killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import uvicorn

from unmask.engine.contract import Embedded, Priority, Served, State
from unmask.engine.fake import FakeEngine
from unmask.gateway.api.app import Application
from unmask.gateway.api.server import run_server, server_config
from unmask.gateway.api.settings import ModelSettings, Settings
from unmask.text import Text

ROOT = Path(__file__).parents[2]
KEY = "gr-test-0123456789abcdef"


@dataclass
class Asked:
    """A call of ``embed``."""

    model: str
    texts: list[Text]
    caller: str
    priority: Priority
    truncate: bool
    wait: float


@dataclass
class Knobs:
    """How a recording engine behaves: changed by tests while it runs."""

    seconds: float = 0.0
    failures: list[Exception] = field(default_factory=list)
    state: State = "ready"
    asked: list[Asked] = field(default_factory=list)
    cancelled: int = 0
    running: int = 0
    tokens: int | None = None


class RecordingEngine(FakeEngine):
    """The fake engine; tells instruction from content, takes time, fails on demand, and remembers what it was asked."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.knobs = Knobs()

    def served(self) -> tuple[Served, ...]:
        return tuple(
            Served(name=each.name, state=self.knobs.state, dimension=each.dimension, max_length=each.max_length)
            for each in super().served()
        )

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        caller: str,
        priority: Priority = "realtime",
        truncate: bool = True,
        wait: float = 0.0,
    ) -> Embedded:
        knobs = self.knobs
        knobs.asked.append(Asked(model, list(texts), caller, priority, truncate, wait))
        if knobs.failures:
            raise knobs.failures.pop(0)
        knobs.running += 1
        try:
            await asyncio.sleep(knobs.seconds)
        except asyncio.CancelledError:
            knobs.cancelled += 1
            raise
        finally:
            knobs.running -= 1
        # The fake's vectors see bytes only: a mark where the content begins makes them see the instruction, too.
        marked = [Text(f"{text.instruction.strip()}\x01" if text.instruction else "", text.content) for text in texts]
        vectors = await super().embed(model, marked, caller=caller, truncate=truncate)
        plain = await super().embed(model, texts, caller=caller, truncate=truncate)
        return Embedded(vectors=vectors.vectors, tokens=plain.tokens if knobs.tokens is None else (knobs.tokens,))


@dataclass
class Running:
    """A server that runs in this process."""

    url: str
    engine: RecordingEngine
    app: Application
    server: uvicorn.Server

    @property
    def knobs(self) -> Knobs:
        return self.engine.knobs

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers | options.pop("headers", {}), timeout=20, **options)

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 0


@contextmanager
def serving(
    folder: Path, *, engine: RecordingEngine | None = None, app: Application | None = None, **settings: Any
) -> Iterator[Running]:
    """Serve in a thread, on a free port."""
    engine = engine or RecordingEngine()
    options = {"models": {name: ModelSettings() for name in engine.models}} | settings
    told = Settings(data=folder, **options)
    app = app or Application(told, engine)
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        server = uvicorn.Server(server_config(told, app))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", engine, app, server)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Wait until a condition holds, and fail if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Process:
    """A server in a process of its own, with an engine that takes some time for each request."""

    def __init__(self, folder: Path, seconds: float, **environment: str) -> None:
        paths = os.pathsep.join([str(ROOT), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.test_api_support", str(folder), str(seconds)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            stderr=subprocess.PIPE,
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self.said("listening") or self.process.poll() is not None)
        self.url = f"http://127.0.0.1:{self.said('listening')[0]['port']}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(orjson.loads(line) if line.startswith(b"{") else {"message": line.decode()})

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20)

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind a test that failed."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    def end(self, signal_number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(signal_number)
        status = self.process.wait(30)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status


def main(folder: str, seconds: str) -> None:
    """Serve until killed."""
    engine = RecordingEngine()
    engine.knobs.seconds = float(seconds)
    run_server(Settings(data=Path(folder), port=0, models={"fake": ModelSettings()}), engine)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What the tests of the API share: a fake engine that records, and servers in a thread or in a process of their own.

``python -m tests.integration.test_api_support FOLDER SECONDS`` serves on a free port, and is meant to be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

import httpx
import orjson
import uvicorn

from tests.in_thread import served
from unmask.engine.contract import Admit, Embedded, EmbeddingEngine, Priority, Served, State
from unmask.engine.fake import FakeEngine
from unmask.gateway.api.app import Application
from unmask.gateway.api.server import run_server, server_config
from unmask.gateway.api.settings import ModelSettings, RerankerSettings, Settings
from unmask.text import Text

ROOT = Path(__file__).parents[2]
KEY = "gr-test-0123456789abcdef"
#: Tables of a file of settings.
Models = Mapping[str, Mapping[str, Any]]


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
    query_instruction: str | None = None


class RecordingEngine(FakeEngine):
    """The fake engine; tells instruction from content, takes time, fails on demand, and remembers what it was asked."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.knobs = Knobs()

    def served(self) -> tuple[Served, ...]:
        return tuple(
            replace(each, state=self.knobs.state, query_instruction=self.knobs.query_instruction)
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
        most_tokens: int | None = None,
        admit: Admit | None = None,
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
        plain = await super().embed(
            model, texts, caller=caller, truncate=truncate, most_tokens=most_tokens, admit=admit
        )
        return Embedded(vectors=vectors.vectors, tokens=plain.tokens)


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
    folder: Path,
    *,
    engine: EmbeddingEngine | None = None,
    rerankers: EmbeddingEngine | None = None,
    app: Application | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Serve in a thread, on a free port."""
    engine = engine or RecordingEngine()
    models = {each.name: ModelSettings() for each in engine.served()}
    pairs = {each.name: RerankerSettings() for each in rerankers.served()} if rerankers else {}
    options: dict[str, Any] = {"models": models, "rerankers": pairs} | settings
    told = Settings(data=folder, **options)
    app = app or Application(told, engine, rerankers)
    with served(lambda _: server_config(told, app)) as (url, server):
        yield Running(url, cast("RecordingEngine", engine), app, server)


def wait_until(condition: Any, seconds: float = 20.0, pause: float = 0.01) -> None:
    """Wait until a condition holds, and fail if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(pause)


class ServerProcess:
    """A server in a process of its own.

    Args:
        command: what runs it.
        environment: besides this process's.
    """

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        paths = os.pathsep.join([str(ROOT), *sys.path])
        self.process = subprocess.Popen(
            command,
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

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20)

    def wait_until_ready(self) -> None:
        """Wait until the models that are to be preloaded are loaded."""
        with self.client() as client:
            wait_until(lambda: client.get("/ready").status_code == 200, 120, pause=0.2)

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


class Process(ServerProcess):
    """A server with an engine that takes some time for each request."""

    def __init__(self, folder: Path, seconds: float, **environment: str) -> None:
        command = [sys.executable, "-m", "tests.integration.test_api_support", str(folder), str(seconds)]
        super().__init__(command, **environment)


class Unmask(ServerProcess):
    """``unmask serve``, with real workers, its models loaded; arguments are those of :func:`write_settings`."""

    def __init__(self, folder: Path, models: Models, *, keys: str = "", **settings: Any) -> None:
        config = write_settings(folder, models, **settings)
        command = [sys.executable, "-m", "unmask.cli", "serve", "--config", str(config)]
        super().__init__(command, UNMASK_API_KEYS=keys)
        self.wait_until_ready()


def write_settings(folder: Path, models: Models, **settings: Any) -> Path:
    """Write a file of settings for a server on one thread and any free port.

    Args:
        folder: for the file, and for the server's files and batches.
        models: a table a model, by its name.
        settings: the rest of it.
    """
    plain = {"port": 0, "data": str(folder / "data"), "devices": ["cpu"], "threads": 1, **settings}
    # Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    for model, table in models.items():
        lines += [f"[models.{json.dumps(model)}]", *(f"{name} = {json.dumps(table[name])}" for name in table)]
    config = folder / "serve.toml"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config


def main(folder: str, seconds: str) -> None:
    """Serve until killed."""
    engine = RecordingEngine()
    engine.knobs.seconds = float(seconds)
    run_server(Settings(data=Path(folder), port=0, models={"fake": ModelSettings()}), engine)


if __name__ == "__main__":
    main(*sys.argv[1:])

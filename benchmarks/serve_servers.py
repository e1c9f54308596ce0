"""The servers that are measured, ours and others': started, asked, watched and ended."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from cpu import ENVIRONMENTS, MODEL, TORCH, WORK, environment
from serve_fake import MODEL as FAKE
from serve_load import body

from unmask.hub.locate import path_of

_HERE = Path(__file__).parent
#: Seconds in which a server must answer its first request.
_PATIENCE = 300


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server that can be started.

    Attributes:
        title: in tables.
        model: as requests name it.
        command: from port and a folder for its data.
        path: of its embeddings.
        packages: of its own environment; none: this one.
        keyed: whether requests need a key, which it writes into its folder.
    """

    title: str
    model: str
    command: Callable[[int, Path], list[str]]
    path: str = "/v1/embeddings"
    packages: Sequence[str] = ()
    keyed: bool = False


def _ours(port: int, data: Path) -> list[str]:
    return [str(Path(sys.executable).with_name("unmask")), "serve", MODEL, f"--port={port}", f"--data={data}"]


def _fake(port: int, data: Path) -> list[str]:
    return [sys.executable, str(_HERE / "serve_fake.py"), str(port), str(data)]


def _gateway(port: int, data: Path) -> list[str]:
    return [sys.executable, str(_HERE / "serve_gateway.py"), str(port), str(data)]


def _sentence_transformers(port: int, data: Path) -> list[str]:
    python = environment("serve-sentence-transformers", SERVICES["sentence-transformers"].packages)
    return [str(python), str(_HERE / "serve_peer.py"), str(path_of(MODEL).path), str(port)]


def _infinity(port: int, data: Path) -> list[str]:
    python = environment("infinity", SERVICES["infinity"].packages)
    command = [str(python.with_name("infinity_emb")), "v2", "--model-id", str(path_of(MODEL).path)]
    command += ["--served-model-name", MODEL, "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    return [*command, "--no-bettertransformer", "--no-compile", "--no-model-warmup", "--port", str(port)]


SERVICES = {
    "unmask": Service(title="Unmask", model=MODEL, command=_ours),
    "fake": Service(title="Unmask, an engine that computes nothing", model=FAKE, command=_fake),
    "gateway": Service(title="the gateway over the same engine", model=FAKE, command=_gateway, keyed=True),
    "sentence-transformers": Service(
        title="sentence-transformers behind FastAPI",
        model=MODEL,
        command=_sentence_transformers,
        packages=(TORCH, *ENVIRONMENTS["sentence-transformers"], "fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
    ),
    "infinity": Service(
        title="infinity",
        model=MODEL,
        command=_infinity,
        path="/embeddings",
        packages=(TORCH, "infinity-emb[server,torch]==0.0.78"),
    ),
}


@dataclass(kw_only=True)
class Memory:
    """Resident memory over time, in bytes.

    Attributes:
        seconds: since the first look.
        server: of the server's own process.
        workers: of those it started, together.
    """

    seconds: list[float] = field(default_factory=list)
    server: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs."""

    service: Service
    process: subprocess.Popen[bytes]
    url: str
    data: Path

    @property
    def headers(self) -> dict[str, str]:
        """What requests need."""
        key = {"Authorization": f"Bearer {(self.data / 'key').read_text()}"} if self.service.keyed else {}
        return {"Content-Type": "application/json"} | key

    def vectors(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Return the vectors of texts, ``[n, D]``."""
        request = urllib.request.Request(  # noqa: S310 - this machine's
            self.url, body(self.service.model, texts), self.headers
        )
        with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310
            rows = json.load(response)["data"]
        return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])

    def processor_seconds(self) -> float:
        """Return the processor time that it and those it started have taken."""
        return float(sum(times.user + times.system for times in (each.cpu_times() for each in self._processes())))

    @contextmanager
    def memory(self, every: float = 1.0) -> Iterator[Memory]:
        """Look at its memory until the context ends."""
        found, over, start = Memory(), threading.Event(), time.monotonic()

        def look() -> None:
            while not over.wait(every):
                with suppress(psutil.NoSuchProcess):  # a worker that ends meanwhile; the next look is whole again
                    own, *others = (each.memory_info().rss for each in self._processes())
                    found.seconds.append(round(time.monotonic() - start, 1))
                    found.server.append(own)
                    found.workers.append(sum(others))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield found
        finally:
            over.set()
            thread.join()

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]


@contextmanager
def running(name: str) -> Iterator[Server]:
    """Run a server until the context ends; it has answered one request.

    Raises:
        SystemExit: it ended, or did not answer.
    """
    service, log = SERVICES[name], WORK / f"serve-{name}.log"
    with TemporaryDirectory() as data, log.open("wb") as output:
        port = _free_port()
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "DO_NOT_TRACK": "1"}
        command = service.command(port, Path(data))
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=variables)
        url = f"http://127.0.0.1:{port}{service.path}"
        server = Server(service=service, process=process, url=url, data=Path(data))
        try:
            _wait(server, log)
            yield server
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()


def _wait(server: Server, log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and server.process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, FileNotFoundError):
            server.vectors(["warm up"])
            return
        time.sleep(1)
    raise SystemExit(f"{server.service.title} does not answer:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

"""A worker: one process, one device, the models on it. Run as ``python -m unmask.engine.worker DEVICE [THREADS]``.

Orders come on standard input, answers go to what was standard output. Four threads: one reads orders, one loads, one
computes, one writes answers, so that batches are computed while a model is loaded or an answer is written. When the
pipe closes, because the server ended, however it ended, the process ends at once. It takes no signal but SIGKILL: a
Ctrl-C or SIGTERM to all processes of a service must leave the server its workers until it has finished.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import BinaryIO, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.engine.messages import (
    HEADER,
    Answer,
    Compute,
    Computed,
    Failed,
    Load,
    Order,
    Read,
    Refused,
    Unload,
    Up,
    WasLoaded,
    WasRead,
    frame,
    parse,
)
from unmask.engine.settings import ModelSettings, Weights
from unmask.errors import BackboneError, CheckpointError, DownloadError, InputError, OutOfMemoryError

#: Exit statuses of a worker that ends by itself.
CLOSED: Final = 0
BROKEN: Final = 3
#: What is wrong until somebody mends it: a checkpoint, a setting. Memory, the network or a disk may come back.
_LASTING: Final = (CheckpointError, BackboneError, InputError, FileNotFoundError, NotADirectoryError, PermissionError)
_PASSING: Final = (DownloadError, OutOfMemoryError)


#: Gives the vectors of a batch when called, ``[N, D]`` float32; raises where they cannot be computed.
Pending = Callable[[], NDArray[np.float32]]


class Loaded(Protocol):
    """Weights in memory.

    Attributes:
        size: bytes of their parameters.
        dimension: components of a vector.
        budget: tokens of a batch that suit the device.
    """

    size: int
    dimension: int
    budget: int

    def begin(self, ids: NDArray[np.int32], lengths: Sequence[int], starts: Sequence[int]) -> Pending:
        """Begin a batch of texts whose ids lie one behind the other, if the device computes by itself."""

    def warm_up(self) -> None:
        """Run one batch; raises if it gives no numbers."""


class Models(Protocol):
    """What can be read and loaded."""

    def read(self, model: ModelSettings) -> bytes:
        """Return what is known of a model's texts, packed."""

    def load(self, weights: Weights) -> Loaded:
        """Load weights."""

    def tidy(self) -> None:
        """Give memory back after weights were unloaded."""


@dataclass(frozen=True)
class _UnderWay:
    """A batch that was begun at ``started``, seconds of the monotonic clock."""

    order: Compute
    started: float
    pending: Pending


class Worker:
    """The process's state, and what its threads do.

    Args:
        models: reads and loads.
        orders: the pipe from the server.
        answers: the pipe to it.
    """

    def __init__(self, models: Models, orders: BinaryIO, answers: BinaryIO) -> None:
        self._models = models
        self._orders, self._answers = orders, answers
        self._loaded: dict[Weights, Loaded] = {}
        self._to_load: SimpleQueue[Read | Load | Unload] = SimpleQueue()
        self._to_compute: SimpleQueue[Compute] = SimpleQueue()
        self._to_send: SimpleQueue[Answer] = SimpleQueue()
        self._finished = 0.0

    def run(self) -> None:
        """Work until the process ends."""
        for work in (self._receive, self._load, self._send):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()
        self._to_send.put(Up())
        under_way: deque[_UnderWay] = deque()
        while True:
            order = self._next_to_compute(wait=not under_way)
            if order is not None:
                under_way.append(self._begun(order))
            # A GPU computes one batch while the next is laid out and ordered.
            if order is None or len(under_way) > 1:
                self._finish(under_way.popleft())

    def _receive(self) -> None:
        while True:
            order = _next(self._orders)
            if order is None:
                os._exit(CLOSED)
            if isinstance(order, Compute):
                self._to_compute.put(order)
            else:
                self._to_load.put(order)

    def _send(self) -> None:
        while True:
            try:
                self._answers.write(frame(self._to_send.get()))
                self._answers.flush()
            except OSError:  # nobody is there to answer
                os._exit(CLOSED)

    def _load(self) -> None:
        while True:
            order = self._to_load.get()
            if isinstance(order, Unload):
                self._loaded.pop(order.weights, None)
                self._models.tidy()
                continue
            try:
                self._to_send.put(self._carried_out(order))
            # Loading calls into libraries that raise what they like; the server says what it was.
            except Exception as error:  # noqa: BLE001
                lasting = isinstance(error, _LASTING) and not isinstance(error, _PASSING)
                self._to_send.put(Refused(order, described(error), lasting))

    def _carried_out(self, order: Read | Load) -> Answer:
        if isinstance(order, Read):
            return WasRead(order.model.name, self._models.read(order.model))
        started = time.monotonic()
        loaded = self._models.load(order.weights)
        loaded.warm_up()
        self._loaded[order.weights] = loaded
        taken = time.monotonic() - started
        return WasLoaded(order.weights, loaded.size, loaded.dimension, loaded.budget, taken)

    def _next_to_compute(self, *, wait: bool) -> Compute | None:
        try:
            return self._to_compute.get(block=wait)
        except Empty:
            return None

    def _begun(self, order: Compute) -> _UnderWay:
        started = time.monotonic()
        try:
            pending = self._loaded[order.weights].begin(order.ids, order.lengths, order.starts)
        # Whatever it is, the texts of this batch are to blame until they are computed alone; told in its turn.
        except Exception as error:  # noqa: BLE001
            pending = partial(_fail, error)
        return _UnderWay(order, started, pending)

    def _finish(self, batch: _UnderWay) -> None:
        number = batch.order.number
        try:
            vectors = batch.pending()
        except Exception as error:  # noqa: BLE001 - as above
            self._to_send.put(Failed(number, described(error)))
            self._check(batch.order.weights)
            return
        broken = tuple(np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist())
        before, self._finished = self._finished, time.monotonic()
        # While the batch before it was computed, it waited.
        self._to_send.put(Computed(number, vectors, broken, self._finished - max(batch.started, before)))

    def _check(self, weights: Weights) -> None:
        """End the process where the device does not work any more: after some errors of CUDA nothing does."""
        loaded = self._loaded.get(weights)
        try:
            if loaded is not None:
                loaded.warm_up()
        except Exception as error:  # noqa: BLE001 - as above
            sys.stderr.write(f"Nothing can be computed any more, the worker ends: {described(error)}\n")
            os._exit(BROKEN)


def _fail(error: Exception) -> NDArray[np.float32]:
    raise error


def described(error: Exception) -> str:
    """Return an error in one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__


def _next(pipe: BinaryIO) -> Order | None:
    """Return the next order, None where the pipe has ended."""
    header = pipe.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    body = pipe.read(size)
    order: Order | None = parse(body) if len(body) == size else None  # type: ignore[assignment]
    return order


def serve(make: Callable[[str, int | None], Models], arguments: Sequence[str]) -> None:
    """Be a worker.

    Args:
        make: gives the models of a device, computed with so many threads; called before the first order is read.
        arguments: the command line: the device and, unless torch is to choose, the number of threads.
    """
    for name in {"SIGINT", "SIGTERM", "SIGHUP"} & set(dir(signal)):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    # What libraries print must not mix with the answers, and nothing else may read the orders.
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    device, *threads = arguments
    Worker(make(device, int(threads[0]) if threads else None), orders, answers).run()


def main() -> None:
    """Be a worker with real models."""
    from unmask.engine.encoding import Encoders

    serve(Encoders, sys.argv[1:])


if __name__ == "__main__":
    main()

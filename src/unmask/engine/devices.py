"""What the server knows of a device: its process, what is loaded there, what it has been asked to do."""

from __future__ import annotations

from asyncio import TimerHandle
from collections import deque
from dataclasses import dataclass, field

from unmask.engine.messages import Load, Read, WasLoaded
from unmask.engine.process import WorkerProcess
from unmask.engine.scheduling import Pack
from unmask.engine.settings import Weights


@dataclass(eq=False)
class Device:
    """A device and its worker.

    Attributes:
        process: the worker, restarted when it dies.
        up: whether it takes orders.
        loaded: weights that are ready there.
        jobs: orders to read and load that are not answered, in the order in which it works on them.
        packs: batches that are not answered, with their numbers; it computes the first.
        timer: ends the process if the first of them takes too long.
        pace: seconds a token of the last batch of each of the weights.
    """

    process: WorkerProcess
    up: bool = False
    loaded: dict[Weights, WasLoaded] = field(default_factory=dict)
    jobs: deque[Read | Load] = field(default_factory=deque)
    packs: deque[tuple[int, Pack]] = field(default_factory=deque)
    timer: TimerHandle | None = None
    pace: dict[Weights, float] = field(default_factory=dict)

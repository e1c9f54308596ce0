"""What must be done before a model is ready, and how far it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from unmask.engine.devices import Device
from unmask.engine.messages import Load, Read
from unmask.engine.settings import ModelSettings
from unmask.engine.tokens import Reading


@dataclass(eq=False)
class Attempt:
    """Something that a worker must do before a model is ready.

    Attributes:
        order: what to tell the worker.
        wanted: asked for, and not failed since.
        error: why it failed, None if it has not.
        lasting: whether trying again alone will not help; of a failure only.
        failed_at: when.
        since: when it was asked for, or undone by a death.
        seconds: how long it took last, None if it was never done.
        deaths: of workers over it, in a row.
        refused_by: devices that have refused it while others did it or may, and why.
        arriving: carried out, but not taken in yet.
        settled: done, or failed.
    """

    order: Read | Load
    wanted: bool = False
    error: str | None = None
    lasting: bool = False
    failed_at: float = 0.0
    since: float = 0.0
    seconds: float | None = None
    deaths: int = 0
    refused_by: dict[Device, str] = field(default_factory=dict)
    arriving: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class Entry:
    """A model by its name.

    Attributes:
        settings: what it is.
        read: of its tokenizer.
        load: of its weights, shared by all names of the same.
        reading: its tokenizer and what else is known of its texts, None until it was read.
        dimension: of its vectors, None until it was loaded.
    """

    settings: ModelSettings
    read: Attempt
    load: Attempt
    reading: Reading | None = None
    dimension: int | None = None


def named(order: Read | Load) -> str:
    """Return what an order is about, for the log."""
    if isinstance(order, Load):
        return f"loading {order.weights.source}"
    return f"reading the tokenizer of {order.model.name}"

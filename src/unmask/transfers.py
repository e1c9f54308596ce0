"""Work for a GPU laid out ahead, results fetched behind: it computes without a pause.

A GPU takes orders without waiting for them to be done; what makes it wait is a copy from memory that is not pinned,
and a result that is asked for. So the next pack is made by a thread, from pinned memory and on a stream of its own,
while one is computed, and its vectors are read when the one after it has been ordered. On a CPU, where computing takes
all cores, both functions do one thing after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")
_U = TypeVar("_U")


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return ``values`` on ``device``; a copy to a GPU goes through pinned memory and is not waited for."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def ahead(items: Iterable[_T], make: Callable[[_T], _U], device: torch.device) -> Iterator[_U]:
    """Yield ``make(item)`` of each item, on a GPU made while the caller works with the one before.

    Args:
        items: read in the caller's thread.
        make: makes tensors on ``device``.
        device: where the tensors lie.
    """
    if device.type != "cuda":
        yield from map(make, items)
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def made(item: _T) -> tuple[_U, torch.cuda.Event]:
        with torch.inference_mode(), torch.cuda.stream(side):
            return make(item), side.record_event()

    def received(future: Future[tuple[_U, torch.cuda.Event]]) -> Iterator[_U]:
        value, copied = future.result()
        torch.cuda.current_stream(device).wait_event(copied)
        yield value
        # What was made on the side stream must not be used again there while the caller's stream still reads it.
        side.wait_stream(torch.cuda.current_stream(device))

    with ThreadPoolExecutor(1, thread_name_prefix="pack") as thread:
        coming: Future[tuple[_U, torch.cuda.Event]] | None = None
        for item in items:
            now, coming = coming, thread.submit(made, item)
            if now is not None:
                yield from received(now)
        if coming is not None:
            yield from received(coming)


def behind(results: Iterable[tuple[_T, Tensor]], device: torch.device) -> Iterator[tuple[_T, Tensor]]:
    """Yield results with their tensors on the CPU, on a GPU each when the one after it has been ordered."""
    if device.type != "cuda":
        yield from ((key, tensor.cpu()) for key, tensor in results)
        return
    waiting: deque[tuple[_T, Callable[[], Tensor]]] = deque()
    for key, tensor in results:
        waiting.append((key, fetched(tensor)))
        while len(waiting) > 1:
            earlier, arrived = waiting.popleft()
            yield earlier, arrived()
    for key, arrived in waiting:
        yield key, arrived()


def fetched(tensor: Tensor) -> Callable[[], Tensor]:
    """Order the copy of a GPU's tensor to the CPU, and return what waits for it and gives it."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def arrived() -> Tensor:
        copied.synchronize()
        return host

    return arrived

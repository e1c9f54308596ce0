"""Laying out ahead and fetching behind: in order, errors passed on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from unmask.transfers import ahead, behind, to_device

DEVICES = [
    torch.device("cpu"),
    pytest.param(
        torch.device("cuda"), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_items_come_in_order_and_back(device: torch.device, count: int) -> None:
    def work(number: int) -> tuple[int, torch.Tensor]:
        return number, to_device(torch.full((3,), float(number)), device)

    doubled = ((number, tensor * 2) for number, tensor in ahead(range(count), work, device))
    found = list(behind(doubled, device))
    assert [number for number, _ in found] == list(range(count))
    assert [tensor.tolist() for _, tensor in found] == [[2.0 * number] * 3 for number in range(count)]
    assert all(tensor.device.type == "cpu" for _, tensor in found)


@pytest.mark.parametrize("device", DEVICES)
def test_an_error_in_the_making_is_raised_where_it_is_used(device: torch.device) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    items = ahead(range(5), work, device)
    assert next(items) == 0
    with pytest.raises(ValueError, match="two"):
        list(items)


@pytest.mark.parametrize("device", DEVICES)
def test_no_more_than_one_item_is_taken_ahead(device: torch.device) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            taken.append(number)
            yield number

    for number in ahead(items(), lambda item: item, device):
        assert len(taken) <= number + 2


# --- the way of a GPU, with streams that only take notes ---------------------------------------------


class Stream:
    """Takes notes of what is ordered."""

    def __init__(self, notes: list[str], name: str) -> None:
        self.notes, self.name = notes, name

    def record_event(self) -> Stream:
        self.notes.append(f"{self.name} records")
        return self

    def wait_event(self, event: Stream) -> None:
        self.notes.append(f"{self.name} waits for {event.name}")

    def wait_stream(self, other: Stream) -> None:
        self.notes.append(f"{self.name} waits for all of {other.name}")

    def synchronize(self) -> None:
        self.notes.append(f"host waits for {self.name}")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for CUDA's streams, and return their notes."""
    notes: list[str] = []
    own, empty = Stream(notes, "main"), torch.empty
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream(notes, "side"))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: own)

    def unpinned(*shape: Any, **options: Any) -> torch.Tensor:
        options.pop("pin_memory")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", unpinned)
    return notes


class Gpu:
    """A device of which the functions look at the type alone."""

    type = "cuda"


GPU: Any = Gpu()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_gpus_items_come_in_order_and_back(count: int, streams: list[str]) -> None:
    made = ahead(range(count), lambda number: (number, torch.full((3,), float(number))), GPU)
    found = [(number, tensor.tolist()) for number, tensor in behind(made, GPU)]
    assert found == [(number, [float(number)] * 3) for number in range(count)]


def test_each_side_waits_for_what_it_needs(streams: list[str]) -> None:
    for number in ahead(range(3), lambda number: number, GPU):
        streams += [f"{number} is used"]
    used = [place for place, note in enumerate(streams) if note.endswith("is used")]
    for number, place in enumerate(used):
        before = streams[:place]
        assert before.count("main waits for side") == number + 1  # the copy is there
        assert before.count("side records") >= number + 1
        assert before.count("side waits for all of main") == number  # what was used may be written over
    assert streams.count("side waits for all of main") == 3


@pytest.mark.usefixtures("streams")
def test_the_next_is_made_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def work(number: int) -> int:
        begun[number].set()
        return number

    for number in ahead(range(3), work, GPU):
        assert all(event.wait(10) for event in begun[: number + 2])


def test_results_are_read_when_the_next_is_ordered(streams: list[str]) -> None:
    def results() -> Iterator[tuple[int, torch.Tensor]]:
        for number in range(3):
            streams.append(f"order {number}")
            yield number, torch.zeros(1)

    for number, _ in behind(results(), GPU):
        streams += [f"read {number}"]
    orders = [note for note in streams if note.startswith(("order", "read", "host"))]
    host = "host waits for main"
    assert orders == ["order 0", "order 1", host, "read 0", "order 2", host, "read 1", host, "read 2"]


def test_what_fails_beside_the_gpu_is_raised(streams: list[str]) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    items = ahead(range(5), work, GPU)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(items)

"""Laying out ahead and fetching behind: in order, errors passed on."""

from __future__ import annotations

from collections.abc import Iterator

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

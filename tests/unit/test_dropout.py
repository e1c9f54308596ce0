"""Dropout of our own: how much is dropped, what grows, and whose numbers are drawn."""

from __future__ import annotations

import threading

import pytest
import torch

from unmask.backbone.dropout import drawing_from, dropped, random_bits

SHAPE = torch.Size((3, 333))
CPU = torch.device("cpu")


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_the_share_is_dropped_and_the_rest_grows(rate: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(200, 1000, requires_grad=True)
    out = dropped(x, rate)
    assert float((out == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    assert float(out.detach().mean()) == pytest.approx(1, abs=0.02)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())
    assert dropped(x, 0.0) is x


def test_a_thread_draws_from_its_own_generator_and_others_from_torchs() -> None:
    torch.manual_seed(2)
    expected = random_bits(SHAPE, CPU)
    torch.manual_seed(2)
    seen: list[torch.Tensor] = []

    def elsewhere() -> None:
        seen.append(random_bits(SHAPE, CPU))

    with drawing_from(torch.Generator().manual_seed(3)):
        own = random_bits(SHAPE, CPU)
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
    assert torch.equal(seen[0], expected)
    torch.manual_seed(3)
    assert torch.equal(own, random_bits(SHAPE, CPU))  # the same stream, whichever generator it comes from
    assert not torch.equal(own, expected)

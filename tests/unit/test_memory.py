"""The budget of a forward pass, planned from two small ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unmask.backbone.layout import Layout
from unmask.backbone.memory import BUDGETS, LEAST, SHARE, budget_for, largest_budget

MB = 1_000_000


def passes(fixed: int, a_token: int) -> tuple[list[int], object]:
    asked: list[int] = []

    def peak_of(tokens: int) -> int:
        asked.append(tokens)
        return fixed + a_token * tokens

    return asked, peak_of


@pytest.mark.parametrize(
    ("fixed", "a_token", "free", "expected"),
    [
        (0, 1000, 1_000 * MB, 32768),  # more than enough
        (0, 10_000, 300 * MB, 16384),  # 27,000 tokens would fit
        (0, 10_000, int(16384 * 10_000 / SHARE) + 1, 16384),
        (0, 10_000, int(16384 * 10_000 / SHARE) - 1, 8192),
        (200 * MB, 10_000, 300 * MB, 4096),  # what does not grow counts, too
        (0, 10_000, 0, LEAST),
        (500 * MB, 0, 100 * MB, LEAST),
    ],
)
def test_the_largest_power_of_two_that_fits(fixed: int, a_token: int, free: int, expected: int) -> None:
    asked, peak_of = passes(fixed, a_token)
    assert largest_budget(peak_of, free, 32768) == expected  # type: ignore[arg-type]
    assert len(asked) == 2
    assert max(asked) <= 1024


def test_a_second_pass_that_took_less_is_no_negative_memory() -> None:
    peaks = {512: 1_000_000, 1024: 900_000}
    assert largest_budget(peaks.__getitem__, int(850_000 / SHARE), 4096) == LEAST
    assert largest_budget(peaks.__getitem__, int(950_000 / SHARE), 4096) == 4096


# --- on a GPU, with the counts of torch's allocator written here --------------------------------------


class Allocator:
    """Stands in for torch's counts of a GPU's memory: so much free, so much kept and unused, so much a token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int, unused: int, held: int, a_token: int) -> None:
        self.passes: list[int] = []
        self._peak, self._held, self._a_token = 0, held, a_token
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10 * free))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: held + unused)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: held)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: self._peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self._reset)

    def _reset(self, _: torch.device) -> None:
        self._peak = self._held

    def own_hidden(self, ids_T: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Take memory for a pass."""
        assert sum(layout.lengths) == len(ids_T)
        assert int(ids_T.max()) < 50
        self.passes.append(len(ids_T))
        self._peak = max(self._peak, self._held + self._a_token * len(ids_T))
        return torch.zeros(len(ids_T), 2)


class Gpu:
    """A device that is a GPU to who asks, and whose tensors lie in memory."""

    type = "cuda"


@pytest.mark.parametrize(
    ("free", "unused", "expected"),
    [
        (1_000 * MB, 0, 32768),
        (300 * MB, 0, 16384),  # 27,000 tokens would fit
        (100 * MB, 200 * MB, 16384),  # what torch keeps for later is free as well
        (100 * MB, 0, 8192),
        (0, 0, LEAST),
    ],
)
def test_a_gpus_budget_is_planned_from_what_is_free(
    monkeypatch: pytest.MonkeyPatch, free: int, unused: int, expected: int
) -> None:
    allocator = Allocator(monkeypatch, free=free, unused=unused, held=77 * MB, a_token=10_000)
    monkeypatch.setattr(torch, "arange", partial(_arange, torch.arange))
    backbone: Any = SimpleNamespace(
        device=Gpu(), bidirectional=True, config=SimpleNamespace(vocab_size=50), own_hidden=allocator.own_hidden
    )
    assert budget_for(backbone) == expected
    # The first one takes what stays, and is not measured.
    assert allocator.passes == [LEAST, 512, 1024]


def _arange(arange: Callable[[int], torch.Tensor], count: int, device: Gpu) -> torch.Tensor:
    assert isinstance(device, Gpu)
    return arange(count)


def test_a_processors_budget_needs_no_pass() -> None:
    backbone: Any = SimpleNamespace(device=torch.device("cpu"))
    assert budget_for(backbone) == BUDGETS["cpu"]

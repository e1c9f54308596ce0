"""Timing functions count what they say."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unmask.backbone.float8 import Float8Linear
from unmask.measure import Speed, _products, ceiling, throughput


def test_speed_is_amount_over_time() -> None:
    speed = Speed(texts=10, tokens=300, seconds=2)
    assert (speed.texts_per_second, speed.tokens_per_second) == (5, 150)


def test_throughput_takes_the_median_of_its_runs() -> None:
    clock = iter([0, 1, 10, 15, 20, 23])
    seen: list[Sequence[str]] = []
    speed = throughput(seen.append, ["a", "b"], tokens=6, repeats=3, clock=lambda: float(next(clock)))
    assert speed == Speed(texts=2, tokens=6, seconds=3)
    assert seen == [["a", "b"]] * 3


def test_the_ceiling_runs_every_linear_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4, bias=False))
    assert 0 < ceiling(model, 32, repeats=1) < float("inf")
    assert [tuple(product().shape) for product in _products(model, 32)] == [(32, 16), (32, 4)]


def test_the_ceiling_of_eight_bits_is_that_of_their_products() -> None:
    layers = [torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)]
    model = torch.nn.Sequential(layers[0], Float8Linear(layers[1]))
    plain, eight = _products(model, 48)
    assert plain().shape == (48, 32)
    assert eight().shape == (48, 16)
    assert eight.args[0].dtype == torch.float8_e4m3fn  # type: ignore[attr-defined]

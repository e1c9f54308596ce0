"""Two processes that each hold half a batch learn what one process learns from the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from unmask.training.objectives import cached_backward, info_nce, matryoshka

WORLD, COUNT, NEGATIVES, SIZE = 2, 3, 2, 6

Case = tuple[int, dict[str, Any], bool]
CASES: dict[str, Case] = {
    "pairs": (0, {}, False),
    "negatives": (NEGATIVES, {}, False),
    "bidirectional": (0, {"bidirectional": True}, False),
    "bidirectional with negatives": (NEGATIVES, {"bidirectional": True}, False),
    "false negatives": (NEGATIVES, {"bidirectional": True, "false_negative_margin": 0.2}, False),
    "matryoshka": (NEGATIVES, {"bidirectional": True}, True),
}


def model() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(SIZE, 9), nn.Tanh(), nn.Linear(9, 5))


def inputs(count: int) -> Tensor:
    """For each of ``count`` queries: itself, its document, its hard negatives, ``[count, 2 + K, SIZE]``."""
    return torch.randn(count, 2 + NEGATIVES, SIZE, generator=torch.Generator().manual_seed(8))


def loss_of(case: Case, *, gather: bool) -> Callable[[Tensor], Tensor]:
    """Vectors ``[count, 2 + K, D]`` → loss."""
    negatives, options, nested = case
    loss = matryoshka(info_nce, [2, 5]) if nested else info_nce

    def of(vectors: Tensor) -> Tensor:
        hard = vectors[:, 2:] if negatives else None
        return loss(vectors[:, 0], vectors[:, 1], hard, temperature=0.2, gather=gather, **options)

    return of


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def step(case: Case, embed: nn.Module, rows: Tensor, *, gather: bool) -> list[Tensor]:
    """One backward pass: the loss and the gradients."""
    embed.zero_grad()
    loss = loss_of(case, gather=gather)(embed(rows))
    loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(gradient.clone() for gradient in gradients(embed))]


def cached_step(case: Case, rows: Tensor) -> list[Tensor]:
    """The same by gradient caching, a query a chunk; gradients averaged by hand."""
    embed = model()
    loss = cached_backward(rows.split(1), embed, loss_of(case, gather=True))  # type: ignore[no-untyped-call]
    for gradient in gradients(embed):
        distributed.all_reduce(gradient)
        gradient.div_(WORLD)
    return [loss, *gradients(embed)]


def work(rank: int, folder: str) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    rows = inputs(WORLD * COUNT)[rank * COUNT :][:COUNT]
    results = {}
    for name, case in CASES.items():
        parallel = DistributedDataParallel(model())
        results[name] = step(case, parallel, rows, gather=True)
        results[f"{name}, cached"] = cached_step(case, rows)
        results[f"{name}, apart"] = step(case, parallel, rows, gather=False)
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    """Losses and gradients of each process."""
    folder: Path = tmp_path_factory.mktemp("processes")
    spawn(work, args=(str(folder),), nprocs=WORLD)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["", ", cached"])
def test_two_processes_learn_what_one_does(results: list[dict[str, list[Tensor]]], name: str, way: str) -> None:
    whole, *expected = step(CASES[name], model(), inputs(WORLD * COUNT), gather=True)
    torch.testing.assert_close(torch.stack([each[name + way][0] for each in results]).mean(), whole)
    assert len(expected) == 4
    for each in results:
        torch.testing.assert_close(each[name + way][1:], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_without_gathering_each_process_sees_its_own_batch_alone(
    results: list[dict[str, list[Tensor]]], name: str
) -> None:
    for rank, each in enumerate(results):
        rows = inputs(WORLD * COUNT)[rank * COUNT :][:COUNT]
        torch.testing.assert_close(each[f"{name}, apart"][0], step(CASES[name], model(), rows, gather=False)[0])
        assert abs(float(each[f"{name}, apart"][0] - each[name][0])) > 1e-2

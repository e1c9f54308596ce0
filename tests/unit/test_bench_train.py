"""The training benchmark counts operations as a hand does, and its table says what was measured."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

_FOLDER = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, _FOLDER)
floor: Any = importlib.import_module("train_floor")
report: Any = importlib.import_module("train_report")
sys.path.remove(_FOLDER)

LINEARS = (floor.Linear(3, 5, first=True), floor.Linear(5, 7))
SHAPE = floor.Shape(linears=LINEARS, hidden=3, vocabulary=11, layers=2, attention=4)


def test_operations_are_those_that_a_hand_counts() -> None:
    count = floor.operations(SHAPE, [6, 4], rank=2, masked=3)
    # A product [T, I] × [I, O] takes 2·T·I·O. The first layer runs forwards only, the second back to its input, too.
    assert count.frozen == 2 * 10 * 3 * 5 + 2 * (2 * 10 * 5 * 7)
    first = 2 * 10 * 3 * 2 + 2 * 10 * 2 * 5  # x·A, ·B
    first += 2 * 10 * 5 * 2 + 2 * 10 * 5 * 2 + 2 * 10 * 2 * 3  # gradients of B, of the inner product, of A
    second = 2 * 10 * 5 * 2 + 2 * 10 * 2 * 7
    second += 2 * 10 * 7 * 2 + 2 * 10 * 7 * 2 + 2 * 10 * 2 * 5 + 2 * 10 * 2 * 5  # and of x
    assert count.lora == first + second
    assert count.head == 2 * (2 * 3 * 3 * 11)
    # Each of two layers: scores and values, [L, 4] × [4, L] and [L, L] × [L, 4], and four such products backwards.
    assert count.attention == 2 * 6 * (2 * 6 * 6 * 4 + 2 * 4 * 4 * 4)


def test_attention_is_counted_apart() -> None:
    count = floor.Operations(frozen=60, lora=10, head=5, attention=25)
    assert (count.counted, count.attention_share) == (75, 0.25)


def test_autograd_computes_what_is_counted() -> None:
    """Torch's own counter, on the products written out, with a first layer whose input needs no gradient."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    weights = [torch.randn(layer.outputs, layer.inputs) for layer in LINEARS]
    head = torch.randn(11, 3)
    factors = [
        (torch.randn(2, layer.inputs, requires_grad=True), torch.randn(layer.outputs, 2, requires_grad=True))
        for layer in LINEARS
    ]
    x, states = torch.randn(10, 3), torch.randn(3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        for weight, (a, b) in zip(weights, factors, strict=True):
            x = x @ weight.t() + x @ a.t() @ b.t()
        torch.autograd.backward(x.sum() + (states @ head.t()).sum())
    assert counter.get_total_flops() == floor.operations(SHAPE, [10], rank=2, masked=3).counted


def test_the_first_layers_q_k_v_are_found_by_name() -> None:
    layer = torch.nn.ModuleDict(
        {
            "self_attn": torch.nn.ModuleDict({"q_proj": torch.nn.Linear(2, 3), "o_proj": torch.nn.Linear(3, 2)}),
            "mlp": torch.nn.ModuleDict({"up_proj": torch.nn.Linear(2, 4)}),
        }
    )
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([layer])})

    class Config:
        hidden_size, vocab_size, num_hidden_layers, num_attention_heads = 6, 9, 1, 2

    shape = floor.shape_of(model, Config())
    assert shape.linears == (floor.Linear(2, 3, first=True), floor.Linear(3, 2), floor.Linear(2, 4))
    assert shape.attention == 6
    assert floor.product_rate(model, torch.randn(9, 2), tokens=4, masked=2) > 0


def _result() -> dict[str, Any]:
    """One workload of 100 tokens and 400 counted operations: 100 products a second allow 25 tokens a second."""
    work = {
        "stage": "mntp",
        "rows": 4,
        "length": 25,
        "tokens": 100,
        "seconds": {"unmask": [5.0, 4.0, 10.0], "llm2vec": [10.0, 12.5, 8.0], "unmask-undropped": [4.0, 4.0, 4.0]},
        "operations": {"frozen": 300, "lora": 60, "head": 40, "attention": 100},
        "products_per_second": [100.0, 120.0, 80.0],
        "peak": {"unmask": 2e9, "llm2vec": 3e9, "unmask-undropped": 1.9e9},
        "loaded": {"unmask": 1.5e9, "llm2vec": 1e9, "unmask-undropped": 1.5e9},
        "trained": {"unmask": 10, "llm2vec": 10, "unmask-undropped": 10},
        "first_loss": {"unmask": 6.25, "llm2vec": 6.5, "unmask-undropped": 6.25},
    }
    return {
        "date": "2026-01-02",
        "command": "make bench-train",
        "model": "a-model",
        "rounds": 3,
        "hardware": {"processor": "A processor", "threads": 2, "instructions": "AVX2"},
        "versions": {"unmask": "1.2.3"},
        "settings": {"seed": 7, "lora": {"rank": 16, "alpha": 32, "dropout": 0.05}},
        "workloads": {"mntp-25": work},
    }


def test_the_table_has_medians_ranges_ratios_and_memory() -> None:
    assert report.table(_result()).splitlines()[2:] == [
        "| **MNTP, 4 blocks of 25**: Unmask | 20 (10–25) |  | 2.00 GB | 0.50 GB |",
        "| Unmask, LoRA dropout 0 | 25 (25–25) | 0.80 × | 1.90 GB | 0.40 GB |",
        "| llm2vec | 10 (8–12) | 2.00 × | 3.00 GB | 2.00 GB |",
        "| the step's matrix products, alone | 25 (20–30) | 0.80 × | | |",
    ]


def test_the_verdict_says_plainly_whether_the_goal_is_met() -> None:
    result = _result()
    assert "2.00 ×, met; memory 0.67 × llm2vec's, met; 80% of the floor" in report.verdict(result)
    assert "20% of all operations" in report.verdict(result)
    work = result["workloads"]["mntp-25"]
    work["seconds"]["llm2vec"], work["peak"]["llm2vec"] = [7.0], 1.9e9
    assert "1.40 ×, **not met**; memory 1.05 × llm2vec's, **not met**" in report.verdict(result)


def test_sentences_are_counted_once_though_they_go_through_twice() -> None:
    work = {"stage": "simcse", "rows": 4, "length": 128, "tokens": 184}
    assert report.title(work) == "SimCSE, 4 sentences of 23, twice"


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "speed.md"
    file.write_text("# Speed\n\nAbove.\n<!-- train-speed -->\nold\n<!-- /train-speed -->\nBelow.\n")
    report.write(_result(), tmp_path)
    text = file.read_text()
    assert text.startswith("# Speed\n\nAbove.\n<!-- train-speed -->\n| one training step |")
    assert text.endswith("\n<!-- /train-speed -->\nBelow.\n")
    assert "old" not in text
    assert "llm2vec 6.500" in text
    assert (tmp_path / "train-speed.png").stat().st_size > 0

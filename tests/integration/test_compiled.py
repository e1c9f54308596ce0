"""Compiled layers: the same states as the model's own, and nothing compiled for how texts lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.integration.test_families import CASES, build
from unmask.backbone.attention import GIVEN, kernels_used
from unmask.backbone.backbone import Backbone
from unmask.backbone.compiled import SMALLEST, CompiledLayers, compiled_layers, padded, room_for, rooms
from unmask.backbone.float8 import on_processor
from unmask.backbone.layout import Layout
from unmask.errors import UnsupportedModelError

#: Two layers of a kind do not always share a graph: those with a window, or without rotation, are another kind.
KINDS = {"qwen2-window": 2, "gemma2": 2, "gemma3_text": 2, "smollm3": 2, "gpt_oss": 2}
#: Four rows of one padded size, of quite different layouts, and one of the next.
ROWS = [(5, 5, 9, 45), (3,) * 20 + (4,), (60, 68), (200, 56), (200, 57, 1)]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def ids_of(layout: Layout) -> torch.Tensor:
    return torch.arange(sum(layout.lengths)) * 17 % 300


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_a_layer_is_compiled_once_a_size_whatever_the_lengths(case: str) -> None:
    backbone = Backbone(build(case))
    layouts = [Layout(lengths) for lengths in ROWS]
    expected = [backbone.own_hidden(ids_of(layout), layout) for layout in layouts]
    own = list(backbone.model.layers)
    # What Dynamo keeps apart is the same with any backend; one that takes graphs apart as a GPU's does is slower.
    compiled = CompiledLayers(backbone.model, "aot_eager" if case in ("llama", "gpt_oss") else "eager")
    for layout, states in zip(layouts, expected, strict=True):
        assert (compiled(ids_of(layout), layout) - states).abs().max() < 1e-5
    assert counters["stats"]["unique_graphs"] == 2 * KINDS.get(case, 1)
    assert list(backbone.model.layers) == own


@pytest.mark.skipif(not on_processor(), reason="this torch has no such products on a processor")
@torch.inference_mode()
def test_eight_bit_layers_are_compiled_too() -> None:
    backbone = Backbone(build("llama"))
    backbone.to_float8()
    layout = Layout(ROWS[0])
    expected = backbone.own_hidden(ids_of(layout), layout)
    assert (CompiledLayers(backbone.model, "aot_eager")(ids_of(layout), layout) - expected).abs().max() < 1e-5


@pytest.mark.slow
@torch.inference_mode()
def test_the_code_that_torch_generates_gives_the_same() -> None:
    backbone = Backbone(build("gemma2"))
    layout = Layout(ROWS[0])
    expected = backbone.own_hidden(ids_of(layout), layout)
    assert (CompiledLayers(backbone.model)(ids_of(layout), layout) - expected).abs().max() < 1e-4


@torch.inference_mode()
def test_a_causal_row_stays_causal_behind_the_compiler() -> None:
    backbone = Backbone(build("llama"), bidirectional=False)
    compiled = CompiledLayers(backbone.model, "eager")
    layout = Layout((6, 3), causal=True)
    before = compiled(torch.arange(9), layout)
    after = compiled(torch.tensor([0, 1, 2, 3, 4, 99, 6, 7, 8]), layout)
    assert torch.equal(before[:5], after[:5])
    assert not torch.equal(before[5], after[5])


@torch.inference_mode()
def test_own_layers_come_back_when_a_pass_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone(build("llama"))
    own = list(backbone.model.layers)

    def broken(**_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(backbone.model, "forward", broken)
    with pytest.raises(torch.OutOfMemoryError):
        CompiledLayers(backbone.model, "eager")(torch.arange(9), Layout((9,)))
    assert list(backbone.model.layers) == own


@torch.inference_mode()
def test_what_does_not_compile_whole_is_an_error_and_no_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone(build("llama"))
    mlp = backbone.model.layers[1].mlp
    own = mlp.forward

    def in_two(states: torch.Tensor) -> Any:
        torch._dynamo.graph_break()
        return own(states)

    monkeypatch.setattr(mlp, "forward", in_two)
    with pytest.raises(UnsupportedModelError, match=r"cannot compile.*TORCHDYNAMO_DISABLE=1"):
        CompiledLayers(backbone.model, "eager")(torch.arange(9), Layout((9,)))


def test_torch_can_be_told_not_to_compile() -> None:
    backbone = Backbone(build("llama"))
    config: Any = torch._dynamo.config
    assert compiled_layers(backbone.model) is not None
    with config.patch(disable=True):
        assert compiled_layers(backbone.model) is None


@pytest.mark.parametrize(
    ("tokens", "room"), [(1, SMALLEST), (256, 256), (257, 512), (512, 512), (513, 1024), (32768, 32768)]
)
def test_rows_are_padded_to_a_few_sizes(tokens: int, room: int) -> None:
    assert room_for(tokens) == room
    layout = padded(Layout((1,) * tokens, causal=True))
    assert sum(layout.lengths) == room
    assert layout.lengths[:tokens] == (1,) * tokens
    assert max(layout.lengths) <= 64
    assert layout.causal


def test_the_sizes_up_to_a_budget() -> None:
    assert rooms(1) == [256]
    assert rooms(2048) == [256, 512, 1024, 2048]
    assert rooms(2049)[-1] == room_for(2049) == 4096


@torch.inference_mode()
def test_a_model_says_which_kernels_computed() -> None:
    backbone = Backbone(build("llama"))
    layout = Layout((9,))
    with kernels_used() as names:
        CompiledLayers(backbone.model, "eager")(torch.arange(9), layout)
    assert names == {"runs"}
    with pytest.raises(LookupError):
        backbone.model(input_ids=torch.arange(9)[None], position_ids=torch.arange(9)[None], layout=GIVEN)

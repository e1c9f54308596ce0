"""Linear layers in eight-bit floats: near the exact ones, for encoding alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.integration.test_families import build
from tests.tiny import write_base
from unmask import Encoder
from unmask.backbone import float8
from unmask.backbone.backbone import Backbone
from unmask.backbone.float8 import Float8Linear, convert, rounded
from unmask.backbone.loading import resolve_dtype
from unmask.errors import InputError, UnsupportedModelError
from unmask.training.lora import Lora
from unmask.training.trainee import Trainee

TEXTS = ["The cat sleeps in the house.", "A river runs through the valley", "one", "Trees grow slowly. " * 12]

#: torch before 2.13 multiplies row by row on a GPU alone.
on_processor = pytest.mark.skipif(not float8.on_processor(), reason="this torch has no such products on a processor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "model")


def test_each_row_has_a_scale_of_its_own() -> None:
    rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-6], [1], [1e4], [0], [1]])
    values, scale = rounded(rows)
    assert values.dtype == torch.float8_e4m3fn
    back = values.float() * scale
    # Three bits of mantissa: the nearest number is off by a sixteenth at most.
    assert ((back - rows).abs() <= rows.abs() / 16 + scale * 2**-10).all()
    assert (values[:3].float().abs().amax(dim=1) == 448).all()


@on_processor
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_gives_the_product_of_what_was_rounded(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=bias, dtype=dtype)
    x = torch.randn(2, 7, 64, dtype=dtype)
    values, scale = rounded(x.reshape(14, 64))
    weight, outputs = rounded(layer.weight.detach())
    expected = (values.float() * scale) @ (weight.float() * outputs).t()
    if bias:
        expected = expected + layer.bias.detach().float()
    out = Float8Linear(layer)(x)
    assert out.dtype == dtype
    assert out.shape == (2, 7, 32)
    assert (out.float().reshape(14, 32) - expected).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2)


@on_processor
def test_an_encoder_in_fp8_is_near_the_exact_one_and_packs_do_not_matter(folder: Path) -> None:
    exact, encoder = Encoder.load(folder).encode(TEXTS), Encoder.load(folder, dtype="fp8")
    assert encoder.backbone.float8 == 3
    kinds = [type(layer.mlp.down_proj) for layer in encoder.backbone.model.layers]
    assert kinds == [Float8Linear] * 3
    vectors = encoder.encode(TEXTS)
    cosines = (exact * vectors).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosines.min() > 0.99
    assert cosines.max() < 1 - 1e-7
    alone = np.stack([encoder.encode(text) for text in TEXTS])
    assert np.abs(alone - vectors).max() < 1e-5


def test_a_torch_without_products_of_rows_on_a_processor_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_tensors_alone(*_: object, scale_a: torch.Tensor, **__: object) -> None:
        raise RuntimeError(f"only per-tensor scaling, not {scale_a.numel()} scales")

    float8.on_processor.cache_clear()
    monkeypatch.setattr(torch, "_scaled_mm", of_tensors_alone)
    try:
        assert not float8.on_processor()
    finally:
        float8.on_processor.cache_clear()


class Grows(nn.Module):
    """A layer that makes one token's state so many times as large."""

    def __init__(self, growth: float, *, wrapped: bool = False) -> None:
        super().__init__()
        self.growth, self.wrapped = growth, wrapped

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor]:
        out = hidden_states.clone()
        out[:, 3] *= self.growth
        return (out,) if self.wrapped else out


@pytest.mark.parametrize(
    ("growth", "kept"),
    [
        ([1, 1, 1], 0),
        ([7.9, 1, 1], 0),
        ([8.1, 1, 1], 1),
        ([1, 100, 1], 2),
        ([36, 5, 10, 1, 1, 140, 1, 4], 6),  # what was noise before it decides who grows
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_layers_up_to_the_last_massive_activation_are_kept(
    growth: list[float], kept: int, wrapped: bool, named: bool
) -> None:
    layers = [Grows(each, wrapped=wrapped) for each in growth]

    def run() -> None:
        states = torch.ones(1, 5, 4)
        states[:, 0] = 0  # a token without a state has not grown
        for layer in layers:
            out = layer(hidden_states=states) if named else layer(states)
            states = out[0] if isinstance(out, tuple) else out

    assert float8.rises(layers, run) == kept
    assert not any(layer._forward_hooks for layer in layers)


def test_nothing_stays_on_the_layers_when_the_pass_fails() -> None:
    layers = [Grows(1)]
    with pytest.raises(ZeroDivisionError):
        float8.rises(layers, lambda: 1 // 0)
    assert not layers[0]._forward_hooks


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_model_keeps_them(bidirectional: bool) -> None:
    model = build("llama")
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight *= 3000
    backbone = Backbone(model, bidirectional=bidirectional)
    backbone.to_float8()
    assert backbone.float8 == 2
    kinds = [(type(layer.self_attn.q_proj), type(layer.self_attn.v_proj)) for layer in model.layers]
    assert kinds == [(nn.Linear, nn.Linear)] * 2 + [(Float8Linear, nn.Linear)] * 2


def test_names_that_are_spared_and_others_stay() -> None:
    layer = nn.ModuleDict({name: nn.Linear(16, 16) for name in ("q_proj", "k_proj", "v_proj", "gate")})
    assert convert([layer], ["q_proj", "k_proj", "v_proj"]) == 1
    assert isinstance(layer["q_proj"], Float8Linear)
    assert all(type(layer[name]) is nn.Linear for name in ("k_proj", "v_proj", "gate"))


def test_layers_of_odd_sizes_are_not_converted_and_none_at_all_is_an_error() -> None:
    layer = nn.ModuleDict({"q_proj": nn.Linear(24, 16), "o_proj": nn.Linear(16, 16)})
    assert convert([layer], ["q_proj", "o_proj"]) == 1
    assert type(layer["q_proj"]) is nn.Linear
    with pytest.raises(UnsupportedModelError, match="multiples of 16"):
        convert([nn.ModuleDict({"q_proj": nn.Linear(24, 16)})], ["q_proj"])
    with pytest.raises(UnsupportedModelError, match="behind the layers that make massive activations"):
        convert([], ["q_proj"])


@on_processor
@pytest.mark.parametrize("case", ["llama", "qwen3_moe", "gemma2", "phi3", "gpt_oss"])
def test_families_run_in_fp8(case: str) -> None:
    backbone = Backbone(build(case))
    ids = torch.arange(3, 60)
    from unmask.backbone.layout import Layout

    with torch.inference_mode():
        exact = backbone.hidden(ids, Layout((57,)))
        backbone = Backbone(build(case))
        backbone.to_float8()
        found = backbone.hidden(ids, Layout((57,)))
    assert torch.nn.functional.cosine_similarity(exact, found).min() > 0.95
    assert not torch.equal(exact, found)


# --- what it is not for ------------------------------------------------------------------------------


def test_a_device_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "on_processor", lambda: True)
    assert resolve_dtype("fp8", torch.device("cpu")) == float8.FORMAT
    monkeypatch.setattr(float8, "on_processor", lambda: False)
    with pytest.raises(InputError, match="needs a GPU with torch .*Use 'float32'"):
        resolve_dtype("fp8", torch.device("cpu"))
    with pytest.raises(InputError, match=r"fp8.*compute capability 9.0.*mps"):
        resolve_dtype("fp8", torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    with pytest.raises(InputError, match="NVIDIA A100. Use 'bfloat16'"):
        resolve_dtype("float8", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert resolve_dtype("fp8", torch.device("cuda")) == float8.FORMAT


@on_processor
def test_it_is_neither_saved_nor_trained_nor_given_an_adapter(folder: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(folder, dtype="fp8")
    with pytest.raises(InputError, match="Load it in 'bfloat16'"):
        encoder.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(InputError, match="bfloat16"):
        Trainee(encoder.backbone, Lora())
    with pytest.raises(InputError, match="merged"):
        Encoder.load(folder, dtype="fp8", merge_adapters=False)

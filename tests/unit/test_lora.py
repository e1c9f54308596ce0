"""The LoRA layer is peft's, number for number, and what is saved is peft's, file for file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from tests.tiny import LORA_TARGETS, tiny_model
from unmask.backbone.adapters import apply_adapter
from unmask.backbone.dropout import kept, random_bits
from unmask.errors import InputError
from unmask.training.lora import Lora, LoraLinear, adapters_of, attach, save_adapter

INPUTS, OUTPUTS, TOKENS = 24, 40, 11


def linear(*, bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(INPUTS, OUTPUTS, bias=bias, dtype=dtype)


def lora_linear(base: nn.Linear, **settings: Any) -> LoraLinear:
    """A layer whose B is not zero."""
    layer = LoraLinear(base, Lora(**{"rank": 4, "alpha": 6, "dropout": 0.0, **settings}))
    torch.manual_seed(2)
    with torch.no_grad():
        layer.lora_B.normal_(std=0.2)
    return layer


def peft_linear(base: nn.Linear, like: LoraLinear) -> nn.Module:
    """peft's layer on a copy of the same base, with the same A and B."""
    config = LoraConfig(r=4, lora_alpha=6, lora_dropout=0.0, target_modules=["0"])
    layer: nn.Module = get_peft_model(nn.Sequential(copy.deepcopy(base)), config).base_model.model[0]
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(like.lora_A)  # type: ignore[union-attr, index]
        layer.lora_B["default"].weight.copy_(like.lora_B)  # type: ignore[union-attr, index]
    return layer


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    """``[2, TOKENS, INPUTS]``."""
    return torch.randn(2, TOKENS, INPUTS, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()


def outcome(layer: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    """The output and the gradients on x, A and B."""
    y = layer(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(4)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, a, b], direction)]


# --- the layer -----------------------------------------------------------------------------------


def drop_mask(shape: torch.Size, rate: float, device: torch.device) -> Tensor:
    """True where an element is dropped."""
    return kept(random_bits(shape, device), rate, torch.float32) == 0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_layer_is_pefts(bias: bool, dtype: torch.dtype, tolerance: float) -> None:
    own = lora_linear(linear(bias=bias, dtype=dtype))
    theirs: Any = peft_linear(linear(bias=bias, dtype=dtype), own)
    got = outcome(own, inputs(dtype), own.lora_A, own.lora_B)
    expected = outcome(theirs, inputs(dtype), theirs.lora_A["default"].weight, theirs.lora_B["default"].weight)
    for mine, other in zip(got, expected, strict=True):
        assert mine.dtype == other.dtype
        assert float((mine - other).float().norm() / other.float().norm()) < tolerance
    assert got[2].dtype == torch.float32, "A is trained in float32 whatever the base is"


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_finite_differences(rate: float, bias: bool) -> None:
    base = nn.Linear(5, 7, bias=bias, dtype=torch.float64)  # every input is moved on its own
    layer = lora_linear(base, dropout=rate).double()

    def of(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        torch.manual_seed(5)  # the same mask each time
        out: Tensor = torch.func.functional_call(layer, {"lora_A": a, "lora_B": b}, x)
        return out

    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(of, (x, layer.lora_A, layer.lora_B), atol=1e-8, rtol=1e-7)


def test_input_without_gradient() -> None:
    """The first layer of a model whose embeddings are frozen."""
    layer = lora_linear(linear())
    layer(inputs().detach()).sum().backward()
    assert layer.lora_A.grad is not None
    assert layer.lora_B.grad is not None
    assert layer.base.weight.grad is None


def test_layer_begins_as_its_base() -> None:
    layer = LoraLinear(linear(), Lora(rank=4))
    assert torch.equal(layer(inputs()), layer.base(inputs()))


def test_layer_computes_in_its_own_format_under_autocast() -> None:
    """What ``accelerate launch --mixed_precision bf16`` does around a float32 base."""
    layer = lora_linear(linear(bias=True))
    expected = outcome(layer, inputs(), layer.lora_A, layer.lora_B)
    x = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    got = [y.detach(), *torch.autograd.grad(y, [x, layer.lora_A, layer.lora_B], direction)]
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other)


# --- layers with one input -------------------------------------------------------------------------


class _Attention(nn.Module):
    """What of a decoder's attention reads one input."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(6, out, bias=bias) for out in (6, 2, 4))
        self.config = None


def _attention(*, bias: bool, dropout: float = 0.0) -> tuple[_Attention, list[LoraLinear]]:
    torch.manual_seed(5)
    model = _Attention(bias=bias).double()
    attach(model, Lora(rank=3, alpha=6, dropout=dropout), ["q_proj", "k_proj", "v_proj"])
    layers = [layer for _, layer in adapters_of(model.double())]
    for layer in layers:
        nn.init.normal_(layer.lora_B)
    return model, layers


@pytest.mark.parametrize("bias", [False, True])
def test_layers_together_are_the_layers_alone(bias: bool) -> None:
    _, layers = _attention(bias=bias)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn(2, 5, layer.base.out_features, dtype=torch.float64) for layer in layers]
    parameters = [x, *(p for layer in layers for p in (layer.lora_A, layer.lora_B))]

    def run() -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
        outputs = [layer(x) for layer in layers]
        total = sum((weight * out).sum() for weight, out in zip(weights, outputs, strict=True))
        return outputs, torch.autograd.grad(total, parameters)

    together, gradients = run()
    assert len({id(out.grad_fn) for out in together}) == 1
    for layer in layers:
        layer.siblings = None
    alone, expected = run()
    assert len({id(out.grad_fn) for out in alone}) == 3
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(gradients, expected)


def test_layers_together_are_right_whatever_they_are_called_with_and_in_what_order() -> None:
    _, (q, k, v) = _attention(bias=False)
    x, y = torch.randn(2, 3, 6, dtype=torch.float64)

    def alone(layer: LoraLinear, given: torch.Tensor) -> torch.Tensor:
        return given @ (layer.base.weight + layer.scale * layer.lora_B @ layer.lora_A).t()

    for layer, given in ((v, x), (q, y), (k, x), (k, x), (q, x), (q, y), (v, y), (k, y)):
        torch.testing.assert_close(layer(given), alone(layer, given))


def test_layers_together_keep_nothing_when_all_have_been_called() -> None:
    _, layers = _attention(bias=False)
    siblings = layers[0].siblings
    assert siblings is not None
    assert all(layer.siblings is siblings for layer in layers)
    x = torch.randn(3, 6, dtype=torch.float64)
    for layer in layers:
        layer(x)
    assert siblings._of == {}


def test_gradients_of_layers_together_with_dropout_are_those_of_finite_differences() -> None:
    _, layers = _attention(bias=False, dropout=0.4)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)

    def run(given: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(9)
        return torch.cat([layer(given) for layer in layers], dim=1)

    assert torch.autograd.gradcheck(run, (x,))


# --- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_dropout_meets_its_rate(rate: float) -> None:
    torch.manual_seed(6)
    count = 1_000_003
    mask = drop_mask(torch.Size([count]), rate, torch.device("cpu"))
    assert mask.dtype == torch.bool
    assert float(mask.float().mean()) == pytest.approx(rate, abs=4 * (rate * (1 - rate) / count) ** 0.5)


def test_dropout_of_nearly_all() -> None:
    mask = drop_mask(torch.Size([1000]), 1 - 1e-9, torch.device("cpu"))
    assert float(mask.float().mean()) > 0.99


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (3, 5), (2, 3, 7)])
def test_dropout_of_any_shape(shape: tuple[int, ...]) -> None:
    assert drop_mask(torch.Size(shape), 0.5, torch.device("cpu")).shape == shape


def test_elements_are_dropped_independently() -> None:
    torch.manual_seed(7)
    mask = drop_mask(torch.Size([200_000]), 0.3, torch.device("cpu")).float() - 0.3
    for distance in (1, 2, 3, 4, 8):
        assert abs(float((mask[distance:] * mask[:-distance]).mean())) < 4 * 0.21 / 200_000**0.5


def test_dropout_is_unbiased() -> None:
    layer = lora_linear(linear(), dropout=0.3)
    x = inputs().detach()
    plain = layer.eval()(x).detach()
    layer.train()
    torch.manual_seed(8)
    draws = torch.stack([layer(x).detach() for _ in range(1000)])
    error = draws.std(dim=0) / 1000**0.5
    assert (draws[0] - plain).abs().max() > 0.1
    assert float((draws.mean(dim=0) - plain).abs().div(error).max()) < 5


def test_dropout_draws_from_torchs_generator() -> None:
    layer = lora_linear(linear(), dropout=0.3)

    def seeded(seed: int) -> Tensor:
        torch.manual_seed(seed)
        out: Tensor = layer(inputs()).detach()
        return out

    assert torch.equal(seeded(9), seeded(9))
    assert not torch.equal(seeded(9), seeded(10))


def test_no_dropout_and_no_draw_outside_training() -> None:
    layer = lora_linear(linear(), dropout=0.9).eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        expected = layer.base(inputs()) + layer.scale * inputs() @ layer.lora_A.T @ layer.lora_B.T
    torch.testing.assert_close(layer(inputs()), expected)
    assert torch.equal(torch.get_rng_state(), before)


# --- on a model ----------------------------------------------------------------------------------


def trained(**settings: Any) -> Any:
    """A tiny model with a LoRA that does something."""
    model = tiny_model("llama")
    attach(model, Lora(**{"rank": 4, "alpha": 6, **settings}), LORA_TARGETS)
    torch.manual_seed(11)
    for _, layer in adapters_of(model):
        nn.init.normal_(layer.lora_B, std=0.1)
    return model.eval()


def states(model: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(torch.arange(3, 40)[None]).last_hidden_state
    return out


def test_only_the_adapter_has_gradients() -> None:
    model = tiny_model("llama")
    count = attach(model, Lora(rank=4), ("q_proj", "down_proj"))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {
        f"layers.{layer}.{place}.lora_{part}"
        for layer in range(3)
        for place in ("self_attn.q_proj", "mlp.down_proj")
        for part in "AB"
    }
    assert count == 3 * (4 * (64 + 64) + 4 * (128 + 64))


def test_same_seed_same_adapter() -> None:
    torch.manual_seed(12)
    first = tiny_model("llama")
    attach(first, Lora(rank=4), LORA_TARGETS)
    torch.manual_seed(12)
    second = tiny_model("llama")
    attach(second, Lora(rank=4), LORA_TARGETS)
    for (_, one), (_, other) in zip(adapters_of(first), adapters_of(second), strict=True):
        assert torch.equal(one.lora_A, other.lora_A)


@pytest.mark.parametrize("targets", [LORA_TARGETS, ("v_proj",)])
def test_saved_adapter_loads_here_and_in_peft(tmp_path: Path, targets: tuple[str, ...]) -> None:
    settings = Lora(rank=4, alpha=6)
    model: Any = tiny_model("llama")
    attach(model, settings, targets)
    torch.manual_seed(11)
    for _, layer in adapters_of(model):
        nn.init.normal_(layer.lora_B, std=0.1)
    expected = states(model.eval())
    save_adapter(model, tmp_path, settings, base="owner/base")
    assert (expected - states(tiny_model("llama"))).abs().max() > 1e-2
    ours = apply_adapter(tiny_model("llama"), tmp_path).eval()
    torch.testing.assert_close(states(ours), expected, atol=1e-5, rtol=1e-5)
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):  # peft 0.21 on transformers 5
        theirs = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path))
    torch.testing.assert_close(states(theirs.eval()), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states(theirs.merge_and_unload()), expected, atol=1e-5, rtol=1e-5)


def test_saved_adapter_says_how_it_was_made(tmp_path: Path) -> None:
    settings = Lora(rank=4, alpha=6, dropout=0.25)
    save_adapter(trained(), tmp_path, settings, base="owner/base", dtype=torch.bfloat16)
    data = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    kept = {key: data[key] for key in ("r", "lora_alpha", "lora_dropout", "base_model_name_or_path", "bias")}
    assert kept == {
        "r": 4,
        "lora_alpha": 6,
        "lora_dropout": 0.25,
        "base_model_name_or_path": "owner/base",
        "bias": "none",
    }
    assert data["inference_mode"] is True
    assert data["target_modules"] == sorted(LORA_TARGETS)
    # A dtype of two bytes halves the file.
    size = sum(2 * parameter.numel() for parameter in trained().parameters() if parameter.requires_grad)
    assert size < (tmp_path / "adapter_model.safetensors").stat().st_size < 1.5 * size
    modes = {(tmp_path / name).stat().st_mode for name in ("adapter_config.json", "adapter_model.safetensors")}
    assert len(modes) == 1


@pytest.mark.parametrize("targets", [("q_proj", "query"), ("norm",), ("base",)])
def test_target_that_names_no_linear_layer(targets: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"lora.targets .'{targets[-1]}'. .*LlamaModel; expected .*down_proj.*v_proj"):
        attach(tiny_model("llama"), Lora(), targets)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "lora.rank is 0"),
        ({"alpha": 0}, "lora.alpha is 0"),
        ({"dropout": 1.0}, r"lora.dropout is 1.0; expected 0 ≤ dropout < 1"),
        ({"dropout": -0.1}, r"lora.dropout is -0.1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Lora(**settings)

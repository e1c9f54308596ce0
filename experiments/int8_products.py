"""Would int8 matrix products keep the vectors? Simulated, exactly as an AVX2 kernel would round.

    python experiments/int8_products.py [MODEL]

Weights: int8, one scale an output. Activations: one scale a token, so that a text's vector does not depend on its
neighbours in the pack; 7 bits, since AVX2 adds pairs of u8 × s8 products in 16 bits, and 8 bits for comparison. With
SmoothQuant's balance of input scales (arXiv 2211.10438, equation 4, alpha 0.5), calibrated on other texts. Prints the
cosine to the float32 vectors, for all linear layers and for each kind alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmask import Encoder
from unmask.corpora import short_mix, stdlib_docstrings

KINDS = {
    "q, k, v": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate, up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
KINDS |= {"all but down": sum((names for kind, names in KINDS.items() if kind != "down"), ())}
KINDS |= {"all": (*KINDS["all but down"], "down_proj")}


def rounded(values: Tensor, bits: int) -> Tensor:
    """Return ``values`` rounded to ``bits`` bits with one scale a row."""
    limit = 2 ** (bits - 1) - 1
    scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-12) / limit
    return (values / scale).round().clamp(-limit, limit) * scale


@contextmanager
def hooked(model: nn.Module, names: tuple[str, ...], make: Callable[[str, nn.Linear], Any]) -> Iterator[None]:
    """Put a forward hook on the linear layers of these names while the block runs."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rsplit(".", 1)[-1] in names]
    handles = [layer.register_forward_hook(make(name, layer)) for name, layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def main(model: str) -> None:
    """Print a line for each kind of layer."""
    encoder = Encoder.load(model)
    encoder.backbone.use_own_layers()  # hooks see the model's own layers only
    entries = stdlib_docstrings(keep=True)
    texts, others = short_mix(entries, 48), [entry.text for entry in entries[7::97]][:40]
    expected = encoder.encode(texts, tensor=True)
    largest: dict[str, Tensor] = {}

    def watch(name: str, _: nn.Linear) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> None:
            seen = inputs[0].abs().amax((0, 1))
            largest[name] = torch.maximum(largest.get(name, seen), seen)

        return hook

    with hooked(encoder.backbone.model, KINDS["all"], watch):
        encoder.encode(others)
    for kind, names in KINDS.items():
        for bits in (7, 8):

            def quantised(name: str, layer: nn.Linear, bits: int = bits) -> Any:
                weight = layer.weight.detach()
                balance = (largest[name].clamp_min(1e-5) / weight.abs().amax(0).clamp_min(1e-5)).sqrt()
                joined = rounded(weight * balance, 8)
                return lambda _module, inputs, _output: rounded(inputs[0] / balance, bits) @ joined.t()

            with hooked(encoder.backbone.model, names, quantised):
                vectors = encoder.encode(texts, tensor=True)
            cosine = torch.nn.functional.cosine_similarity(vectors, expected)
            print(f"{kind:14} {bits} bits: cosine min {cosine.min():.4f}, mean {cosine.mean():.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m")

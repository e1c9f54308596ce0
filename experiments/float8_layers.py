"""How close eight-bit linear layers come to the formats they stand in for, by what is kept as it is.

    python experiments/float8_layers.py [--model smollm2-135m-unsup] [--texts 160]

Quantiles of cosines over docstrings of the standard library. What is not rounded to eight bits is bfloat16,
as on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unmask import Encoder
from unmask.backbone import float8
from unmask.backbone.backbone import Backbone
from unmask.backbone.bidirectional import decoder_layers
from unmask.corpora import long_mix, short_mix, stdlib_docstrings

QUANTILES = (0, 0.01, 0.05, 0.25, 0.5)


def main() -> None:
    """Print lines for each way to compute."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-unsup")
    parser.add_argument("--texts", type=int, default=160)
    options = parser.parse_args()
    entries = stdlib_docstrings()
    long = options.texts // 4
    texts = short_mix(entries, options.texts - long) + long_mix(entries, long)
    print(f"{len(texts)} docstrings, {long} of them long, {options.model}")
    exact = Encoder.load(options.model, dtype="float32").encode(texts)
    half = Encoder.load(options.model, dtype="bfloat16").encode(texts)
    show("bfloat16", "float32", exact, half)
    show("float16", "float32", exact, Encoder.load(options.model, dtype="float16").encode(texts))
    for name, convert in WAYS.items():
        encoder = Encoder.load(options.model, dtype="bfloat16")
        encoder.backbone.use_own_layers()
        convert(encoder.backbone)
        found = encoder.encode(texts)
        show(f"fp8, {name}", "bfloat16", half, found)
        show(f"fp8, {name}", "float32", exact, found)


def keeping(kept: int, spared: Sequence[str] = ()) -> Callable[[Backbone], object]:
    """Return what converts all layers but the first so many, and all of their linear layers but those named."""

    def convert(backbone: Backbone) -> None:
        names = backbone.family.lora_targets if backbone.family else ()
        layers = list(decoder_layers(backbone.model, backbone.config.num_hidden_layers))
        float8.convert(layers[kept:], names, spared)

    return convert


WAYS = {
    "as it is loaded": Backbone.to_float8,
    "layers up to the last rise kept (12)": keeping(12),
    "4 layers kept, k and v": keeping(4, float8.SPARED),
    "4 layers kept": keeping(4),
    "none kept": keeping(0),
}


def show(name: str, of: str, exact: NDArray[np.float32], found: NDArray[np.float32]) -> None:
    """Print the quantiles of the cosines between rows."""
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (exact * found).sum(axis=1) / lengths
    cells = "  ".join(f"{100 * q:g} %: {np.quantile(cosines, q):.4f}" for q in QUANTILES)
    print(f"{name:42} to {of:8} {cells}  below 0.995: {(cosines < 0.995).sum()}", flush=True)


if __name__ == "__main__":
    main()

"""How close eight-bit linear layers come, by the number of layers that are kept as they are.

    python experiments/float8_layers.py [--model smollm2-135m-unsup] [--texts 100]

Quantiles of cosines over docstrings of the standard library. What is not rounded to eight bits is float32 here.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from unmask import Encoder
from unmask.backbone import float8
from unmask.backbone.bidirectional import decoder_layers
from unmask.corpora import long_mix, short_mix, stdlib_docstrings

QUANTILES = (0, 0.01, 0.05, 0.25, 0.5)


def main() -> None:
    """Print a line for each way to compute."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-unsup")
    parser.add_argument("--texts", type=int, default=100)
    options = parser.parse_args()
    entries = stdlib_docstrings()
    texts = short_mix(entries, options.texts // 2) + long_mix(entries, options.texts // 2)
    print(f"{len(texts)} docstrings, short and long ones, {options.model}")
    exact = Encoder.load(options.model, dtype="float32").encode(texts)
    half = Encoder.load(options.model, dtype="bfloat16").encode(texts)
    show("bfloat16 to float32", exact, half)
    for kept in (4, 0, 2, 8):
        encoder = Encoder.load(options.model, dtype="float32")
        names = encoder.backbone.family.lora_targets if encoder.backbone.family else ()
        layers = list(decoder_layers(encoder.backbone.model, encoder.backbone.config.num_hidden_layers))
        float8.convert(layers, names, kept)
        encoder.backbone.use_own_layers()
        found = encoder.encode(texts)
        show(f"fp8, first {kept} of {len(layers)} layers kept, to float32", exact, found)
        show(f"fp8, first {kept} of {len(layers)} layers kept, to bfloat16", half, found)


def show(name: str, exact: NDArray[np.float32], found: NDArray[np.float32]) -> None:
    """Print the quantiles of the cosines between rows."""
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (exact * found).sum(axis=1) / lengths
    cells = "  ".join(f"{100 * q:g} %: {np.quantile(cosines, q):.4f}" for q in QUANTILES)
    print(f"{name:50} {cells}", flush=True)


if __name__ == "__main__":
    main()

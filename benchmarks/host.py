"""How many texts a second the host can feed a device: all of encoding but the model, on this machine.

    python benchmarks/host.py [--model smollm2-135m-unsup] [--texts 20000]

Python holds one lock, so what it takes of a text bounds the texts a second of a process however many cores there are;
the tokenizer's own work runs on all of them. Both are timed, the median of three rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from unmask import Encoder, Text, pipeline
from unmask.backbone.layout import Layout
from unmask.backbone.memory import BUDGETS
from unmask.corpora import stdlib_docstrings
from unmask.hardware import hardware

LENGTHS = (16, 64, 128, 512)
ROUNDS = 3
#: Fewest texts of a round: more than one window.
LEAST = 2 * pipeline.WINDOW_TEXTS


def main() -> None:
    """Print a line for each length of text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-unsup")
    parser.add_argument("--texts", type=int, default=20_000, help="of 16 tokens; fewer where they are longer")
    options = parser.parse_args()
    encoder = without_model(options.model)
    words = " ".join(entry.text for entry in stdlib_docstrings()).split()
    print(f"{options.model} without its layers, {hardware(encoder.device)}; microseconds a text")
    print(f"{'tokens':>6} {'Python':>8} {'tokenizer':>10}   tokens a second that Python bounds a process to")
    for length in LENGTHS:
        texts = texts_of(encoder, words, length, max(LEAST, options.texts * LENGTHS[0] // length))
        found = [costs(encoder, texts) for _ in range(ROUNDS)]
        python, tokenizer = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"{length:6} {python * 1e6:8.1f} {tokenizer * 1e6:10.1f}   {length / python:,.0f}", flush=True)


def without_model(name: str) -> Encoder:
    """Return an encoder whose layers and pooling compute nothing, with the token budget of a GPU."""
    encoder = Encoder.load(name, device="cpu")
    encoder.backbone.use_own_layers()
    encoder.pipeline.token_budget = BUDGETS["cuda"]
    states = torch.zeros(2 * BUDGETS["cuda"], encoder.dimension)

    def hidden(ids_T: Tensor, layout: Layout) -> Tensor:
        layout.on(ids_T.device)  # a GPU's kernels read it
        return states[: len(ids_T)]

    def pool(hidden_TD: Tensor, *, lengths: Tensor, **_: object) -> Tensor:
        return states[: len(lengths)]

    encoder.backbone.hidden = hidden  # type: ignore[method-assign]
    vars(pipeline)["pool"] = pool
    return encoder


def texts_of(encoder: Encoder, words: list[str], length: int, count: int) -> list[str]:
    """Return texts of about ``length`` tokens each, cut from real prose."""
    a_word = len(encoder.tokenizer.backend.encode(" ".join(words[:4000])).ids) / 4000
    size = max(1, round(length / a_word))
    starts = range(0, count * 7, 7)
    return [" ".join(words[start % (len(words) - size) :][:size]) for start in starts]


def costs(encoder: Encoder, texts: list[str]) -> tuple[float, float]:
    """Return the seconds a text that Python takes in all threads, and those of the tokenizer on all cores."""
    checked = [Text("", text) for text in texts]
    tokenizer = encoder.pipeline.tokenizer
    encode: Callable[..., object] = tokenizer.literal.encode_batch_fast
    tokenising = library = 0.0
    for begin in range(0, len(texts), pipeline.WINDOW_TEXTS):
        window = slice(begin, begin + pipeline.WINDOW_TEXTS)
        library += seconds(lambda: encode(texts[window], add_special_tokens=False))  # noqa: B023 - called at once
        tokenising += seconds(lambda: tokenizer.tokenize(checked[window]))  # noqa: B023
    begun = time.thread_time()
    encoder.encode(texts)
    own = time.thread_time() - begun
    return (own + max(0.0, tokenising - library)) / len(texts), library / len(texts)


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

"""How fast: pure timing functions, for ``unmask bench`` and the benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unmask.backbone.float8 import Float8Linear, rounded
from unmask.encoder import Encoder
from unmask.text import Text


@dataclass(frozen=True, slots=True)
class Speed:
    """Texts and tokens over time.

    Attributes:
        texts: how many texts.
        tokens: how many tokens they had, template and special tokens included.
        seconds: how long they took.
    """

    texts: int
    tokens: int
    seconds: float

    @property
    def texts_per_second(self) -> float:
        """Return texts a second."""
        return self.texts / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Return tokens a second."""
        return self.tokens / self.seconds


def throughput(
    encode: Callable[[Sequence[str]], Any],
    texts: Sequence[str],
    *,
    tokens: int,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time an encoder on texts.

    Args:
        encode: turns texts into vectors and returns when they are done. It should have run before.
        texts: what to encode.
        tokens: how many tokens they have.
        repeats: how often; the median counts.
        clock: seconds, from any origin.
    """
    seconds = [_seconds(lambda: encode(texts), clock) for _ in range(repeats)]
    return Speed(len(texts), tokens, statistics.median(seconds))


def count_tokens(encoder: Encoder, texts: Sequence[str]) -> int:
    """Return how many tokens ``encoder`` computes for ``texts``."""
    tokenized = encoder.pipeline.tokenizer.tokenize([Text("", text) for text in texts])
    return sum(len(text.ids) for text in tokenized)


@torch.inference_mode()
def ceiling(model: nn.Module, tokens: int, *, repeats: int = 3) -> float:
    """Return the tokens a second at which this machine does the model's own matrix products and nothing else.

    Every linear layer's product is computed once, in order, on ``tokens`` rows of the model's dtype on
    its device: no attention, no norms, no activations, nothing joined or overlapped. An encoder that
    fuses products may come near it, or pass it.

    Args:
        model: the inner model, without its LM head.
        tokens: rows at a time, as many as the encoder packs into a forward pass.
        repeats: how often; the median counts.
    """
    products = _products(model, tokens)
    with _synchronised(next(model.parameters())) as wait:

        def all_products() -> None:
            for product in products:
                product()
            wait()

        seconds = [_seconds(all_products, time.perf_counter) for _ in range(repeats + 1)]
    return tokens / statistics.median(seconds[1:])  # the first one warms up


def _products(model: nn.Module, tokens: int) -> list[Callable[[], Tensor]]:
    """Return the product of each linear layer, in order, with inputs that are made, and rounded, beforehand."""
    like = next(model.parameters())
    products: list[Callable[[], Tensor]] = []
    rows: dict[int, Tensor] = {}
    eight: dict[int, tuple[Tensor, Tensor]] = {}
    for layer in model.modules():
        if not isinstance(layer, nn.Linear | Float8Linear):
            continue
        size = layer.in_features
        if size not in rows:
            rows[size] = torch.randn(tokens, size, device=like.device, dtype=like.dtype)
            eight[size] = rounded(rows[size])
        if isinstance(layer, Float8Linear):
            products.append(partial(layer.product, *eight[size], like.dtype))
        else:
            products.append(partial(linear, rows[size], layer.weight, layer.bias))
    return products


def _seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


@contextmanager
def _synchronised(tensor: Tensor) -> Iterator[Callable[[], None]]:
    """Yield a function that waits until the device of ``tensor`` has done its work."""
    module = getattr(torch, tensor.device.type, None)
    wait: Callable[[], None] = getattr(module, "synchronize", lambda: None)
    wait()
    yield wait

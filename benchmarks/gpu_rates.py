"""What a device does at most: its matrix products of a model's own sizes, and its copies, timed alone.

The products are those of a few layers' linear layers in their order, on as many rows as a pack has: more memory than
any cache holds. On a GPU they are recorded once and replayed, so that Python's pace does not count. Operands are
random: products of zeros run faster.

Shapes: T tokens, I inputs, O outputs of a layer.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from unmask.backbone.bidirectional import decoder_layers
from unmask.backbone.float8 import Float8Linear, rounded

#: Decoder layers whose products are timed.
_LAYERS = 4
#: Names of linear layers that read the same input, and may be computed as one.
_JOINED = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})


@dataclass(frozen=True, kw_only=True)
class Products:
    """Matrix products to be timed.

    Attributes:
        run: does all of them once.
        operations: of that, a multiply-add as two.
        wait: returns when the device has nothing left to do.
    """

    run: Callable[[], object]
    operations: float
    wait: Callable[[], None]

    def rate(self, least: float) -> float:
        """Return operations a second, over at least so many seconds."""
        self._timed(1)
        repeats = math.ceil(least / self._timed(1))
        return self.operations * repeats / self._timed(repeats)

    def _timed(self, repeats: int) -> float:
        self.wait()
        begun = time.perf_counter()
        for _ in range(repeats):
            self.run()
        self.wait()
        return time.perf_counter() - begun


def waiting(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until ``device`` has done its work."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


@torch.inference_mode()
def plain(model: PreTrainedModel, tokens: int, *, joined: bool) -> Products:
    """Return the products of a model's linear layers in its own format.

    Args:
        model: the inner model.
        tokens: T.
        joined: layers that read the same input as one product, as a version may compute them.
    """
    weights = _weights(model, joined=joined)
    rows = {weight.shape[1]: _random(tokens, weight.shape[1], weight) for weight in weights}

    def run() -> None:
        for weight in weights:
            torch.mm(rows[weight.shape[1]], weight.t())

    return _products(run, weights, tokens)


@torch.inference_mode()
def float8(model: PreTrainedModel, tokens: int) -> Products:
    """Return the products of a model's linear layers in eight bits, the inputs rounded beforehand."""
    # The first layers may be kept in bfloat16.
    layers = [layer for layer in _layers(model)[-_LAYERS:].modules() if isinstance(layer, Float8Linear)]
    dtype = torch.bfloat16 if layers[0].weight.is_cuda else torch.float32
    rows = {size: rounded(_random(tokens, size, layers[0].scale)) for size in {layer.in_features for layer in layers}}

    def run() -> None:
        for layer in layers:
            row, scale = rows[layer.in_features]
            torch._scaled_mm(
                row, layer.weight.t(), scale_a=scale, scale_b=layer.scale, out_dtype=dtype, use_fast_accum=True
            )

    return _products(run, [layer.weight for layer in layers], tokens)


def _products(run: Callable[[], object], weights: Sequence[Tensor], tokens: int) -> Products:
    device = weights[0].device
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        # What the graph reads must not be freed before it.
        run = _Replay(graph, run)
    return Products(run=run, operations=2.0 * tokens * sum(weight.numel() for weight in weights), wait=waiting(device))


@dataclass(frozen=True)
class _Replay:
    graph: torch.cuda.CUDAGraph
    recorded: Callable[[], object]

    def __call__(self) -> None:
        self.graph.replay()


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    return decoder_layers(model, model.config.num_hidden_layers)


def _weights(model: PreTrainedModel, *, joined: bool) -> list[Tensor]:
    found: list[tuple[str, Tensor]] = [
        (name.rpartition(".")[2], module.weight.detach())
        for name, module in _layers(model)[:_LAYERS].named_modules()
        if isinstance(module, nn.Linear)
    ]
    if not joined:
        return [weight for _, weight in found]
    groups: list[list[tuple[str, Tensor]]] = []
    for name, weight in found:
        together = groups and any({name, groups[-1][0][0]} <= names for names in _JOINED)
        if together and all(name != other for other, _ in groups[-1]):
            groups[-1].append((name, weight))
        else:
            groups.append([(name, weight)])
    return [torch.cat([weight for _, weight in group]) for group in groups]


def _random(rows: int, columns: int, like: Tensor) -> Tensor:
    return torch.randn(rows, columns, device=like.device, dtype=like.dtype)


def bandwidth(device: torch.device, size: int, *, repeats: int = 5) -> float:
    """Return bytes a second of a copy of ``size`` bytes on ``device``, those read and those written."""
    source = torch.randint(255, (size,), dtype=torch.uint8, device=device)
    target, wait = torch.empty_like(source), waiting(device)
    seconds = []
    for _ in range(repeats + 1):
        wait()
        begun = time.perf_counter()
        target.copy_(source)
        wait()
        seconds.append(time.perf_counter() - begun)
    return 2 * size / statistics.median(seconds[1:])

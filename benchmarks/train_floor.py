"""The floor of a training step: its matrix products, counted and timed.

    operations of a step ÷ operations a second of the model's own products, at the step's own sizes

Counted, a multiply-add as two: the frozen layers forwards and backwards to their inputs (they have no
gradients of their own), the LoRA's products forwards, and backwards to A, B and the input; the LM head at the
masked positions, forwards and backwards. Where nothing before a layer is trained, backwards to its input is
left out: so in q, k and v of the first layer. Left out: attention's products (counted apart), norms, rotation,
activations, dropout, softmax, losses, the optimiser. Timed are the products of frozen layers and head; the
LoRA's are thin and run slower than the rate that is assumed for them, so the floor is a little low.

Shapes: T tokens, I inputs, O outputs of a layer, R rank, M masked positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Linear:
    """Sizes of a linear layer; ``first``: its input depends on nothing that is trained."""

    inputs: int
    outputs: int
    first: bool = False


@dataclass(frozen=True)
class Shape:
    """What is to be known of a model.

    Attributes:
        linears: its linear layers, without the head.
        hidden: D.
        vocabulary: V.
        layers: how many decoder layers.
        attention: width of all query heads together.
    """

    linears: tuple[Linear, ...]
    hidden: int
    vocabulary: int
    layers: int
    attention: int


@dataclass(frozen=True)
class Operations:
    """Operations of one step, a multiply-add as two."""

    frozen: float
    lora: float
    head: float
    attention: float

    @property
    def counted(self) -> float:
        """Those of the floor: all but attention's."""
        return self.frozen + self.lora + self.head

    @property
    def attention_share(self) -> float:
        """Attention's, as a share of all."""
        return self.attention / (self.counted + self.attention)


def shape_of(model: nn.Module, config: Any) -> Shape:
    """Return the shape of a decoder of transformers; the first layer's q, k and v read what nobody trains."""
    return Shape(
        linears=tuple(Linear(layer.in_features, layer.out_features, first) for first, layer in _linears(model)),
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        attention=config.num_attention_heads * _head_size(config),
    )


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _linears(model: nn.Module) -> Iterator[tuple[bool, nn.Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name.startswith("layers.0.self_attn") and "o_proj" not in name, module


def operations(shape: Shape, lengths: Sequence[int], *, rank: int, masked: float = 0) -> Operations:
    """Count one step.

    Args:
        shape: of the model.
        lengths: tokens of each text that goes through the model, both views of SimCSE.
        rank: R of the LoRA on every linear layer.
        masked: M; 0 without a head.
    """
    tokens = sum(lengths)
    frozen = sum((2 if layer.first else 4) * layer.inputs * layer.outputs for layer in shape.linears)
    # Forwards x·A and ·B; backwards the gradients of B, of the inner product, of A, and of x.
    lora = sum(2 * rank * ((2 if layer.first else 3) * layer.inputs + 3 * layer.outputs) for layer in shape.linears)
    # Forwards Q·K and P·V; backwards the gradients of both factors of each.
    attention = 3 * 4 * shape.layers * shape.attention * sum(length * length for length in lengths)
    head = 4 * masked * shape.hidden * shape.vocabulary
    return Operations(frozen=frozen * tokens, lora=lora * tokens, head=head, attention=attention)


@torch.inference_mode()
def product_rate(
    model: nn.Module, head_VD: Tensor | None, *, tokens: int, masked: int, repeats: int = 1, warm: bool = False
) -> float:
    """Return operations a second of the frozen products of one pass, forwards and backwards, nothing between them.

    Args:
        model: the inner model; its own weights are multiplied, one layer after the other.
        head_VD: weight of the LM head, None without one.
        tokens: rows at a time, as many as a pass of the training step has.
        masked: rows of the head.
        repeats: how often; the median counts.
        warm: it has run before; otherwise it runs once more, first, which does not count.
    """
    work = [(layer.weight, tokens, not first) for first, layer in _linears(model)]
    if head_VD is not None and masked:
        work.append((head_VD, masked, True))
    count = sum((4 if backwards else 2) * rows * weight.numel() for weight, rows, backwards in work)
    sizes = {(rows, size) for weight, rows, _ in work for size in weight.shape}
    operands = {size: torch.randn(size, device=work[0][0].device, dtype=work[0][0].dtype) for size in sizes}
    seconds = [_seconds_of(work, operands) for _ in range(repeats + (not warm))]
    return count / statistics.median(seconds[-repeats:])


def _seconds_of(work: Sequence[tuple[Tensor, int, bool]], operands: dict[tuple[int, int], Tensor]) -> float:
    _wait(work[0][0])
    begun = time.perf_counter()
    for weight, rows, _ in work:
        operands[rows, weight.shape[1]] @ weight.t()
    for weight, rows, backwards in reversed(work):
        if backwards:
            operands[rows, weight.shape[0]] @ weight
    _wait(work[0][0])
    return time.perf_counter() - begun


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)

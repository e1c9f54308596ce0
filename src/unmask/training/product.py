"""The arithmetic of LoRA layers as one node of autograd: ``y = x Wᵀ + (α / r) · drop(x) Aᵀ Bᵀ`` (arXiv 2106.09685).

peft's layer makes four tensors of the size of its output or input on the way and keeps a float mask for
each dropout; here the product with A and B is added into the base's output in place, and backward keeps
nothing but the input, the r-wide product and two bytes of dropout an element.

Layers that read the same input, such as a query's, a key's and a value's, are one node together: the input meets all
A in one product, one dropout mask serves them, and the gradient of the input is summed inside the products.

Shapes: T tokens, I inputs, O outputs, R rank, S ranks of all layers of a node.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unmask.backbone.dropout import kept, random_bits


class Products(torch.autograd.Function):
    """Layers with one input, each ``(weight, bias, A, B)``; gradients for x, A and B only, the bases are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, rate: float, *layers: Tensor | None) -> tuple[Tensor, ...]:
        """Return the output of each layer, ``[…, O]`` for ``x`` ``[…, I]``, in its base's number format."""
        weights, biases, a_parts, b_parts = layers[0::4], layers[1::4], layers[2::4], layers[3::4]
        dtype = weights[0].dtype  # type: ignore[union-attr]
        x_TI = x.reshape(-1, x.shape[-1]).to(dtype)
        a_SI = torch.cat([a.to(dtype) for a in a_parts])  # type: ignore[union-attr]
        b_OR = [b.to(dtype) for b in b_parts]  # type: ignore[union-attr]
        bits = random_bits(x_TI.shape, x.device) if rate else None
        inner_TS = (x_TI if bits is None else kept(bits, rate, dtype).mul_(x_TI)) @ a_SI.t()
        # What survives dropout grows by 1 / (1 - rate); here that is a part of the scale.
        ctx.scale, ctx.rate = scale / (1 - rate), rate
        ctx.ranks = [b.shape[1] for b in b_OR]
        ctx.save_for_backward(x_TI, a_SI, inner_TS, bits, *weights, *b_OR)
        outputs = []
        inner = torch.split(inner_TS, ctx.ranks, dim=1)
        for weight, bias, inner_TR, b in zip(weights, biases, inner, b_OR, strict=True):
            y_TO = x_TI @ weight.t() if bias is None else torch.addmm(bias, x_TI, weight.t())  # type: ignore[union-attr]
            outputs.append(y_TO.addmm_(inner_TR, b.t(), alpha=ctx.scale).view(*x.shape[:-1], -1))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the forward's arguments."""
        x_TI, a_SI, inner_TS, bits, *rest = ctx.saved_tensors
        weights, b_OR = rest[: len(gradients)], rest[len(gradients) :]
        y_TO = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        inner_gradient_TS = torch.cat([y @ b for y, b in zip(y_TO, b_OR, strict=True)], dim=1).mul_(ctx.scale)
        kept_TI = None if bits is None else kept(bits, ctx.rate, x_TI.dtype)
        a_gradient = inner_gradient_TS.t() @ (x_TI if kept_TI is None else kept_TI * x_TI)
        a_gradients = torch.split(a_gradient, ctx.ranks)
        inner = torch.split(inner_TS, ctx.ranks, dim=1)
        b_gradients = [(y.t() @ part).mul_(ctx.scale) for y, part in zip(y_TO, inner, strict=True)]
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = y_TO[0] @ weights[0]
            for y, weight in zip(y_TO[1:], weights[1:], strict=True):
                x_gradient.addmm_(y, weight)
            if kept_TI is None:
                x_gradient.addmm_(inner_gradient_TS, a_SI)
            else:
                x_gradient.addcmul_(inner_gradient_TS @ a_SI, kept_TI)
            x_gradient = x_gradient.view(*gradients[0].shape[:-1], -1)
        # Autograd casts each to the number format of what it belongs to.
        layers = zip(a_gradients, b_gradients, strict=True)
        return (x_gradient, None, None, *(each for a, b in layers for each in (None, None, a, b)))

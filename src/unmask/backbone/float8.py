"""Linear layers in eight-bit floats: half the bytes of bfloat16, twice the rate of its products on a GPU that has them.

Weights are rounded once, when the model is loaded, each output with a scale of its own; inputs are rounded in every
call, each token with its own. A product of rows so scaled is exact but for the rounding: nothing of one token touches
another, so a vector does not depend on its neighbours in the pack.

The format is e4m3 (arXiv 2209.05433, table 1): three bits of mantissa, largest number 448.

Shapes: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from unmask.errors import InputError, UnsupportedModelError

FORMAT: Final = torch.float8_e4m3fn
_LARGEST: Final = torch.finfo(FORMAT).max
#: Least scale of a row: one of zeros has to be divided by something.
_LEAST: Final = 1e-12
#: A layer in which a token's state grows by more than this makes massive activations: a few huge components, on some
#: tokens, on which all later layers rest (arXiv 2402.17762). In SmolLM2-135M states grow 60- to 175-fold there, and no
#: more than 4-fold in the layers behind (experiments/LOG.md).
RISE: Final = 8.0
#: Linear layers that are not converted: with grouped heads they are a few hundredths of the operations, and cause a
#: third of the error (experiments/LOG.md).
SPARED: Final = ("k_proj", "v_proj")
#: Inputs and outputs must be multiples of this (``torch._scaled_mm``).
_STEP: Final = 16
#: NVIDIA's first GPUs whose tensor cores multiply this format row by row: compute capability 9.0 (Hopper).
_CAPABILITY: Final = (9, 0)


def check_device(device: torch.device) -> None:
    """Refuse a device without products of this format.

    Raises:
        InputError: it is neither a CPU, where they are computed slowly, nor a GPU that has them.
    """
    if device.type == "cpu":
        if not on_processor():
            raise InputError(
                f"dtype 'fp8' needs a GPU with torch {torch.__version__}, which cannot compute it on a processor; "
                "torch 2.13 can. Use 'float32'."
            )
        return
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY:
        return
    have = device.type if device.type != "cuda" else torch.cuda.get_device_name(device)
    raise InputError(
        f"dtype 'fp8' needs an NVIDIA GPU of compute capability 9.0 or more (H100, H200, B200); this device is {have}. "
        "Use 'bfloat16'."
    )


@cache
def on_processor() -> bool:
    """Return whether torch has the product for a CPU; one that has it for a scale in all raises."""
    rows, scale = rounded(torch.ones(_STEP, _STEP))
    try:
        torch._scaled_mm(rows, rows.t(), scale_a=scale, scale_b=scale.t(), out_dtype=torch.float32)
    except RuntimeError:
        return False
    return True


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to eight bits.

    Args:
        rows: ``[n, m]``.

    Returns:
        ``[n, m]`` in :data:`FORMAT`, and the scale of each row, ``[n, 1]`` float32.
    """
    scale = rows.abs().amax(dim=-1, keepdim=True).float().clamp_min(_LEAST) / _LARGEST
    return (rows.float() / scale).clamp(-_LARGEST, _LARGEST).to(FORMAT), scale


class Float8Linear(nn.Module):
    """A linear layer whose product is in eight bits.

    Attributes:
        weight: ``[O, I]`` in :data:`FORMAT`.
        scale: of each output, ``[1, O]`` float32.
        bias: as it was, or None.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = rounded(layer.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.t().contiguous())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[…, O]`` for ``[…, I]``, in the format of ``x``."""
        out = self.product(*rounded(x.flatten(0, -2)), x.dtype)
        if self.bias is not None:
            out = out + self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def product(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """Return ``[T, O]`` in ``dtype`` for rows that are rounded, ``[T, I]``, and their scales, ``[T, 1]``."""
        # torch has no public name for it yet.
        out: Tensor = torch._scaled_mm(
            rows, self.weight.t(), scale_a=scale, scale_b=self.scale, out_dtype=dtype, use_fast_accum=True
        )
        return out


@torch.inference_mode()
def rises(layers: Sequence[nn.Module], run: Callable[[], object]) -> int:
    """Return the number of layers up to the last one that makes massive activations.

    Whether a token gets them can hang on the rounding of all that comes before; so these layers are kept as they are.

    Args:
        layers: the model's decoder layers.
        run: calls them all, on some tokens.
    """
    found = [0]

    def look(number: int, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        before = _norms(given[0] if given else named["hidden_states"])
        after = _norms(out[0] if isinstance(out, tuple) else out)
        if bool((after > RISE * before).any()):
            found.append(number)

    hooks = [
        layer.register_forward_hook(partial(look, number), with_kwargs=True)
        for number, layer in enumerate(layers, start=1)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return max(found)


def _norms(states: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(states.float(), dim=-1)
    return norms


def convert(layers: Sequence[nn.Module], names: Sequence[str], spared: Sequence[str] = SPARED) -> int:
    """Put eight-bit layers in the place of linear ones, in place, and return how many.

    Args:
        layers: decoder layers.
        names: last parts of the names of the linear layers: those that an adapter would train. Routers of experts,
            small and decisive, are none of them, nor are experts that are kept in one tensor.
        spared: names that stay as they are.

    Raises:
        UnsupportedModelError: there is none that could be converted.
    """
    wanted = set(names) - set(spared)
    found = [
        (parent, name, module)
        for layer in layers
        for parent in layer.modules()
        for name, module in parent.named_children()
        if name in wanted and isinstance(module, nn.Linear)
        if module.in_features % _STEP == 0 and module.out_features % _STEP == 0
    ]
    if not found:
        raise UnsupportedModelError(
            f"None of this model's linear layers can be computed in fp8: it needs some of {', '.join(sorted(wanted))} "
            f"behind the layers that make massive activations, their sizes multiples of {_STEP}. Use dtype 'bfloat16'."
        )
    for parent, name, module in found:
        setattr(parent, name, Float8Linear(module))
    return len(found)

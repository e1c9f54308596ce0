"""LoRA for training: ``y = x Wᵀ + (α / r) · drop(x) Aᵀ Bᵀ`` (arXiv 2106.09685), in one step of autograd.

peft's layer makes four tensors of the size of its output or input on the way and keeps a float mask for
each dropout; here the product with A and B is added into the base's output in place, and backward keeps
nothing but the input, the r-wide product and two bytes of dropout an element. Files are peft's own format, and
:func:`unmask.backbone.adapters.apply_adapter` reads them back.

Shapes: T tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from unmask.backbone.adapters import WEIGHTS_FILE
from unmask.errors import InputError

#: What peft puts before a module's name in its files.
_PREFIX: Final = "base_model.model."
_STEPS: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The adapter to train.

    Attributes:
        rank: R.
        alpha: the product is scaled by ``alpha / rank``.
        dropout: share of the inputs of A that is dropped in training.
        targets: names of the linear layers it is put on; None: those of the model's family.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.05
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank is {self.rank}; expected at least 1.")
        if not 0 < self.alpha < math.inf:
            raise InputError(f"lora.alpha is {self.alpha}; expected more than 0.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout}; expected 0 ≤ dropout < 1.")


def random_bits(shape: torch.Size, device: torch.device) -> Tensor:
    """Return sixteen random bits an element, int16, drawn from torch's generator of ``device``."""
    words = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-shape.numel() // 4),), device=device)
    return words.view(torch.int16)[: shape.numel()].view(shape)


def kept(bits: Tensor, rate: float, dtype: torch.dtype) -> Tensor:
    """Return 0 for the share ``rate`` of the elements, which is dropped, and 1 for the others, in ``dtype``.

    The rate is met to 1/65,536. Bits and a comparison into floats take a tenth of the time of ``bernoulli_`` on a
    CPU, where that took a fifth of a training step, and multiplying by the result a sixth of ``masked_fill``'s.
    """
    # 65,536 of 65,536 would be a number that 16 bits do not hold.
    least = min(round(rate * _STEPS), _STEPS - 1) - _STEPS // 2
    return torch.ge(bits, least, out=torch.empty(bits.shape, dtype=dtype, device=bits.device))


class _Product(torch.autograd.Function):
    """The whole layer as one node; gradients for x, A and B only, the base is frozen."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float, rate: float
    ) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        a_RI, b_OR = a_RI.to(weight.dtype), b_OR.to(weight.dtype)
        bits = random_bits(x_TI.shape, x.device) if rate else None
        inner_TR = (x_TI if bits is None else kept(bits, rate, x_TI.dtype).mul_(x_TI)) @ a_RI.t()
        y_TO = x_TI @ weight.t() if bias is None else torch.addmm(bias, x_TI, weight.t())
        # What survives dropout grows by 1 / (1 - rate); here that is a part of the scale.
        ctx.scale = scale / (1 - rate)
        y_TO.addmm_(inner_TR, b_OR.t(), alpha=ctx.scale)
        ctx.rate = rate
        ctx.save_for_backward(x_TI, weight, a_RI, b_OR, inner_TR, bits)
        return y_TO.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_TI, weight, a_RI, b_OR, inner_TR, bits = ctx.saved_tensors
        kept_TI = None if bits is None else kept(bits, ctx.rate, x_TI.dtype)
        y_TO = gradient.reshape(-1, gradient.shape[-1])
        inner_gradient_TR = (y_TO @ b_OR).mul_(ctx.scale)
        b_gradient = (y_TO.t() @ inner_TR).mul_(ctx.scale)
        a_gradient = inner_gradient_TR.t() @ (x_TI if kept_TI is None else kept_TI * x_TI)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = y_TO @ weight
            if kept_TI is None:
                x_gradient.addmm_(inner_gradient_TR, a_RI)
            else:
                x_gradient.addcmul_(inner_gradient_TR @ a_RI, kept_TI)
            x_gradient = x_gradient.view(*gradient.shape[:-1], -1)
        # Autograd casts each to the number format of what it belongs to.
        return x_gradient, None, None, a_gradient, b_gradient, None, None


class LoraLinear(nn.Module):
    """A frozen linear layer with a LoRA on it; A and B are float32 whatever the base is.

    Attributes:
        base: the frozen layer.
        lora_A: ``[R, I]``, drawn as peft draws it.
        lora_B: ``[O, R]``, zero at first: the layer begins as its base.
    """

    def __init__(self, base: nn.Linear, settings: Lora) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(settings.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, settings.rank, device=device))
        self.scale = settings.alpha / settings.rank
        self.dropout = settings.dropout
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[…, O]`` for ``[…, I]``, in the base's number format, whatever autocast would choose."""
        rate = self.dropout if self.training else 0.0
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
                x, self.base.weight, self.base.bias, self.lora_A, self.lora_B, self.scale, rate
            )
        return out


def attach(model: PreTrainedModel, settings: Lora, targets: Sequence[str]) -> int:
    """Put a LoRA on the linear layers of ``model`` called ``targets``, freeze the rest, return the trainable number.

    Raises:
        InputError: a target names no linear layer of the model.
    """
    model.requires_grad_(requires_grad=False)
    found: set[str] = set()
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if last in targets and isinstance(module, nn.Linear):
            setattr(model.get_submodule(parent), last, LoraLinear(module, settings))
            found.add(last)
    if missing := sorted(set(targets) - found):
        linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        raise InputError(
            f"lora.targets {missing} name no linear layer of {type(model).__name__}; "
            f"expected some of {', '.join(sorted(linear - {'base'} | found))}."
        )
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def adapters_of(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Yield the name and layer of each LoRA on ``model``."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return A and B of each LoRA on ``model``, on the CPU, by their names in peft's files.

    Where they are sharded (FSDP) they are gathered, which takes all processes: each calls this.
    """
    return {
        f"{_PREFIX}{name}.{part}.weight": _whole(getattr(layer, part).detach()).cpu()
        for name, layer in adapters_of(model)
        for part in ("lora_A", "lora_B")
    }


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def save_adapter(
    model: PreTrainedModel,
    folder: Path,
    settings: Lora,
    *,
    base: str,
    dtype: torch.dtype = torch.float32,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the LoRA of ``model`` to ``folder`` as peft would: configuration and tensors.

    Args:
        model: the inner model that :func:`attach` changed.
        folder: exists.
        settings: what it was attached with.
        base: name of what it was trained on, so that the adapter can be loaded alone.
        dtype: number format of the tensors in the file.
        tensors: what :func:`adapter_tensors` gave, if one process of several writes; None: taken from ``model``.
    """
    tensors = adapter_tensors(model) if tensors is None else tensors
    targets = {name.rpartition(".")[2] for name, _ in adapters_of(model)}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(targets),
        base_model_name_or_path=base,
        inference_mode=True,
        bias="none",
    )
    config.target_modules = sorted(targets)  # peft made a set of them, whose order changes from run to run
    config.save_pretrained(str(folder))
    file = folder / WEIGHTS_FILE
    file.touch()
    mode = file.stat().st_mode
    save_file(
        {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"}
    )
    file.chmod(mode)  # safetensors 0.8 writes files that only their owner may read

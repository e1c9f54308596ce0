"""LoRA for training (arXiv 2106.09685): put on a model, taken off it as a file of peft's format.

:func:`unmask.backbone.adapters.apply_adapter` reads the files back; the arithmetic is in
:mod:`unmask.training.product`.

Shapes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from unmask.backbone.adapters import WEIGHTS_FILE
from unmask.errors import InputError
from unmask.training.product import Products

#: What peft puts before a module's name in its files.
_PREFIX: Final = "base_model.model."
#: Layers that decoders of transformers call one after the other with the same input.
_SIBLINGS: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


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


class _Siblings:
    """Layers that are called one after the other with the same input: the first call computes for all.

    Each output is handed out once. A layer called with another input computes for all anew, so a model that calls
    them otherwise is slower, never wrong. Threads that run the model at once have outputs of their own.
    """

    def __init__(self, layers: Sequence[LoraLinear]) -> None:
        self._layers = tuple(layers)
        #: By thread: the input, and the outputs that wait for their layers.
        self._of: dict[int, tuple[Tensor, dict[LoraLinear, Tensor]]] = {}

    def output(self, layer: LoraLinear, x: Tensor) -> Tensor:
        """Return what ``layer`` makes of ``x``."""
        thread = threading.get_ident()
        seen, waiting = self._of.get(thread, (None, {}))
        if seen is not x or layer not in waiting:
            waiting = dict(zip(self._layers, _products(x, self._layers), strict=True))
            self._of[thread] = x, waiting
        out = waiting.pop(layer)
        if not waiting:
            del self._of[thread]
        return out


def _products(x: Tensor, layers: Sequence[LoraLinear]) -> tuple[Tensor, ...]:
    """Return the output of each layer for ``x``, whatever number format autocast would choose."""
    first = layers[0]
    rate = first.dropout if first.training else 0.0
    parts = [part for layer in layers for part in (layer.base.weight, layer.base.bias, layer.lora_A, layer.lora_B)]
    with torch.autocast(x.device.type, enabled=False):
        outputs: tuple[Tensor, ...] = Products.apply(x, first.scale, rate, *parts)  # type: ignore[no-untyped-call]
    return outputs


class LoraLinear(nn.Module):
    """A frozen linear layer with a LoRA on it; A and B are float32 whatever the base is.

    Attributes:
        base: the frozen layer.
        lora_A: ``[R, I]``, drawn as peft draws it.
        lora_B: ``[O, R]``, zero at first: the layer begins as its base.
        siblings: layers that read the same input, computed together; None for a layer alone.
    """

    def __init__(self, base: nn.Linear, settings: Lora) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(settings.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, settings.rank, device=device))
        self.scale = settings.alpha / settings.rank
        self.dropout = settings.dropout
        self.siblings: _Siblings | None = None
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[…, O]`` for ``[…, I]``, in the base's number format."""
        if self.siblings is None:
            (out,) = _products(x, [self])
            return out
        return self.siblings.output(self, x)


def attach(model: PreTrainedModel, settings: Lora, targets: Sequence[str]) -> int:
    """Put a LoRA on the linear layers of ``model`` called ``targets``, freeze the rest, return the trainable number.

    Raises:
        InputError: a target names no linear layer of the model.
    """
    found = find_targets(model, targets)
    model.requires_grad_(requires_grad=False)
    for name, module in found:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, LoraLinear(module, settings))
    for names in _SIBLINGS:
        _join(model, names)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def find_targets(model: PreTrainedModel, targets: Sequence[str]) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers of ``model`` called ``targets``, each with its whole name.

    Raises:
        InputError: a target names no linear layer of the model.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    known = {name.rpartition(".")[2] for name, _ in linear}
    if missing := sorted(set(targets) - known):
        raise InputError(
            f"lora.targets {missing} name no linear layer of {type(model).__name__}; "
            f"expected some of {', '.join(sorted(known))}."
        )
    return [(name, module) for name, module in linear if name.rpartition(".")[2] in targets]


def _join(model: nn.Module, names: Sequence[str]) -> None:
    """Let layers of these names that stand in one module, and read inputs of one size, be computed together."""
    for module in model.modules():
        layers = [layer for name in names if isinstance(layer := getattr(module, name, None), LoraLinear)]
        if len(layers) > 1 and len({layer.base.in_features for layer in layers}) == 1:
            siblings = _Siblings(layers)
            for layer in layers:
                layer.siblings = siblings


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

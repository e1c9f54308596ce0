"""The LM head of a base, which encoders do not need and MNTP does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from unmask.backbone.backbone import Backbone
from unmask.errors import CheckpointError

_NAME: Final = "lm_head.weight"
_BIAS: Final = "lm_head.bias"
_INDEX: Final = "model.safetensors.index.json"


def read_head(backbone: Backbone, source: Path) -> tuple[Tensor, Tensor | None]:
    """Return the LM head: ``[V, D]`` and, where it has one, its bias ``[V]``, as the backbone's weights are.

    Args:
        backbone: the inner model; many share the head's weight with their embeddings.
        source: the folder or file it was loaded from.

    Raises:
        CheckpointError: the head is a weight of its own, and is not there.
    """
    if getattr(backbone.config, "tie_word_embeddings", False):
        return _whole(backbone.model.get_input_embeddings().weight), None
    file = _file_of(_NAME, source)
    if file is None:
        raise CheckpointError(
            f"{source} holds no {_NAME}, which MNTP predicts tokens with: it was saved without its LM head. "
            "Give the base as it was published."
        )
    bias = _file_of(_BIAS, source)
    return _read(_NAME, file, backbone), None if bias is None else _read(_BIAS, bias, backbone)


def _whole(weight: Any) -> Tensor:
    """Return a weight that may be spread over several devices; every process calls this."""
    tensor: Tensor = weight.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _read(name: str, file: Path, backbone: Backbone) -> Tensor:
    with safe_open(file, framework="pt") as tensors:
        tensor: Tensor = tensors.get_tensor(name)
    return tensor.to(backbone.device, backbone.dtype)


def _file_of(name: str, source: Path) -> Path | None:
    """Return the file in the folder ``source`` that holds a tensor."""
    if not source.is_dir():
        return None
    index = source / _INDEX
    if index.is_file():
        shard = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name)
        return source / shard if shard else None
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - not a dict
                return file
    return None

"""The LM head of a base, which encoders do not need and MNTP does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, cast

from safetensors import safe_open
from torch import Tensor

from unmask.backbone.loading import Backbone
from unmask.errors import CheckpointError

_NAME: Final = "lm_head.weight"
_INDEX: Final = "model.safetensors.index.json"


def head_weight(backbone: Backbone, source: Path) -> Tensor:
    """Return the weight of the LM head, ``[V, D]`` in the backbone's dtype and on its device.

    Args:
        backbone: the inner model; many share the head's weight with their embeddings.
        source: the folder or file it was loaded from.

    Raises:
        CheckpointError: the head is a weight of its own, and is not there.
    """
    if getattr(backbone.config, "tie_word_embeddings", False):
        return cast("Tensor", backbone.model.get_input_embeddings().weight).detach()
    file = _file_of_head(source)
    if file is None:
        raise CheckpointError(
            f"{source} holds no {_NAME}, which MNTP predicts tokens with: it was saved without its LM head. "
            "Give the base as it was published."
        )
    with safe_open(file, framework="pt") as tensors:
        return cast("Tensor", tensors.get_tensor(_NAME)).to(backbone.device, backbone.dtype)


def _file_of_head(source: Path) -> Path | None:
    if not source.is_dir():
        return None
    index = source / _INDEX
    if index.is_file():
        shard = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(_NAME)
        return source / shard if shard else None
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if _NAME in tensors.keys():  # noqa: SIM118 - not a dict
                return file
    return None

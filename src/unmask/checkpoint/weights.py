"""A model's tensors → safetensors files, adapters merged on the way."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from unmask.checkpoint.files import INDEX_FILE

#: Largest file of weights, in bytes.
SHARD_BYTES: Final = 5_000_000_000
_METADATA: Final = {"format": "pt"}


@torch.no_grad()
def merged_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the model's tensors by their names in a checkpoint, its adapter layers merged.

    The model stays as it is. Tensors are the model's own where nothing was merged.
    """
    merged = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not any(name.startswith(f"{layer}.") for layer in merged)
    }
    for name, module in merged.items():
        layer = copy.deepcopy(module)
        layer.merge()
        tensors |= {f"{name}.{key}": tensor for key, tensor in layer.get_base_layer().state_dict().items()}
    converted: dict[str, Tensor] = revert_weight_conversion(model, tensors)
    return converted


def write_weights(folder: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors to one file, or above ``shard_bytes`` to several and an index."""
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        _save(shards[0], folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _save(shard, folder / name)
        places |= dict.fromkeys(shard, name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _shards(tensors: Mapping[str, Tensor], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    # Weights of fused layers are views of joined ones, which safetensors would not write.
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    file.touch()
    mode = file.stat().st_mode
    save_file(owned, file, metadata=_METADATA)
    file.chmod(mode)  # safetensors 0.8 writes files that only their owner may read

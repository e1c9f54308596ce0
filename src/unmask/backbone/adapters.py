"""LoRA adapters: read, checked key by key, applied in order, merged or kept.

A library that finds no module for an adapter's keys ignores them and says nothing; the model is then
the base alone. Here every key must find its module, and every module its key.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from unmask.errors import AdapterError

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."


def apply_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put the adapter of ``folder`` on ``model``, whose linear layers are changed in place.

    Adapters saved from a causal LM and from its inner model differ by one ``model.`` level in their
    keys; both are understood.

    Args:
        model: an inner model, without LM head.
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns:
        The model in peft's wrapper; ``merge_and_unload()`` gives it back with the adapter merged.

    Raises:
        AdapterError: a file is missing or damaged, the adapter is not a LoRA, a key has no module, a
            module no key, or a shape does not match.
    """
    config, state = read_adapter(folder)
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 for an attribute by its old name.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            wrapped = PeftModel(model, config)
    except ValueError as error:
        raise AdapterError(
            f"Adapter {folder} targets {_shown(config.target_modules)}, which {type(model).__name__} "
            "does not have. Apply it to the base it was trained on."
        ) from error
    # "auto" would look the base up on the hub to compare vocabularies.
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    state = _rename(state, expected)
    _check(folder, state, expected)
    set_peft_model_state_dict(wrapped, state)
    return wrapped


def read_adapter(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return the configuration and tensors of the adapter in ``folder``."""
    try:
        data = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        kind = str(data.get("peft_type"))
        if kind != "LORA":
            raise AdapterError(f"Adapter {folder} is of type {kind}; expected LORA.")
        known = PeftConfig.from_peft_type(**{**data, "inference_mode": True, "task_type": None})
        return known, load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError as error:
        lacking = Path(str(error.filename or WEIGHTS_FILE)).name
        raise AdapterError(f"Adapter {folder} lacks {lacking}; expected {CONFIG_FILE} and {WEIGHTS_FILE}.") from error
    except (json.JSONDecodeError, SafetensorError, TypeError) as error:
        raise AdapterError(f"Adapter {folder} is damaged: {error}. Fetch it again.") from error


def _rename(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with keys as ``expected`` has them, whichever model class it was saved from."""
    bare = {key.removeprefix(_PREFIX): tensor for key, tensor in state.items()}
    candidates = (bare, {key.removeprefix("model."): tensor for key, tensor in bare.items()})
    renamed = [{_PREFIX + key: tensor for key, tensor in names.items()} for names in candidates]
    return max(renamed, key=lambda names: len(names.keys() & expected.keys()))


def _check(folder: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise AdapterError(
            f"Adapter {folder} does not fit its base: {len(missing)} keys missing ({_shown(missing)}), "
            f"{len(unexpected)} unexpected ({_shown(unexpected)}). Apply it to the base it was trained on."
        )
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise AdapterError(
                f"Adapter {folder} does not fit its base: {key} has shape {tuple(tensor.shape)}, the base "
                f"wants {tuple(expected[key].shape)}. Apply it to the base it was trained on."
            )


def _shown(names: Iterable[str] | None) -> str:
    ordered = sorted(names or ())
    return ", ".join(ordered[:3]) + (" …" if len(ordered) > 3 else "") or "none"

"""A folder or GGUF file, and adapters → a backbone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from unmask.backbone import attention, float8
from unmask.backbone.adapters import apply_adapter
from unmask.backbone.backbone import Backbone
from unmask.backbone.families import family_of
from unmask.errors import CheckpointError, InputError, UnsupportedModelError

DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": float8.FORMAT,
}


def load_backbone(
    source: Path,
    *,
    adapters: Sequence[Path] = (),
    bidirectional: bool = True,
    device: torch.device,
    dtype: torch.dtype,
    merge_last: bool = True,
) -> Backbone:
    """Load a base, apply adapters in order, and prove that the result attends as it should.

    Args:
        source: a folder with ``config.json`` and weights, or a GGUF file.
        adapters: adapter folders; all are merged but, if ``merge_last`` is false, the last.
        bidirectional: whether every token sees the whole text.
        device: where the model lies.
        dtype: its number format. Eight bits are for the linear layers alone; all else is then in the device's own.
        merge_last: merge the last adapter as well.

    Raises:
        CheckpointError: files are missing or damaged, or do not hold all of the model's weights.
        AdapterError: an adapter does not fit.
        BackboneError: the model cannot be run, or a proof failed.
    """
    attention.register()
    stored = resolve_dtype("auto", device) if dtype == float8.FORMAT else dtype
    if dtype == float8.FORMAT and not merge_last:
        raise InputError("dtype 'fp8' needs adapters merged; an adapter kept apart is for training, in 'bfloat16'.")
    model = _load_gguf(source, stored) if source.is_file() else _load_folder(source, stored)
    adapter = None
    for number, folder in enumerate(adapters, start=1):
        adapter = apply_adapter(model, folder)
        if merge_last or number < len(adapters):
            model, adapter = adapter.merge_and_unload(), None
    backbone = Backbone(model.to(device), bidirectional=bidirectional, adapter=adapter)
    if dtype == float8.FORMAT:
        backbone.to_float8()
    return backbone


def read_config(folder: Path) -> PreTrainedConfig:
    """Read ``config.json`` of ``folder``; code that it names is never run.

    Raises:
        CheckpointError: there is no such file, or it is not a model's configuration.
        UnsupportedModelError: the model type is unknown here, or cannot be bidirectional.
    """
    try:
        data, _ = PreTrainedConfig.get_config_dict(str(folder), local_files_only=True)
    except OSError as error:
        raise CheckpointError(f"{folder} has no readable config.json. Give a folder of a language model.") from error
    data.pop("auto_map", None)
    model_type = data.pop("model_type", None)
    if model_type is None:
        raise CheckpointError(f"config.json of {folder} names no model_type; expected that of a language model.")
    family_of(model_type)
    try:
        config = AutoConfig.for_model(model_type, **data)
    except ValueError as error:
        raise UnsupportedModelError(
            f"Models of type {model_type!r} are unknown to the installed transformers. Upgrade it, or choose "
            "another base; code from a repository is never run."
        ) from error
    text_config = config.get_text_config(decoder=True)
    family_of(text_config.model_type)
    return text_config


def _load_folder(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = read_config(folder)
    _check_safetensors(folder)
    return _from_pretrained(folder, config=config, dtype=dtype)


def _load_gguf(file: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load a GGUF file into a fresh, unquantised model, which can be saved like any other."""
    with redirect_stderr(StringIO()):  # transformers' own bar, which nothing else turns off
        loaded = _from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    config = AutoConfig.for_model(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    model: PreTrainedModel = AutoModel.from_config(config, dtype=dtype, attn_implementation=attention.NAME)
    model.load_state_dict(loaded.state_dict())
    return model


def _from_pretrained(folder: Path, **options: Any) -> PreTrainedModel:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        model, report = AutoModel.from_pretrained(
            str(folder),
            attn_implementation=attention.NAME,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise CheckpointError(
            f"{folder} does not hold all weights of {type(model).__name__}: {len(lacking)} missing or of another "
            f"shape ({', '.join(lacking[:3])}). Fetch it again."
        )
    loaded: PreTrainedModel = model
    return loaded


def _check_safetensors(folder: Path) -> None:
    """Refuse cut-off files, whose header promises more bytes than there are."""
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
            if size < 8 or header > size - 8:
                raise CheckpointError(f"{file} is cut off: it has {size} bytes. Fetch it again.")
            entries = _parse_header(file, stream.read(header))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        expected = 8 + header + max(ends, default=0)
        if size != expected:
            raise CheckpointError(f"{file} is cut off: it has {size} of {expected} bytes. Fetch it again.")


def _parse_header(file: Path, header: bytes) -> dict[str, Any]:
    try:
        entries: dict[str, Any] = json.loads(header)
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: its header is not JSON. Fetch it again.") from error
    return entries


def resolve_device(device: str) -> torch.device:
    """Return the device named, or for ``auto`` the best at hand: CUDA, MPS, CPU.

    Raises:
        InputError: there is no such device.
    """
    if device == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} is not available: {str(error).splitlines()[0]} Use 'auto' or 'cpu'."
        ) from error
    return chosen


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the number format named, or for ``auto`` bfloat16 on CUDA and float32 elsewhere."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    name = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}.get(dtype, dtype)
    if name not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; expected 'auto', {', '.join(map(repr, DTYPES))}.")
    if DTYPES[name] == float8.FORMAT:
        float8.check_device(device)
    return DTYPES[name]

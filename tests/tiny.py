"""Tiny models, tokenizers and checkpoint folders, all made from code.

Nothing here is random and nothing is downloaded: every weight comes from a
generator seeded by the parameter's own name, and every tokenizer is learnt from
a few dozen sentences. So two machines, or two releases of
transformers (4.44 and 5), build the very same files. That is what lets the golden
vectors of ``tests/parity`` do without a single committed weight.

The module needs torch, transformers, tokenizers, safetensors and numpy, and nothing
of Unmask: the script that runs the reference library imports it too.

    folder = write_base(tmp_path / "base", tokenizer="llama3")       # a plain model
    published = write_published(tmp_path, tokenizer="llama3")        # base + two LoRAs
    model = tiny_model("qwen2", bidirectional=True)                  # in memory

Dimension letter: R, the rank of a LoRA.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from tests.tiny_tokenizer import tiny_tokenizer, write_tokenizer

__all__ = [
    "Published",
    "fill_adapter",
    "fill_weights",
    "fingerprint",
    "tiny_config",
    "tiny_model",
    "tiny_settings",
    "tiny_tokenizer",
    "write_adapter",
    "write_base",
    "write_home",
    "write_published",
    "write_tokenizer",
]

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Families that refuse a config without a sliding window.
WINDOWED = frozenset({"cohere2", "gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "olmo3"})
LLM2VEC_CONFIG = {
    "pooling_mode": "mean",
    "max_length": 512,
    "doc_max_length": 400,
    "skip_instruction": True,
}


# ------------------------------------------------------------------ weights


def _normals(seed: int, name: str, shape: Iterable[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return standard normals that depend on nothing but the seed and the name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    return generator.standard_normal(tuple(shape))


def fill_weights(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Overwrite every parameter, in place, and switch to evaluation mode.

    Matrices and biases get 0.08 times a standard normal, norm weights 1 plus 0.1 times one. The
    inner decoder's values are the same with and without an LM head.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            normals = _normals(seed, name.removeprefix("model."), parameter.shape)
            is_norm = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(torch.from_numpy(1 + 0.1 * normals if is_norm else 0.08 * normals))
    model.train(mode=False)
    return model


def fill_adapter(
    model: PreTrainedModel, *, rank: int, seed: int, targets: Sequence[str] = LORA_TARGETS
) -> dict[str, torch.Tensor]:
    """Return LoRA tensors for the inner decoder under the names peft writes, none of them zero.

    Each target gives ``…lora_A.weight`` [R, in] and ``…lora_B.weight`` [out, R], 0.1 times normals.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in targets:
            prefix = f"base_model.model.{name.removeprefix('model.')}"
            shapes = {"lora_A": (rank, module.in_features), "lora_B": (module.out_features, rank)}
            for part, shape in shapes.items():
                key = f"{prefix}.{part}.weight"
                tensors[key] = torch.from_numpy(0.1 * _normals(seed, key, shape)).float()
    return tensors


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, shapes and float32 bits, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------ models


def tiny_settings(model_type: str = "llama", **overrides: Any) -> dict[str, Any]:
    """Return the content of a ``config.json`` as transformers 4 wrote it; `overrides` win."""
    settings: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": 600,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_dropout": 0.0,
        "sliding_window": 8 if model_type in WINDOWED else None,
        "tie_word_embeddings": False,
        "use_cache": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        "torch_dtype": "float32",
    }
    return settings | overrides


def tiny_config(model_type: str = "llama", **overrides: Any) -> PretrainedConfig:
    """Return the config object of :func:`tiny_settings`."""
    settings = tiny_settings(model_type, **overrides)
    config: PretrainedConfig = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return config


def tiny_model(
    model_type: str = "llama",
    *,
    seed: int = 0,
    head: bool = False,
    bidirectional: bool = False,
    **overrides: Any,
) -> PreTrainedModel:
    """Return a filled model in evaluation mode.

    `head` adds the LM head; `bidirectional` needs transformers 5.
    """
    config = tiny_config(model_type, **overrides)
    if bidirectional:
        config.is_causal = False
    maker: Any = AutoModelForCausalLM if head else AutoModel
    model: PreTrainedModel = maker.from_config(config)
    return fill_weights(model, seed)


# ------------------------------------------------------------------ folders


def _model_settings(model_type: str, kind: str, name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``config.json`` that goes with a tokenizer and carries a base's name."""
    tokenizer = tiny_tokenizer(kind)
    fitting = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    named = {"_name_or_path": name} if name else {}
    return named | tiny_settings(model_type, **(fitting | dict(overrides)))


def write_base(
    folder: Path,
    model_type: str = "llama",
    *,
    tokenizer: str = "llama3",
    name: str = "",
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Write a causal-LM folder: config, weights with the LM head, tokenizer.

    `name` goes to ``config.json`` as ``_name_or_path``: by it the reference picks its template.
    """
    settings = _model_settings(model_type, tokenizer, name, overrides)
    model = tiny_model(**_buildable(settings), seed=seed, head=True)
    settings["architectures"] = [type(model).__name__]
    write_tokenizer(folder, tokenizer)
    _write_json(folder / "config.json", settings)
    save_file(
        {key: value.clone().contiguous() for key, value in model.state_dict().items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def _buildable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config class is made from: the settings less the base's name."""
    return {key: value for key, value in settings.items() if key != "_name_or_path"}


def write_adapter(
    folder: Path,
    model: PreTrainedModel,
    *,
    base: str,
    rank: int,
    alpha: int,
    seed: int,
    targets: Sequence[str] = LORA_TARGETS,
) -> Path:
    """Write the config and the weights of a LoRA over the inner decoder, as peft names them."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "revision": None,
        "target_modules": list(targets),
        "task_type": None,
    }
    _write_json(folder / "adapter_config.json", settings)
    tensors = fill_adapter(model, rank=rank, seed=seed, targets=targets)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@dataclass(frozen=True)
class Published:
    """The three folders of a published checkpoint."""

    base: Path
    """The base model, weights and all."""
    mntp: Path
    """Config with remote code and the base's name, tokenizer, first LoRA; no base weights."""
    simcse: Path
    """Second LoRA and ``llm2vec_config.json``."""


def write_published(
    root: Path,
    model_type: str = "llama",
    *,
    tokenizer: str = "llama3",
    name: str = "",
    seed: int = 0,
    **overrides: Any,
) -> Published:
    """Write a published checkpoint under `root`: a base and two folders with a LoRA each.

    The first has rank 4 and alpha 8, the second rank 2 and alpha 6. The remote code that the first
    one's ``config.json`` points to is there, and raises when it is run.
    """
    arguments: dict[str, Any] = {"tokenizer": tokenizer, "name": name, "seed": seed}
    base = write_base(root / "base", model_type, **arguments, **overrides)
    mntp, simcse = root / "base-mntp", root / "base-mntp-unsup-simcse"
    settings = _model_settings(model_type, tokenizer, name, overrides)
    model = tiny_model(**_buildable(settings), seed=seed)
    class_name = f"{model_type.capitalize()}EncoderModel"
    code = f"modeling_{model_type}_encoder"
    write_tokenizer(mntp, tokenizer)
    settings |= {"architectures": [class_name], "auto_map": {"AutoModel": f"{code}.{class_name}"}}
    _write_json(mntp / "config.json", settings)
    (mntp / f"{code}.py").write_text('raise RuntimeError("remote code was run")\n', encoding="utf-8")
    write_adapter(mntp, model, base=str(base), rank=4, alpha=8, seed=seed + 1)
    write_adapter(simcse, model, base=str(base), rank=2, alpha=6, seed=seed + 2)
    _write_json(simcse / "llm2vec_config.json", LLM2VEC_CONFIG)
    return Published(base=base, mntp=mntp, simcse=simcse)


def write_home(folder: Path, **overrides: Any) -> Path:
    """Write a cache folder in which the short names of our own encoders are tiny models.

    The base is in ``models``; the adapters that else come with the package are in ``encoders``, which the caller
    puts in the place of ``unmask.hub.locate.SHIPPED``.
    """
    base = "smollm2-135m"
    write_base(folder / "models" / base, **overrides)
    model = tiny_model(**_buildable(_model_settings("llama", "llama3", "", overrides)))
    for seed, stage in enumerate(("mntp", "unsup", "sup"), start=1):
        under = base if stage == "mntp" else f"{base}-mntp"
        write_adapter(folder / "encoders" / f"{base}-{stage}", model, base=under, rank=4, alpha=8, seed=seed)
    return folder


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

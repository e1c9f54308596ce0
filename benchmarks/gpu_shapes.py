"""Shapes that the GPU benchmark measures, and models of them with random weights, made on the device.

Time depends on a model's sizes, not on what its weights say. Vectors are another matter: rounding errors of random
weights are those of the format and the sizes, not those of a trained model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from train_gpu import LARGE
from transformers import AutoModel, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from unmask import Encoder
from unmask.backbone.backbone import Backbone
from unmask.checkpoint import Checkpoint, Settings
from unmask.text import BARE
from unmask.tokenizers import from_transformers

#: Most tokens of a text.
MAX_LENGTH: Final = 512


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One model's sizes, and how much of it is measured.

    Attributes:
        title: what it is called in the table.
        fields: of its Llama configuration.
        texts: of each mix, by its name: a length in tokens, or ``real``. They are measured in this order.
        budgets: token budgets to try, all on the first half of the first mix.
        on_cpu: compare its vectors with those of this machine's processor in float32: it is small enough for that.
    """

    title: str
    fields: dict[str, Any]
    texts: Mapping[str, int]
    budgets: tuple[int, ...]
    on_cpu: bool = False


#: Several packs a mix, so that the last, smaller one counts little, and some seconds a round for all who take turns.
SHAPES: Final[dict[str, Shape]] = {
    "llama-3-8b": Shape(
        title="Llama-3-8B",
        fields={**LARGE, "rope_theta": 500000.0},
        texts={"real": 1024, "512": 128, "16": 2048, "64": 512, "128": 256},
        budgets=(4096, 8192, 16384, 32768, 65536),
    ),
    "llama-3.2-1b": Shape(
        title="Llama-3.2-1B",
        fields={
            **LARGE,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "head_dim": 64,
            "rope_theta": 500000.0,
        },
        texts={"real": 2048, "16": 4096, "512": 256, "64": 1024, "128": 512},
        budgets=(16384, 32768, 65536),
    ),
    "smollm2-135m": Shape(
        title="SmolLM2-135M",
        fields={
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rope_theta": 100000.0,
        },
        texts={"real": 4096, "16": 8192, "512": 1024, "64": 4096, "128": 2048},
        budgets=(16384, 32768, 65536),
        on_cpu=True,
    ),
    "tiny": Shape(
        title="a tiny Llama",
        fields={
            "vocab_size": 1024,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
        },
        texts={"real": 32, "16": 32},
        budgets=(512, 1024),
        on_cpu=True,
    ),
}


def random_model(fields: Mapping[str, Any], device: torch.device, *, seed: int) -> PreTrainedModel:
    """Return an inner Llama with random weights, made on ``device``: bfloat16 on a GPU, else float32."""
    torch.manual_seed(seed)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model = AutoModel.from_config(LlamaConfig(**fields, tie_word_embeddings=True), dtype=dtype)
    made: PreTrainedModel = model.to(device).eval()
    return made


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """Return another model on the same weights, with a configuration and modules of its own."""
    shared: dict[int, Any] = {id(weight): weight for weight in model.parameters()}
    return copy.deepcopy(model, shared)


def padded_twin(model: PreTrainedModel) -> PreTrainedModel:
    """Return a twin that sees both ways on torch's attention over padded batches, for those who know no packs."""
    other = twin(model)
    other.config.is_causal = False
    other.set_attn_implementation("sdpa")
    return other


def encoder_of(backbone: Backbone, tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """Return an encoder as one that was loaded: mean pooling, no template."""
    settings = Settings(
        pooling="mean",
        max_length=MAX_LENGTH,
        pool_instruction=False,
        append_eos=False,
        bidirectional=True,
        normalize=False,
        template=BARE,
    )
    nowhere = Checkpoint(layout="made here", base=Path(), tokenizer=Path())
    return Encoder(backbone, from_transformers(tokenizer), settings, nowhere)

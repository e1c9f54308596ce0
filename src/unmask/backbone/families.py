"""Everything that depends on a model family: one row each.

A family is a ``model_type`` of transformers. A row says which template its instruct models were
trained with, which linear layers an adapter trains, and which of transformers' own attention
functions is exact for it (the yardstick of the proofs). A model type without a row may still run: it
is then held to all the proofs of :mod:`unmask.backbone.bidirectional` when it is loaded. The model
types of :data:`REFUSED` are not tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from unmask.errors import UnsupportedModelError
from unmask.text import BARE, Template

#: The templates of llm2vec 0.2.3 (``LLM2Vec.prepare_for_tokenization``), without the BOS that
#: the tokenizers add themselves.
TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType(
    {
        "bare": BARE,
        "llama3": Template("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        "inst": Template("[INST] ", " [/INST]"),
        "gemma": Template("<start_of_turn>user\n", "<end_of_turn>"),
        "chatml": Template("<|im_start|>user\n", "<|im_end|>"),
    }
)

_SEPARATE: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_FUSED: Final = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, kw_only=True)
class Family:
    """What Unmask knows of one model type.

    Attributes:
        templates: ``(mark, name)``: a model whose chat template contains the mark is wrapped in the
            template of that name. None matches: the text stands bare.
        lora_targets: linear layers that an adapter trains.
        exact_attention: transformers' attention function that computes this family exactly.
        eos_text: ``(EOS token, string)``: what end-of-text pooling appends where that is not the EOS token
            itself (llm2vec 0.2.3 puts a space before ``</s>``).
    """

    templates: tuple[tuple[str, str], ...] = ()
    lora_targets: tuple[str, ...] = _SEPARATE
    exact_attention: str = "sdpa"
    eos_text: tuple[tuple[str, str], ...] = ()


_SPACED_EOS: Final = (("</s>", " </s>"),)

FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "llama": Family(templates=(("<|start_header_id|>", "llama3"), ("[INST]", "inst")), eos_text=_SPACED_EOS),
        "mistral": Family(templates=(("[INST]", "inst"),), eos_text=_SPACED_EOS),
        "mixtral": Family(lora_targets=_ATTENTION),
        "qwen2": Family(templates=(("<|im_start|>", "chatml"),)),
        "qwen3": Family(),
        "qwen3_moe": Family(lora_targets=_ATTENTION),
        "gemma": Family(),
        "gemma2": Family(templates=(("<start_of_turn>", "gemma"),), exact_attention="eager"),
        "gemma3_text": Family(),
        "phi3": Family(lora_targets=_FUSED),
        "smollm3": Family(),
        "olmo2": Family(),
        "granite": Family(),
        "gpt_oss": Family(lora_targets=_ATTENTION, exact_attention="eager"),
    }
)

_RECURRENT: Final = "some of its layers are recurrent and read from left to right only, whatever the attention mask"

#: Model types that cannot be truly bidirectional, and why.
REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next"), _RECURRENT),
        **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "recurrent_gemma"), _RECURRENT),
        **dict.fromkeys(("jamba", "bamba", "zamba", "zamba2", "falcon_h1", "nemotron_h"), _RECURRENT),
        **dict.fromkeys(("granitemoehybrid", "minimax", "kimi_linear", "olmo_hybrid"), _RECURRENT),
        **dict.fromkeys(("lfm2", "lfm2_moe"), "its short convolutions read from left to right only"),
        **dict.fromkeys(
            ("llama4", "llama4_text"),
            "its chunked attention cuts a text at fixed positions, so tokens on both sides of a cut never see "
            "each other, and transformers runs it differently with and without padding",
        ),
        **dict.fromkeys(("deepseek_v32", "deepseek_v4", "glm_moe_dsa"), "its indexer picks keys from the left only"),
        **dict.fromkeys(("bloom", "mpt", "falcon"), "its attention does not go through transformers' interface"),
    }
)


def family_of(model_type: str) -> Family | None:
    """Return the row of ``model_type``, or None if there is none.

    Raises:
        UnsupportedModelError: the family is known not to become bidirectional.
    """
    if model_type in REFUSED:
        raise UnsupportedModelError(
            f"Models of type {model_type!r} cannot be made bidirectional: {REFUSED[model_type]}. "
            f"Choose a base of another family, such as {', '.join(list(FAMILIES)[:5])}."
        )
    return FAMILIES.get(model_type)


def template_for(model_type: str, chat_template: str | None) -> Template:
    """Return the template that an instruct model of this family was trained with, bare if none is known."""
    row = FAMILIES.get(model_type)
    for mark, name in row.templates if row else ():
        if chat_template and mark in chat_template:
            return TEMPLATES[name]
    return BARE

"""Every family of the table, on a tiny model of its real class: sees both ways, exactly, packed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from tests.tiny import fill_weights, write_adapter
from unmask.backbone import attention
from unmask.backbone.adapters import apply_adapter
from unmask.backbone.backbone import Backbone
from unmask.backbone.bidirectional import padded_states, run
from unmask.backbone.families import FAMILIES, REFUSED, family_of
from unmask.backbone.layout import Layout
from unmask.backbone.loading import load_backbone
from unmask.errors import NotBidirectionalError, UnsupportedModelError

WINDOW = 8
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ALTERNATING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
LLAMA3_ROPE = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
}
YARN = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 128,
    }
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
#: name of the case → (model type, what differs from SMALL)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-3.1-rope": ("llama", LLAMA3_ROPE),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "mixtral": ("mixtral", {"sliding_window": WINDOW, "num_local_experts": 4}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": ("qwen2", {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 2}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", EXPERTS),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3_text": ("gemma3_text", {**ALTERNATING, "query_pre_attn_scalar": 16}),
    "phi3": ("phi3", {"sliding_window": WINDOW}),
    "smollm3": ("smollm3", {}),
    "olmo2": ("olmo2", {}),
    "granite": ("granite", {"attention_multiplier": 0.2, "residual_multiplier": 0.5}),
    "gpt_oss": ("gpt_oss", {"sliding_window": WINDOW, "num_local_experts": 4, **YARN}),
}
LENGTHS = (1, 2, 5, 5, WINDOW, WINDOW + 1, WINDOW + 2, 40, 1)
FUSED = {"llama", "llama-3.1-rope", "mistral", "qwen2", "qwen2-window", "qwen3"}


def build(case: str) -> PreTrainedModel:
    attention.register()
    model_type, differences = CASES[case]
    config = AutoConfig.for_model(model_type, **{**SMALL, **differences})
    return fill_weights(AutoModel.from_config(config, attn_implementation=attention.NAME))


def texts(vocabulary: int = 300) -> list[list[int]]:
    return [[(17 * i + 41 * n + 3) % vocabulary for i in range(length)] for n, length in enumerate(LENGTHS)]


def test_every_family_of_the_table_has_a_case() -> None:
    assert {model_type for model_type, _ in CASES.values()} == set(FAMILIES)


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_last_token_moves_first_state(case: str) -> None:
    backbone = Backbone(build(case))
    ids = texts()[7]
    before = backbone.hidden(torch.tensor(ids[:6]), Layout((6,)))
    after = backbone.hidden(torch.tensor([*ids[:5], 299]), Layout((6,)))
    assert (before[0] - after[0]).abs().max() > 1e-3
    assert min(backbone.proof.layers) > 1e-3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bidirectional", [True, False])
@torch.inference_mode()
def test_packed_is_alone_is_padded(case: str, bidirectional: bool) -> None:
    backbone = Backbone(build(case), bidirectional=bidirectional)
    ids = texts()
    packed = run(backbone.model, ids, causal=not bidirectional)
    alone = torch.cat([run(backbone.model, [text], causal=not bidirectional) for text in ids])
    assert backbone.family is not None
    padded = padded_states(backbone.model, ids, backbone.family.exact_attention)
    layout = Layout(LENGTHS, causal=not bidirectional)
    used = backbone.hidden(torch.tensor([token for text in ids for token in text]), layout)
    for name, states in {"alone": alone, "padded": padded, "used": used}.items():
        assert (states - packed).abs().max() < 1e-4, name


@pytest.mark.parametrize("case", CASES)
def test_fused_layers_are_used_where_they_are_exact(case: str) -> None:
    assert Backbone(build(case)).form == ("fused" if case in FUSED else "own")


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_lora_applied_is_lora_merged(case: str, tmp_path: Path) -> None:
    row = FAMILIES[CASES[case][0]]
    folder = write_adapter(
        tmp_path / "lora", build(case), base="base", rank=4, alpha=8, seed=3, targets=row.lora_targets
    )
    ids = texts()
    plain = run(Backbone(build(case)).model, ids, causal=False)
    wrapped = apply_adapter(build(case), folder)
    kept = Backbone(wrapped.base_model.model, adapter=wrapped)
    layout = Layout(LENGTHS)
    flat = torch.tensor([token for text in ids for token in text])
    applied = kept.hidden(flat, layout)
    merged = Backbone(apply_adapter(build(case), folder).merge_and_unload()).hidden(flat, layout)
    assert (applied - plain).abs().max() > 1e-2, "the adapter does nothing"
    assert (applied - merged).abs().max() < 1e-4


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_saved_model_loads_the_same(case: str, tmp_path: Path) -> None:
    model = build(case)
    expected = run(Backbone(model).model, texts(), causal=False)
    model.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path, device=torch.device("cpu"), dtype=torch.float32)
    assert (run(loaded.model, texts(), causal=False) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("model_type", REFUSED)
def test_refused_families_say_why(model_type: str) -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be made bidirectional: .{20,}"):
        family_of(model_type)


@pytest.mark.parametrize("model_type", ["olmo3", "phi", "gpt_neox", "cohere2"])
@torch.inference_mode()
def test_unknown_family_passes_all_proofs_or_is_refused(model_type: str) -> None:
    attention.register()
    window = ALTERNATING if model_type in ("olmo3", "cohere2") else {}
    config = AutoConfig.for_model(model_type, **{**SMALL, **window})
    backbone = Backbone(fill_weights(AutoModel.from_config(config, attn_implementation=attention.NAME)))
    assert backbone.family is None
    assert backbone.proof.exact is not None
    assert backbone.proof.exact < 1e-5


@pytest.mark.parametrize("model_type", ["stablelm", "xglm", "nemotron"])
def test_unknown_family_that_fails_a_proof_is_refused(model_type: str) -> None:
    attention.register()
    small = {key: value for key, value in SMALL.items() if key != "head_dim"}
    config = AutoConfig.for_model(model_type, **small)
    model = fill_weights(AutoModel.from_config(config, attn_implementation=attention.NAME))
    with pytest.raises((UnsupportedModelError, NotBidirectionalError)):
        Backbone(model)


def test_one_causal_layer_among_others_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that sees both ways would hide one that does not, if only the whole model were looked at."""
    model = build("llama")
    own = attention.packed_attention

    def third_layer_causal(module: Any, *arguments: Any, layout: Layout, **others: Any) -> Any:
        causal = module.layer_idx == 2
        return own(module, *arguments, layout=Layout(layout.lengths, causal=causal), **others)

    monkeypatch.setattr(attention, "packed_attention", third_layer_causal)
    try:
        with pytest.raises(NotBidirectionalError, match="Layer 2 of 4"):
            Backbone(model)
    finally:
        monkeypatch.undo()
        attention.register()


def test_attention_refuses_what_it_would_ignore() -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(UnsupportedModelError, match="position_bias"):
        attention.packed_attention(
            torch.nn.Identity(), states, states, states, None, layout=Layout((3,)), position_bias=states
        )
    with pytest.raises(UnsupportedModelError, match="layout"):
        attention.packed_attention(torch.nn.Identity(), states, states, states, None)

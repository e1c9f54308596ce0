"""Code written for llm2vec 0.2.3 runs here, unchanged but for the import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, PreTrainedTokenizerFast

from tests.tiny import Published, tiny_tokenizer, write_base, write_published
from unmask import Encoder
from unmask.backbone.families import TEMPLATES
from unmask.compat import LLM2Vec
from unmask.errors import CheckpointError, InputError

LLAMA3 = "meta-llama/Meta-Llama-3-8B-Instruct"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"
INSTRUCTION = "Given a question, retrieve passages:"
TEXTS = ["how much protein should a female eat", "图书馆 🌞", "summit define"]


def vectors(model: LLM2Vec, sentences: Any = TEXTS) -> torch.Tensor:
    answer = model.encode(sentences, show_progress_bar=False)
    assert isinstance(answer, torch.Tensor)
    return answer


#: The published model card, less its printed result; the two names and the dtype's precision are the only holes.
CARD = """
import torch
from unmask.compat import LLM2Vec

l2v = LLM2Vec.from_pretrained(
    "{mntp}",
    peft_model_name_or_path="{simcse}",
    device_map="cuda" if torch.cuda.is_available() else "cpu",
    torch_dtype=torch.bfloat16,
)

# Encoding queries using instructions
instruction = (
    "Given a web search query, retrieve relevant passages that answer the query:"
)
queries = [
    [instruction, "how much protein should a female eat"],
    [instruction, "summit define"],
]
q_reps = l2v.encode(queries)

# Encoding documents. Instruction are not required for documents
documents = [
    "As a general guideline, the CDC's average requirement of protein for women ages 19 to 70 is 46 grams per day.",
    "Definition of summit for English Language Learners. : 1  the highest point of a mountain : the top of a mountain.",
]
d_reps = l2v.encode(documents)

# Compute cosine similarity
q_reps_norm = torch.nn.functional.normalize(q_reps, p=2, dim=1)
d_reps_norm = torch.nn.functional.normalize(d_reps, p=2, dim=1)
cos_sim = torch.mm(q_reps_norm, d_reps_norm.transpose(0, 1))

print(cos_sim)
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return write_published(tmp_path_factory.mktemp("llama"), name=LLAMA3)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return write_published(tmp_path_factory.mktemp("mistral"), "mistral", tokenizer="llama2", name=MISTRAL)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_model_card_runs_unchanged(kind: str, request: pytest.FixtureRequest, capsys: Any) -> None:
    published: Published = request.getfixturevalue(kind)
    names: dict[str, Any] = {}
    exec(CARD.replace("{mntp}", str(published.mntp)).replace("{simcse}", str(published.simcse)), names)
    assert names["q_reps"].dtype == torch.float32
    assert names["cos_sim"].shape == (2, 2)
    assert names["cos_sim"].abs().max() <= 1.0001
    assert "tensor(" in capsys.readouterr().out
    encoder: Encoder = names["l2v"].encoder
    expected = TEMPLATES["llama3" if kind == "llama" else "inst"]
    assert encoder.template == expected
    assert [folder.name for folder in encoder.checkpoint.adapters] == ["base-mntp", "base-mntp-unsup-simcse"]


def test_remote_code_lies_there_and_does_not_run(llama: Published) -> None:
    [code] = llama.mntp.glob("*.py")
    with pytest.raises(RuntimeError, match="remote code was run"):
        exec(code.read_text(encoding="utf-8"))
    LLM2Vec.from_pretrained(llama.mntp, trust_remote_code=True)


def test_both_adapters_are_applied_and_merging_changes_nothing(llama: Published) -> None:
    first = LLM2Vec.from_pretrained(llama.mntp)
    kept = LLM2Vec.from_pretrained(llama.mntp, peft_model_name_or_path=llama.simcse)
    merged = LLM2Vec.from_pretrained(llama.mntp, llama.simcse, merge_peft=True)
    base = LLM2Vec.from_pretrained(llama.base)
    one, two, three, none = (vectors(model) for model in (first, kept, merged, base))
    assert abs(two - three).max() < 1e-5
    assert min(abs(one - two).max(), abs(one - none).max(), abs(two - none).max()) > 1e-2
    assert isinstance(kept.model, PeftModel)
    assert not isinstance(merged.model, PeftModel)


def test_encode_takes_pairs_texts_and_one_text(llama: Published) -> None:
    model = LLM2Vec.from_pretrained(llama.base)
    plain = model.encode(TEXTS, batch_size=2, show_progress_bar=False)
    assert isinstance(plain, torch.Tensor)
    assert plain.shape == (3, 64)
    assert torch.equal(plain, vectors(model, [["", text] for text in TEXTS]))
    with_instruction = model.encode([[INSTRUCTION, text] for text in TEXTS])
    own = model.encoder.encode(TEXTS, instruction=INSTRUCTION)
    np.testing.assert_array_equal(np.asarray(with_instruction), own)
    one = model.encode(TEXTS[0])
    assert one.shape == (1, 64)
    assert abs(torch.as_tensor(one) - plain[:1]).max() < 1e-5
    as_numpy = model.encode(TEXTS, convert_to_numpy=True)
    assert isinstance(as_numpy, np.ndarray)
    assert as_numpy.dtype == np.float32
    assert isinstance(model.encode(TEXTS, convert_to_numpy=True, convert_to_tensor=True), torch.Tensor)
    assert model.encode([]).shape == (0, 64)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([["a", "b", "c"]], "Text 0 is a list of 3"),
        (["a", 7], "Text 1 is of type int"),
        ([["a", "b"], ["a", None]], "Text 1 is of type NoneType"),
        (["a", ""], "Text 1 is empty"),
    ],
)
def test_wrong_sentences_are_named(llama: Published, sentences: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LLM2Vec.from_pretrained(llama.base).encode(sentences)


def test_attributes_and_settings(llama: Published) -> None:
    model = LLM2Vec.from_pretrained(llama.mntp, llama.simcse)
    assert (model.pooling_mode, model.max_length, model.doc_max_length, model.skip_instruction) == (
        "mean",
        512,
        400,
        True,
    )
    assert model.config.model_type == "llama"
    assert model.tokenizer.padding_side == "left"
    assert model.tokenizer.pad_token == model.tokenizer.eos_token == "<|end_of_text|>"
    for mode in ("mean", "weighted_mean", "eos_token", "last_token", "bos_token"):
        other = LLM2Vec.from_pretrained(
            llama.base, pooling_mode=mode, max_length=99, doc_max_length=7, skip_instruction=False
        )
        assert (other.pooling_mode, other.max_length, other.doc_max_length) == (mode, 99, 7)
        assert not other.skip_instruction


def test_causal_baseline(llama: Published) -> None:
    both = LLM2Vec.from_pretrained(llama.base, pooling_mode="bos_token").encode(TEXTS)
    causal = LLM2Vec.from_pretrained(llama.base, pooling_mode="bos_token", enable_bidirectional=False).encode(TEXTS)
    assert abs(both[0] - both[1]).max() > 1e-3
    assert abs(causal[0] - causal[1]).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_in_8bit": True}, "load_in_8bit"),
        ({"attn_implementation": "magic"}, "magic"),
        ({"device_map": {"layer": 0}}, "device_map"),
        ({"torch_dtype": torch.float32, "dtype": torch.float16}, "one option"),
        ({"torch_dtype": torch.int8}, "int8"),
        ({"pooling_mode": "median"}, "median"),
    ],
)
def test_what_cannot_be_followed_is_refused(llama: Published, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LLM2Vec.from_pretrained(llama.base, **options)


@pytest.mark.parametrize("device_map", [None, "auto", "cpu", torch.device("cpu"), {"": "cpu"}])
@pytest.mark.skipif(torch.cuda.is_available(), reason="None and auto choose CUDA there")
def test_device_maps(llama: Published, device_map: Any) -> None:
    model = LLM2Vec.from_pretrained(llama.base, device_map=device_map, attn_implementation="sdpa", dtype="float32")
    assert model.encode(TEXTS, device="cpu").shape == (3, 64)
    with pytest.raises(InputError, match="device_map='cuda'"):
        model.encode(TEXTS, device="cuda")


def test_kept_adapter_is_saved_as_an_adapter(llama: Published, tmp_path: Path) -> None:
    model = LLM2Vec.from_pretrained(llama.mntp, llama.simcse, pooling_mode="last_token", max_length=77)
    target = tmp_path / "saved"
    target.mkdir()
    model.save(target)
    assert {"adapter_config.json", "adapter_model.safetensors", "llm2vec_config.json"} <= {
        file.name for file in target.iterdir()
    }
    again = LLM2Vec.from_pretrained(llama.mntp, target)
    assert (again.pooling_mode, again.max_length) == ("last_token", 77)
    assert abs(vectors(again) - vectors(model)).max() < 1e-6
    with pytest.raises(InputError, match="exists"):
        model.save(target)


@pytest.mark.parametrize("merge_before_save", [True, False])
def test_whole_encoder_is_saved(llama: Published, tmp_path: Path, merge_before_save: bool) -> None:
    model = LLM2Vec.from_pretrained(llama.mntp, llama.simcse, not merge_before_save)
    before = vectors(model)
    model.save(tmp_path / "saved", merge_before_save=merge_before_save)
    assert torch.equal(vectors(model), before)
    stated = json.loads((tmp_path / "saved" / "llm2vec_config.json").read_text(encoding="utf-8"))
    assert stated == {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 400, "skip_instruction": True}
    again = LLM2Vec.from_pretrained(tmp_path / "saved")
    assert again.encoder.template == TEMPLATES["llama3"]
    assert abs(vectors(again) - before).max() < 1e-5
    model.save(tmp_path / "without", merge_before_save=True, save_config=False)
    assert not (tmp_path / "without" / "llm2vec_config.json").exists()


# peft 0.21 asks transformers 5 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_models_of_transformers_and_peft_are_taken(llama: Published) -> None:
    """The other snippet of the model cards: load by hand, merge the first LoRA, keep the second."""
    expected = vectors(LLM2Vec.from_pretrained(llama.mntp, llama.simcse))
    base = AutoModel.from_pretrained(llama.base)
    base = PeftModel.from_pretrained(base, str(llama.mntp)).merge_and_unload()
    base.config._name_or_path = LLAMA3
    model = LLM2Vec(PeftModel.from_pretrained(base, str(llama.simcse)), tiny_tokenizer(), pooling_mode="mean")
    assert abs(vectors(model) - expected).max() < 1e-5


def test_local_copy_is_wrapped_by_its_chat_template(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "renamed")
    assert LLM2Vec.from_pretrained(folder).encoder.template == TEMPLATES["bare"]
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = "{% for m in messages %}<|start_header_id|>{{ m.role }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = LLM2Vec.from_pretrained(folder)
    assert model.encoder.template == TEMPLATES["llama3"]
    assert isinstance(model.tokenizer, PreTrainedTokenizerFast)


def test_adapter_that_is_not_there(llama: Published, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        LLM2Vec.from_pretrained(llama.mntp, tmp_path / "empty")

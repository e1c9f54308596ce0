"""Unmask against the golden vectors of llm2vec 0.2.3, recorded by ``make_reference.py``.

Vectors must agree to 1e-4 in every component (cosine alone is too lenient: a span off by one token may
still reach 0.997), for every case in which the reference pools the tokens it means to pool. One
difference is by design: a token that is nothing but the space between instruction and text is pooled
here always, there only with metaspace tokenizers.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import fingerprint, write_base, write_published
from unmask import Encoder, Text
from unmask.backbone.families import TEMPLATES

HERE = Path(__file__).parent
RECORD: dict[str, Any] = json.loads((HERE / "reference.json").read_text(encoding="utf-8"))
TEXTS: list[str] = RECORD["texts"]
#: The reference picks a template by the base's exact name; here a test names it.
TEMPLATE_OF = {"llama3-instruct": "llama3", "mistral-instruct": "inst", "llama2-chat": "inst"}
PUBLISHED_TEMPLATE = {"published-llama3": "llama3", "published-mistral": "inst"}
#: There the reference appends ``</s>``, the EOS of another tokenizer, going by the base's name.
WRONG_EOS = ("llama3/plain/eos_token", "llama3/instruction/eos_token")


@cache
def vectors() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(HERE / "reference.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Write every checkpoint once: name → part → folder."""
    root = tmp_path_factory.mktemp("checkpoints")
    written: dict[str, dict[str, Path]] = {}
    for name, arguments in RECORD["checkpoints"].items():
        options = {key: value for key, value in arguments.items() if key != "weights_sha256"}
        if name.startswith("published"):
            written[name] = vars(write_published(root / name, **options))
        else:
            written[name] = {"base": write_base(root / name, **options)}
    return written


def load(case: dict[str, Any], folders: dict[str, Path]) -> Encoder:
    name = case["checkpoint"]
    options: dict[str, Any] = {
        "pooling": case["pooling"],
        "bidirectional": case["bidirectional"],
        "pool_instruction": not case["skip_instruction"],
        "template": TEMPLATE_OF.get(name) or PUBLISHED_TEMPLATE.get(name),
    }
    adapters = case["adapters"]
    if adapters == "none":
        return Encoder.load(folders["base"], **options)
    second = [] if adapters == "mntp" else [folders["simcse"]]
    return Encoder.load(folders["mntp"], adapters=second, merge_adapters=adapters != "kept", **options)


def lone_space(encoder: Encoder, text: Text) -> bool:
    """Return whether the separating space is a token of its own and the tokenizer is byte-level."""
    tokens = encoder.encode_tokens([text])[0].tokens
    return tokens[0] == "Ġ"


@pytest.mark.parametrize("name", [name for name in RECORD["cases"] if name not in WRONG_EOS])
def test_vectors_of_the_reference(name: str, folders: dict[str, dict[str, Path]]) -> None:
    case = RECORD["cases"][name]
    encoder = load(case, folders[case["checkpoint"]])
    instruction = RECORD["instruction"] if case["inputs"] == "instruction" else ""
    texts = [Text(instruction, text) for text in TEXTS]
    ours, theirs = encoder.encode(texts), vectors()[name]
    spans_matter = case["skip_instruction"] and case["pooling"] in ("mean", "weighted_mean") and instruction
    same = [i for i, text in enumerate(texts) if not (spans_matter and lone_space(encoder, text))]
    assert len(same) >= 10
    assert np.abs(ours[same] - theirs[same]).max() < 1e-4
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine[same].min() > 0.99999


@pytest.mark.parametrize("name", [name for name in RECORD["renderings"] if name not in WRONG_EOS])
def test_token_ids_of_the_reference(name: str, folders: dict[str, dict[str, Path]]) -> None:
    checkpoint, inputs, *pooling = name.split("/")
    encoder = Encoder.load(
        folders[checkpoint]["base"],
        pooling=pooling[0] if pooling else "mean",
        template=TEMPLATE_OF.get(checkpoint),
    )
    instruction = RECORD["instruction"] if inputs == "instruction" else ""
    for text, expected in zip(TEXTS, RECORD["renderings"][name], strict=True):
        (tokenized,) = encoder.pipeline.tokenizer.tokenize([Text(instruction, text)])
        assert tokenized.ids == expected["ids"]
        pooled = [encoder.tokenizer.backend.id_to_token(i) for i in tokenized.ids[tokenized.start :]]
        assert tokenized.start == expected["start"] - (pooled[0] == "Ġ" and bool(instruction))


def test_weights_are_those_of_the_recording(folders: dict[str, dict[str, Path]]) -> None:
    encoder = Encoder.load(folders["llama3"]["base"])
    recorded = RECORD["checkpoints"]["llama3"]["weights_sha256"]
    assert fingerprint(encoder.backbone.model.state_dict()) == recorded


def test_templates_are_those_of_the_reference() -> None:
    names = {
        "meta-llama/Meta-Llama-3-8B-Instruct": "llama3",
        "mistralai/Mistral-7B-Instruct-v0.2": "inst",
        "meta-llama/Llama-2-7b-chat-hf": "inst",
        "google/gemma-2-9b-it": "gemma",
        "Qwen/Qwen2-7B-Instruct": "chatml",
    }
    for base, template in names.items():
        _, rendered = RECORD["templates"][base]["mean"]
        ours = TEMPLATES[template].prefix + "a text" + TEMPLATES[template].suffix
        assert rendered.removeprefix("<bos>") == ours


#: Behaviours of the reference that Unmask keeps (``</s>`` after a space), or that have no one right vector.
KEPT = {"eos-after-space-llama3", "eos-after-space-llama2"}
DEFECTS = [name for name, defect in RECORD["defects"].items() if "pair" in defect and name not in KEPT]


@pytest.mark.parametrize("name", DEFECTS)
def test_defects_of_the_reference_are_not_copied(name: str, folders: dict[str, dict[str, Path]]) -> None:
    defect = RECORD["defects"][name]
    theirs, right = (vectors()[f"defect/{name}/{side}"] for side in ("reference", "right"))
    encoder = Encoder.load(
        folders[defect["checkpoint"]]["base"],
        max_length=defect["settings"].get("max_length"),
        template="llama3" if name == "local-folder" else None,
    )
    ours = encoder.encode(Text(*defect["pair"]))
    assert np.abs(ours - right).max() < 1e-4
    assert np.abs(ours - theirs).max() > 1e-2

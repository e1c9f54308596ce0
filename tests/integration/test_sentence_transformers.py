"""A saved encoder gives the same vectors in sentence-transformers, and folders made there can be read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st_modules
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from tests.tiny import write_base
from unmask import Encoder, Template
from unmask.checkpoint.exported_normalizer import MARKER
from unmask.errors import CheckpointError, InputError

QUERY = "Given a web search query, retrieve relevant passages that answer the query:"
OWN = "Identify the topic of the news article:"
TEXTS = [
    "how do I compress a file",
    "  leading and trailing spaces \n",
    "如何压缩一个文件？这是一个测试。",
    "كيف أضغط ملفا كبيرا",
    "😀 emoji first, and 👩‍👩‍👧 a family",
    "2024 was 365 or 366 days: 3.14159",
    "\tTabs\tand\n\nnew lines, then  double  spaces\t ",
    "(brackets) first; `code` = x[0] / y[1] ]",
    "x",
    "Straße, naïve café, ½ ﬁ",
    "\u3000全角空白 around it\u00a0",
    "a long text that goes on, number 7, " * 60,
    "长文本没有空格" * 80 + " ",
    "<|eot_id|> </s> [INST] text of a template [/INST] <|start_header_id|>",
    "ends with a colon: ",
]
CHAT = "{{ bos_token }}You are helpful.{% for m in messages %}<|start_header_id|>{{ m.content }}{% endfor %}"


def metaspace(folder: Path) -> None:
    """Turn a tokenizer that marks spaces in its normalizer into one that does so in its pre-tokenizer."""
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.save(str(folder / "tokenizer.json"))


def without_bos(folder: Path) -> None:
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = None
    tokenizer.save(str(folder / "tokenizer.json"))


def chat(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHAT}), encoding="utf-8")


#: name → (model type, tokenizer, what is changed in the folder, options of Encoder.load)
CASES: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    "byte-level, bare": ("llama", "llama3", None, {}),
    "byte-level, bare, no BOS": ("llama", "llama3", without_bos, {}),
    "weighted, nothing in front": ("llama", "llama3", without_bos, {"pooling": "weighted_mean"}),
    "Llama-3 template, chat template": ("llama", "llama3", chat, {}),
    "Llama-3 template, last": ("llama", "llama3", chat, {"pooling": "last"}),
    "Llama-3 template, first": ("llama", "llama3", chat, {"pooling": "first"}),
    "Llama-3, all pooled": ("llama", "llama3", chat, {"pool_instruction": True, "pooling": "weighted_mean"}),
    "byte-level, EOS": ("llama", "llama3", None, {"pooling": "eos_token"}),
    "[INST], ▁ by the normalizer": ("mistral", "llama2", None, {"template": "inst"}),
    "[INST], ▁ by the pre-tokenizer": ("mistral", "llama2", metaspace, {"template": "inst"}),
    "▁, bare": ("llama", "llama2", None, {}),
    "▁ by the pre-tokenizer, bare": ("llama", "llama2", metaspace, {}),
    "a template of plain text": ("qwen3", "llama3", None, {"template": Template("passage: ", "")}),
    "Qwen2, whose tokenizer class is forced": ("qwen2", "llama3", None, {}),
    "Gemma 2, eager attention": ("gemma2", "llama3", None, {}),
    "causal": ("llama", "llama3", None, {"bidirectional": False}),
}


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Path]:
    """An encoder with a query instruction where it can have one, and the folder it was saved to."""
    model_type, tokenizer, change, options = CASES[request.param]
    root = tmp_path_factory.mktemp("st")
    # So low that scores do reach it, which only transformers' eager attention heeds.
    capped: dict[str, Any] = {"attn_logit_softcapping": 0.1} if model_type == "gemma2" else {}
    folder = write_base(root / "base", model_type, tokenizer=tokenizer, **capped)
    if change:
        change(folder)
    encoder = Encoder.load(folder, max_length=64, device="cpu", dtype="float32", **options)
    if not request.param.startswith("weighted"):
        encoder.settings = replace(encoder.settings, query_instruction=QUERY)
    return encoder, encoder.save(root / "saved")


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    product: NDArray[Any] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return product


def test_saved_encoder_gives_the_same_vectors(pair: tuple[Encoder, Path]) -> None:
    encoder, folder = pair
    model = SentenceTransformer(str(folder), device="cpu")
    query = encoder.settings.query_instruction
    answers = {
        "encode_query": (model.encode_query(TEXTS, batch_size=4), query),
        "encode_document": (model.encode_document(TEXTS, batch_size=4), None),
        "encode": (model.encode(TEXTS, batch_size=4), None),
        "alone": (np.stack([model.encode(text) for text in TEXTS]), None),
    }
    if query:
        answers["own prompt"] = (model.encode(TEXTS, prompt=f"{OWN} {MARKER}", batch_size=4), OWN)
    for name, (vectors, instruction) in answers.items():
        expected = encoder.encode(TEXTS, instruction=instruction)
        assert cosines(vectors, expected).min() >= 0.99999, name


def test_instruction_and_direction_matter_there(pair: tuple[Encoder, Path]) -> None:
    encoder, _ = pair
    plain = encoder.encode(TEXTS)
    assert cosines(plain, encoder.encode(TEXTS, instruction=OWN)).min() < 0.9999
    other = Encoder.load(
        encoder.checkpoint.base,
        bidirectional=not encoder.bidirectional,
        max_length=64,
        pooling=encoder.pooling,
        template=encoder.template,
    )
    assert cosines(plain, other.encode(TEXTS)).min() < 0.9999 or encoder.settings.append_eos


def test_saved_folder_carries_no_chat_template(pair: tuple[Encoder, Path]) -> None:
    _, folder = pair
    assert not list(folder.glob("chat_template*"))
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("pooling", "template", "reason"),
    [
        ("weighted_mean", "bare", "weighted_mean counts its weights from the content's first token"),
        ("mean", Template("<|begin_of_text|>", "<|eot_id|><|eot_id|>"), "takes 2 tokens, too many for the 0"),
        ("mean", Template("<<", ">>!"), "change with the text in it"),
    ],
)
def test_what_sentence_transformers_cannot_do_is_said(
    tmp_path: Path, pooling: str, template: str | Template, reason: str
) -> None:
    encoder = Encoder.load(write_base(tmp_path / "base"), pooling=pooling, template=template)
    if reason.startswith("change"):
        merging = encoder.tokenizer.backend
        merging.normalizer = normalizers.Replace("<x", "[x")
        encoder = Encoder(encoder.backbone, encoder.tokenizer, encoder.settings, encoder.checkpoint)
    with pytest.warns(UserWarning, match="loads in Unmask only") as warned:
        folder = encoder.save(tmp_path / "saved")
    assert reason in str(warned[0].message)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert reason in card
    assert "SentenceTransformer(" not in card
    assert not (folder / "modules.json").exists()
    assert not (folder / "1_Pooling").exists()
    np.testing.assert_allclose(Encoder.load(folder).encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("instruction", [QUERY, None])
def test_code_of_the_model_card_runs(tmp_path: Path, instruction: str | None, capsys: Any) -> None:
    encoder = Encoder.load(write_base(tmp_path / "base"), template="llama3")
    encoder.settings = replace(encoder.settings, query_instruction=instruction)
    folder = encoder.save(tmp_path / "saved")
    card = (folder / "README.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        exec(block.replace("path/of/this/folder", str(folder)), {})
    printed = capsys.readouterr().out
    assert printed.count("[[") == 2


# --- folders made by sentence-transformers ---------------------------------------------------------


def foreign(root: Path, pooling: str, *, include_prompt: bool, normalize: bool, eos: bool = False) -> Path:
    base = write_base(root / "base", is_causal=False)
    if eos:
        tokenizer: Any = Tokenizer.from_file(str(base / "tokenizer.json"))
        ids = {name: tokenizer.token_to_id(name) for name in ("<|begin_of_text|>", "<|end_of_text|>")}
        tokenizer.post_processor = Tokenizer.from_str(
            json.dumps({**json.loads(tokenizer.to_str()), "post_processor": _around(ids)})
        ).post_processor
        tokenizer.save(str(base / "tokenizer.json"))
    config = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "</s>"}), encoding="utf-8")
    modules: list[Any] = [
        st_modules.Transformer(str(base)),
        st_modules.Pooling(64, pooling, include_prompt=include_prompt),
    ]
    modules += [st_modules.Normalize()] if normalize else []
    model = SentenceTransformer(
        modules=modules, prompts={"query": "query: " if include_prompt else "query:", "document": ""}, device="cpu"
    )
    model.max_seq_length = 48
    model.save(str(root / "foreign"))
    shutil.rmtree(base)
    return root / "foreign"


def _around(ids: dict[str, int]) -> dict[str, Any]:
    first, last = ids
    piece = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ids]
    return {
        "type": "TemplateProcessing",
        "single": [piece[0], {"Sequence": {"id": "A", "type_id": 0}}, piece[1]],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (first, last)},
    }


@pytest.mark.parametrize(
    ("pooling", "include_prompt", "normalize", "eos"),
    [
        ("mean", True, True, False),
        ("mean", False, False, False),
        ("lasttoken", True, True, True),
        ("cls", True, False, False),
        ("weightedmean", True, False, True),
        ("mean", True, False, True),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_foreign_folder_gives_its_vectors(
    tmp_path: Path, pooling: str, include_prompt: bool, normalize: bool, eos: bool, legacy: bool
) -> None:
    folder = foreign(tmp_path, pooling, include_prompt=include_prompt, normalize=normalize, eos=eos)
    model = SentenceTransformer(str(folder), device="cpu")
    texts = [text.strip() for text in TEXTS if "<|" not in text]
    # Alone, a prompt's last space is a token of its own, and sentence-transformers would skip one too many.
    spaced = texts if include_prompt else [f" {text}" for text in texts]
    expected = model.encode_query(spaced, batch_size=4)
    if legacy:
        _with_flags(folder / "1_Pooling" / "config.json")
    encoder = Encoder.load(folder, device="cpu")
    assert encoder.checkpoint.layout == "sentence-transformers"
    assert (encoder.max_length, encoder.settings.normalize, encoder.bidirectional) == (48, normalize, True)
    assert encoder.settings.query_instruction == model.prompts["query"]
    vectors = encoder.encode(texts, instruction=encoder.settings.query_instruction)
    assert cosines(vectors, expected).min() >= 0.99999
    if normalize:
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def _with_flags(file: Path) -> None:
    """Write the pooling mode as releases before 5 did."""
    data = json.loads(file.read_text(encoding="utf-8"))
    mode = data.pop("pooling_mode")
    names = {"mean": "mean_tokens", "cls": "cls_token", "weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken"}
    data |= {f"pooling_mode_{name}": key == mode for key, name in names.items()}
    file.write_text(json.dumps(data), encoding="utf-8")


def _edit(file: str, **changes: Any) -> Any:
    def edit(folder: Path) -> None:
        data = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps({**data, **changes}), encoding="utf-8")

    return edit


def _module(position: int, **changes: Any) -> Any:
    def edit(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        modules[position] = {**modules[position], **changes}
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit("1_Pooling/config.json", pooling_mode="max"), "pooling by max"),
        (_edit("1_Pooling/config.json", pooling_mode=["mean", "cls"]), "pooling by mean and cls"),
        (_edit("1_Pooling/config.json", pooling_mode="weightedmean"), "a weighted mean without the prompt"),
        (_edit("1_Pooling/config.json", include_prompt="yes"), "pool_instruction: 'yes'"),
        (_edit("sentence_bert_config.json", do_lower_case=True), "lower case"),
        (_edit("sentence_bert_config.json", query_expansion=True), "query_expansion"),
        (_edit("sentence_bert_config.json", transformer_task="fill-mask"), "fill-mask"),
        (_edit("sentence_bert_config.json", max_seq_length="long"), "max_length: 'long'"),
        (_edit("sentence_bert_config.json", modality_config={"message": {}}), "chat template"),
        (_edit("config_sentence_transformers.json", prompts={"query": 3}), "query_instruction: 3"),
        (_module(0, type="somebody.else.Module"), "somebody.else.Module"),
        (_module(0, path="../elsewhere"), "outside of it"),
        (_module(1, type="sentence_transformers.models.Dense"), "Transformer, Dense"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "modules.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "modules.json").write_text("{}"), "expected a JSON list"),
        (lambda folder: (folder / "modules.json").write_text("[7]"), "is no module"),
    ],
)
def test_what_settings_cannot_say_is_refused(foreign_folder: Path, tmp_path: Path, edit: Any, message: str) -> None:
    folder = shutil.copytree(foreign_folder, tmp_path / "copy")
    edit(folder)
    with pytest.raises(CheckpointError) as raised:
        Encoder.load(folder)
    assert message in str(raised.value)


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign(tmp_path_factory.mktemp("foreign"), "mean", include_prompt=False, normalize=False)


def test_instruction_that_leaves_no_room_is_named(foreign_folder: Path) -> None:
    with pytest.raises(InputError, match="leaves no room"):
        Encoder.load(foreign_folder).encode("text", instruction=QUERY * 9)

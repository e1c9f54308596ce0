"""The files that make sentence-transformers give an encoder's very vectors.

sentence-transformers knows a prompt, a text behind it, and how many tokens the prompt takes when it is
tokenised alone. So what is constant in what the model reads (BOS, template prefix and suffix) moves
into the exported tokenizer's post-processor as fixed ids, and what depends on the text (stripping, the
space between instruction and content) into its normalizer. Prompts end in :data:`MARKER`, which the
normalizer takes away again: what follows it is the content.

The lone prompt must come out exactly as long as what is not pooled. It ends in the suffix like any
text; sentence-transformers does not count its last token if that is a special one, so the suffix's last
token is declared special, and as many tokens as remain are left out of the prefix unless content
follows.

Nothing of this is taken on trust: :func:`_prove` tokenises probes both ways.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer

from unmask.checkpoint.around_content import PROBES, Frame, InexpressibleError, find_frame, literally, split_prefix
from unmask.checkpoint.exported_normalizer import MARKER, as_list, prepend_early, rules
from unmask.checkpoint.settings import Settings
from unmask.errors import InputError
from unmask.pooling import Pooling
from unmask.text import Text, TextTokenizer, TokenizedText

_PROBE_INSTRUCTIONS: Final = ("Given a question, retrieve passages that answer it:", "Topic", "Classify (1, 2)")
_MODES: Final[Mapping[Pooling, str]] = {
    "mean": "mean_tokens",
    "weighted_mean": "weightedmean_tokens",
    "last": "lasttoken",
    "first": "cls_token",
}
_ALL_MODES: Final = (
    "cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"
)  # fmt: skip


@dataclass(frozen=True)
class Export:
    """What a folder holds for sentence-transformers.

    Attributes:
        files: path in the folder → JSON.
        strips: whether the exported tokenizer strips texts, as Unmask does.
    """

    files: dict[str, Any]
    strips: bool


def sentence_transformers_files(
    texts: TextTokenizer,
    settings: Settings,
    *,
    eos: str | None,
    dimension: int,
    model_type: str,
    attention: str | None,
) -> Export:
    """Return the files of an encoder, but for its weights and ``config.json``.

    Args:
        texts: the encoder's tokenizer with its template.
        settings: all fields are set.
        eos: the tokenizer's EOS.
        dimension: components of a vector.
        model_type: the model's type in transformers.
        attention: attention function of transformers that sentence-transformers must use; None: any.

    Raises:
        InexpressibleError: no such files give the encoder's vectors.
    """
    assert settings.pooling is not None
    data = json.loads(texts.literal.to_str())
    # Its post-processor is gone; the frame's ids stand for it.
    data = prepend_early(data)
    plain = literally(data)
    frame = find_frame(plain, texts)
    spans = settings.pooling in ("mean", "weighted_mean") and not settings.pool_instruction
    if settings.pooling == "weighted_mean" and spans and (frame.head or frame.glue or settings.query_instruction):
        raise InexpressibleError(
            "weighted_mean counts its weights from the content's first token, sentence-transformers from the whole "
            "string's, and here something stands before the content (BOS, template or instruction)"
        )
    strips = not any(not token["special"] and token["content"].isspace() for token in data["added_tokens"])
    prefix = split_prefix(plain, frame, max(len(frame.tail) - 1, 0) if spans else 0, texts.lead)
    if (prefix.content or frame.glue) and not strips:
        raise InexpressibleError("the tokenizer cuts texts at white space of its own, before a template can be put on")
    exported = copy.deepcopy(data)
    steps = rules(prefix.content, frame.glue, lone=prefix.lone, gap=prefix.gap, strips=strips)
    exported["normalizer"] = {"type": "Sequence", "normalizers": steps + as_list(data.get("normalizer"))}
    exported["post_processor"] = _post_processor(plain, prefix.ids, frame.tail)
    exported["truncation"] = exported["padding"] = None
    tokens = _tokenizer_config(plain, data, frame, eos, texts.max_length)
    start = MARKER if (spans and frame.head) or not strips else ""
    query = (settings.query_instruction or "").strip()
    prompts = {"query": f"{query} {MARKER}" if query else start, "document": start}
    _prove(exported, tokens, prompts, query, texts, spans=spans)
    body: dict[str, Any] = {"max_seq_length": texts.max_length, "do_lower_case": False}
    if model_type == "qwen2":
        # Without it AutoTokenizer builds Qwen2Tokenizer, which has a normalizer of its own.
        body["tokenizer_args"] = {"tokenizer_type": "olmo2"}
    if attention is not None:
        body["model_args"] = {"attn_implementation": attention}
    files = {
        "tokenizer.json": exported,
        "tokenizer_config.json": tokens,
        "sentence_bert_config.json": body,
        "config_sentence_transformers.json": _top(prompts),
        "1_Pooling/config.json": _pooling(settings.pooling, dimension, include_prompt=not spans),
        "modules.json": _modules(normalize=bool(settings.normalize)),
    }
    return Export(files, strips)


# --- the proof -------------------------------------------------------------------------------------


def _prove(
    exported: Mapping[str, Any],
    tokens: Mapping[str, Any],
    prompts: Mapping[str, str],
    query: str,
    texts: TextTokenizer,
    *,
    spans: bool,
) -> None:
    """Tokenise probes as sentence-transformers will, and compare with what the encoder reads."""
    tokenizer = literally(exported)
    special = {tokenizer.token_to_id(token) for name, token in tokens.items() if name.endswith("_token")}
    asked = [("", prompts["document"]), (query, prompts["query"])]
    if not query and spans:
        asked += [(instruction, f"{instruction} {MARKER}") for instruction in _PROBE_INSTRUCTIONS]
    for instruction, prompt in asked:
        skipped = 0
        if prompt and spans:
            alone = tokenizer.encode(prompt).ids
            skipped = len(alone) - (bool(alone) and alone[-1] in special)
        for probe in PROBES:
            expected = _whole(texts, Text(instruction, probe))
            if expected is None:
                continue
            got = tokenizer.encode(prompt + probe).ids
            if got != expected.ids or (spans and skipped != expected.start):
                raise InexpressibleError(f"its tokenizer would read {prompt + probe!r} in another way")


def _whole(texts: TextTokenizer, text: Text) -> TokenizedText | None:
    """Return the text's tokens, None if it is too long to be compared."""
    try:
        return texts.tokenize([text], truncate=False)[0]
    except InputError:
        return None


# --- the other files -------------------------------------------------------------------------------


def _post_processor(plain: Tokenizer, head: Sequence[int], tail: Sequence[int]) -> dict[str, Any] | None:
    """Return what puts fixed ids around a text."""
    if not head and not tail:
        return None
    names = {token: f"id{token}" for token in (*head, *tail)}
    piece = {token: {"SpecialToken": {"id": name, "type_id": 0}} for token, name in names.items()}
    content = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*(piece[token] for token in head), content, *(piece[token] for token in tail)],
        "pair": [content, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            name: {"id": name, "ids": [token], "tokens": [plain.id_to_token(token)]} for token, name in names.items()
        },
    }


def _tokenizer_config(
    plain: Tokenizer, data: Mapping[str, Any], frame: Frame, eos: str | None, max_length: int
) -> dict[str, Any]:
    """Return a generic class that reads tokenizer.json as it is, and the tokens that are special to it.

    BOS is not declared: where nothing follows the text, a lone prompt may end in it, and it must count.
    """
    last = plain.id_to_token(frame.tail[-1]) if frame.tail else None
    counted = plain.id_to_token(frame.head[-1]) if frame.head and not frame.tail else None
    unknown = data["model"].get("unk_token")
    named = {
        name: token
        for name, token in {"eos_token": eos, "unk_token": unknown, "sep_token": last}.items()
        if token is not None and token != counted and plain.token_to_id(token) is not None
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": next(iter(named.values()), plain.id_to_token(0)),
        **named,
    }


def _top(prompts: Mapping[str, str]) -> dict[str, Any]:
    needs = {"specifier": ">=5.2", "reason": "older releases ignore is_causal in config.json"}
    return {
        "model_type": "SentenceTransformer",
        "requirements": {"transformers": needs},
        "prompts": dict(prompts),
        "default_prompt_name": "document" if prompts["document"] else None,
        "similarity_fn_name": "cosine",
    }


def _pooling(pooling: Pooling, dimension: int, *, include_prompt: bool) -> dict[str, Any]:
    flags = {f"pooling_mode_{mode}": mode == _MODES[pooling] for mode in _ALL_MODES}
    return {"word_embedding_dimension": dimension, **flags, "include_prompt": include_prompt}


def _modules(*, normalize: bool) -> list[dict[str, Any]]:
    rows = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if normalize else [])
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(rows)
    ]

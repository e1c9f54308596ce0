"""Folders of sentence-transformers made by others, read as far as Unmask's settings can say what they mean.

The vectors are those of sentence-transformers for texts that are stripped of white space. What differs:

* A prompt is joined to its text by one space (``query: `` and ``query:`` are the same instruction here);
  sentence-transformers joins them as they are.
* Prompts are not applied by themselves: give them as ``instruction``. ``default_prompt_name`` is ignored.
* With ``include_prompt`` false, tokens in front of the text (BOS) are never pooled; sentence-transformers
  pools them where no prompt is given, and skips a token of the text where the prompt ends in a space
  that is a token of its own only when nothing follows.
* ``truncate_dim`` is ignored: vectors come whole, ``dimensions`` cuts them.
* Strings of special tokens inside a text are plain text.

What would change vectors in a way that settings cannot say is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unmask.checkpoint.files import CONFIG_FILE, check_shards, has_weights, read_json, read_json_list, shown
from unmask.checkpoint.settings import Checkpoint, settings_from
from unmask.errors import CheckpointError
from unmask.pooling import Pooling
from unmask.text import BARE

MODULES_FILE: Final = "modules.json"
PROMPTS_FILE: Final = "config_sentence_transformers.json"
BODY_FILE: Final = "sentence_bert_config.json"

#: Names of pooling modes since sentence-transformers 5, and the flags that stood for them before.
_MODES: Final[Mapping[str, Pooling]] = {
    "mean": "mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
    "cls": "first",
}
_FLAGS: Final[Mapping[str, str]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
#: Keys of the body's file that do not change vectors, or are checked one by one.
_KNOWN_KEYS: Final = frozenset(
    {"max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name", "unpad_inputs"}
)
#: Arguments of the model that Unmask decides for itself.
_MODEL_KEYS: Final = frozenset({"model_args", "model_kwargs"})
_HARMLESS: Final = frozenset({"attn_implementation", "torch_dtype", "dtype"})
_TEXT_ONLY: Final = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def read_sentence_transformers(folder: Path) -> Checkpoint:
    """Read a folder that has a ``modules.json``.

    Raises:
        CheckpointError: it is damaged, or asks for something Unmask does not do.
    """
    kinds = _modules(folder)
    body = kinds["Transformer"]
    if not (body / CONFIG_FILE).is_file() or not has_weights(body):
        raise CheckpointError(
            f"{body} has no weights: it holds {shown(body)}. Expected {CONFIG_FILE} and *.safetensors."
        )
    check_shards(body)
    head, config = read_json(body / BODY_FILE, default={}), read_json(body / CONFIG_FILE)
    _check_body(folder, head)
    top = read_json(folder / PROMPTS_FILE, default={})
    pooling = read_json(kinds["Pooling"] / "config.json")
    prompts = top.get("prompts") or {}
    values = {
        "pooling": _pooling(folder, pooling),
        "max_length": head.get("max_seq_length") or _longest(body, config),
        "pool_instruction": pooling.get("include_prompt", True),
        "bidirectional": config.get("is_causal") is False,
        "template": BARE,
        "query_instruction": (prompts.get("query") or None) if isinstance(prompts, dict) else prompts,
        "normalize": "Normalize" in kinds,
    }
    settings = settings_from(folder / MODULES_FILE, values)
    if settings.pooling == "weighted_mean" and not settings.pool_instruction:
        raise _refused(folder, "a weighted mean without the prompt, whose weights count the prompt")
    return Checkpoint(layout="sentence-transformers", base=body, tokenizer=body, settings=settings)


def _refused(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} is a sentence-transformers folder with {what}; Unmask reads one of a Transformer, a Pooling and "
        "perhaps a Normalize module, for plain text. Use it in sentence-transformers."
    )


def _modules(folder: Path) -> dict[str, Path]:
    """Return the folder of each module by its kind."""
    kinds: dict[str, Path] = {}
    for module in read_json_list(folder / MODULES_FILE):
        if not isinstance(module, dict) or not {"type", "path"} <= module.keys():
            raise CheckpointError(f"{folder / MODULES_FILE} is damaged: {module!r} is no module. Fetch it again.")
        kind, path = str(module["type"]), Path(str(module["path"]))
        if not kind.startswith("sentence_transformers.") or module.get("kwargs"):
            raise _refused(folder, f"a module of type {kind}")
        if path.is_absolute() or ".." in path.parts:
            raise _refused(folder, f"a module outside of it, in {path}")
        kinds[kind.rsplit(".", 1)[-1]] = folder / path
    if list(kinds)[:2] != ["Transformer", "Pooling"] or list(kinds)[2:] not in ([], ["Normalize"]):
        raise _refused(folder, f"the modules {', '.join(kinds) or 'none'}")
    return kinds


def _check_body(folder: Path, head: Mapping[str, Any]) -> None:
    for key in sorted(head.keys() - _KNOWN_KEYS):
        harmless = key in _MODEL_KEYS and isinstance(head[key], dict) and head[key].keys() <= _HARMLESS
        if head[key] and not harmless:
            raise _refused(folder, f"{key} in {BODY_FILE}")
    if head.get("do_lower_case"):
        raise _refused(folder, "texts turned to lower case")
    if head.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise _refused(folder, f"the task {head['transformer_task']!r}")
    if "modality_config" in head and (
        head["modality_config"] != _TEXT_ONLY or head.get("module_output_name") != "token_embeddings"
    ):
        # "message" there means that the tokenizer's chat template is applied.
        raise _refused(folder, "inputs other than plain text, or a chat template around them")


def _pooling(folder: Path, data: Mapping[str, Any]) -> Pooling:
    stated = data.get("pooling_mode")
    flagged = [mode for flag, mode in _FLAGS.items() if data.get(flag)]
    modes = [stated] if isinstance(stated, str) else list(stated or flagged or ["mean"])
    if len(modes) != 1 or modes[0] not in _MODES:
        raise _refused(folder, f"pooling by {' and '.join(map(str, modes))}")
    return _MODES[modes[0]]


def _longest(body: Path, config: Mapping[str, Any]) -> int | None:
    """Return the length at which sentence-transformers cuts where it is told none."""
    tokenizer = read_json(body / "tokenizer_config.json", default={})
    stated = (tokenizer.get("model_max_length"), config.get("max_position_embeddings"))
    lengths = [int(length) for length in stated if isinstance(length, int | float) and 0 < length < 10**9]
    return min(lengths) if len(lengths) == len(stated) else None

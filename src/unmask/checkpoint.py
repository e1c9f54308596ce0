"""Checkpoint layouts on disk: read by looking at the files, written whole or not at all.

This is the only place that knows which file means what. :func:`inspect` tells where a model's weights,
adapters and tokenizer lie and how its vectors are made; it loads no weights. Code found in a
checkpoint is never run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from unmask.backbone.families import TEMPLATES
from unmask.errors import CheckpointError, InputError
from unmask.hub import locate
from unmask.hub.catalogue import Entry, template_of_base
from unmask.pooling import POOLINGS, Pooling
from unmask.text import BARE, Template

SETTINGS_FILE: Final = "unmask.json"
LLM2VEC_FILE: Final = "llm2vec_config.json"
MAX_LENGTH: Final = 512

#: The names of llm2vec 0.2.3 → ours. Its ``eos_token`` also appends the EOS to the text.
REFERENCE_POOLINGS: Final[dict[str, Pooling]] = {
    "mean": "mean",
    "weighted_mean": "weighted_mean",
    "eos_token": "last",
    "last_token": "last",
    "bos_token": "first",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an encoder turns texts into vectors; None where the checkpoint does not say.

    Attributes:
        pooling: how token states become one vector.
        max_length: most tokens of a text, template included.
        pool_instruction: pool all tokens, instruction and special tokens too.
        append_eos: end every text with the tokenizer's EOS.
        bidirectional: whether the model sees both ways.
        template: strings around each text.
        query_instruction: what ``encode_query`` of sentence-transformers puts before a query.
        normalize: whether vectors have length 1 unless a caller says otherwise.
    """

    pooling: Pooling | None = None
    max_length: int | None = None
    pool_instruction: bool | None = None
    append_eos: bool | None = None
    bidirectional: bool | None = None
    template: Template | None = None
    query_instruction: str | None = None
    normalize: bool | None = None

    def over(self, other: Settings) -> Settings:
        """Return these settings, filled up with those of ``other`` where they say nothing."""
        return replace(other, **{name: value for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a model lies and how its vectors are made.

    Attributes:
        layout: name of the layout, one of :data:`LAYOUTS`, or ``base + adapters``.
        base: folder with ``config.json`` and weights, or a GGUF file.
        tokenizer: folder or GGUF file that holds the tokenizer.
        adapters: adapter folders in the order in which they are applied.
        settings: what the checkpoint says about its vectors.
        base_name: name under which the base is known, if the checkpoint gives one.
        cache: folder in which to keep the base converted, if it is worth it.
    """

    layout: str
    base: Path
    tokenizer: Path
    adapters: tuple[Path, ...] = ()
    settings: Settings = Settings()
    base_name: str | None = None
    cache: Path | None = None


def inspect(source: str | Path, *, adapters: Sequence[str | Path] = (), progress: bool = False) -> Checkpoint:
    """Say what ``source`` is.

    Args:
        source: a short name, a folder, a GGUF file or a hub name.
        adapters: more adapters to apply on top, in order.
        progress: show downloads.

    Raises:
        CheckpointError: nothing of a known layout is there.
        DownloadError: it could not be fetched.
    """
    checkpoint = _inspect(source, progress, seen=())
    for adapter in adapters:
        folder = locate.path_of(adapter, progress=progress).path
        checkpoint = replace(
            checkpoint,
            layout="base + adapters",
            adapters=(*checkpoint.adapters, _require(folder, "adapter_config.json")),
            settings=_llm2vec_settings(folder).over(checkpoint.settings),
        )
    return checkpoint


def _inspect(source: str | Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    if str(source) in seen:
        raise CheckpointError(f"{' → '.join([*seen, str(source)])}: the checkpoint names itself as its base.")
    found = locate.path_of(source, progress=progress)
    for layout in LAYOUTS:
        if layout.matches(found.path):
            checkpoint = layout.read(found.path, progress, (*seen, str(source)))
            break
    else:
        files = ", ".join(sorted(p.name for p in found.path.iterdir())[:8]) if found.path.is_dir() else "a file"
        raise CheckpointError(
            f"{source} is no checkpoint Unmask knows: it holds {files or 'nothing'}. Expected a folder with "
            "config.json and *.safetensors, an adapter, a sentence-transformers folder, or a GGUF file."
        )
    if found.entry:
        checkpoint = _as_entry(checkpoint, found.entry, progress)
    return replace(checkpoint, cache=found.cache)


def _as_entry(checkpoint: Checkpoint, entry: Entry, progress: bool) -> Checkpoint:
    adapters = tuple(locate.path_of(name, progress=progress).path for name in entry.adapters)
    settings = replace(checkpoint.settings, template=checkpoint.settings.template or TEMPLATES[entry.template])
    for folder in adapters:
        settings = _llm2vec_settings(folder).over(settings)
    return replace(
        checkpoint,
        adapters=adapters or checkpoint.adapters,
        tokenizer=adapters[0] if adapters else checkpoint.tokenizer,
        layout="LLM2Vec" if adapters else checkpoint.layout,
        settings=settings,
    )


# --- the layouts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """A layout: what it is called, how it is recognised, how it is read."""

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, bool, tuple[str, ...]], Checkpoint]


def _read_gguf(file: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    return Checkpoint(layout="GGUF", base=file, tokenizer=file)


def _read_own(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    data = _json(folder / SETTINGS_FILE)
    try:
        template = Template(**data["template"])
        names = ("max_length", "pool_instruction", "append_eos", "bidirectional", "query_instruction", "normalize")
        settings = Settings(
            pooling=_known_pooling(data["pooling"], folder / SETTINGS_FILE),
            template=template,
            **{name: data[name] for name in names},
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / SETTINGS_FILE} is not as Unmask writes it: {error}. Save it again."
        ) from error
    return Checkpoint(layout="Unmask", base=folder, tokenizer=folder, settings=settings)


def _read_sentence_transformers(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    modules = _json(folder / "modules.json")
    kinds = {str(module["type"]).rsplit(".", 1)[-1]: folder / module["path"] for module in modules}
    foreign = sorted(kinds.keys() - {"Transformer", "Pooling", "Normalize"})
    if foreign or not {"Transformer", "Pooling"} <= kinds.keys():
        raise CheckpointError(
            f"{folder} is a sentence-transformers folder of {', '.join(kinds)}; expected a Transformer, a Pooling "
            "and perhaps a Normalize module."
        )
    body, pooling = kinds["Transformer"], _json(kinds["Pooling"] / "config.json")
    prompts = _json(folder / "config_sentence_transformers.json", default={}).get("prompts") or {}
    settings = Settings(
        pooling=_sentence_transformers_pooling(pooling, folder),
        max_length=_json(body / "sentence_bert_config.json", default={}).get("max_seq_length"),
        pool_instruction=bool(pooling.get("include_prompt", True)),
        bidirectional=_json(_require(body, "config.json") / "config.json").get("is_causal") is False,
        template=BARE,
        query_instruction=prompts.get("query") or None,
        normalize="Normalize" in kinds,
    )
    return Checkpoint(layout="sentence-transformers", base=body, tokenizer=body, settings=settings)


def _sentence_transformers_pooling(data: dict[str, Any], folder: Path) -> Pooling:
    names: dict[str, Pooling] = {
        "mean": "mean", "weightedmean": "weighted_mean", "lasttoken": "last", "cls": "first",
    }  # fmt: skip
    flags = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_weightedmean_tokens": "weightedmean",
        "pooling_mode_lasttoken": "lasttoken",
        "pooling_mode_cls_token": "cls",
    }
    mode = data.get("pooling_mode")
    chosen = [mode] if mode is not None else [name for flag, name in flags.items() if data.get(flag)]
    if isinstance(mode, list):
        chosen = mode
    if len(chosen) != 1 or chosen[0] not in names:
        raise CheckpointError(f"{folder} pools by {chosen or 'nothing known'}; expected one of {', '.join(names)}.")
    return names[chosen[0]]


def _read_mntp(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    name = str(_json(folder / "config.json").get("_name_or_path") or "")
    stated = _json(folder / "adapter_config.json").get("base_model_name_or_path") or name
    base = name if _same(stated, folder) else stated
    if not base or _same(base, folder):
        raise CheckpointError(f"{folder} does not name its base. Load the base and give adapters=[…].")
    return _on_base(base, folder, "LLM2Vec", progress, seen, tokenizer=folder, name=name)


def _read_adapter(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    return _on_base(_base_of_adapter(folder), folder, "base + adapters", progress, seen)


def _on_base(
    base: str,
    folder: Path,
    layout: str,
    progress: bool,
    seen: tuple[str, ...],
    *,
    tokenizer: Path | None = None,
    name: str = "",
) -> Checkpoint:
    under = _inspect(base, progress, seen)
    known = template_of_base(name or base)
    stated = Settings(template=TEMPLATES[known] if known else None)
    return replace(
        under,
        layout="LLM2Vec" if under.layout == "LLM2Vec" else layout,
        adapters=(*under.adapters, folder),
        tokenizer=tokenizer if tokenizer and _has_tokenizer(tokenizer) else under.tokenizer,
        settings=_llm2vec_settings(folder).over(stated).over(under.settings),
        base_name=name or under.base_name or base,
    )


def _read_language_model(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    name = _json(folder / "config.json").get("_name_or_path") or None
    known = template_of_base(name) if name else None
    settings = Settings(template=TEMPLATES[known] if known else None)
    return Checkpoint(
        layout="language model",
        base=folder,
        tokenizer=folder,
        settings=_llm2vec_settings(folder).over(settings),
        base_name=name,
    )


def _has_weights(folder: Path) -> bool:
    names = ("model*.safetensors", "pytorch_model*.bin")
    return any(True for pattern in names for _ in folder.glob(pattern))


LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout("GGUF", lambda path: path.is_file() and path.suffix == ".gguf", _read_gguf),
    Layout("Unmask", lambda path: (path / SETTINGS_FILE).is_file(), _read_own),
    Layout("sentence-transformers", lambda path: (path / "modules.json").is_file(), _read_sentence_transformers),
    Layout(
        "LLM2Vec",
        lambda path: (
            (path / "adapter_config.json").is_file() and (path / "config.json").is_file() and not _has_weights(path)
        ),
        _read_mntp,
    ),
    Layout("adapter", lambda path: (path / "adapter_config.json").is_file(), _read_adapter),
    Layout(
        "language model", lambda path: (path / "config.json").is_file() and _has_weights(path), _read_language_model
    ),
)


# --- small readers ---------------------------------------------------------------------------------


def _json(file: Path, default: Any = None) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise CheckpointError(f"{file} is missing.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}. Fetch it again.") from error


def _require(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise CheckpointError(f"{folder} has no {name}.")
    return folder


def _known_pooling(name: str, file: Path) -> Pooling:
    for known in POOLINGS:
        if name == known:
            return known
    raise CheckpointError(f"{file} asks for pooling {name!r}; expected one of {', '.join(POOLINGS)}.")


def reference_pooling(name: str) -> tuple[Pooling, bool]:
    """Return our name for a pooling mode of either library, and whether EOS is appended.

    Raises:
        InputError: neither library has such a mode.
    """
    for known in POOLINGS:
        if name == known:
            return known, False
    if name not in REFERENCE_POOLINGS:
        raise InputError(
            f"pooling {name!r} is unknown; expected one of {', '.join(POOLINGS)}, or llm2vec's names "
            f"{', '.join(REFERENCE_POOLINGS)}."
        )
    return REFERENCE_POOLINGS[name], name == "eos_token"


def _llm2vec_settings(folder: Path) -> Settings:
    data = _json(folder / LLM2VEC_FILE, default={})
    if not data:
        return Settings()
    pooling, append_eos = reference_pooling(data.get("pooling_mode", "mean"))
    return Settings(
        pooling=pooling,
        append_eos=append_eos,
        max_length=data.get("max_length"),
        pool_instruction=not data.get("skip_instruction", True),
    )


def _base_of_adapter(folder: Path) -> str:
    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base or _same(base, folder):
        raise CheckpointError(f"Adapter {folder} does not name its base. Load the base and give adapters=[…].")
    return str(base)


def _same(name: str, folder: Path) -> bool:
    return Path(name).is_dir() and Path(name).resolve() == folder.resolve()


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))

"""Layouts on disk, told apart by looking at the files. No weights are loaded, and no code is ever run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from unmask.backbone.families import TEMPLATES
from unmask.checkpoint.files import CONFIG_FILE, check_shards, has_weights, read_json, shown
from unmask.checkpoint.from_sentence_transformers import MODULES_FILE, read_sentence_transformers
from unmask.checkpoint.settings import Checkpoint, Settings, reference_pooling, settings_from
from unmask.errors import CheckpointError, InputError
from unmask.hub import locate
from unmask.hub.catalogue import Entry, base_of, template_of_base
from unmask.text import Template

SETTINGS_FILE: Final = "unmask.json"
#: The number in a settings file; it grows when an older Unmask could no longer read what is written.
FORMAT: Final = 1
LLM2VEC_FILE: Final = "llm2vec_config.json"
ADAPTER_FILE: Final = "adapter_config.json"


def inspect(source: str | Path, *, adapters: Sequence[str | Path] = (), progress: bool = False) -> Checkpoint:
    """Say what ``source`` is.

    Args:
        source: a short name, a folder, a GGUF file or a hub name.
        adapters: more adapters to apply on top, in order.
        progress: show downloads.

    Raises:
        CheckpointError: nothing of a known layout is there, or it is damaged.
        DownloadError: it could not be fetched.
    """
    checkpoint = _inspect(source, progress, seen=())
    for adapter in adapters:
        folder = locate.path_of(adapter, progress=progress).path
        if not (folder / ADAPTER_FILE).is_file():
            raise CheckpointError(f"{adapter} is no adapter: it holds {shown(folder)}. Expected {ADAPTER_FILE}.")
        checkpoint = replace(
            checkpoint,
            layout="base + adapters",
            adapters=(*checkpoint.adapters, folder),
            settings=_llm2vec_settings(folder).over(checkpoint.settings),
        )
    return checkpoint


def _inspect(source: str | Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    found = locate.path_of(source, progress=progress)
    place = str(found.path.resolve())
    if place in seen:
        raise CheckpointError(
            f"{source} is its own base: {' → '.join([*seen, place])}. Load the base and give adapters=[…]."
        )
    for layout in LAYOUTS:
        if layout.matches(found.path):
            checkpoint = layout.read(found.path, progress, (*seen, place))
            break
    else:
        raise CheckpointError(_unknown(source, found.path))
    if found.entry:
        checkpoint = _as_entry(checkpoint, found.entry, progress)
    return replace(checkpoint, cache=found.cache)


def _unknown(source: str | Path, path: Path) -> str:
    if (path / CONFIG_FILE).is_file():
        return f"{source} has no weights: it holds {shown(path)}. Expected *.safetensors beside {CONFIG_FILE}."
    return (
        f"{source} is no checkpoint Unmask knows: it holds {shown(path)}. Expected a folder with {CONFIG_FILE} and "
        "*.safetensors, an adapter, a sentence-transformers folder, or a GGUF file."
    )


def _as_entry(checkpoint: Checkpoint, entry: Entry, progress: bool) -> Checkpoint:
    """Return ``checkpoint`` with what the catalogue says about it."""
    adapters = tuple(locate.path_of(name, progress=progress).path for name in entry.adapters)
    adapters += tuple(locate.SHIPPED / name for name in entry.shipped)
    settings = replace(checkpoint.settings, template=checkpoint.settings.template or TEMPLATES[entry.template])
    for folder in adapters:
        settings = _llm2vec_settings(folder).over(settings)
    if not adapters:
        return replace(checkpoint, settings=settings, base_name=checkpoint.base_name or entry.name)
    return replace(
        _with_tokenizer(checkpoint, adapters[0]),
        adapters=adapters,
        layout="LLM2Vec",
        settings=settings,
        base_name=entry.base if isinstance(entry.base, str) else base_of(entry).name,
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
    file = folder / SETTINGS_FILE
    data = read_json(file)
    if data.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} is of format {data.get('format')!r}; this Unmask reads format {FORMAT}. Upgrade Unmask."
        )
    try:
        values: dict[str, Any] = dict(data["settings"])
        settings = settings_from(file, values | {"template": Template(**values["template"])})
        merged = tuple(map(str, data["adapters"]))
        parts, name = dict(data["tokenizer"]), data["base_name"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is not as Unmask writes it: {error!r}. Save the encoder again.") from error
    if not (folder / CONFIG_FILE).is_file() or not has_weights(folder):
        raise CheckpointError(_unknown(folder, folder))
    check_shards(folder)
    return Checkpoint(
        layout="Unmask",
        base=folder,
        tokenizer=folder,
        tokenizer_parts=parts,
        settings=settings,
        base_name=name,
        merged=merged,
    )


def _read_foreign(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    return read_sentence_transformers(folder)


def _read_mntp(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    """Read a repository with a base's configuration and an adapter, but no base weights."""
    name = str(read_json(folder / CONFIG_FILE).get("_name_or_path") or "")
    stated = str(read_json(folder / ADAPTER_FILE).get("base_model_name_or_path") or name)
    base = name if _same(stated, folder) else stated
    if not base or _same(base, folder):
        raise CheckpointError(f"{folder} does not name its base. Load the base and give adapters=[…].")
    return _on_base(base, folder, "LLM2Vec", progress, seen, tokenizer=folder, name=name)


def _read_adapter(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    base = str(read_json(folder / ADAPTER_FILE).get("base_model_name_or_path") or "")
    if not base or _same(base, folder):
        raise CheckpointError(f"Adapter {folder} does not name its base. Load the base and give adapters=[…].")
    return _on_base(base, folder, "base + adapters", progress, seen)


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
        _with_tokenizer(under, tokenizer) if tokenizer else under,
        layout="LLM2Vec" if under.layout == "LLM2Vec" else layout,
        adapters=(*under.adapters, folder),
        settings=_llm2vec_settings(folder).over(stated).over(under.settings),
        base_name=name or under.base_name or base,
    )


def _read_language_model(folder: Path, progress: bool, seen: tuple[str, ...]) -> Checkpoint:
    name = read_json(folder / CONFIG_FILE).get("_name_or_path") or None
    known = template_of_base(name) if name else None
    check_shards(folder)
    return Checkpoint(
        layout="language model",
        base=folder,
        tokenizer=folder,
        settings=_llm2vec_settings(folder).over(Settings(template=TEMPLATES[known] if known else None)),
        base_name=name,
    )


LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout("GGUF", lambda path: path.is_file() and path.suffix == ".gguf", _read_gguf),
    Layout("Unmask", lambda path: (path / SETTINGS_FILE).is_file(), _read_own),
    Layout("sentence-transformers", lambda path: (path / MODULES_FILE).is_file(), _read_foreign),
    Layout(
        "LLM2Vec",
        lambda path: (path / ADAPTER_FILE).is_file() and (path / CONFIG_FILE).is_file() and not has_weights(path),
        _read_mntp,
    ),
    Layout("adapter", lambda path: (path / ADAPTER_FILE).is_file(), _read_adapter),
    Layout("language model", lambda path: (path / CONFIG_FILE).is_file() and has_weights(path), _read_language_model),
)


# --- small readers ---------------------------------------------------------------------------------


def _llm2vec_settings(folder: Path) -> Settings:
    file = folder / LLM2VEC_FILE
    data = read_json(file, default={})
    if not data:
        return Settings()
    try:
        pooling, append_eos = reference_pooling(str(data.get("pooling_mode", "mean")))
    except InputError as error:
        raise CheckpointError(f"{file}: {error}") from error
    skip = data.get("skip_instruction", True)
    values = {
        "pooling": pooling,
        "append_eos": append_eos,
        "max_length": data.get("max_length"),
        "pool_instruction": not skip if isinstance(skip, bool) else skip,
    }
    return settings_from(file, values)


def _with_tokenizer(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Return ``checkpoint`` with the tokenizer of ``folder``, if it has one."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return checkpoint
    return replace(checkpoint, tokenizer=folder, tokenizer_parts=None)


def _same(name: str, folder: Path) -> bool:
    return Path(name).is_dir() and Path(name).resolve() == folder.resolve()

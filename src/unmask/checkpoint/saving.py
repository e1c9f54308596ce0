"""An encoder → a folder that loads here, and in sentence-transformers where that can do the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unmask._version import __version__
from unmask.backbone.backbone import Backbone
from unmask.checkpoint.around_content import InexpressibleError
from unmask.checkpoint.card import model_card
from unmask.checkpoint.files import CONFIG_FILE
from unmask.checkpoint.layouts import FORMAT, SETTINGS_FILE
from unmask.checkpoint.settings import Checkpoint, Settings
from unmask.checkpoint.to_sentence_transformers import Export, sentence_transformers_files
from unmask.checkpoint.weights import merged_weights, write_weights
from unmask.errors import InputError
from unmask.hub.cache import atomic_folder
from unmask.text import TextTokenizer
from unmask.tokenizers import TOKENIZER_FILE, ModelTokenizer

#: Entries of a model's configuration that say where it came from or how it was run, not what it is.
_PASSING = ("auto_map", "quantization_config", "_name_or_path", "_attn_implementation_autoset", "attn_implementation")


@dataclass(frozen=True)
class Saved:
    """A folder that was written.

    Attributes:
        folder: where.
        only_here: why sentence-transformers cannot load it with the same vectors; None: it can.
    """

    folder: Path
    only_here: str | None


def write(
    folder: Path,
    *,
    backbone: Backbone,
    tokenizer: ModelTokenizer,
    texts: TextTokenizer,
    settings: Settings,
    source: Checkpoint,
    notes: str | None = None,
    extra: Mapping[str, str] | None = None,
    replace_existing: bool = False,
) -> Saved:
    """Write an encoder, adapters merged, to ``folder``; it appears whole or not at all.

    Args:
        folder: where; must not exist unless ``replace_existing``.
        backbone: the model, unchanged by this.
        tokenizer: the model's own tokenizer.
        texts: the same with the encoder's template.
        settings: how texts become vectors; all fields are set.
        source: where the encoder was loaded from.
        notes: more to say in the model card, Markdown.
        extra: more text files, by name.
        replace_existing: put the new folder in the place of an old one.

    Raises:
        InputError: the folder exists already, or cannot be written; or the weights are rounded to eight bits.
    """
    if backbone.float8:
        raise InputError("The weights of a model in fp8 are rounded and not worth keeping. Load it in 'bfloat16'.")
    try:
        export: Export | None = _export(backbone, tokenizer, texts, settings)
        only_here = None
    except InexpressibleError as error:
        export, only_here = None, str(error)
    files = export.files if export else _own_tokenizer(tokenizer, texts)
    adapters = _names_of_adapters(source)
    base = _public_name(source.base_name)
    files |= {
        CONFIG_FILE: _config(backbone),
        SETTINGS_FILE: {
            "format": FORMAT,
            "version": __version__,
            "base_name": base,
            "adapters": list(adapters),
            "settings": asdict(settings),
            "tokenizer": tokenizer.as_parts(),
        },
    }
    card = model_card(
        settings,
        base=base,
        adapters=adapters,
        model_type=backbone.config.model_type,
        dimension=int(backbone.config.hidden_size),
        only_here=only_here,
        strips=export.strips if export else True,
    ) + (f"\n{notes.strip()}\n" if notes else "")
    with atomic_folder(folder, replace=replace_existing) as draft:
        for name, data in files.items():
            (draft / name).parent.mkdir(exist_ok=True)
            # A vocabulary of a hundred thousand tokens wants no line for each.
            text = json.dumps(data, ensure_ascii=False, indent=None if name == TOKENIZER_FILE else 2)
            (draft / name).write_text(text, encoding="utf-8")
        for name, text in {"README.md": card, **(extra or {})}.items():
            (draft / name).write_text(text, encoding="utf-8")
        write_weights(draft, merged_weights(backbone.model))
    return Saved(folder, only_here)


def _export(backbone: Backbone, tokenizer: ModelTokenizer, texts: TextTokenizer, settings: Settings) -> Export:
    exact = backbone.family.exact_attention if backbone.family else "eager"
    return sentence_transformers_files(
        texts,
        settings,
        eos=tokenizer.eos,
        dimension=int(backbone.config.hidden_size),
        model_type=backbone.config.model_type,
        attention=None if exact == "sdpa" else exact,
    )


def _own_tokenizer(tokenizer: ModelTokenizer, texts: TextTokenizer) -> dict[str, Any]:
    named = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos}
    return {
        TOKENIZER_FILE: json.loads(tokenizer.backend.to_str()),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": texts.max_length,
            **{name: token for name, token in named.items() if token is not None},
        },
    }


def _config(backbone: Backbone) -> dict[str, Any]:
    """Return the model's configuration, saying which way it reads."""
    config = backbone.config.to_dict()
    kept = {name: value for name, value in config.items() if name not in _PASSING}
    return kept | {
        "architectures": [type(backbone.model).__name__],
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "is_causal": not backbone.bidirectional,
        "use_cache": False,
    }


def _names_of_adapters(source: Checkpoint) -> tuple[str, ...]:
    return (*source.merged, *(_name_of(folder) for folder in source.adapters))


def _name_of(folder: Path) -> str:
    """Return the name of an adapter's folder; of the hub's cache, the repository's; of a training run, the stage's."""
    parts = folder.resolve().parts
    cached = next((part for part in reversed(parts) if part.startswith("models--")), None)
    if cached:
        return cached.removeprefix("models--").replace("--", "/", 1)
    return parts[-2] if parts[-1] == "adapter" and len(parts) > 2 else parts[-1]


def _public_name(name: str | None) -> str | None:
    """Return a base's name without the folders of this machine."""
    if not name:
        return None
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name

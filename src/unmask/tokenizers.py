"""A model's own tokenizer, read from a folder or a GGUF file; code of a repository is never run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from unmask.errors import CheckpointError

TOKENIZER_FILE: Final = "tokenizer.json"
#: The parts of a ``tokenizer.json`` that a saved encoder's file has in another form than the model's own.
_PARTS: Final = ("normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class ModelTokenizer:
    """A fast tokenizer and what the model says about it.

    Attributes:
        backend: the tokenizer itself, without truncation or padding.
        control: strings of its special tokens.
        bos: its beginning-of-text token, None if it has none.
        eos: its end-of-text token, None if it has none.
        chat_template: Jinja text of its chat template, None if it has none.
    """

    backend: Tokenizer
    control: tuple[str, ...]
    bos: str | None
    eos: str | None
    chat_template: str | None

    def as_parts(self) -> dict[str, Any]:
        """Return as plain data what :func:`load_tokenizer` needs besides the vocabulary to get this tokenizer back."""
        data = json.loads(self.backend.to_str())
        own = {name: data[name] for name in _PARTS}
        return own | {
            "control": list(self.control),
            "bos": self.bos,
            "eos": self.eos,
            "chat_template": self.chat_template,
        }


def load_tokenizer(source: Path, parts: Mapping[str, Any] | None = None) -> ModelTokenizer:
    """Load the tokenizer of a folder or GGUF file.

    Args:
        source: the folder or file.
        parts: what :meth:`ModelTokenizer.as_parts` gave, if the folder is a saved encoder. Nothing but
            ``tokenizer.json`` is then read, which takes a fraction of a second.

    Raises:
        CheckpointError: there is none, it is damaged, or it is not a fast one.
    """
    loaded = _load_any(source) if parts is None else _load_saved(source / TOKENIZER_FILE, parts)
    loaded.backend.no_truncation()
    loaded.backend.no_padding()
    return loaded


def _load_saved(file: Path, parts: Mapping[str, Any]) -> ModelTokenizer:
    try:
        backend = _with_parts(Tokenizer.from_file(str(file)), {name: parts[name] for name in _PARTS})
        return ModelTokenizer(
            backend=backend,
            control=tuple(map(str, parts["control"])),
            bos=parts["bos"],
            eos=parts["eos"],
            chat_template=parts["chat_template"],
        )
    # The tokenizers library raises bare Exceptions.
    except Exception as error:
        raise CheckpointError(
            f"{file} or the settings beside it are damaged: {error}. Save the encoder again."
        ) from error


def _with_parts(backend: Tokenizer, parts: dict[str, Any]) -> Tokenizer:
    """Return ``backend`` with other normalizer, pre-tokenizer and post-processor."""
    if any(token.normalized for token in backend.get_added_tokens_decoder().values()):
        # Such tokens were read through the old normalizer.
        return Tokenizer.from_str(json.dumps(json.loads(backend.to_str()) | parts))
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    donor: Any = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": empty, **parts}))
    changed: Any = backend
    for name in _PARTS:
        setattr(changed, name, getattr(donor, name))
    return backend


def _load_any(source: Path) -> ModelTokenizer:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        options = {"gguf_file": source.name} if source.is_file() else {}
        folder = source.parent if source.is_file() else source
        fast = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    # The tokenizers library raises bare Exceptions for a damaged tokenizer.json.
    except Exception as error:
        raise CheckpointError(f"{source} has no usable tokenizer: {_first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not isinstance(fast, PreTrainedTokenizerFast):
        raise CheckpointError(
            f"The tokenizer of {source} is a {type(fast).__name__}; expected one with {TOKENIZER_FILE}."
        )
    return from_transformers(fast)


def from_transformers(fast: PreTrainedTokenizerFast) -> ModelTokenizer:
    """Return what Unmask needs of a fast tokenizer of transformers; the backend is shared with it."""
    template = fast.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return ModelTokenizer(
        backend=fast.backend_tokenizer,
        control=tuple(fast.all_special_tokens),
        bos=fast.bos_token,
        eos=fast.eos_token,
        chat_template=template,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

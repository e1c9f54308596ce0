"""A model's own tokenizer, read from a folder or a GGUF file; code of a repository is never run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from unmask.errors import CheckpointError


@dataclass(frozen=True)
class ModelTokenizer:
    """A fast tokenizer and what the model says about it.

    Attributes:
        fast: transformers' tokenizer.
        control: strings of its special tokens.
        bos: its beginning-of-text token, None if it has none.
        eos: its end-of-text token, None if it has none.
        chat_template: Jinja text of its chat template, None if it has none.
    """

    fast: PreTrainedTokenizerFast
    control: tuple[str, ...]
    bos: str | None
    eos: str | None
    chat_template: str | None

    @property
    def backend(self) -> Tokenizer:
        """The tokenizer of the tokenizers library underneath."""
        backend: Tokenizer = self.fast.backend_tokenizer
        return backend


def load_tokenizer(source: Path) -> ModelTokenizer:
    """Load the tokenizer of a folder or GGUF file.

    Raises:
        CheckpointError: there is none, or it is not a fast one.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        options = {"gguf_file": source.name} if source.is_file() else {}
        folder = source.parent if source.is_file() else source
        fast = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source} has no usable tokenizer: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not isinstance(fast, PreTrainedTokenizerFast):
        raise CheckpointError(f"The tokenizer of {source} is a {type(fast).__name__}; expected one with tokenizer.json.")
    template = fast.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return ModelTokenizer(
        fast=fast,
        control=tuple(fast.all_special_tokens),
        bos=fast.bos_token,
        eos=fast.eos_token,
        chat_template=template,
    )

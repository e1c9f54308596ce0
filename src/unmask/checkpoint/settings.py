"""What a checkpoint says: where a model lies, and how its texts become vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from unmask.errors import CheckpointError, InputError
from unmask.pooling import POOLINGS, Pooling
from unmask.text import Template

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
        layout: name of the layout, one of :data:`unmask.checkpoint.LAYOUTS`, or ``base + adapters``.
        base: folder with ``config.json`` and weights, or a GGUF file.
        tokenizer: folder or GGUF file that holds the tokenizer.
        tokenizer_parts: what :func:`unmask.tokenizers.load_tokenizer` needs to read a saved encoder's
            tokenizer; None in every other layout.
        adapters: adapter folders in the order in which they are applied.
        settings: what the checkpoint says about its vectors.
        base_name: name under which the base is known, if the checkpoint gives one.
        merged: names of the adapters that are merged into the base's weights already.
        cache: folder in which to keep the base converted, if it is worth it.
    """

    layout: str
    base: Path
    tokenizer: Path
    tokenizer_parts: Mapping[str, Any] | None = None
    adapters: tuple[Path, ...] = ()
    settings: Settings = Settings()
    base_name: str | None = None
    merged: tuple[str, ...] = ()
    cache: Path | None = None


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


def settings_from(file: Path, values: Mapping[str, Any]) -> Settings:
    """Return settings read from ``file``, each checked for its type; None stands for "does not say".

    Raises:
        CheckpointError: a value is of another type, or out of range.
    """
    for name, value in values.items():
        expected, fits = _EXPECTED[name]
        if value is not None and not fits(value):
            raise CheckpointError(f"{file} says {name}: {value!r}; expected {expected}. Correct it, or fetch it again.")
    return Settings(**values)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_EXPECTED: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "pooling": (f"one of {', '.join(POOLINGS)}", lambda value: value in POOLINGS),
    "max_length": ("a number above 0", _is_length),
    "pool_instruction": ("true or false", _is_bool),
    "append_eos": ("true or false", _is_bool),
    "bidirectional": ("true or false", _is_bool),
    "template": ("a prefix and a suffix", lambda value: isinstance(value, Template)),
    "query_instruction": ("a string", lambda value: isinstance(value, str)),
    "normalize": ("true or false", _is_bool),
}

"""Tokens of texts whose tokenizer is elsewhere: how many there can be at most, and how a sum falls on them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from unmask.text import SEPARATOR, Text

#: What template and special tokens add at most; a chat template with a system prompt of a line has about thirty.
AROUND: Final = 48


def most_tokens(texts: Sequence[Text], max_length: int | None) -> tuple[int, ...]:
    """Return how many tokens each text can have at most.

    A tokenizer makes no token of less than a byte. Some bring a text into its compatible form first (NFKC), in which it
    may have more bytes.

    Args:
        texts: any.
        max_length: at which the model cuts them; None if that is not known.
    """
    found = (len(text.instruction.encode()) + _bytes(text.content) + AROUND for text in map(_compatible, texts))
    return tuple(bound if max_length is None else min(bound, max_length) for bound in found)


def split(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Return whole numbers that sum up to ``total`` and stand to one another as ``weights`` do, as nearly as can be.

    Args:
        total: 0 or more.
        weights: at least one, not all of them 0.
    """
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    rests = sorted(range(len(weights)), key=lambda index: -(total * weights[index] % whole))
    for index in rests[: total - sum(parts)]:
        parts[index] += 1
    return tuple(parts)


def joined(text: Text) -> str:
    """Return a text as one string, its instruction in front, as the published models have it."""
    instruction, content = text.instruction.strip(), text.content.strip()
    return f"{instruction}{SEPARATOR}{content}" if instruction else content


def _compatible(text: Text) -> Text:
    if text.instruction.isascii() and text.content.isascii():
        return text
    return Text(
        *(max(part, unicodedata.normalize("NFKD", part), key=_bytes) for part in (text.instruction, text.content))
    )


def _bytes(string: str) -> int:
    return len(string) if string.isascii() else len(string.encode())

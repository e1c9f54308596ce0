"""What stands around the content of every text: token ids, and how to cut them for a lone prompt.

See :mod:`unmask.checkpoint.to_sentence_transformers`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer

from unmask.text import TextTokenizer

#: Contents whose tokens must not depend on the template around them.
PROBES: Final = (
    "x", "Word one.", "1 2", "中文", "é", "😀", "(a)", "مرحبا", "'s", "\"q\"", "-", "/", "_", ".", "$5", "]", "[a]",
    "A:", "two\nlines", "tab\there", "n\n\nm",
)  # fmt: skip


class InexpressibleError(Exception):
    """sentence-transformers cannot do what this encoder does; the message says what."""


@dataclass(frozen=True)
class Frame:
    """What surrounds every text: ids before it, text glued to its front, ids behind it."""

    head: tuple[int, ...]
    glue: str
    tail: tuple[int, ...]


def literally(data: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a ``tokenizer.json`` that reads special tokens' strings as plain text."""
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.encode_special_tokens = True
    return tokenizer


def ids_of(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Return the ids of a text, without what the post-processor adds."""
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def find_frame(plain: Tokenizer, texts: TextTokenizer) -> Frame:
    """Find the ids around the content that are the same for every content."""
    whole = {probe: (*texts.head, *ids_of(plain, texts.lead + probe + texts.tail), *texts.foot) for probe in PROBES}
    longest = _common([ids[::-1] for ids in whole.values()])
    shortest = len(texts.foot) + bool(texts.tail)
    for glue in dict.fromkeys(("", " " if texts.lead.endswith(" ") else "")):
        bare = {probe: ids_of(plain, glue + probe) for probe in PROBES}
        for count in range(longest, shortest - 1, -1):
            frame = _fitting(whole, bare, glue, count)
            if frame is not None:
                return frame
    raise InexpressibleError(
        f"the tokens of the template {texts.template.prefix!r} … {texts.template.suffix!r} change with the text in it"
    )


def _fitting(
    whole: Mapping[str, tuple[int, ...]], bare: Mapping[str, tuple[int, ...]], glue: str, count: int
) -> Frame | None:
    """Return the frame with ``count`` ids behind the content, if every probe fits into it."""
    heads = {ids[: max(len(ids) - len(bare[probe]) - count, 0)] for probe, ids in whole.items()}
    tails = {ids[len(ids) - count :] for ids in whole.values()}
    if len(heads) != 1 or len(tails) != 1:
        return None
    head, tail = heads.pop(), tails.pop()
    return Frame(head, glue, tail) if all(head + bare[p] + tail == ids for p, ids in whole.items()) else None


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common beginning."""
    columns = enumerate(zip(*rows, strict=False))
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, rows)))


@dataclass(frozen=True)
class Prefix:
    """What stands before the content.

    Attributes:
        ids: in front of every text.
        content: text in front of what has content.
        lone: text in front of a lone prompt.
        gap: spaces between that and an instruction.
    """

    ids: tuple[int, ...]
    content: str = ""
    lone: str = ""
    gap: str = ""


def split_prefix(plain: Tokenizer, frame: Frame, drop: int, lead: str) -> Prefix:
    """Split what stands before the content so that a lone prompt lacks its last ``drop`` tokens.

    Args:
        plain: the tokenizer.
        frame: what stands around the content.
        drop: how many ids a lone prompt must lack.
        lead: the prefix's plain text.
    """
    if not drop:
        return Prefix(frame.head)
    encoding = plain.encode(lead + PROBES[0], add_special_tokens=False)
    before = len(encoding.ids) - len(ids_of(plain, frame.glue + PROBES[0]))
    if drop > before:
        raise InexpressibleError(
            f"the template's suffix takes {drop + 1} tokens, too many for the {before} of its prefix's plain text"
        )
    kept, text = frame.head[: len(frame.head) - drop], lead[: len(lead) - len(frame.glue)]
    cut = encoding.offsets[before - drop][0] if drop < before else 0
    for tail in (text[cut:], text[cut:].rstrip(" "), text[cut:].lstrip(" ")):
        if _joins(plain, frame, kept, tail):
            return Prefix(kept, tail)
    # A tokenizer that treats the start of a text in its own way: cut the text, and no ids.
    whole = frame.head[: len(frame.head) - before]
    if _joins(plain, frame, whole, text):
        return Prefix(whole, text, text[:cut].rstrip(" "), " " * (len(text) - len(text.rstrip(" "))))
    raise InexpressibleError(f"the template's prefix {lead!r} cannot be cut {drop} tokens before its end")


def _joins(plain: Tokenizer, frame: Frame, ids: tuple[int, ...], text: str) -> bool:
    """Whether ``ids`` and ``text`` in front of every probe give the frame's head."""
    glue = frame.glue
    return all(ids + ids_of(plain, text + glue + p) == frame.head + ids_of(plain, glue + p) for p in PROBES)

"""Normalizer steps of an exported tokenizer: how it tells a lone prompt from a prompt with content.

See :mod:`unmask.checkpoint.to_sentence_transformers`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final

#: Stands at the end of a prompt: what follows is the content. The model never sees it.
MARKER: Final = "<|content|>"
#: Marks the start of a text while the rules run.
_START: Final = "\ue000"
#: White space as ``str.strip`` has it, and its opposite, in the regular expressions of the tokenizers library.
_SPACE: Final = r"[\s\x1c-\x1f]"
_INK: Final = r"[^\s\x1c-\x1f]"


def rules(conditional: str, glue: str, *, lone: str, gap: str, strips: bool) -> list[dict[str, Any]]:
    """Return the steps that run on the raw text before the tokenizer's own normalizer.

    A text is a *lone prompt* when nothing but white space follows the marker, or, without a marker, when
    it ends in white space. Anything else has content.

    Args:
        conditional: goes in front of what has content.
        glue: goes between what stands in front and the text.
        lone: goes in front of a lone prompt.
        gap: goes between that and an instruction.
        strips: take white space from both ends.
    """
    mark, lead = re.escape(MARKER), conditional + glue
    steps: list[tuple[str, str]] = []
    if lead:
        # A rule that matches nothing at the start of a text breaks the library later: hence the start sign.
        steps += [
            (rf"\A{_START}{_SPACE}*{mark}{_SPACE}*(?={_INK})", lead),
            (rf"\A{_START}{_SPACE}*(?={_INK})(?!{mark})(?m:(?=.*?{mark}{_SPACE}*{_INK}))", lead),
            (rf"\A{_START}{_SPACE}*(?={_INK})(?m:(?!.*?{mark}))(?m:(?=.*{_INK}\z))", lead),
            (rf"\A{_START}{_SPACE}*(?!{mark})", lone + gap + glue),
        ]
    elif strips:
        steps.append((rf"\A{_SPACE}+", ""))
    steps += [
        (rf"\A{_START}?{mark}{_SPACE}*", lone),
        (rf" ?{mark}{_SPACE}*\z", ""),
        (rf" ?{mark}{_SPACE}*", " "),
    ]
    if strips:
        steps.append((rf"(?<!{_SPACE}){_SPACE}+\z|\A{_SPACE}+\z", ""))
    replacing = [{"type": "Replace", "pattern": {"Regex": pattern}, "content": by} for pattern, by in steps]
    return [{"type": "Prepend", "prepend": _START}, *replacing] if lead else replacing


def as_list(normalizer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return a normalizer as the list of its steps."""
    if normalizer is None:
        return []
    return list(normalizer["normalizers"]) if normalizer["type"] == "Sequence" else [dict(normalizer)]


def prepend_early(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``tokenizer.json`` whose Metaspace puts its mark in front of a text in the normalizer.

    In the pre-tokenizer the mark would turn an empty text into one token, and would be lost where the
    normalizer has taken characters away from the front.
    """
    out: dict[str, Any] = copy.deepcopy(dict(data))
    pre = out.get("pre_tokenizer") or {}
    found = [
        step
        for step in pre.get("pretokenizers", [pre])
        if step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never"
    ]
    if not found:
        return out
    mark = found[0]["replacement"]
    found[0]["prepend_scheme"] = "never"
    early = [
        {"type": "Prepend", "prepend": mark},
        {"type": "Replace", "pattern": {"Regex": rf"\A{mark}[ {mark}]"}, "content": mark},
    ]
    out["normalizer"] = {"type": "Sequence", "normalizers": as_list(out.get("normalizer")) + early}
    return out

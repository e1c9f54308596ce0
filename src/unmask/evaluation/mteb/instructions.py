"""Which instruction a task's texts get: from a file of the user, else from mteb's own description of the task.

Queries have it, documents have none; where mteb does not say which of the two a text is (STS, pair classification,
clustering, classification, summarisation), both sides have it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: mteb's prompt types by their values (``mteb.types.PromptType``).
QUERY: Final = "query"
DOCUMENT: Final = "document"


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """The instruction of each task.

    Attributes:
        own: instructions that win over mteb's, by the exact name of the task; an empty one means none.
    """

    own: Mapping[str, str] = field(default_factory=dict)

    def of(self, metadata: Any, prompt_type: Any = None) -> str:
        """Return the instruction for texts of a task, empty for none.

        Args:
            metadata: mteb's metadata of the task.
            prompt_type: mteb's, what the texts are: queries, documents, or None if both sides are alike.
        """
        if prompt_type is not None and prompt_type.value == DOCUMENT:
            return ""
        if metadata.name in self.own:
            return self.own[metadata.name].strip()
        return with_colon(_described(metadata))

    def digest(self) -> str:
        """Return what tells these instructions from others; empty if mteb's are used throughout."""
        if not self.own:
            return ""
        return hashlib.sha256(json.dumps(sorted(self.own.items())).encode()).hexdigest()


def with_colon(instruction: str) -> str:
    """Return ``instruction`` with a colon at its end in place of a full stop.

    So the reference passes mteb's prompts on (llm2vec 0.2.3, ``llm2vec_instruction`` of ``mteb_eval_custom.py``), and
    so training wrote its instructions. A user's own are left as they are.
    """
    bare = instruction.strip()
    return bare if not bare or bare.endswith(":") else bare.strip(".") + ":"


def _described(metadata: Any) -> str:
    """Return the task's own prompt, for queries if it has several; else that of its kind of task."""
    prompt = metadata.prompt
    if isinstance(prompt, dict):
        prompt = prompt.get(QUERY)
    if prompt:
        return str(prompt)
    from mteb.abstasks.abstask import get_abstask_prompt

    return str(get_abstask_prompt(metadata.name))

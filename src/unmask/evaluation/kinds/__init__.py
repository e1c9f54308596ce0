"""Kinds of tasks, a module each: how its data is read, and which figures come of it."""

from __future__ import annotations

from typing import Final

from unmask.evaluation.kinds import classification, clustering, pairs, retrieval, sts, words
from unmask.evaluation.tasks import Kind

#: Every kind by its name. (An outcome of mteb's own evaluators has none of them.)
KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (sts.KIND, pairs.KIND, classification.KIND, clustering.KIND, retrieval.KIND, *words.KINDS)
}

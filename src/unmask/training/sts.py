"""Semantic textual similarity: how well cosines order pairs as people did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.encoder import Encoder
from unmask.files.pairs import read_scored_pairs


@dataclass(frozen=True)
class StsFile:
    """Scored pairs of sentences.

    Attributes:
        name: of the file.
        gold: people's scores, one a pair.
        left: first sentences.
        right: second sentences.
    """

    name: str
    gold: tuple[float, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]

    def score(self, encoder: Encoder) -> float:
        """Return Spearman's rank correlation of cosine and people's scores, -1 to 1."""
        from scipy.stats import spearmanr

        distinct = sorted({*self.left, *self.right})
        vectors = encoder.encode(distinct, normalize=True, progress=False)
        place = {text: number for number, text in enumerate(distinct)}
        left, right = (vectors[[place[text] for text in side]] for side in (self.left, self.right))
        return float(spearmanr(np.sum(left * right, axis=1), self.gold).statistic)


def read_sts(file: Path) -> StsFile:
    """Read scored pairs, as :func:`unmask.files.pairs.read_scored_pairs` does.

    Raises:
        InputError: there is no such file, or it holds no such pairs.
    """
    gold, left, right = zip(*read_scored_pairs(file), strict=True)
    return StsFile(file.stem, gold, left, right)

"""Semantic textual similarity: how well cosines order pairs as people did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.encoder import Encoder
from unmask.errors import InputError


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
    """Read lines ``score <TAB> sentence <TAB> sentence``; a first line without a number is a heading.

    Raises:
        InputError: there is no such file, or a line is not as above.
    """
    try:
        # Only at line ends: U+2028 and the like may stand in a sentence.
        lines = file.read_text(encoding="utf-8-sig").rstrip("\r\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} cannot be read: {error}. Expected lines 'score<TAB>sentence<TAB>sentence'."
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = line.rstrip("\r").split("\t")
        score = _number(cells[0])
        if number == 1 and _is_heading(cells[0]):
            continue
        if len(cells) != 3 or score is None or not all(cell.strip() for cell in cells[1:]):
            raise InputError(f"{file}, line {number}: got {line[:60]!r}; expected 'score<TAB>sentence<TAB>sentence'.")
        rows.append((score, cells[1], cells[2]))
    if len(rows) < 2 or len({score for score, _, _ in rows}) == 1:
        raise InputError(f"{file} holds {len(rows)} pairs; expected at least two, of different scores.")
    gold, left, right = zip(*rows, strict=True)
    return StsFile(file.stem, gold, left, right)


def _is_heading(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None

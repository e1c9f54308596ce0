"""Scored pairs of sentences: how they are read, and Spearman's correlation in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from unmask.errors import InputError
from unmask.training.sts import StsFile, read_sts


class Angles:
    """An encoder whose vectors are unit vectors of the plane, at an angle in degrees that the text says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: list[str], **options: Any) -> np.ndarray[Any, Any]:
        assert options == {"normalize": True, "progress": False}
        self.texts += texts
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def written(folder: Path, content: str) -> Path:
    file = folder / "pairs.tsv"
    file.write_text(content, encoding="utf-8")
    return file


def scored(gold: list[float], angles: list[int]) -> float:
    """The score of pairs whose cosines are those of angles."""
    pairs = StsFile("x", tuple(gold), ("0",) * len(gold), tuple(map(str, angles)))
    encoder: Any = Angles()
    return pairs.score(encoder)


def test_file_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, "4.5\tA man plays.\tSomeone  plays. \n0\tone\ttwo\n\n\n")
    assert read_sts(file) == StsFile("pairs", (4.5, 0.0), ("A man plays.", "one"), ("Someone  plays. ", "two"))


def test_heading_is_left_out(tmp_path: Path) -> None:
    assert read_sts(written(tmp_path, "score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n")).gold == (1.0, 2.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\ta\tb\ntwo\tc\td\n", r"pairs.tsv, line 2: got 'two\\tc\\td'; expected 'score<TAB>sentence<TAB>sentence'"),
        ("1\ta\tb\nnan\tc\td\n", "line 2: got 'nan"),
        ("1\ta\tb\n2\tc\n", "line 2"),
        ("1\ta\tb\n2\tc\td\te\n", "line 2"),
        ("1\ta\tb\n2\tc\t \n", "line 2"),
        ("1\ta\tb\n\n2\tc\td\n", "line 2: got ''"),
        ("", "holds 0 pairs; expected at least two, of different scores"),
        ("1\ta\tb\n", "holds 1 pairs"),
        ("1\ta\tb\n1\tc\td\n1.0\te\tf\n", "holds 3 pairs; expected at least two, of different scores"),
    ],
)
def test_lines_that_are_no_pairs(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sts(written(tmp_path, content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.tsv cannot be read: .*No such file"):
        read_sts(tmp_path / "missing.tsv")
    (tmp_path / "latin.tsv").write_bytes(b"1\tcaf\xe9\tb\n")
    with pytest.raises(InputError, match=r"latin.tsv, line 1: byte 6 is 0xe9, which is not UTF-8"):
        read_sts(tmp_path / "latin.tsv")


# Ranks of the gold scores: 1 2 3 4. Cosines fall as angles grow. With the squared differences of the ranks d²,
# Spearman's is 1 - 6 Σd² / (n (n² - 1)), here 1 - Σd² / 10.
@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ([80, 60, 40, 20], 1.0),
        ([20, 40, 60, 80], -1.0),
        ([80, 40, 60, 20], 1 - 2 / 10),
        ([60, 80, 20, 40], 1 - 4 / 10),
        ([20, 60, 40, 80], 1 - 18 / 10),
    ],
)
def test_score_by_hand(angles: list[int], expected: float) -> None:
    assert scored([0.5, 1.0, 4.0, 5.0], angles) == pytest.approx(expected)


def test_only_the_order_of_the_scores_matters() -> None:
    angles = [71, 12, 55, 38]
    assert scored([1, 2, 3, 4], angles) == pytest.approx(scored([-9, 0, 0.1, 1e6], angles))


def test_ties_are_scipys() -> None:
    gold, angles = [1.0, 1.0, 2.0, 3.0, 3.0], [70, 20, 20, 50, 10]
    cosines = np.cos(np.radians(angles))
    assert scored(gold, angles) == pytest.approx(spearmanr(cosines, gold).statistic)


def test_each_sentence_is_encoded_once() -> None:
    encoder: Any = Angles()
    StsFile("x", (1.0, 2.0, 3.0), ("10", "20", "10"), ("20", "30", "10")).score(encoder)
    assert sorted(encoder.texts) == ["10", "20", "30"]


def test_a_byte_order_mark_and_odd_separators_are_no_lines(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_bytes("\ufeff5\ta\u2028b\tc\r\n1\td\te\r\n".encode())
    found = read_sts(file)
    assert found.gold == (5.0, 1.0)
    assert found.left == ("a\u2028b", "d")
    assert found.right == ("c", "e")


def test_a_score_that_is_no_number_is_no_heading(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("nan\ta\tb\n1\tc\td\n2\te\tf\n")
    with pytest.raises(InputError, match="line 1"):
        read_sts(file)

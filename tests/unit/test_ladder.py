"""The ladder's figures on numbers small enough to work out by hand, and its table."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from experiments.ladder import metrics, report, tasks
from experiments.ladder.__main__ import parse_row, there
from experiments.ladder.models import Row, vectors_of
from sklearn.metrics import v_measure_score

from unmask.text import Text


def test_ndcg_is_what_a_hand_computes() -> None:
    # Ranking of the first query: documents 2, 0, 1, 3. Relevant: 0 and 3, at ranks 2 and 4.
    found = metrics.ndcg_at_10([[1, 0, 0, 1], [0, 1, 0, 0]], [[0.8, 0.5, 0.9, 0.1], [0.1, 0.9, 0.2, 0.3]])
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    assert found == pytest.approx([gained / (1 + 1 / math.log2(3)), 1.0])


def test_ndcg_looks_no_further_than_rank_10_but_knows_all_relevant_documents() -> None:
    relevance, scores = np.zeros((1, 20)), -np.arange(20.0)[None]
    relevance[0, [9, 10, 11]] = 1  # only rank 10 counts; the best ranking would have had ranks 1 to 3
    ideal = sum(1 / math.log2(rank + 1) for rank in (1, 2, 3))
    assert metrics.ndcg_at_10(relevance, scores) == pytest.approx([1 / math.log2(11) / ideal])


def test_spearman_goes_by_ranks() -> None:
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) = 0.8. Four times over, so that no resample is constant.
    figure = metrics.spearman([1, 2, 3, 4, 500] * 4, [0.2, 0.1, 0.4, 0.3, 0.5] * 4)
    assert figure.value == pytest.approx(0.8)
    assert figure.low < 0.8 < figure.high


def test_v_measure_is_the_mean_over_clusterings_and_blind_to_names() -> None:
    labels = ["a", "a", "b", "b"]
    right, useless = [7, 7, 3, 3], [0, 1, 0, 1]
    assert metrics.v_measure(labels, [right]).value == pytest.approx(1.0)
    assert metrics.v_measure(labels, [right, useless]).value == pytest.approx(0.5)


def test_v_measure_is_that_of_scikit_learn() -> None:
    draws = np.random.default_rng(3).integers(0, [[7], [4]], size=(2, 300))
    draws[1, :100] = draws[0, :100] % 4  # not independent
    assert metrics.v_measure(list(draws[0]), [draws[1]]).value == pytest.approx(v_measure_score(*draws))


def test_interval_of_a_mean_is_about_two_standard_errors_each_way() -> None:
    figure = metrics.mean([1] * 300 + [0] * 100)
    error = math.sqrt(0.75 * 0.25 / 400)
    assert (figure.value, figure.n) == (0.75, 400)
    assert figure.low == pytest.approx(0.75 - 1.96 * error, abs=0.006)
    assert figure.high == pytest.approx(0.75 + 1.96 * error, abs=0.006)


def test_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    draws = np.random.default_rng(1).random((100, 50))
    covered = sum(figure.low <= 0.5 <= figure.high for figure in map(metrics.mean, draws))
    assert 88 <= covered <= 99


def test_interval_is_seeded() -> None:
    values = np.random.default_rng(2).random(60)

    def interval(seed: int) -> metrics.Figure:
        return metrics.bootstrap(lambda i: float(values[i].mean()), 60, seed=seed)

    assert interval(0) == interval(0)
    assert interval(0).low != interval(1).low


def test_one_item_has_no_interval() -> None:
    with pytest.raises(ValueError, match="n is 1; expected at least 2"):
        metrics.mean([1.0])


def test_cosines_are_row_by_row_and_blind_to_length() -> None:
    left = np.array([[1, 0], [3, 4]], dtype=np.float32)
    right = np.array([[5, 0], [4, 3]], dtype=np.float32)
    assert tasks.cosines(left, right) == pytest.approx([1.0, 0.96])


def test_retrieval_reads_the_layout_and_scores_queries_against_documents(tmp_path: Path) -> None:
    corpus = [{"_id": "x", "title": "", "text": "one"}, {"_id": "y", "title": "A title", "text": "two"}]
    queries = [{"_id": "1", "text": "unjudged"}, {"_id": "2", "text": "about two"}]
    for name, entries in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n2\ty\t1\n")
    task = tasks.retrieval("tiny", tmp_path, "Find it:")
    assert task.texts == (Text("Find it:", "about two"), Text("", "one"), Text("", "A title two"))
    with pytest.raises(ValueError, match="n is 1"):  # the query without a relevant document is not counted
        task.score(np.eye(3, dtype=np.float32))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n2\ty\t1\n1\tx\t1\n")
    both = tasks.retrieval("tiny", tmp_path, "Find it:")
    near, other = [1.0, 0.1], [0.1, 1.0]
    figure = both.score(np.array([near, other, near, near], dtype=np.float32))  # the second query ties: either order
    assert figure.value == pytest.approx((1 + 1 / math.log2(3)) / 2)
    figure = both.score(np.array([near, other, near, other], dtype=np.float32))
    assert figure.value == pytest.approx(1.0)


class _Counting:
    """A model whose vectors are the lengths of its texts."""

    label = source = "counting"
    fingerprint = "0" * 64

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[Text], max_length: int) -> tasks.Vectors:
        self.encoded += [text.content for text in texts]
        return np.array([[len(text.content)] for text in texts], dtype=np.float32)


def test_each_distinct_text_is_encoded_once_and_kept(tmp_path: Path) -> None:
    texts = tuple(Text("", content) for content in ("a", "bbb", "a", "cc", "dddd"))
    task = tasks.Task(name="a task", metric="", texts=texts, max_length=8, score=lambda _: metrics.mean([0, 1]))
    model = _Counting()
    vectors, seconds = vectors_of(model, task, tmp_path)
    assert vectors.ravel().tolist() == [1, 3, 1, 2, 4]
    assert model.encoded == ["a", "bbb", "a", "bbb", "cc", "dddd"]  # the first two also wake it, before the clock
    again = _Counting()
    kept, same = vectors_of(again, task, tmp_path)
    assert (kept.tolist(), same, again.encoded) == (vectors.tolist(), seconds, [])


def test_row_from_the_command_line() -> None:
    row = parse_row("causal, better=base,adapter=runs/a,adapter=runs/b,pooling=last,bidirectional=false")
    assert row == Row(
        label="causal, better", source="base", adapters=("runs/a", "runs/b"), pooling="last", bidirectional=False
    )


@pytest.mark.parametrize("text", ["no folder", "=folder", "label=", "label=folder,pool=mean", "a=b,bidirectional=no"])
def test_row_that_cannot_be_read_says_what_was_expected(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        parse_row(text)


def test_row_whose_folder_is_not_there_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, gone = Row(label="here", source=str(tmp_path)), Row(label="gone", source=str(tmp_path / "gone"))
    assert there([here, gone]) == [here]
    assert "gone: left out" in capsys.readouterr().err


def _result() -> dict[str, Any]:
    def row(**figures: tuple[float, float, float]) -> dict[str, Any]:
        keys = ("value", "low", "high")
        return {
            "date": "2026-01-01",
            "hardware": "a machine",
            "versions": {"unmask": "0"},
            "figures": {
                name: dict(zip(keys, values, strict=True)) | {"n": 10, "metric": "nDCG@10"}
                for name, values in figures.items()
            },
        }

    return {
        "settings": tasks.settings(),
        "untrained": ["causal"],
        "ladder": ["causal", "trained", "yardstick"],
        "rows": {"causal": row(A=(0.5, 0.4, 0.6)), "yardstick": row(A=(0.71, 0.7, 0.8), B=(0.2, 0.1, 0.3))},
    }


def test_table_marks_the_best_of_several_and_leaves_gaps() -> None:
    assert report.table(_result()).splitlines() == [
        "| | A, nDCG@10 | B, nDCG@10 |",
        "| --- | ---: | ---: |",
        "| causal | 50.0 (40.0–60.0) | – |",
        "| yardstick | **71.0** (70.0–80.0) | 20.0 (10.0–30.0) |",
    ]


def test_page_is_made_and_then_only_changed_between_its_markers(tmp_path: Path) -> None:
    result, page = _result(), tmp_path / "training.md"
    report.write(result, tmp_path)
    text = page.read_text()
    assert text.startswith("# Training\n")
    assert "Not measured yet: trained." in text
    assert (tmp_path / "ladder.png").stat().st_size > 1_000
    page.write_text("before\n" + text + "after\n")
    result["rows"]["causal"]["figures"]["A"]["value"] = 0.55
    report.write(result, tmp_path)
    assert page.read_text() == "before\n" + text.replace("| 50.0 (", "| 55.0 (") + "after\n"


def test_page_without_markers_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "training.md").write_text("# Mine\n")
    with pytest.raises(ValueError, match="expected <!-- ladder -->"):
        report.write(_result(), tmp_path)
    assert (tmp_path / "training.md").read_text() == "# Mine\n"

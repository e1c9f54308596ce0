"""The ladder's rows, its table and its page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from experiments.ladder import report
from experiments.ladder.__main__ import parse_row, there
from experiments.ladder.models import MINILM, UNTRAINED, Row

from unmask.evaluation.outcome import Measured, Metric, Outcome, write_model, write_outcome


def test_row_from_the_command_line() -> None:
    row = parse_row("causal, better=base,pooling=last,bidirectional=false")
    assert row == Row(label="causal, better", source="base", pooling="last", bidirectional=False)


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
            "model": {"date": "2026-01-01", "hardware": "a machine", "versions": {"unmask": "0"}, "max_length": 64},
            "settings": {name: {"instruction": "Find it:"} for name in figures},
            "figures": {
                name: dict(zip(keys, values, strict=True)) | {"n": 10, "metric": "nDCG@10"}
                for name, values in figures.items()
            },
        }

    return {
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


def test_rows_are_read_from_their_folders_in_the_ladders_order(tmp_path: Path) -> None:
    first = UNTRAINED[0].label
    for number, label in enumerate((MINILM, "one more", first)):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = Measured(
            name=label, source="x", identity=label, dimension=2, max_length=64, parameters=1, tokens_per_second=None,
            hardware="a machine", versions={"unmask": "0"}, date="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        metric = Metric(value=0.25 * number, low=0.0, high=1.0)
        samples = {"cosine": np.zeros(3)}
        outcome = Outcome(
            task="A", kind="sts", main="spearman", metrics={"spearman": metric}, items=3, settings={"instruction": ""},
            seconds=1.0, samples=samples,
        )  # fmt: skip
        write_model(folder, model)
        write_outcome(folder, outcome)
    result = report.read(tmp_path)
    assert list(result["rows"]) == [first, MINILM, "one more"]
    assert result["rows"][first]["figures"]["A"] == {
        "value": 0.5, "low": 0.0, "high": 1.0, "metric": "spearman", "n": 3,
    }  # fmt: skip
    assert "A 3" in report.section(result)

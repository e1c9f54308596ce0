"""Figures: their intervals, the difference between two models, and the folder they lie in."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from unmask.errors import InputError
from unmask.evaluation.bootstrap import difference, intervals
from unmask.evaluation.kinds import KINDS
from unmask.evaluation.outcome import (
    Measured,
    Metric,
    Outcome,
    Samples,
    file_stem,
    read_model,
    read_outcome,
    read_results,
    write_model,
    write_outcome,
)

MODEL = Measured(
    name="m",
    source="s",
    identity="i",
    dimension=3,
    max_length=8,
    parameters=9,
    tokens_per_second=None,
    hardware="h",
    versions={"numpy": "2"},
    date="2026-01-01",
)
OUTCOME = Outcome(
    task="STS",
    kind="sts",
    main="spearman",
    metrics={"spearman": Metric(value=0.5, low=0.4, high=0.6), "pearson": Metric(value=0.1)},
    items=2,
    settings={"limit": 2},
    seconds=1.5,
    samples={"gold": np.array([1.0, 2.0]), "clusters": np.array([[1, 2], [3, 4]])},
)


def mean(samples: Samples) -> dict[str, float]:
    return {"mean": float(samples["x"].mean())}


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = intervals(mean, {"x": values})["mean"]
    error = 1.96 * values.std() / math.sqrt(400)
    assert found.low is not None
    assert found.high is not None
    assert (found.value, found.low, found.high) == pytest.approx(
        (values.mean(), values.mean() - error, values.mean() + error), abs=0.03
    )
    reference = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.03)


def test_an_interval_lies_round_its_value_even_where_repeated_items_raise_a_figure() -> None:
    generator = np.random.default_rng(3)
    # Labels that have nothing to do with the clusters: repeats alone make them look related.
    samples = {"gold": generator.integers(0, 20, 200), "clusters": generator.integers(0, 20, (200, 2))}
    found = intervals(KINDS["clustering"].statistic, samples, resamples=200)["v_measure"]
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    spread = found.high - found.low
    assert 0.02 < spread < 0.15
    assert (found.low + found.high) / 2 == pytest.approx(found.value, abs=spread / 5)


def test_no_interval_goes_beyond_what_there_can_be() -> None:
    few = {"x": np.array([0.0, 1, 1, 1, 1, 1])}
    wide = intervals(skewed, few)["it"]
    assert wide.high is not None
    assert wide.high > 1
    assert intervals(skewed, few, bounds=(0.0, 1.0))["it"].high == 1
    assert intervals(skewed, few, bounds=(0.0, 1.0))["it"].low == wide.low


def skewed(samples: Samples) -> dict[str, float]:
    """A figure that is too small on resamples, as a rank correlation is."""
    return {"it": float(samples["x"].mean() ** 0.2)}


def test_rows_of_all_arrays_are_drawn_together() -> None:
    samples = {"x": np.arange(50), "y": 2 * np.arange(50), "z": np.arange(100).reshape(50, 2)}

    def same(drawn: Samples) -> dict[str, float]:
        assert np.array_equal(2 * drawn["x"], drawn["y"])
        assert np.array_equal(2 * drawn["x"], drawn["z"][:, 0])
        return {"mean": float(drawn["x"].mean())}

    assert intervals(same, samples, resamples=20)["mean"].low != 24.5


def test_undefined_resamples_are_left_out_and_without_any_there_is_no_interval() -> None:
    def only_if_mixed(samples: Samples) -> dict[str, float]:
        return {"a": math.nan if np.ptp(samples["x"]) == 0 else 1.0, "b": math.nan}

    found = intervals(only_if_mixed, {"x": np.array([0, 1])})
    assert found["a"] == Metric(value=1.0, low=1.0, high=1.0)
    assert (found["b"].low, found["b"].high) == (None, None)


def test_a_difference_is_paired_and_its_p_value_that_of_a_paired_test() -> None:
    generator = np.random.default_rng(1)
    shared = generator.normal(0, 10, 300)
    first, second = {"x": shared}, {"x": shared + generator.normal(0.1, 0.9, 300)}
    found = difference(mean, "mean", first, second, resamples=4000)
    expected = stats.ttest_rel(second["x"], first["x"])
    assert found.value == pytest.approx((second["x"] - first["x"]).mean())
    assert found.p == pytest.approx(expected.pvalue, abs=0.02)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.3  # unpaired it would be 3


def test_models_measured_on_different_items_are_not_compared() -> None:
    with pytest.raises(InputError, match="measured on 3 and 4 items"):
        difference(mean, "mean", {"x": np.zeros(3)}, {"x": np.zeros(4)})
    with pytest.raises(InputError, match="mean is undefined on these 3 items"):
        difference(mean, "mean", {"x": np.zeros(3)}, {"x": np.full(3, np.nan)})


# --- on disk ---------------------------------------------------------------------------------------


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_model(tmp_path, MODEL)
    write_outcome(tmp_path, OUTCOME)
    found = read_results(tmp_path)
    assert (found.model, found.outcomes) == (MODEL, {"STS": OUTCOME})
    assert np.array_equal(found.outcomes["STS"].samples["clusters"], OUTCOME.samples["clusters"])
    assert found.outcomes["STS"].score.value == 0.5
    assert read_outcome(tmp_path, "other") is None
    assert read_model(tmp_path / "nowhere") is None


def test_drafts_of_a_killed_run_are_no_results(tmp_path: Path) -> None:
    write_model(tmp_path, MODEL)
    write_outcome(tmp_path, OUTCOME)
    (tmp_path / ".part-1-STS.json").write_text("{")
    assert list(read_results(tmp_path).outcomes) == ["STS"]


@pytest.mark.parametrize("task", ["model", "a/b: c", ".hidden", "MTEB(eng, v2)", "two words"])
def test_no_name_of_a_task_is_in_the_way(tmp_path: Path, task: str) -> None:
    write_model(tmp_path, MODEL)
    write_outcome(tmp_path, replace(OUTCOME, task=task))
    assert list(read_results(tmp_path).outcomes) == [task]
    found = read_outcome(tmp_path, task)
    assert found is not None
    assert found.task == task
    assert file_stem(task) != "model"


@pytest.mark.parametrize("name", ["STS.json", "STS.npz", "model.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", "PK\x03\x04"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    write_model(tmp_path, MODEL)
    write_outcome(tmp_path, OUTCOME)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=r"(STS|model)\.json is damaged"):
        read_results(tmp_path)


def test_an_outcome_without_its_main_metric_is_damaged(tmp_path: Path) -> None:
    write_outcome(tmp_path, OUTCOME)
    file = tmp_path / "STS.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"main": "other"}))
    with pytest.raises(InputError, match="is damaged"):
        read_outcome(tmp_path, "STS")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model\.json"):
        read_results(tmp_path)
    write_model(tmp_path, MODEL)
    with pytest.raises(InputError, match="holds no task's figures"):
        read_results(tmp_path)

"""Which figures stand side by side, what is averaged, and what the tests between models say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compared import ITEMS, KIND, MAIN, figures, measured, outcome, write_mteb, write_results
from unmask.errors import InputError
from unmask.evaluation.bootstrap import Difference, difference
from unmask.evaluation.compare import testing
from unmask.evaluation.compare.comparing import Comparison, compare
from unmask.evaluation.compare.reading import Cut, Entrant, read_entrant, read_entrants
from unmask.evaluation.compare.testing import Contrast, PairedTests, holm
from unmask.evaluation.kinds import KINDS
from unmask.evaluation.outcome import Metric, Outcome, Samples


def entrant(name: str, *outcomes: Outcome, **about: Any) -> Entrant:
    return Entrant(
        folder=Path(name), model=measured(name, **about), outcomes={each.task: each for each in outcomes}, cut=None
    )


def contrast(comparison: Comparison, model: str, task: str) -> Contrast:
    return next(each for each in comparison.contrasts if (each.model, each.task) == (model, task))


def column(task: str, quality: float, seed: int, **changes: Any) -> Outcome:
    return outcome(task, figures(quality, seed=seed), **changes)


# --- tests between models ---------------------------------------------------------------------------


def test_a_better_model_is_found_and_an_equal_one_is_not() -> None:
    found = compare(
        [
            entrant("base", column("A", 0.30, 1), column("B", 0.30, 2)),
            entrant("equal", column("A", 0.30, 3), column("B", 0.30, 4)),
            entrant("better", column("A", 0.35, 5), column("B", 0.45, 6)),
            entrant("worse", column("A", 0.20, 7), column("B", 0.30, 8)),
        ]
    )
    verdicts = {(each.model, each.task): each.verdict for each in found.contrasts}
    assert verdicts == {
        ("equal", "A"): 0,
        ("equal", "B"): 0,
        ("better", "A"): 1,
        ("better", "B"): 1,
        ("worse", "A"): -1,
        ("worse", "B"): 0,
    }
    better, equal = contrast(found, "better", "A").difference, contrast(found, "equal", "A").difference
    assert better is not None
    assert equal is not None
    assert better.low < 0.05 < better.high
    assert better.p < 0.002
    assert equal.low < 0 < equal.high
    assert equal.p > 0.05


def test_between_equal_models_one_test_in_twenty_is_below_a_twentieth() -> None:
    draws = np.random.default_rng(5)
    below, pairs = 0, 200
    for _ in range(pairs):
        first, second = ({"x": sample} for sample in (draws.normal(size=50), draws.normal(size=50)))
        tests = PairedTests(lambda samples: {"mean": float(samples["x"].mean())}, "mean", first)
        below += tests.against(second, resamples=120).p < 0.05
    # Two standard errors of a share of 5 % among 200 are 3 %; a bootstrap of 50 items is a little bold.
    assert 0.02 <= below / pairs <= 0.095


def test_keeping_the_baselines_figures_changes_nothing_but_the_time() -> None:
    calls: list[int] = []

    def statistic(samples: Samples) -> dict[str, float]:
        calls.append(1)
        return {"mean": float(samples["x"].mean()), "other": 0.0}

    first, *others = ({"x": figures(0.3 + 0.1 * number, seed=number)} for number in range(4))
    plain = [difference(statistic, "mean", first, each, resamples=50) for each in others]
    usual = len(calls)
    calls.clear()
    tests = PairedTests(statistic, "mean", first)
    assert [tests.against(each, resamples=50) for each in others] == plain
    assert usual == 2 * 3 * 51
    assert len(calls) == 4 * 51


def test_holm_is_what_a_hand_computes() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 are 0.02, 0.03, 0.06, 0.04, and the last may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_corrected_p_value_decides() -> None:
    found = Difference(value=0.1, low=0.01, high=0.2, p=0.03)
    assert Contrast(model="a", task="A", difference=found, adjusted=0.06).verdict == 0
    assert Contrast(model="a", task="A", difference=found, adjusted=0.04).verdict == 1


def test_many_tests_get_the_resamples_that_a_corrected_p_value_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "RESAMPLES", 100)
    kinds = {KIND: replace(KINDS[KIND], statistic=lambda samples: {MAIN: float(samples[MAIN].mean())})}
    tasks = [f"T{number:02}" for number in range(16)]
    found = compare(
        [entrant(name, *(column(task, 0.3 + 0.3 * at, at) for task in tasks)) for at, name in enumerate("ab")],
        kinds=kinds,
    )
    assert found.resamples == 25 * 16
    assert all(each.verdict == 1 for each in found.contrasts)


def test_a_task_is_tested_in_the_metric_that_stands_for_it() -> None:
    values = {"a": figures(0.3, seed=1), "b": figures(0.5, seed=2)}
    # The other metrics say the opposite.
    swapped = {"a": values["b"], "b": values["a"]}
    outcomes = {
        name: outcome(
            "A",
            values[name],
            samples={MAIN: values[name], **dict.fromkeys(("mrr@10", "recall@100", "map"), swapped[name])},
        )
        for name in values
    }
    found = compare([entrant(name, each) for name, each in outcomes.items()])
    assert contrast(found, "b", "A").verdict == 1


def test_a_metric_that_is_undefined_costs_its_own_test() -> None:
    kinds = {
        KIND: replace(
            KINDS[KIND],
            statistic=lambda samples: {MAIN: math.nan if samples[MAIN][0] == 0 else float(samples[MAIN].mean())},
        )
    }
    zero = outcome("B", np.zeros(ITEMS), metrics={MAIN: Metric(value=0.5)})
    found = compare([entrant("a", column("A", 0.3, 1), zero), entrant("b", column("A", 0.5, 2), zero)], kinds=kinds)
    assert contrast(found, "b", "A").verdict == 1
    assert "undefined" in contrast(found, "b", "B").why


# --- what may stand side by side --------------------------------------------------------------------


def test_averages_run_over_the_tasks_that_all_have() -> None:
    found = compare(
        [
            entrant("a", column("A", 0.2, 1), column("B", 0.4, 2), column("C", 0.9, 3)),
            entrant("b", column("A", 0.3, 4), column("B", 0.5, 5)),
        ],
        tested=False,
    )
    first, second = found.rows
    assert [each.task for each in found.common] == ["A", "B"]
    assert first.overall == pytest.approx((first.scores["A"].value + first.scores["B"].value) / 2)
    assert first.kinds == pytest.approx({KIND: first.overall})
    assert second.missing == {"C": "not measured"}
    assert found.contrasts == ()
    assert any("C" in note and "b" in note and "not measured" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"data": "another hash"}}, "data is another hash, but hash of B for another model"),
        (
            {"settings": {"data": "hash of B", "sample": {"queries": "50 of 112"}}},
            "sample is queries 50 of 112, but not set",
        ),
        ({"kind": "sts"}, "kind is sts, but retrieval"),
        ({"main": "map"}, "metric is map, but ndcg@10"),
        ({"items": 7}, "items is 7, but 120"),
        ({"metrics": {MAIN: Metric(value=math.nan)}}, "undefined"),
    ],
)
def test_what_was_measured_otherwise_is_left_out_with_the_reason(changes: dict[str, Any], said: str) -> None:
    found = compare(
        [
            entrant("a", column("A", 0.3, 1), column("B", 0.3, 2)),
            entrant("b", column("A", 0.5, 3), column("B", 0.5, 4, **changes)),
            entrant("c", column("A", 0.5, 5), column("B", 0.5, 6)),
        ]
    )
    assert "B" not in found.rows[1].scores
    assert said in found.rows[1].missing["B"]
    assert said in contrast(found, "b", "B").why
    assert contrast(found, "b", "B").difference is None
    assert contrast(found, "c", "B").verdict == 1
    assert [each.task for each in found.common] == ["A"]
    assert any(said in note for note in found.notes)


def test_instructions_belong_to_the_model_but_are_told() -> None:
    settings = {"data": "hash of A", "instruction": ""}
    found = compare([entrant("a", column("A", 0.3, 1)), entrant("b", column("A", 0.5, 2, settings=settings))])
    assert contrast(found, "b", "A").verdict == 1
    assert found.notes == ("Instructions differ on A (a: Find what answers it:; b: none).",)


def test_speeds_of_different_machines_and_lengths_are_told() -> None:
    notes = compare(
        [entrant("a", column("A", 0.3, 1)), entrant("b", column("A", 0.3, 2), hardware="a GPU", max_length=256)],
        tested=False,
    ).notes
    assert any("different hardware (a GPU; a processor, 2 threads)" in note for note in notes)
    assert "Texts are cut at 256 tokens for b." in notes


def test_the_baseline_can_be_chosen() -> None:
    found = compare([entrant("a", column("A", 0.3, 1)), entrant("b", column("A", 0.5, 2))], baseline="b")
    assert contrast(found, "a", "A").verdict == -1
    assert [row.model.name for row in found.rows] == ["a", "b"]


def test_figures_without_samples_are_shown_but_not_tested() -> None:
    bare = {"kind": "mteb", "main": "main_score", "samples": {}, "items": 0}
    rows = [
        entrant(name, column("STS12", 0.3, 1, metrics={"main_score": Metric(value=value)}, **bare))
        for name, value in (("a", 0.6), ("b", 0.7))
    ]
    found = compare(rows)
    assert contrast(found, "b", "STS12").why == "no samples to test with"
    assert (found.tests, found.rows[1].scores["STS12"]) == (0, Metric(value=0.7))
    assert {row.model for row in found.published} >= {"all-MiniLM-L6-v2"}


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([], {}, "No model was given"),
        ([("a", "A"), ("a", "A")], {}, "a is given twice: a and a"),
        ([("a", "A"), ("b", "A")], {"baseline": "c"}, "No model is called c; expected one of a, b"),
        ([("a", "A"), ("b", "B")], {}, "a, b have no task in common"),
    ],
)
def test_bad_input_is_one_clear_line(rows: list[tuple[str, str]], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        compare([entrant(name, column(task, 0.3, 1)) for name, task in rows], **options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_in_common_for_other_data_says_so() -> None:
    with pytest.raises(InputError, match=r"Measured but not comparable: A \(data is x, but hash of A"):
        compare([entrant("a", column("A", 0.3, 1)), entrant("b", column("A", 0.3, 2, settings={"data": "x"}))])


# --- reading ----------------------------------------------------------------------------------------


def test_a_folder_is_read_with_mtebs_results_and_the_analysis(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "a", {"A": column("A", 0.3, 1)})
    write_mteb(folder, {"STS12": 0.61})
    (folder / "analysis").mkdir()
    kept = [
        {"dimensions": size, "output": form, "quality": {"value": value, "low": 0, "high": 1}}
        for size, form, value in ((64, "float32", 0.7), (32, "float32", 0.6), (32, "int8", 0.1), (16, "float32", None))
    ]
    (folder / "analysis" / "analysis.json").write_text(json.dumps({"forms": {"measure": "Spearman", "kept": kept}}))
    found = read_entrant(folder)
    assert list(found.outcomes) == ["A", "STS12"]
    assert found.outcomes["STS12"].score == Metric(value=0.61)
    assert found.cut == Cut(measure="Spearman", points=((32, 0.6), (64, 0.7)))


def test_the_plain_form_of_an_analysis(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "a", {"A": column("A", 0.3, 1)})
    file = folder / "analysis" / "analysis.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"dimensions": [{"dimension": 64, "quality": 0.61}, {"dimension": 8, "quality": 0.4}]}))
    assert read_entrant(folder).cut == Cut(measure="quality", points=((8, 0.4), (64, 0.61)))
    file.write_text("[]")
    with pytest.raises(InputError, match="analysis.json is damaged"):
        read_entrant(folder)
    file.write_text("{}")
    assert read_entrant(folder).cut is None


def test_a_folder_twice_is_refused_however_it_is_written(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "a", {"A": column("A", 0.3, 1)})
    with pytest.raises(InputError, match="is given twice"):
        read_entrants([folder, tmp_path / "b" / ".." / "a"])

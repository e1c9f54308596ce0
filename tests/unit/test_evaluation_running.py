"""A suite is found, read and run: what is done stays done, and what fails costs nothing but itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation_fakes import FakeSubject, text_vector
from unmask.errors import EvaluationError, InputError
from unmask.evaluation import bootstrap, running
from unmask.evaluation.example import write_example
from unmask.evaluation.instructions import read_instructions
from unmask.evaluation.kinds import KINDS
from unmask.evaluation.outcome import read_results
from unmask.evaluation.running import Run, evaluate
from unmask.evaluation.suite import Suite, read_suite
from unmask.evaluation.tasks import Options
from unmask.text import Text

KIND_OF = {"animals": "sts", "weather": "pairs", "requests": "classification", "hobbies": "clustering"}
KIND_OF |= {"kitchen": "retrieval"}
TASKS = list(KIND_OF)
SMALL = ["animals", "weather", "kitchen"]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    monkeypatch.setitem(bootstrap.intervals.__kwdefaults__ or {}, "resamples", 20)
    write_example(tmp_path / "suite")
    shutil.rmtree(tmp_path / "suite/tokens")  # those need more than vectors of texts
    return tmp_path / "suite"


@pytest.fixture
def small(suite: Path) -> Path:
    """The quick ones."""
    shutil.rmtree(suite / "classification")
    shutil.rmtree(suite / "clustering")
    return suite


class Runner:
    """Runs tasks in a folder, and keeps what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []

    def __call__(self, suite: Suite, subject: FakeSubject | None = None, **options: Any) -> Run:
        self.said = []
        output, vectors = self.folder / "evaluation", self.folder / "vectors"
        return evaluate(subject or FakeSubject(), suite, output, vectors=vectors, say=self.said.append, **options)


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


# --- finding tasks ---------------------------------------------------------------------------------


def test_the_example_has_every_kind(suite: Path, tmp_path: Path) -> None:
    found = read_suite(suite)
    assert {task.name: task.kind.name for task in found.tasks} == KIND_OF
    assert (found.failed, found.notes) == ({}, ())
    write_example(tmp_path / "whole")
    whole = read_suite(tmp_path / "whole")
    assert {task.kind.name for task in whole.tasks} == KINDS.keys()
    assert [task.name for task in whole.tasks] == [*TASKS, "garden POS", "garden chunks", "people NER"]
    assert f"unmask eval --suite {suite.name}" in (suite / "README.md").read_text()


def test_only_the_chosen_tasks_are_read(suite: Path) -> None:
    (suite / "sts/animals.tsv").write_text("broken")
    assert [task.name for task in read_suite(suite, chosen=["kitchen", "weather"]).tasks] == ["weather", "kitchen"]


def test_a_task_that_does_not_exist_has_its_nearest_names_and_costs_no_other(suite: Path) -> None:
    found = read_suite(suite, chosen=["kitchen", "Animal"])
    assert [task.name for task in found.tasks] == ["kitchen"]
    assert "There is no task 'Animal'; expected some of: animals" in found.failed["Animal"]
    assert found.failed["Animal"].endswith("Did you mean animals?")
    with pytest.raises(InputError, match="There is no task 'Animal'.*There is no task 'xyz'"):
        read_suite(suite, chosen=["Animal", "xyz"])


def test_what_cannot_be_read_fails_alone(suite: Path) -> None:
    (suite / "sts/animals.tsv").write_text("1\ta\n")
    found = read_suite(suite)
    assert [task.name for task in found.tasks] == TASKS[1:]
    assert list(found.failed) == ["animals"]
    assert "animals.tsv, line 1: got" in found.failed["animals"]


def test_what_is_no_task_is_named(suite: Path) -> None:
    (suite / "clasification").mkdir()
    (suite / "sts/more.csv").write_text("1,a,b")
    (suite / "sts/README.md").write_text("hello")
    (suite / "retrieval/stray.jsonl").write_text("{}")
    (suite / "sts/.hidden.tsv").write_text("")
    notes = read_suite(suite).notes
    assert len(notes) == 3
    assert "clasification is left out: no kind of task is called so" in notes[0]
    assert "Did you mean classification" in notes[0]
    assert "more.csv is left out; expected .tsv" in notes[1]
    assert "stray.jsonl is left out; expected folders" in notes[2]


def test_two_tasks_of_one_name_are_refused(suite: Path) -> None:
    (suite / "pairs/animals.tsv").write_text((suite / "pairs/weather.tsv").read_text())
    with pytest.raises(InputError, match=r"sts/animals.tsv and .*pairs/animals.tsv are both a task called 'animals'"):
        read_suite(suite)


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no task; expected data in folders called sts, pairs"):
        read_suite(tmp_path)
    with pytest.raises(InputError, match="none is not a folder; expected a suite of tasks"):
        read_suite(tmp_path / "none")


def test_instructions_are_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "instructions.json"
    file.write_text(json.dumps({"kitchen": "Find the recipe:", "elsewhere": ""}))
    assert read_instructions(file) == {"kitchen": "Find the recipe:", "elsewhere": ""}
    for content, said in [("{", "is not JSON"), ("[]", "holds a list"), ('{"a": 1}', "of 'a' is 1")]:
        file.write_text(content)
        with pytest.raises(InputError, match=said):
            read_instructions(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_instructions(tmp_path / "none.json")


# --- running them ----------------------------------------------------------------------------------


def test_figures_and_samples_are_written_for_each_task(suite: Path, run: Runner) -> None:
    subject = FakeSubject(counts=True)
    done = run(read_suite(suite), subject)
    results = read_results(done.folder)
    assert sorted(results.outcomes) == sorted(done.outcomes) == sorted(TASKS)
    assert (results.model.name, results.model.identity, done.failed) == ("fake", "1", {})
    assert results.model.tokens_per_second is not None
    assert {"numpy", "scikit-learn", "torch"} <= results.model.versions.keys()
    for task, outcome in results.outcomes.items():
        assert outcome.kind == KIND_OF[task]
        assert outcome.settings["max_length"] == 32
        again = KINDS[outcome.kind].statistic(outcome.samples)
        assert {name: metric.value for name, metric in outcome.metrics.items()} == pytest.approx(again)
        for metric in outcome.metrics.values():
            assert metric.low is not None
            assert metric.high is not None
            assert metric.low <= metric.high


def test_each_distinct_text_is_encoded_once_over_all_tasks(suite: Path, run: Runner) -> None:
    file = suite / "sts/animals.tsv"
    (suite / "sts/again.tsv").write_text(file.read_text().replace("5\t", "4.9\t", 1))
    subject = FakeSubject()
    run(read_suite(suite), subject)
    assert len(subject.encoded) == len(set(subject.encoded))
    assert {text.content for text in subject.encoded} >= {line.split("\t")[1] for line in file.read_text().splitlines()}


def test_what_is_done_is_not_done_again(suite: Path, run: Runner) -> None:
    first = run(read_suite(suite))
    again = FakeSubject()
    second = run(read_suite(suite), again)
    assert (first.measured, second.measured, again.encoded) == (5, 0, [])
    assert second.outcomes == first.outcomes
    assert list(second.outcomes) == TASKS


def times(folder: Path) -> dict[str, int]:
    return {task: (folder / f"{task}.json").stat().st_mtime_ns for task in SMALL}


@pytest.mark.parametrize("change", ["data", "limit", "instruction", "file"])
def test_a_task_whose_settings_changed_is_measured_again_alone(small: Path, run: Runner, change: str) -> None:
    first = run(read_suite(small))
    written = times(first.folder)
    options = Options()
    if change == "data":
        file = small / "sts/animals.tsv"
        file.write_text(file.read_text().replace("4.6", "4.5"))
    elif change == "limit":
        options = Options(limit=5)
    elif change == "instruction":
        options = Options(instructions={"kitchen": "Which?"})
    else:
        (first.folder / "weather.npz").unlink()
    second = run(read_suite(small, options))
    changed = {"data": ["animals"], "limit": SMALL, "instruction": ["kitchen"], "file": ["weather"]}[change]
    assert [task for task, time in times(second.folder).items() if time != written[task]] == changed
    assert second.measured == len(changed)
    assert bool(run.said) == (change == "file")


def test_figures_of_another_model_are_not_mixed_in(small: Path, run: Runner) -> None:
    first = run(read_suite(small))
    other = FakeSubject(identity="2")
    with pytest.raises(InputError, match="holds figures of another model.*Give another --name, or --replace"):
        run(read_suite(small), other)
    stray = first.folder / "mine.json"
    stray.write_text("{}")
    replaced = run(read_suite(small, chosen=["animals"]), other, replace_other=True)
    stray.unlink()
    assert list(read_results(replaced.folder).outcomes) == ["animals"]
    assert len(other.encoded) == 24


def test_a_failing_task_costs_no_other_and_is_tried_again(small: Path, run: Runner) -> None:
    def broken(text: Text) -> Any:
        return text_vector(text) * (np.nan if "foggy" in text.content else 1)

    done = run(read_suite(small), FakeSubject(vector=broken))
    assert list(done.outcomes) == [task for task in SMALL if task != "weather"]
    assert list(done.failed) == ["weather"]
    assert len(run.said) == 1
    assert run.said[0].startswith("weather: fake gives")
    assert sorted(read_results(done.folder).outcomes) == sorted(done.outcomes)
    with pytest.raises(EvaluationError, match="1 of 3 tasks failed: weather"):
        done.check()
    second = run(read_suite(small))
    second.check()
    assert second.measured == 1


def test_a_constant_model_fails_every_task_with_a_line_each(small: Path, run: Runner) -> None:
    done = run(read_suite(small), FakeSubject(vector=lambda _: np.ones(16)))
    assert list(done.failed) == SMALL
    assert all("undefined" in line for line in done.failed.values())
    assert run.said == [f"{task}: {why}" for task, why in done.failed.items()]


def test_the_rest_of_a_killed_run_is_encoded_not_all(small: Path, run: Runner) -> None:
    def stop(text: Text) -> Any:
        if "Rice" in text.content:
            raise KeyboardInterrupt
        return text_vector(text)

    first, second = FakeSubject(vector=stop), FakeSubject()
    with pytest.raises(KeyboardInterrupt):
        run(read_suite(small), first)
    done = run(read_suite(small), second)
    assert done.measured == 1
    assert {text.content for text in second.encoded} >= {"Rice Use one cup of rice and two of water, and leave the "
                                                         "lid on until the water is gone."}  # fmt: skip
    assert len(second.encoded) == 12  # the queries had been kept, the documents not


def test_speed_is_that_of_the_last_run_that_encoded(small: Path, run: Runner) -> None:
    folder = run(read_suite(small, chosen=["animals"]), FakeSubject(counts=True)).folder
    speed = read_results(folder).model.tokens_per_second
    assert speed is not None
    run(read_suite(small, chosen=["animals"]), FakeSubject(counts=True))
    assert read_results(folder).model.tokens_per_second == speed


def test_a_missing_library_is_named_before_any_work(small: Path, run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_EXTRAS", {"no_such_module": "no-such-package"})
    with pytest.raises(InputError, match=r'needs no-such-package, which is not installed.*"unmask\[eval\]"'):
        run(read_suite(small))

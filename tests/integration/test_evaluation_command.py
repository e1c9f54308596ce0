"""``unmask eval`` from outside: mteb's tasks, words of four kinds of model, the analysis; and all of it compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mteb.get_tasks import _TASKS_REGISTRY

from tests import mteb_tasks as local
from tests.integration.conftest import Unmask
from unmask.evaluation.bootstrap import difference, intervals
from unmask.evaluation.compare.reading import read_entrant
from unmask.evaluation.outcome import read_model, read_results

pytestmark = [
    pytest.mark.usefixtures("socket_disabled"),
    # mteb's, about a field that mteb itself writes.
    pytest.mark.filterwarnings("ignore:is_cross_encoder is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def home(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without vectors, few resamples, and an mteb that knows our tasks."""
    for function in (intervals, difference):
        monkeypatch.setitem(function.__kwdefaults__ or {}, "resamples", 30)
    for task in (local.LocalPublished, local.LocalRetrieval, local.LocalFailing):
        monkeypatch.setitem(_TASKS_REGISTRY, task.metadata.name, task)
    return own_home


def vectors_in(folder: Path) -> int:
    """How many vectors are kept there."""
    return sum(len(np.load(file)) for file in folder.glob("*/[!.]*.npy"))


# --- mteb -------------------------------------------------------------------------------------------


def test_models_that_mteb_alone_measured_are_compared_beside_published_ones(unmask: Unmask) -> None:
    for options in (["--name", "both"], ["--name", "causal", "--causal", "--pooling", "last"]):
        status, out, err = unmask("eval", "--mteb", "STS12,LocalRetrieval", *options)
        assert (status, "LocalRetrieval" in out) == (0, True), err
    assert err.splitlines()[-1] == "Next: unmask eval compare evaluation/*"
    model = read_model(Path("evaluation/both"))
    assert model is not None
    assert (model.name, model.tokens_per_second is not None) == ("both", True)
    status, out, err = unmask("eval", "compare", "evaluation/both", "evaluation/causal", "-o", "report.html")
    assert status == 0, err
    rows = {line.split("  ")[0].strip(): line for line in out.splitlines()}
    assert {"both", "causal", "all-MiniLM-L6-v2 (published)"} <= rows.keys()
    assert "72.4" in rows["all-MiniLM-L6-v2 (published)"]
    # What others published on other sets stands below, marked.
    assert "Published: Word level, CoNLL-2003" in out
    assert "LLM2Vec paper, arXiv 2404.05961" in out
    assert "STS12" in Path("report.html").read_text(encoding="utf-8")


def test_a_failing_task_of_mteb_leaves_the_others_and_the_status_says_so(unmask: Unmask) -> None:
    status, out, err = unmask("eval", "--mteb", "LocalFailing,LocalRetrieval,SciFcat", "--name", "it")
    assert (status, "LocalRetrieval" in out) == (2, True)
    lines = err.splitlines()
    assert [line for line in lines if line.startswith("SciFcat: no task or benchmark of mteb. Nearest: SciFact")]
    assert [line for line in lines if line.startswith("LocalFailing: ConnectionError: the data set could not be")]
    assert lines[-1].startswith("unmask: 2 of 3 tasks of mteb failed.")
    assert read_entrant(Path("evaluation/it")).outcomes.keys() == {"LocalRetrieval"}


def test_vectors_of_mtebs_texts_are_kept_where_one_says(unmask: Unmask) -> None:
    command = ("eval", "--mteb", "LocalRetrieval", "--vectors", "kept")
    assert unmask(*command)[0] == 0
    documents = {text for text in local.LocalRetrieval.documents.values() if any(text)}
    assert vectors_in(Path("kept")) == len(documents) + len(local.LocalRetrieval.queries)
    before = sorted(Path("kept").rglob("*.npy"))
    (result,) = Path("evaluation").rglob("LocalRetrieval.json")
    score = json.loads(result.read_text())["scores"]
    result.unlink()
    assert unmask(*command)[0] == 0
    assert json.loads(result.read_text())["scores"] == score
    assert sorted(Path("kept").rglob("*.npy")) == before


def test_figures_of_two_models_are_not_mixed_under_one_name(unmask: Unmask) -> None:
    command = ("eval", "--name", "mine", "--mteb", "LocalRetrieval")
    assert unmask(*command)[0] == 0
    assert unmask(*command, "--pooling", "last")[0] == 2
    unmask("eval", "--init", "suite")
    suite = ("eval", "--name", "mine", "--suite", "suite", "--tasks", "animals")
    assert unmask(*suite)[0] == 0  # the same model: both lie there
    assert read_entrant(Path("evaluation/mine")).outcomes.keys() == {"animals", "LocalRetrieval"}
    for other in (command, suite):
        status, _, err = unmask(*other, "--pooling", "last")
        assert (status, "evaluation/mine holds figures of another model" in err) == (2, True)
    assert unmask(*suite, "--pooling", "last", "--replace")[0] == 0
    assert read_entrant(Path("evaluation/mine")).outcomes.keys() == {"animals"}


# --- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "before"),
    [
        ("smollm2-135m", ["--causal"], False),
        ("smollm2-135m", [], False),
        ("smollm2-135m-mntp", [], True),
        ("smollm2-135m-unsup", [], True),
    ],
    ids=["causal", "bidirectional", "+ MNTP", "+ SimCSE"],
)
def test_words_of_causal_bidirectional_mntp_and_simcse(
    unmask: Unmask, model: str, options: list[str], before: bool
) -> None:
    unmask("eval", "--init", "suite")
    tasks = {"garden POS": "accuracy", "garden chunks": "f1", "people NER": "f1"}
    command = ("eval", "--suite", "suite", "--tasks", ",".join(tasks), "--model", model, "--name", "it", *options)
    status, out, err = unmask(*command)
    assert status == 0, err
    found = read_results(Path("evaluation/it")).outcomes
    assert {name: each.main for name, each in found.items()} == tasks
    assert all(name in out for name in tasks)
    for each in found.values():
        assert each.samples["before"].tolist() == [before] * 4  # where words were read
        assert "accuracy" in each.metrics


# --- the analysis -----------------------------------------------------------------------------------


def test_the_analysis_takes_the_options_and_measures_everything(unmask: Unmask) -> None:
    texts = Path("texts.txt")
    texts.write_text("\n".join(f"Sentence {number} is about {'rain ' * number}today." for number in range(2, 46, 4)))
    command = ("eval", "--analysis", "--texts", str(texts), "--max-length", "48", "--model", "smollm2-135m-unsup")
    status, out, err = unmask(*command, "--base", "smollm2-135m", "--name", "it")
    assert status == 0, err
    found: dict[str, Any] = json.loads(Path("evaluation/it/analysis/analysis.json").read_text())
    assert found["not_measured"] == {}
    assert found["layers"]["base"] == "smollm2-135m"
    assert max(cut["tokens"] for cut in found["cuts"]) < 48  # nothing is longer
    assert (found["geometry"]["positives"], found["geometry"]["alignment"] > 0) == (9, True)
    assert "of the example suite, for want of given ones" in " ".join(out.split())
    assert unmask(*command, "--base", "none")[0] == 2


def test_an_analysis_that_fails_says_so_by_its_status(unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.evaluation.analysis.invariance._LEAST_COSINE", 1.1)
    Path("texts.txt").write_text("\n".join(f"A sentence of {number} words." for number in range(12)))
    status, _, err = unmask("eval", "--analysis", "--texts", "texts.txt", "--name", "it")
    assert (status, "unmask: FAILED: it looks both ways, but" in err.splitlines()[-1]) == (2, True)
    assert Path("evaluation/it/analysis/analysis.json").is_file()

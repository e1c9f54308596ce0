"""``unmask eval --suite``: figures of a tiny model from outside, resumed, refused, and after a power cut."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.conftest import Unmask
from unmask import Encoder
from unmask.evaluation.bootstrap import intervals
from unmask.evaluation.outcome import read_results
from unmask.evaluation.store import VectorStore
from unmask.evaluation.subject import OwnEncoder
from unmask.progress import Progress
from unmask.text import Text

ROOT = Path(__file__).parents[2]
TASKS = ["animals", "weather", "requests", "hobbies", "kitchen"]
NAMED = ("--tasks", ",".join(TASKS))
#: Instead of a thousand, in every process alike.
RESAMPLES = 30


@pytest.fixture(autouse=True)
def home(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without vectors, and few resamples."""
    monkeypatch.setitem(intervals.__kwdefaults__ or {}, "resamples", RESAMPLES)
    return own_home


def kept(home: Path) -> int:
    """How many vectors are kept."""
    return sum(len(np.load(file)) for file in (home / "evaluation").glob("*/[!.]*.npy"))


def test_the_example_is_written_measured_and_shown(unmask: Unmask, home: Path) -> None:
    assert unmask("eval", "--init", "suite")[0] == 0
    status, out, err = unmask("eval", "--suite", "suite", *NAMED)
    assert (status, "Evaluating: " in err) == (0, True)
    for shown in (*TASKS, "spearman", "ndcg@10", "accuracy_8shot", "v_measure", "average_precision", "95 % interval"):
        assert shown in out
    assert "Wrote evaluation/smollm2-135m-unsup: figures of 5 of 5 tasks, 5 of them measured now." in err
    assert err.splitlines()[-1].strip() == "unmask eval compare evaluation/*"
    results = read_results(Path("evaluation/smollm2-135m-unsup"))
    assert list(results.outcomes) == sorted(TASKS)
    assert (results.model.dimension, results.model.source) == (64, "smollm2-135m-unsup")
    assert results.model.tokens_per_second is not None
    assert f"{results.outcomes['kitchen'].score.value:.3f}" in out

    before = kept(home)
    status, again, err = unmask("eval", "--suite", "suite", *NAMED)
    assert (status, again, kept(home)) == (0, out, before)
    assert "0 of them measured now" in err


def test_figures_are_those_of_the_encoders_own_vectors(unmask: Unmask) -> None:
    from scipy.stats import spearmanr

    unmask("eval", "--init", "suite")
    unmask("eval", "--suite", "suite", "--tasks", "animals", "--pooling", "last", "--causal", "--name", "causal")
    rows = [line.split("\t") for line in Path("suite/sts/animals.tsv").read_text().splitlines()]
    encoder = Encoder.load("smollm2-135m-unsup", pooling="last", bidirectional=False)
    left, right = (encoder.encode([row[side] for row in rows], normalize=True) for side in (1, 2))
    expected = spearmanr((left * right).sum(axis=1), [float(row[0]) for row in rows]).statistic
    score = read_results(Path("evaluation/causal")).outcomes["animals"].score
    assert score.value == pytest.approx(expected, abs=1e-9)


def test_options_reach_the_figures(unmask: Unmask) -> None:
    unmask("eval", "--init", "suite")
    Path("own.json").write_text(json.dumps({"kitchen": "Which recipe?"}))
    options = ("--limit", "5", "--max-length", "24", "--instructions", "own.json", "--name", "cut", "-o", "out")
    assert unmask("eval", "--suite", "suite", "--tasks", "kitchen", *options)[0] == 0
    results = read_results(Path("out/cut"))
    settings = results.outcomes["kitchen"].settings
    assert (settings["instruction"], settings["max_length"]) == ("Which recipe?", 24)
    assert settings["sample"]["queries"] == "5 of 6"
    assert (results.model.max_length, results.outcomes["kitchen"].items) == (24, 5)


def test_a_bad_row_is_one_line_the_rest_runs_and_the_status_says_so(unmask: Unmask) -> None:
    unmask("eval", "--init", "suite")
    with Path("suite/pairs/weather.tsv").open("a") as file:
        file.write("maybe\tRain.\tSnow.\n")
    status, out, err = unmask("eval", "--suite", "suite", "--tasks", "weather,animals,animls")
    assert (status, "weather" in out, "animals" in out) == (2, False, True)
    lines = err.splitlines()
    assert any(line.startswith("weather: suite/pairs/weather.tsv, line 13: got 'maybe") for line in lines)
    assert any("There is no task 'animls'" in line and "Did you mean animals?" in line for line in lines)
    assert lines[-1].startswith("unmask: 2 of 3 tasks failed: weather, animls.")
    assert list(read_results(Path("evaluation/smollm2-135m-unsup")).outcomes) == ["animals"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--tasks a", "give a folder of tasks with --suite, or make one with --init FOLDER"),
        ("--suite none", "none is not a folder; expected a suite of tasks. Make an example: unmask eval --init none"),
        ("--suite suite --tasks Kitchn", "There is no task 'Kitchn'; expected some of: "),
        ("--analysis --limit 3", "--limit says nothing to what is measured here; expected it with --suite. Leave it"),
        ("--mteb STS12 --seed 0", "--seed says nothing to what is measured here"),
        ("--suite suite --sts pairs.tsv", "--sts says nothing to what is measured here; expected it with --analysis"),
        ("--analysis --instructions own.json", "expected it with --suite or --mteb. Leave it out."),
        ("--suite suite --instructions none.json", "none.json cannot be read"),
        ("--suite suite --model none", "There is no file or folder 'none'"),
        ("--suite suite --limit 0", "--limit"),
        ("--suite suite --pooling odd", "odd"),
        ("--init suite", "suite exists already"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(unmask: Unmask, arguments: str, said: str) -> None:
    unmask("eval", "--init", "suite")
    status, out, err = unmask("eval", *arguments.split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert said in err
    assert not Path("evaluation").exists()


def test_another_model_of_the_same_name_is_refused_until_asked_for(unmask: Unmask) -> None:
    unmask("eval", "--init", "suite")
    command = ("eval", "--suite", "suite", "--name", "mine", "--tasks", "animals")
    assert unmask(*command)[0] == 0
    status, _, err = unmask(*command, "--max-length", "16")
    assert status == 2
    assert "evaluation/mine holds figures of another model" in err
    assert unmask(*command, "--max-length", "16", "--replace")[0] == 0
    assert read_results(Path("evaluation/mine")).model.max_length == 16


# --- our encoder as a subject ----------------------------------------------------------------------


def test_vectors_are_the_encoders_own_and_its_tokens_are_counted(home: Path) -> None:
    encoder = Encoder.load("smollm2-135m-sup")
    subject = OwnEncoder.of(encoder, name="x", source="y")
    texts = [Text("Find it:", "a cat"), Text("", "the old dog sleeps"), Text("", "rain")]
    with Progress("x", enabled=False, extra_unit="tokens") as bar:
        found = VectorStore(subject, bar=bar).vectors(texts)
    np.testing.assert_allclose(found, encoder.encode(texts), atol=1e-6)
    expected = sum(len(text.ids) for text in encoder.pipeline.tokenizer.tokenize(texts))
    assert (bar.count, bar.extra) == (3, expected)
    assert subject.parameters == sum(each.numel() for each in encoder.backbone.model.parameters())


def test_the_identity_changes_with_files_and_settings(home: Path) -> None:
    def identity(name: str = "smollm2-135m-sup", pooling: str | None = None, max_length: int | None = None) -> str:
        encoder = Encoder.load(name, pooling=pooling)
        return OwnEncoder.of(encoder, name="x", source="y", max_length=max_length).identity

    first = identity()
    assert first == identity() == identity(max_length=512)
    assert first not in {identity(max_length=16), identity(pooling="last"), identity("smollm2-135m-unsup")}
    os.utime(next((home / "encoders/smollm2-135m-sup").glob("*.safetensors")), (1, 1))
    assert identity() != first


def test_texts_are_cut_and_words_are_read_from_whole_sentences(unmask: Unmask, home: Path) -> None:
    encoder = Encoder.load("smollm2-135m-sup")
    subject = OwnEncoder.of(encoder, name="x", source="y", max_length=16)
    long = [Text("", "the old dog sleeps " * 20)]
    short = Encoder.load("smollm2-135m-sup", max_length=16)
    np.testing.assert_allclose(VectorStore(subject).vectors(long), short.encode(long), atol=1e-6)
    unmask("eval", "--init", "suite")
    status, out, err = unmask("eval", "--suite", "suite", "--tasks", "garden POS", "--max-length", "16")
    assert (status, "garden POS" in out) == (0, True), err


# --- a power cut -----------------------------------------------------------------------------------

_DYING = """
import os, pathlib, signal, sys
import unmask.hub.locate as locate
locate.SHIPPED = pathlib.Path(os.environ["UNMASK_HOME"], "encoders")
from unmask.cli import main
from unmask.evaluation import bootstrap, store
store.SEGMENT_TEXTS = 8
bootstrap.intervals.__kwdefaults__["resamples"] = int(os.environ["RESAMPLES"])
left = int(os.environ["WRITES"])
encode = store.VectorStore._encode

def dying(self, texts):
    global left
    encode(self, texts)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

store.VectorStore._encode = dying
main(sys.argv[1:])
"""


def cut_off(*arguments: str, writes: int) -> int:
    """Run a command line in a process that is killed after so many segments; return its status."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "WRITES": str(writes)}
    environment["RESAMPLES"] = str(RESAMPLES)
    command = [sys.executable, "-c", _DYING, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_killed_and_started_again_it_goes_on_and_encodes_nothing_twice(unmask: Unmask, home: Path) -> None:
    unmask("eval", "--init", "suite")
    command = ("eval", "--suite", "suite", "--tasks", "animals,weather,kitchen")
    assert cut_off(*command, writes=7) == -signal.SIGKILL
    folder = Path("evaluation/smollm2-135m-unsup")
    # Three segments each of animals and weather, whose sentences are 24 and 18, and the queries of the kitchen.
    assert list(read_results(folder).outcomes) == ["animals", "weather"]
    before = kept(home)
    assert before == 24 + 18 + 6
    written = (folder / "animals.json").stat().st_mtime_ns

    status, out, err = unmask(*command)
    assert (status, "1 of them measured now" in err) == (0, True)
    assert (folder / "animals.json").stat().st_mtime_ns == written
    segments = [np.load(file)["key"] for file in (home / "evaluation").glob("*/[!.]*.npy")]
    keys = [key.tobytes() for segment in segments for key in segment]
    assert len(keys) == len(set(keys)) == before + 12

    shutil.rmtree("evaluation")
    assert unmask(*command)[1] == out  # as if it had never been stopped
    assert kept(home) == len(keys)

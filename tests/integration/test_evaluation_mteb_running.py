"""Tasks of mteb run by name: results on disk, what is cached, what fails, and mteb's own command."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from mteb.cache import ResultCache
from mteb.get_tasks import _TASKS_REGISTRY
from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult

from tests import mteb_tasks as local
from tests.tiny import write_base, write_home
from unmask import Encoder
from unmask.errors import EvaluationError, InputError
from unmask.evaluation.mteb.__main__ import main
from unmask.evaluation.mteb.instructions import Instructions
from unmask.evaluation.mteb.meta import revision
from unmask.evaluation.mteb.names import find_tasks, split_names
from unmask.evaluation.mteb.reading import read_mteb
from unmask.evaluation.mteb.registry import register
from unmask.evaluation.mteb.running import run
from unmask.evaluation.mteb.sizes import TaskBar, texts_of
from unmask.evaluation.store import VectorStore
from unmask.evaluation.subject import OwnEncoder

pytestmark = [
    pytest.mark.usefixtures("socket_disabled"),
    # scipy says so once more where every gold score is the same, which is what the test is about.
    pytest.mark.filterwarnings("ignore:An input array is constant"),
    # mteb's, about a field that mteb itself writes.
    pytest.mark.filterwarnings("ignore:is_cross_encoder is deprecated:DeprecationWarning"),
]

TASKS = (
    local.LocalSTS, local.LocalPairs, local.LocalFailing, local.LocalConstant, local.LocalPrivate, local.LocalEmpty,
    local.LocalOneClass,
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return Encoder.load(base, device="cpu")


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mteb know our tasks, for the test only."""
    for task in TASKS:
        monkeypatch.setitem(_TASKS_REGISTRY, task.metadata.name, task)


def results(folder: Path, task: str) -> Path:
    (file,) = folder.glob(f"results/tests__tiny/*/{task}.json")
    return file


def test_results_are_mtebs_own(encoder: Encoder, tmp_path: Path) -> None:
    outcomes = run(encoder, "LocalSTS,LocalPairs", tmp_path, name="tests/tiny")
    assert list(outcomes) == ["LocalSTS", "LocalPairs"]
    file = results(tmp_path, "LocalSTS")
    result = TaskResult.from_disk(file, load_historic_data=False)
    assert result.task_name == "LocalSTS"
    assert outcomes["LocalSTS"].score.value == pytest.approx(result.get_score())
    meta = ModelMeta.model_validate_json_resolved((file.parent / "model_meta.json").read_text())
    assert (meta.name, meta.revision) == ("tests/tiny", file.parent.name)
    assert ResultCache(tmp_path).get_models(require_model_meta=True) == [("tests__tiny", meta.revision)]


def test_results_are_read_back(encoder: Encoder, tmp_path: Path) -> None:
    outcomes = run(encoder, ["LocalSTS", "LocalPairs"], tmp_path, name="tests/tiny")
    read = read_mteb(tmp_path)
    assert read == outcomes
    outcome = read["LocalPairs"]
    assert (outcome.kind, outcome.main, outcome.score.low) == ("mteb", "main_score", None)


def test_a_score_is_the_mean_over_splits_and_languages(encoder: Encoder, tmp_path: Path) -> None:
    run(encoder, "LocalSTS", tmp_path, name="tests/tiny")
    file = results(tmp_path, "LocalSTS")
    data = json.loads(file.read_text())
    (subset,) = data["scores"]["test"]
    data["scores"] = {
        "test": [subset | {"main_score": 0.1}, subset | {"main_score": 0.3, "hf_subset": "deu"}],
        "dev": [subset | {"main_score": 0.8}],
    }
    file.write_text(json.dumps(data))
    score = read_mteb(tmp_path)["LocalSTS"].score.value
    assert score == pytest.approx(0.4)
    assert score == pytest.approx(TaskResult.from_disk(file).get_score())


def test_a_cached_task_is_not_run_again(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(encoder, "LocalSTS", tmp_path, name="tests/tiny")
    file = results(tmp_path, "LocalSTS")
    written = file.stat().st_mtime_ns

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("run twice")

    monkeypatch.setattr(local.LocalSTS, "load_data", never)
    assert run(encoder, "LocalSTS", tmp_path, name="tests/tiny") == first
    assert file.stat().st_mtime_ns == written


def test_a_half_written_result_is_made_anew(encoder: Encoder, tmp_path: Path) -> None:
    first = run(encoder, "LocalSTS", tmp_path, name="tests/tiny")
    file = results(tmp_path, "LocalSTS")
    file.write_text(file.read_text()[:100])
    assert run(encoder, "LocalSTS", tmp_path, name="tests/tiny")["LocalSTS"].score == first["LocalSTS"].score


def test_a_failing_task_leaves_the_others(encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "LocalFailing,LocalSTS,LocalConstant,STS12x,LocalPairs"
    said: list[str] = []
    with pytest.raises(EvaluationError) as raised:
        run(encoder, names, tmp_path, name="tests/tiny", say=said.append, progress=True)
    message = str(raised.value)
    assert message.startswith("3 of 5 tasks of mteb failed.")
    assert "LocalFailing: ConnectionError: the data set could not be reached" in message
    assert "LocalConstant: " in message
    assert "STS12x: no task or benchmark of mteb. Nearest: STS12" in message
    assert "\n" not in message
    assert [line.partition(":")[0] for line in said] == ["STS12x", "LocalFailing", "LocalConstant"]
    assert set(read_mteb(tmp_path)) >= {"LocalSTS", "LocalPairs"}
    assert "MTEB: " in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::Warning:numpy", "ignore::Warning:scipy", "ignore:Mean of empty slice")
def test_data_that_says_nothing_costs_its_own_task(encoder: Encoder, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(EvaluationError, match="2 of 3 tasks of mteb failed"):
        run(encoder, "LocalEmpty,LocalOneClass,LocalPairs", tmp_path, name="tests/tiny", say=said.append)
    assert [line.partition(":")[0] for line in said] == ["LocalEmpty", "LocalOneClass"]
    assert list(read_mteb(tmp_path)) == ["LocalPairs"]


@pytest.mark.filterwarnings("ignore:Dataset for private task 'LocalPrivate' not found")
def test_a_task_that_mteb_passes_over_has_failed(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"1 of 2 tasks of mteb failed. LocalPrivate: gated\."):
        run(encoder, "LocalPrivate,LocalSTS", tmp_path, name="tests/tiny")


# --- vectors that are kept, and the time left -------------------------------------------------------


def store_of(encoder: Encoder, folder: Path) -> VectorStore:
    return VectorStore(OwnEncoder.of(encoder, name="tiny", source="tiny"), folder=folder)


def test_vectors_are_kept_from_task_to_task_and_from_run_to_run(encoder: Encoder, tmp_path: Path) -> None:
    plain = run(encoder, "LocalSTS,LocalPairs", tmp_path / "plain", name="tests/tiny")
    sentences = {text for left, right, _ in local.LocalSTS.rows for text in (left, right)}
    first = store_of(encoder, tmp_path / "vectors")
    assert run(encoder, "LocalSTS", tmp_path / "one", name="tests/tiny", store=first).keys() == {"LocalSTS"}
    assert first.texts == len(sentences)
    # Another task of the same sentences, and the same task of another run, find them all.
    again = store_of(encoder, tmp_path / "vectors")
    with pytest.raises(EvaluationError, match="1 of 2 tasks of mteb failed. LocalConstant"):
        run(encoder, "LocalConstant,LocalSTS", tmp_path / "two", name="tests/tiny", store=again)
    assert again.texts == 0
    kept = run(encoder, "LocalSTS,LocalPairs", tmp_path / "two", name="tests/tiny", store=again)
    assert {task: each.score.value for task, each in kept.items()} == {
        task: pytest.approx(each.score.value, abs=1e-6) for task, each in plain.items()
    }


def test_a_run_that_was_stopped_goes_on_at_the_text(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.evaluation.store.SEGMENT_TEXTS", 2)
    encode, left = VectorStore._encode, [3]

    def stopping(self: VectorStore, texts: Any) -> None:
        encode(self, texts)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VectorStore, "_encode", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(encoder, "LocalPairs", tmp_path, name="tests/tiny", store=store_of(encoder, tmp_path / "vectors"))
    kept = sum(len(np.load(file)) for file in (tmp_path / "vectors").rglob("*.npy"))
    store = store_of(encoder, tmp_path / "vectors")
    run(encoder, "LocalPairs", tmp_path, name="tests/tiny", store=store)
    sentences = {text for left_one, right, _ in local.LocalPairs.rows for text in (left_one, right)}
    assert (kept, store.texts) == (5, len(sentences) - 5)


def test_sizes_are_mtebs_own() -> None:
    assert texts_of(mteb.get_task("SciFact")) == 5_183 + 300
    assert texts_of(mteb.get_task("STS12")) == 2 * 3_108
    assert texts_of(local.LocalSTS()) is None
    languages = [texts_of(mteb.get_task("STS17", languages=each)) for each in (["deu"], ["deu", "fra"], None)]
    assert languages == sorted(languages, key=lambda size: size or 0)
    assert len(set(languages)) == 3


def test_the_time_left_is_that_of_all_tasks() -> None:
    now = [0.0]
    bar = TaskBar("MTEB", unit="texts", enabled=False, clock=lambda: now[0])
    with bar:
        bar.begin([100, 300, None], "A, 1 of 3 tasks")  # the median stands for the third
        now[0] = 10.0
        bar.advance(100)
        assert str(bar) == "16%  10 texts/s  50 s left  A, 1 of 3 tasks"
        bar.advance(50)  # more than was thought: the end moves
        assert bar.total == 100 + 50 + 300 + 200
        bar.begin([300, None], "B, 2 of 3 tasks")
        assert bar.total == 150 + 300 + 300
        bar.begin([None], "C, 3 of 3 tasks")
        assert " left" not in str(bar)


def test_what_others_log_does_not_stand_across_the_bar(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(self: Any, **_: Any) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("no network")

    monkeypatch.setattr(local.LocalSTS, "load_data", load)
    with pytest.raises(EvaluationError, match="no network"):
        run(encoder, "LocalSTS", tmp_path, name="tests/tiny")
    assert "Retrying" not in caplog.text


def test_names_that_do_not_exist(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'SciFcat' is no task or benchmark of mteb. Nearest: SciFact"):
        run(encoder, "SciFcat", tmp_path / "none", name="tests/tiny")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_a_file(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="file: File exists; expected a folder for results"):
        run(encoder, "LocalSTS", file, name="tests/tiny")


def test_names_of_benchmarks() -> None:
    assert split_names("MTEB(eng, v2),STS12, SciFact,STS12") == ["MTEB(eng, v2)", "STS12", "SciFact"]
    found = find_tasks(["MTEB(eng, v2)", "STS12", "SciFact"])
    names = [task.metadata.name for task in found.tasks]
    assert not found.unknown
    assert len(names) == len(set(names)) == len(list(mteb.get_benchmark("MTEB(eng, v2)").tasks)) + 1
    assert names[-1] == "SciFact"
    with pytest.raises(InputError, match="No task is named"):
        split_names(" , ")


def test_own_instructions_win_and_are_another_revision(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"LocalSTS": "Find another sentence that means the same:"}))
    plain = run(encoder, "LocalSTS,LocalPairs", tmp_path, name="tests/tiny")
    own = run(encoder, "LocalSTS,LocalPairs", tmp_path, name="tests/tiny", instructions=file)
    assert own["LocalSTS"].score != plain["LocalSTS"].score
    assert own["LocalPairs"].score == plain["LocalPairs"].score
    assert own["LocalSTS"].settings["revision"] != plain["LocalSTS"].settings["revision"]
    assert read_mteb(tmp_path) == dict(sorted(own.items()))  # the latest


def test_instructions_of_other_tasks_change_nothing(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"kitchen": "Find the recipe:"}))
    outcome = run(encoder, "LocalSTS", tmp_path, name="tests/tiny", instructions=file)["LocalSTS"]
    assert outcome.settings["revision"] == revision(encoder, Instructions())


def test_a_revision_says_what_vectors_depend_on(base: Path, encoder: Encoder, tmp_path: Path) -> None:
    plain = revision(encoder, Instructions())
    moved = write_base(tmp_path / "elsewhere")
    assert revision(Encoder.load(moved, device="cpu"), Instructions()) == plain
    others = [
        revision(Encoder.load(write_base(tmp_path / "other", seed=5), device="cpu"), Instructions()),
        revision(Encoder.load(base, device="cpu", pooling="last"), Instructions()),
        revision(Encoder.load(base, device="cpu", dtype="bfloat16"), Instructions()),
        revision(encoder, Instructions(own={"STS12": "Find:"})),
    ]
    assert len({plain, *others}) == 5


def test_reading_what_is_no_result(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(InputError, match="holds no results of mteb"):
        read_mteb(tmp_path)
    run(encoder, "LocalSTS", tmp_path, name="tests/tiny")
    run(encoder, "LocalSTS", tmp_path, name="tests/other")
    with pytest.raises(InputError, match="results of tests__other, tests__tiny; expected one model's"):
        read_mteb(tmp_path)


# --- by mteb's own ways ----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which our short names are tiny models; what is registered is forgotten."""
    folder = write_home(tmp_path / "home")
    monkeypatch.setenv("UNMASK_HOME", str(folder))
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", folder / "encoders")
    for name in MODEL_REGISTRY:
        monkeypatch.setitem(MODEL_REGISTRY, name, MODEL_REGISTRY[name])
    return folder


def test_mtebs_command_loads_ours_by_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "unmask/smollm2-135m-unsup"
    command = f"mteb run -m {name} -t LocalSTS --output-folder {tmp_path / 'theirs'} -v 0 --no-co2-tracker"
    monkeypatch.setattr(sys, "argv", command.split())
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # the command sets it
    main()
    theirs = read_mteb(tmp_path / "theirs")
    ours = run(Encoder.load("smollm2-135m-unsup", device="cpu"), "LocalSTS", tmp_path / "ours", name=name)
    assert theirs["LocalSTS"].score == ours["LocalSTS"].score
    assert theirs["LocalSTS"].settings == ours["LocalSTS"].settings  # the revision among them
    meta = mteb.get_model_meta(name)
    assert (meta.license, meta.open_weights) == ("apache-2.0", True)


def test_a_folder_of_ones_own_gets_a_name(home: Path, base: Path) -> None:
    name = register(str(base), name="me/mine")
    model = mteb.get_model(name, device="cpu", dtype="bfloat16")
    assert model.mteb_model_meta.name == "me/mine"
    assert model.mteb_model_meta.embed_dim == model.encoder.dimension
    assert model.mteb_model_meta.revision == revision(model.encoder, Instructions())
    assert str(model.encoder.dtype) == "torch.bfloat16"

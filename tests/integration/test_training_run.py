"""Training from the outside: what a run leaves, that a killed one goes on, and what is refused."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

import unmask as unmask_package
from tests.golden_losses import FILE, KINDS, losses
from tests.integration.conftest import Unmask
from tests.killed import POINTS, grown
from tests.tiny import write_base
from tests.tiny_tokenizer import SENTENCES
from unmask import Encoder
from unmask.cli import train
from unmask.errors import InputError, TrainingError
from unmask.training import running
from unmask.training.checkpoints import Checkpoints
from unmask.training.data.sources import PairSource, Source
from unmask.training.loop import Pace, Training
from unmask.training.lora import Lora
from unmask.training.monitor import read_metrics
from unmask.training.preparing import Options
from unmask.training.recipe import Mntp, Recipe, SimCse, Supervised
from unmask.training.recipe_file import read_recipe, recipe_json
from unmask.training.recipes import RECIPES
from unmask.training.running import run_recipe
from unmask.training.sts import StsFile, read_sts

pytestmark = pytest.mark.timeout(900)

#: It has no types.
BOARD = "tensorboard.backend.event_processing.event_accumulator"
SOURCE = str(Path(unmask_package.__file__).parents[1])
TEXTS = SENTENCES[:40]
LORA = Lora(rank=4, alpha=8, dropout=0.1)
STEPS = 6


class Place(NamedTuple):
    """Where data and the base lie."""

    folder: Path
    base: Path

    @property
    def recipe(self) -> Recipe:
        """MNTP, then SimCSE."""
        data = (Source(path=str(self.folder / "texts.txt")),)
        return Recipe(
            name="tiny",
            about="A tiny one.",
            base=str(self.base),
            seed=7,
            stages=(
                Mntp(data=data, steps=STEPS, batch=4, max_length=24, learning_rate=1e-2, lora=LORA),
                SimCse(data=data, steps=STEPS, batch=4, max_length=48, learning_rate=1e-2, lora=LORA),
            ),
        )

    @property
    def sts(self) -> StsFile:
        """Scored pairs."""
        return read_sts(self.folder / "sts.tsv")

    def options(self, **pace: Any) -> Options:
        """On the CPU, without a word."""
        return Options(device="cpu", progress=False, pace=Pace(**pace))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("training")
    base = write_base(folder / "home" / "models" / "smollm2-135m")
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n\n")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text, "id": "x"}) + "\n" for text in TEXTS))
    triples = zip(TEXTS, TEXTS[1:], TEXTS[2:], strict=False)
    rows = [{"query": query, "positive": near, "negative": [far]} for query, near, far in triples]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = zip(TEXTS[:12], TEXTS[12:24], strict=True)
    (folder / "sts.tsv").write_text("".join(f"{i % 5}\t{a}\t{b}\n" for i, (a, b) in enumerate(scored)))
    return Place(folder, base)


@pytest.fixture(autouse=True)
def _here(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the data, and the tiny model under the default name."""
    monkeypatch.setenv("UNMASK_HOME", str(place.folder / "home"))
    monkeypatch.chdir(tmp_path)
    for file in place.folder.glob("*.*"):
        shutil.copy(file, tmp_path)


def loss_of(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "adapter" / "adapter_model.safetensors")
    return tensors


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# --- a run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(place: Place) -> Path:
    """A run that nothing broke: MNTP, then SimCSE, scored every second step."""
    folder = place.folder / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StsFile, "score", grown)
        options = replace(place.options(checkpoint=2, evaluate=2), sts=place.sts)
        assert run_recipe(place.recipe, folder, options=options) == folder / "encoder"
    return folder


def test_a_run_leaves_what_its_documentation_says(whole: Path) -> None:
    documented = {line.split()[0].rstrip("/") for line in (running.__doc__ or "").splitlines() if line.startswith("  ")}
    assert {path.name for path in whole.iterdir()} == documented
    for stage in ("1-mntp", "2-simcse"):
        names = {path.name for path in (whole / stage).iterdir()}
        assert names == {"adapter", "data.json", "done.json", "metrics.jsonl", "plot.png", "tensorboard"}
    assert read_recipe(whole / "recipe.json").name == "tiny"
    assert not list(whole.rglob(".part-*"))


def test_the_encoder_is_the_base_with_all_adapters(place: Place, whole: Path) -> None:
    made = Encoder.load(whole / "encoder")
    built = Encoder.load(place.base, adapters=[whole / "1-mntp" / "adapter", whole / "2-simcse" / "adapter"])
    np.testing.assert_allclose(made.encode(TEXTS[:6]), built.encode(TEXTS[:6]), atol=1e-5)
    assert np.abs(made.encode(TEXTS[:6]) - Encoder.load(place.base).encode(TEXTS[:6])).max() > 1e-2
    assert made.max_length == 512


def test_the_second_stage_begins_with_the_first_merged(place: Place, whole: Path, tmp_path: Path) -> None:
    merged = Encoder.load(place.base, adapters=[whole / "1-mntp" / "adapter"]).save(tmp_path / "merged")
    for base, adapters in ((merged, ()), (place.base, (str(whole / "1-mntp" / "adapter"),))):
        alone = replace(place.recipe, base=str(base), adapters=adapters, stages=place.recipe.stages[1:])
        folder = tmp_path / f"run-{base.name}"
        run_recipe(alone, folder, options=place.options(max_steps=2))
        assert loss_of(folder / "1-simcse") == pytest.approx(loss_of(whole / "2-simcse")[:2], rel=1e-5)


def test_the_card_says_how_it_was_made_and_nothing_of_this_machine(place: Place, whole: Path) -> None:
    card = (whole / "encoder" / "README.md").read_text()
    for said in (
        "A tiny one.",
        "Seed 7",
        "tokens/s",
        "texts: 24 blocks of 24 tokens",
        "Hardware: ",
        '"kind": "simcse"',
    ):
        assert said in card
    assert f"(step {STEPS})" in card
    for path in (whole / "encoder").rglob("*.*"):
        if path.suffix in (".json", ".md"):
            assert str(place.folder) not in path.read_text(), path
            assert str(Path.home()) not in path.read_text(), path


def test_metrics_are_a_line_a_step_and_the_same_for_tensorboard(whole: Path) -> None:
    EventAccumulator = import_module(BOARD).EventAccumulator

    for stage in ("1-mntp", "2-simcse"):
        lines = [line for line in read_metrics(whole / stage) if "loss" in line]
        assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
        expected = {"step", "loss", "learning_rate", "gradient_norm", "tokens", "seconds", "tokens_per_second"}
        assert lines[0].keys() == expected | ({"accuracy"} if stage == "1-mntp" else set())
        assert [line["step"] for line in read_metrics(whole / stage) if "sts" in line] == [2, 4, 6]
        board = EventAccumulator(str(whole / stage / "tensorboard")).Reload()
        for name in ("loss", "learning_rate"):
            events = [(event.step, event.value) for event in board.Scalars(name)]
            assert events == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]
        assert len(board.Scalars("sts")) == 3


def test_the_plot_is_a_picture(whole: Path) -> None:
    content = (whole / "1-mntp" / "plot.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1050, 600)
    assert 10_000 < len(content) < 500_000


def test_the_adapter_kept_is_that_of_the_best_score(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.5, 0.3])
    monkeypatch.setattr(StsFile, "score", lambda self, encoder: next(scores))
    first = replace(place.recipe, stages=place.recipe.stages[:1])
    scored = replace(place.options(evaluate=2), sts=place.sts)
    run_recipe(first, tmp_path / "scored", options=scored)
    run_recipe(first, tmp_path / "cut", options=place.options(max_steps=4))
    assert len(loss_of(tmp_path / "scored" / "1-mntp")) == STEPS
    assert_same(adapter_of(tmp_path / "scored" / "1-mntp"), adapter_of(tmp_path / "cut" / "1-mntp"))
    assert "0.5000 (step 4)" in (tmp_path / "scored" / "encoder" / "README.md").read_text()


def test_the_score_is_that_of_the_encoder_that_is_kept(place: Place, tmp_path: Path) -> None:
    last = replace(place.recipe, stages=place.recipe.stages[1:]).with_stage("simcse", learning_rate=0.1)
    encoder = run_recipe(last, tmp_path / "run", options=replace(place.options(evaluate=1), sts=place.sts))
    scores = [line["sts"] for line in read_metrics(tmp_path / "run" / "1-simcse") if "sts" in line]
    assert len(set(scores)) > 1
    assert place.sts.score(Encoder.load(encoder)) == pytest.approx(max(scores), abs=1e-6)


def test_scores_may_be_rarer_than_checkpoints(place: Place, tmp_path: Path, unmask: Unmask) -> None:
    (tmp_path / "tiny.json").write_text(recipe_json(replace(place.recipe, stages=place.recipe.stages[1:])))
    (tmp_path / "sts.tsv").write_text("".join(f"{n}\t{a}\t{b}\n" for n, (a, b) in enumerate(pairwise(TEXTS[:5]))))
    command = ["train", "recipe", str(tmp_path / "tiny.json"), "-o", str(tmp_path / "run"), "--device", "cpu"]
    status, _, err = unmask(*command, "--sts", str(tmp_path / "sts.tsv"), "--every", "1", "--score-every", "3")
    assert status == 0, err
    scored = [line["step"] for line in read_metrics(tmp_path / "run" / "1-simcse") if "sts" in line]
    assert scored == [*range(3, STEPS, 3), STEPS]


def test_the_base_is_loaded_once_a_stage_and_once_for_the_encoder(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, lengths = Encoder.load, []

    def counting(*arguments: Any, **options: Any) -> Encoder:
        lengths.append(options["max_length"])
        return load(*arguments, **options)

    monkeypatch.setattr(Encoder, "load", counting)
    run_recipe(place.recipe, tmp_path / "run", options=place.options(max_steps=1))
    assert lengths == [24, 48, 512]


def test_mntp_then_supervised(place: Place, tmp_path: Path) -> None:
    stage = Supervised(
        data=(PairSource(path="pairs.jsonl", instruction="Find it:"),),
        steps=3, batch=4, warmup=1, max_length=48, learning_rate=1e-2, lora=LORA,
    )  # fmt: skip
    encoder = run_recipe(
        replace(place.recipe, stages=(place.recipe.stages[0], stage)), tmp_path / "run", options=place.options()
    )
    adapters = [tmp_path / "run" / name / "adapter" for name in ("1-mntp", "2-supervised")]
    built = Encoder.load(place.base, adapters=adapters)
    np.testing.assert_allclose(Encoder.load(encoder).encode(TEXTS[:3]), built.encode(TEXTS[:3]), atol=1e-5)
    assert '"instruction": "Find it:"' in (encoder / "README.md").read_text()


def test_tokens_end_a_stage(place: Place, tmp_path: Path) -> None:
    first = replace(place.recipe, stages=place.recipe.stages[:1])
    run_recipe(first, tmp_path / "run", options=place.options(max_tokens=4 * 24 + 1))
    assert len(loss_of(tmp_path / "run" / "1-mntp")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_golden_losses(kind: str, tmp_path: Path) -> None:
    """Twenty steps of each stage; made anew as tests/golden_losses.py says."""
    assert losses(kind, tmp_path) == pytest.approx(json.loads(FILE.read_text())[kind], rel=1e-4)


# --- a killed run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(place: Place) -> Iterator[Callable[[str, list[str]], int]]:
    """Run a command line in a process that is killed at a point."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([SOURCE, str(Path(__file__).parents[2])]),
        "UNMASK_HOME": str(place.folder / "home"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.killed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as server:

        def call(point: str, arguments: list[str]) -> int:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps({"point": point, "arguments": arguments}) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield call
        assert server.stdin is not None
        server.stdin.close()


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_goes_on_as_if_unbroken(
    place: Place,
    whole: Path,
    tmp_path: Path,
    unmask: Unmask,
    monkeypatch: pytest.MonkeyPatch,
    killed: Callable[[str, list[str]], int],
    point: str,
) -> None:
    recipe, folder = tmp_path / "tiny.json", tmp_path / "run"
    recipe.write_text(recipe_json(place.recipe))
    sts = str(tmp_path / "sts.tsv")
    command = ["train", "recipe", str(recipe), "-o", str(folder), "--every", "2", "--sts", sts, "--device", "cpu"]
    assert killed(point, command) == -signal.SIGKILL
    assert not (folder / "encoder").exists()
    monkeypatch.setattr(StsFile, "score", grown)
    resume = [] if point == "before it is a run" else ["--resume"]
    status, _, err = unmask(*command, *resume)
    assert status == 0, err
    for stage in ("1-mntp", "2-simcse"):
        # Not equal or close: the same. Times differ.
        for ours, theirs in zip(read_metrics(folder / stage), read_metrics(whole / stage), strict=True):
            timeless = ours.keys() - {"seconds", "tokens_per_second"}
            assert {name: ours[name] for name in timeless} == {name: theirs[name] for name in timeless}
        assert_same(adapter_of(folder / stage), adapter_of(whole / stage))
        assert not (folder / stage / "checkpoints").exists()
    assert_same(load_file(folder / "encoder" / "model.safetensors"), load_file(whole / "encoder" / "model.safetensors"))
    assert not list(folder.rglob(".part-*"))


def test_a_command_killed_from_outside_goes_on(place: Place, whole: Path, tmp_path: Path, unmask: Unmask) -> None:
    long = place.recipe.with_stage("mntp", steps=400)
    (tmp_path / "tiny.json").write_text(recipe_json(replace(long, stages=long.stages[:1])))
    command = ["train", "recipe", "tiny.json", "-o", "run", "--every", "2"]
    code = "import sys; from unmask.cli import main; main(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], env=os.environ | {"PYTHONPATH": SOURCE}, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while len(read_metrics(Path("run/1-mntp"))) < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    before = loss_of(Path("run/1-mntp"))
    reached = max(int(path.name[5:]) for path in Path("run/1-mntp/checkpoints").glob("step-*"))
    status, _, err = unmask(*command, "--resume", "--max-steps", str(len(before) + 2))
    assert status == 0, err
    after = loss_of(Path("run/1-mntp"))
    assert len(after) == len(before) + 2
    assert after[: len(before)] == before
    assert 2 <= reached <= len(before)


def test_tensorboard_has_every_step_of_a_run_taken_up_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EventAccumulator = import_module(BOARD).EventAccumulator

    stop(place, tmp_path / "run", monkeypatch)
    run_recipe(place.recipe, tmp_path / "run", options=place.options(checkpoint=2), resume=True)
    board = EventAccumulator(str(tmp_path / "run" / "1-mntp" / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == list(range(1, STEPS + 1))


class StoppedError(Exception):
    """A test stops a run."""


def stop(place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave a run that was stopped after the second checkpoint, and return its newest one."""
    save = Checkpoints.save

    def stopping(self: Checkpoints, reached: Any) -> Path:
        target = save(self, reached)
        if reached.step == 4:
            raise StoppedError
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopping)
        with pytest.raises(StoppedError):
            run_recipe(place.recipe, folder, options=place.options(checkpoint=2))
    return folder / "1-mntp" / "checkpoints" / "step-000004"


@pytest.mark.parametrize("file", ["trained.safetensors", "optimizer.pt", "about.json"])
@pytest.mark.parametrize("damage", ["half", "empty", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    place: Place, whole: Path, tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch, file: str, damage: str
) -> None:
    newest = stop(place, Path("run"), monkeypatch)
    Path("tiny.json").write_text(recipe_json(place.recipe))
    command = ("train", "recipe", "tiny.json", "-o", "run", "--every", "2", "--device", "cpu", "--resume")
    harmed = newest / file
    content = harmed.read_bytes()
    harmed.unlink() if damage == "gone" else harmed.write_bytes(content[: len(content) // 2 * (damage == "half")])
    status, _, err = unmask(*command)
    assert status in (1, 2)
    assert f"unmask: Checkpoint {newest} is damaged" in err.splitlines()[-1]
    if (file, damage) == ("optimizer.pt", "empty"):
        shutil.rmtree(newest)
        assert unmask(*command)[0] == 0
        assert loss_of(Path("run/1-mntp")) == loss_of(whole / "1-mntp")


@pytest.mark.parametrize("threads", [1, 2])
def test_going_on_with_other_threads_is_said(
    place: Place, unmask: Unmask, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        stop(place, Path("run"), monkeypatch)
        Path("tiny.json").write_text(recipe_json(place.recipe))
        torch.set_num_threads(threads)
        command = ("train", "recipe", "tiny.json", "-o", "run", "--every", "2", "--device", "cpu", "--resume")
        status, _, err = unmask(*command)
    finally:
        torch.set_num_threads(before)
    assert status == 0
    assert ("goes on from step 4 on" in err) == (threads == 2)
    assert (", 2 threads, was on" in err) == (threads == 2)


def test_the_newest_checkpoint_is_that_of_the_highest_step(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 2):
        (tmp_path / f"step-{step:06d}").mkdir()
    with pytest.raises(TrainingError, match="step-1000000 is damaged"):
        Checkpoints(tmp_path, None, None, Accelerator(cpu=True)).load_newest()


#: Trains until it has taken a step, says so, and waits to be killed.
WAITING = """
import sys, time
from unmask.cli import main
from unmask.training.loop import Training
update = Training._update
def waiting(*arguments):
    update(*arguments)
    print("trained", flush=True)
    time.sleep(600)
Training._update = waiting
main(sys.argv[1:])
"""


def test_a_run_goes_on_in_one_process_at_a_time(place: Place, unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(place, Path("run"), monkeypatch)
    Path("tiny.json").write_text(recipe_json(place.recipe))
    command = ["train", "recipe", "tiny.json", "-o", "run", "--every", "2", "--device", "cpu", "--resume"]
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, *command], env=os.environ | {"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"trained\n"
            before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
            status, out, err = unmask(*command)
            assert (status, out, err.count("\n")) == (2, "", 1), err
            assert "unmask: run is a run that goes on in another process" in err
            assert before == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
        finally:
            process.kill()
    assert unmask(*command)[0] == 0
    assert len(loss_of(Path("run/1-mntp"))) == STEPS


def test_resuming_is_refused_where_it_would_be_another_run(
    place: Place, tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = stop(place, Path("run"), monkeypatch)
    Path("tiny.json").write_text(recipe_json(place.recipe))
    common = ("train", "recipe", "tiny.json", "-o", "run", "--every", "2", "--device", "cpu")
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/file").touch()
    for extra, said in {
        "": "run exists already",
        "--resume --set mntp.lora.rank=8 --set seed=3": "mntp.lora.rank was 4, is 8; seed was 7, is 3",
        "--resume --data simcse=texts.jsonl": "simcse.data[0].path was",
        "--resume --sts sts.tsv": "sts was null, is",
        "--resume --dtype bfloat16": 'dtype was "auto", is "bfloat16"',
        "--resume -o nothing": "nothing holds no run",
        "--resume -o empty": "empty holds no run",
        "--resume -o full": "full/options.json is not there",
        "-o full": "full exists already",
        "-o full/file": "full/file exists already",
    }.items():
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        status, out, err = unmask(*common, *extra.split())
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert said in err
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    # The data changed meanwhile, though its name did not.
    with (place.folder / "texts.txt").open("r+") as file:
        content = file.read()
        file.write("One more text.\n" * 3)
    try:
        shutil.copy(place.folder / "texts.txt", tmp_path)
        status, _, err = unmask(*common, "--resume")
    finally:
        (place.folder / "texts.txt").write_text(content)
    assert (status, "is no longer what it was begun with" in err) == (2, True), err
    assert newest.is_dir()


def test_a_finished_run_is_left_alone(place: Place, unmask: Unmask) -> None:
    command = ("train", "simcse", "texts.txt", "-o", "run", "--steps", "1", "--batch", "2")
    assert unmask(*command)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    status, _, err = unmask(*command, "--resume")
    assert (status, "run is finished; nothing was left to do." in err) == (0, True)
    assert "Wrote" not in err
    assert before == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}


def test_stopping_a_run_says_how_to_go_on(unmask: Unmask, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    def interrupted(*arguments: Any) -> float:
        raise KeyboardInterrupt

    Path("tiny.json").write_text(recipe_json(place.recipe))
    command = ("train", "recipe", "tiny.json", "-o", "run", "--max-steps", "1", "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", interrupted)
        status, _, err = unmask(*command)
    assert status == 130
    assert err.splitlines()[-2] == "Go on from the last checkpoint with: the same command and --resume"
    assert err.splitlines()[-1].startswith("unmask: stopped")
    assert unmask(*command, "--resume")[0] == 0


# --- what goes wrong -------------------------------------------------------------------------------

QUICK = "-o run --steps 2 --batch 2"
BAD: dict[str, str] = {
    "train nonsense": "No such command 'nonsense'",
    "train mntp -o run": "Missing argument",
    "train mntp texts.txt": "Missing option '--output'",
    f"train mntp none.txt {QUICK}": "none.txt does not exist",
    f"train mntp empty.txt {QUICK}": "empty.txt is empty",
    f"train mntp blank.txt {QUICK}": "blank: no blocks of 512 tokens can be made (skipped 2 blank)",
    f"train mntp short.txt {QUICK}": "there are 4 tokens in all",
    f"train mntp short.txt {QUICK} --max-length 4": "There are 1 rows and a batch takes 2",
    f"train simcse short.txt {QUICK}": "There are 1 rows and a batch takes 2",
    f"train simcse texts.jsonl {QUICK} --field title": "no field 'title'; expected one of: text, id",
    "train simcse texts.txt -o run --batch 1": "simcse.batch is 1; expected at least 2",
    "train supervised pairs.jsonl -o run --batch 1": "supervised.batch is 1; expected at least 2",
    f"train supervised texts.txt {QUICK}": "a text without fields; expected pairs",
    f"train supervised stdlib {QUICK}": "'stdlib' is text without pairs",
    f"train supervised texts.jsonl {QUICK}": "no field 'query'",
    f"train simcse texts.txt {QUICK} --max-length 2 --model chat": "max_length",
    f"train mntp texts.txt {QUICK} --set mask_token=[nonsense]": "mntp.mask_token is '[nonsense]'",
    f"train mntp texts.txt {QUICK} --set lora.targets=nonsense": "lora.targets ['nonsense']",
    f"train mntp texts.txt {QUICK} --set nonsense=1": "There is no setting 'mntp.nonsense'",
    f"train mntp texts.txt {QUICK} --set lora=1": "mntp.lora holds several settings",
    f"train mntp texts.txt {QUICK} --set batch": "expected NAME=VALUE",
    f"train mntp texts.txt {QUICK} --model none": "none",
    f"train mntp texts.txt {QUICK} --device nonsense": "nonsense",
    f"train mntp texts.txt {QUICK} --dtype nonsense": "nonsense",
    f"train simcse texts.txt {QUICK} --pooling nonsense": "nonsense",
    f"train mntp texts.txt {QUICK} --model mamba": "mamba",
    f"train mntp texts.txt {QUICK} --sts none.tsv": "none.tsv cannot be read",
    f"train mntp texts.txt {QUICK} --sts texts.txt": "texts.txt, line 2: got",
    f"train mntp texts.txt {QUICK} --adapter none": "none",
    "train recipe": "No recipe was named",
    "train recipe nonsense -o run": "There is no recipe 'nonsense'",
    "train recipe none.json -o run": "none.json cannot be read",
    "train recipe sts.json -o run": "sts.json: There is no base; expected name, base and stages.",
    "train recipe types.json -o run": "types.json: mntp.steps is 'six'; expected a value of type int.",
    "train recipe unknown.json -o run": "unknown.json: There is no setting mntp.stepps; expected some of data, steps",
    "train recipe small": "No folder was given",
    "train recipe small -o run --data supervised=pairs.jsonl": "has no stage 'supervised'",
    "train recipe small -o run --data texts.txt": "expected STAGE=PATH",
    "train recipe small -o run --set simcse.nonsense=1": "There is no setting 'simcse.nonsense'",
    "train recipe llama-3-8b-sup -o run": "Stage supervised of recipe 'llama-3-8b-sup' has no data",
    # A later stage is refused before the first one is trained.
    "train recipe small -o run --data simcse=none.txt": "none.txt does not exist",
    "train recipe small -o run --set simcse.lora.targets=nonsense": "lora.targets ['nonsense']",
    "train recipe chat.json -o run --set simcse.max_length=2": "max_length",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(
    unmask: Unmask, place: Place, tmp_path: Path, line: str
) -> None:
    Path("empty.txt").touch()
    Path("blank.txt").write_text("\n \n")
    Path("short.txt").write_text("a b c d")
    Path("sts.json").write_text('{"name": "x"}')
    Path("types.json").write_text(recipe_json(place.recipe).replace('"steps": 6', '"steps": "six"'))
    Path("chat.json").write_text(recipe_json(replace(place.recipe, base="chat")))
    Path("unknown.json").write_text(recipe_json(place.recipe).replace('"steps"', '"stepps"'))
    write_base(Path("chat"), name="meta-llama/Meta-Llama-3-8B-Instruct") if "chat" in line else None
    if "mamba" in line:
        Path("mamba").mkdir()
        Path("mamba/config.json").write_text('{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}')
    before = {str(path) for path in Path().rglob("*")}
    status, out, err = unmask(*line.split())
    errors = [one for one in err.splitlines() if one.startswith("unmask: ")]
    assert (status, out) == (2, ""), err
    assert errors == err.splitlines()[-1:]
    assert BAD[line] in errors[0]
    assert "Traceback" not in err
    assert {str(path) for path in Path().rglob("*")} == before


@pytest.mark.parametrize("package", ["accelerate", "tensorboard", "matplotlib", "scipy"])
def test_a_missing_package_is_named_before_anything_is_done(
    unmask: Unmask, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    status, _, err = unmask("train", "mntp", "texts.txt", "-o", "run", "--sts", "sts.tsv")
    assert status == 2
    assert err == (
        f'unmask: Training needs {package}, which is not installed. Install it with: pip install "unmask[train]"\n'
    )
    assert not Path("run").exists()


def test_a_loss_that_is_no_number_ends_the_run(unmask: Unmask, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    newest = stop(place, Path("run"), monkeypatch)
    kept = (newest / "trained.safetensors").read_bytes()
    Path("tiny.json").write_text(recipe_json(place.recipe))
    update = Training._update
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", lambda self, number, loss, rate: update(self, number, float("nan"), rate))
        status, _, err = unmask("train", "recipe", "tiny.json", "-o", "run", "--device", "cpu", "--resume")
    assert status == 2
    assert "unmask: The loss of mntp step 5 is nan." in err
    assert "lower mntp.learning_rate" in err
    assert (newest / "trained.safetensors").read_bytes() == kept
    assert len(loss_of(Path("run/1-mntp"))) == 4


def test_a_learning_rate_far_too_high_is_one_line(unmask: Unmask) -> None:
    status, _, err = unmask(*f"train mntp texts.txt {QUICK} --max-length 16 --lr 1e30".split(), "--set", "clip=none")
    assert status == 2
    assert err.splitlines()[-1].startswith("unmask: The ")
    assert "of mntp step 2 is" in err


def test_a_score_that_is_no_number_is_one_line(unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StsFile, "score", lambda self, encoder: float("nan"))
    status, _, err = unmask(*f"train mntp texts.txt {QUICK} --max-length 16 --sts sts.tsv".split())
    assert status == 2
    assert "unmask: The score of mntp step 2 is nan" in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk with so many kB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this user may not mount a disk")
        return folder

    yield make
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size", [8, 40, 150, 230, 400, 700])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    unmask: Unmask, small_disk: Callable[[int], Path], place: Place, whole: Path, size: int
) -> None:
    disk = small_disk(size)
    Path("tiny.json").write_text(recipe_json(place.recipe))
    command = ("train", "recipe", "tiny.json", "-o", "disk/run", "--every", "2", "--device", "cpu")
    status, _, err = unmask(*command)
    assert status == 1
    assert err.splitlines()[-1].startswith("unmask: disk/run")
    assert "Traceback" not in err
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    begun = (disk / "run" / "recipe.json").is_file()
    status, _, err = unmask(*command, *(["--resume"] if begun else []))
    assert status == 0, err
    for stage in ("1-mntp", "2-simcse"):
        assert loss_of(disk / "run" / stage) == loss_of(whole / stage)
    assert not list(disk.rglob(".part-*"))


# --- the command -----------------------------------------------------------------------------------


def examples() -> list[str]:
    documented = [inspect.getdoc(command.callback) or "" for command in train.registered_commands]
    return [line.strip() for text in documented for line in text.partition("Examples:")[2].splitlines() if line.strip()]


def test_every_command_has_examples() -> None:
    commands = {str(command.callback.__name__) for command in train.registered_commands if command.callback}
    assert {line.split()[2] for line in examples()} == commands == {"mntp", "simcse", "supervised", "recipe"}


@pytest.mark.parametrize("line", examples())
def test_the_examples_of_the_help_run(unmask: Unmask, line: str) -> None:
    before = {str(path) for path in Path().rglob("*")}
    status, out, err = unmask(*shlex.split(line)[1:])
    assert status == 0, err
    assert "Next: " in err or "--show" in line
    if "--dry-run" in line:
        assert {str(path) for path in Path().rglob("*")} == before
        for said in ("trainable parameters", "tokens a step", "memory", "time"):
            assert said in out
    command = line.split()[2]
    assert f"\n      {line}\n" in unmask("train", command, "--help")[1]


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from unmask.cli import app, run; run(app, sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'pyarrow', 'accelerate'} & set(sys.modules); assert not heavy, heavy"
    )
    for arguments in ("--version", "train --help", "train recipe --help"):
        command = [sys.executable, "-c", code, *arguments.split()]
        environment = os.environ | {"PYTHONPATH": SOURCE}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_it_says_what_is_read_and_skipped_and_made(unmask: Unmask) -> None:
    status, out, err = unmask(*f"train simcse texts.txt {QUICK} --max-length 48 --sts sts.tsv".split())
    assert (status, out) == (0, "")
    for said in (
        "texts: 4 sentences",
        "simcse: 2 steps of 2 rows; metrics in run/1-simcse/metrics.jsonl",
        "simcse: 2 steps in ",
        "tokens/s",
        "best score",
        "Wrote run/encoder",
        "Next: unmask search stdlib",
        "--model run/encoder",
    ):
        assert said in err


def test_recipes_are_listed_and_shown(unmask: Unmask, tmp_path: Path) -> None:
    out = unmask("train", "recipe", "--list")[1]
    assert all(name in out for name in RECIPES)
    shown = unmask(
        *["train", "recipe", "small", "--show", "--set", "simcse.temperature=0.1", "--data", "mntp=texts.txt"]
    )[1]
    Path("own.json").write_text(shown)
    changed = read_recipe(Path("own.json"))
    assert changed == RECIPES["small"].with_stage("simcse", temperature=0.1).with_stage(
        "mntp", data=(Source(path="texts.txt"),)
    )


def test_pairs_given_instead_keep_the_instruction(unmask: Unmask, place: Place) -> None:
    def shown(*paths: str) -> list[tuple[str, str, bool]]:
        data = (word for path in paths for word in ("--data", f"supervised={path}"))
        status, out, err = unmask("train", "recipe", "own.json", "--show", *data)
        if status:
            assert (status, out, err.count("\n")) == (2, "", 1)
            raise InputError(err)
        Path("shown.json").write_text(out)
        return [
            (source.path, source.instruction, source.symmetric)
            for source in read_recipe(Path("shown.json")).stages[-1].data
            if isinstance(source, PairSource)
        ]

    def write(*sources: PairSource) -> None:
        stages = (place.recipe.stages[0], Supervised(data=sources, steps=2, warmup=1))
        Path("own.json").write_text(recipe_json(replace(place.recipe, stages=stages)))

    write()
    assert shown("new.jsonl") == [("new.jsonl", "", False)]
    questions = PairSource(path="data/questions.jsonl", instruction="Find it:")
    write(questions, replace(questions, path="data/more.jsonl"))
    assert shown("a.jsonl", "b.jsonl") == [("a.jsonl", "Find it:", False), ("b.jsonl", "Find it:", False)]
    write(questions, PairSource(path="data/nli.jsonl", instruction="Find alike:", symmetric=True))
    assert shown("other/nli.jsonl.gz", "questions.jsonl") == [
        ("other/nli.jsonl.gz", "Find alike:", True),
        ("questions.jsonl", "Find it:", False),
    ]
    with pytest.raises(InputError, match=r"--data new.jsonl: the recipe's data have 2 different instructions"):
        shown("new.jsonl")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(recipe_json(RECIPES[name]))
    assert read_recipe(tmp_path / "recipe.json") == RECIPES[name]


def test_the_small_recipe_on_a_tiny_base(unmask: Unmask) -> None:
    status, _, err = unmask("train", "recipe", "small", "-o", "run", "--max-steps", "1")
    assert status == 0, err
    assert "stdlib: 200 blocks of 128 tokens" in err
    assert "stdlib: 320 sentences" in err
    assert Encoder.load("run/encoder").encode(["a text"]).shape == (1, 64)


@pytest.mark.parametrize("negatives", ["1", "2"])
def test_supervised_reads_what_mine_writes(unmask: Unmask, negatives: str) -> None:
    words = ["cat", "rain falls", "stock prices", "the old house", "seven", "why not"]
    rows = [{"query": f"{word} {word} {word}", "positive": f"{word} {word} {word}!"} for word in words]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = unmask(
        *f"mine own.jsonl -o mined.jsonl --negatives {negatives} --model smollm2-135m --margin 1".split()
    )
    assert status == 0, err
    mined = [json.loads(line) for line in Path("mined.jsonl").read_text().splitlines()]
    assert isinstance(mined[0]["negative"], str if negatives == "1" else list)
    status, _, err = unmask(*f"train supervised mined.jsonl {QUICK} --max-length 48".split())
    assert status == 0, err
    assert f"mined: {len(mined)} pairs" in err

"""Two processes train what one does: whole recipes under DDP and under FSDP, on the CPU.

On a CPU ``accelerate launch --use_fsdp`` trains under DDP and does not say so: accelerate 1.15 turns FSDP on for
accelerators alone (``AcceleratorState.__init__``). torch's FSDP2 itself runs on gloo, so the test turns it on.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.multiprocessing.spawn import spawn

from tests.tiny import write_base
from tests.tiny_tokenizer import SENTENCES
from unmask import Encoder
from unmask.training.checkpoints import Checkpoints, Reached
from unmask.training.data.sources import PairSource, Source
from unmask.training.loop import Pace
from unmask.training.lora import Lora
from unmask.training.preparing import Options
from unmask.training.recipe import Mntp, Recipe, Stage, Supervised
from unmask.training.running import run_recipe
from unmask.training.sts import StsFile
from unmask.training.trainee import Trainee

WORLD, STEPS = 2, 3
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
STS = StsFile("sts", (1.0, 2.0, 3.0, 4.0), SENTENCES[:4], SENTENCES[4:8])
#: The options of launched processes that a test compares, by name of the case.
Cases = dict[str, tuple[str, dict[str, Any]]]
DDP_CASES: Cases = {
    "mntp in passes": ("mntp", {"tokens": 20}),
    "new mask": ("new mask", {"tokens": 20}),
    "supervised": ("supervised", {"tokens": 10_000}),
    "supervised, scored": ("supervised", {"tokens": 40, "sts": STS}),
    "resumed": ("supervised", {"tokens": 40}),
}

#: Texts are of other lengths in each process, so that passes are too, unless all agree on them.
FSDP_CASES: Cases = {name: DDP_CASES[name] for name in ("mntp in passes", "new mask", "supervised", "resumed")}


def stage_of(name: str, data: Path) -> Stage:
    """A stage without dropout: what is drawn differs from process to process."""
    common: dict[str, Any] = {"steps": STEPS, "learning_rate": 1e-2, "lora": Lora(rank=3, alpha=6, dropout=0.0)}
    texts = (Source(path=str(data / "texts.txt")),)
    if name == "mntp":
        return Mntp(data=texts, batch=8, max_length=12, mask_rate=0.4, **common)
    if name == "new mask":
        return Mntp(data=texts, batch=8, max_length=12, mask_rate=0.4, mask_token="new", **common)
    pairs = (PairSource(path=str(data / "pairs.jsonl"), instruction="Find it:"),)
    return Supervised(
        data=pairs, batch=6, warmup=1, temperature=0.1, bidirectional_loss=True, false_negative_margin=0.3, **common
    )


def recipe_of(name: str, data: Path) -> Recipe:
    return Recipe(name="test", base=str(data / "base"), stages=(stage_of(name, data),), seed=4)


def options_of(**changes: Any) -> Options:
    return Options(device="cpu", progress=False, pace=Pace(checkpoint=1, evaluate=2), **changes)


class StoppedError(Exception):
    """A run was stopped."""


def train(name: str, case: tuple[str, dict[str, Any]], data: Path, place: Path) -> None:
    """Run one case in ``place``; the one that is resumed is stopped after two steps, and gone on with."""
    recipe, options = recipe_of(case[0], data), options_of(**case[1])
    if name == "resumed":
        own = Checkpoints.save

        def stopping(self: Checkpoints, reached: Reached) -> Path:
            own(self, reached)
            if reached.step == 2:
                raise StoppedError
            return Path()

        Checkpoints.save = stopping  # type: ignore[method-assign]
        with pytest.raises(StoppedError):
            run_recipe(recipe, place / name, options=options)
        Checkpoints.save = own  # type: ignore[method-assign]
    run_recipe(recipe, place / name, options=options, resume=name == "resumed")


def work(rank: int, data: str, place: str, cases: Cases, environment: dict[str, str]) -> None:
    """One of the processes, as ``accelerate launch --cpu`` starts it; they meet in a file instead of at a port."""
    torch.set_num_threads(1)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD, "MASTER_PORT": 0}
    os.environ |= {name: str(number) for name, number in ranks.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "ACCELERATE_USE_CPU": "true", **environment}
    distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=WORLD)
    if environment:
        turn_fsdp_on()
    for name, case in cases.items():
        train(name, case, Path(data), Path(place))
    distributed.destroy_process_group()


def turn_fsdp_on() -> None:
    """Make accelerate do on the CPU what it does on accelerators."""
    accelerator = Accelerator(cpu=True)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    own = Trainee.forward

    def forward(self: Trainee, *arguments: Any) -> Any:
        assert isinstance(self, FSDPModule), "nothing is sharded"
        assert sum(isinstance(module, FSDPModule) for module in self.modules()) == 1 + 3
        return own(self, *arguments)

    Trainee.forward = forward  # type: ignore[assignment, method-assign]


@dataclass(frozen=True)
class Trained:
    """What a run left."""

    losses: list[float]
    norms: list[float]
    scores: list[float]
    adapter: dict[str, torch.Tensor]
    encoder: Path


def left(place: Path) -> Trained:
    (stage,) = place.glob("1-*")
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return Trained(
        [line["loss"] for line in lines if "loss" in line],
        [line["gradient_norm"] for line in lines if "loss" in line],
        [line["sts"] for line in lines if "sts" in line],
        load_file(stage / "adapter" / "adapter_model.safetensors"),
        place / "encoder",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, running text and pairs with a negative each, their lengths all different."""
    folder = tmp_path_factory.mktemp("data")
    write_base(folder / "base")
    (folder / "texts.txt").write_text("".join(text + "\n" for text in SENTENCES * 3), encoding="utf-8")
    lines = [
        {"query": text[: 7 + 3 * row], "positive": text[5:], "negative": SENTENCES[-row - 1]}
        for row, text in enumerate(SENTENCES[:20])
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """What one process makes of each stage, in one pass and without a stop."""
    place = tmp_path_factory.mktemp("alone")
    cases: Cases = {name: (name, {"tokens": 10_000}) for name in ("mntp", "new mask", "supervised")}
    cases["supervised, scored"] = ("supervised", {"tokens": 10_000, "sts": STS})
    for name, case in cases.items():
        train(name, case, data, place)
    return {name: left(place / name) for name in cases}


@pytest.fixture(scope="module")
def ddp(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ddp")
    spawn(work, args=(str(data), str(place), DDP_CASES, {}), nprocs=WORLD)  # type: ignore[no-untyped-call]
    return place


@pytest.fixture(scope="module")
def fsdp(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fsdp")
    spawn(work, args=(str(data), str(place), FSDP_CASES, FSDP), nprocs=WORLD)  # type: ignore[no-untyped-call]
    return place


def alike(got: Trained, expected: Trained) -> None:
    """The same losses and gradients at each step, and the same adapter at the end."""
    assert len(got.losses) == STEPS
    assert got.losses == pytest.approx(expected.losses, rel=1e-5)
    assert got.scores == pytest.approx(expected.scores, abs=1e-6)
    assert got.norms == pytest.approx(expected.norms, rel=1e-4)
    assert got.adapter.keys() == expected.adapter.keys()
    for name, tensor in got.adapter.items():
        other = expected.adapter[name]
        assert other.norm() > 0
        assert float((tensor - other).norm() / other.norm()) < 1e-3, name


@pytest.mark.parametrize("name", DDP_CASES)
def test_two_processes_train_what_one_does(name: str, ddp: Path, alone: dict[str, Trained]) -> None:
    alike(left(ddp / name), alone[name if name in alone else DDP_CASES[name][0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", FSDP_CASES)
def test_two_processes_that_share_the_weights_train_what_one_does(
    name: str, fsdp: Path, alone: dict[str, Trained]
) -> None:
    alike(left(fsdp / name), alone[FSDP_CASES[name][0]])


def test_the_encoder_that_two_processes_make_loads(ddp: Path, alone: dict[str, Trained]) -> None:
    vectors = [
        Encoder.load(trained.encoder).encode(list(SENTENCES[:5]))
        for trained in (left(ddp / "mntp in passes"), alone["mntp"])
    ]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-3


def test_one_process_resumed_is_one_unbroken(data: Path, tmp_path: Path, alone: dict[str, Trained]) -> None:
    train("resumed", ("mntp", {"tokens": 20}), data, tmp_path)
    alike(left(tmp_path / "resumed"), alone["mntp"])

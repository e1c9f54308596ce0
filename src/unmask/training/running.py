"""A recipe, run: every stage in turn, each on the base with the adapters before it merged, then the encoder.

RUN/
  recipe.json            what is run; a run is only taken up again with the same
  data/                  tokenised rows
  1-mntp/                one folder a stage: adapter/, checkpoints/, metrics.jsonl, tensorboard/, plot.png
  2-simcse/
  encoder/               the result: loads with Encoder.load, and in sentence-transformers
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator

from unmask.encoder import Encoder
from unmask.errors import InputError, TrainingError
from unmask.hub.cache import atomic_file
from unmask.training import card, monitor
from unmask.training.checkpoints import Reached, writing
from unmask.training.data import store
from unmask.training.data.batches import Batches
from unmask.training.data.rows import Rows
from unmask.training.loop import Pace, Training, make_optimizer
from unmask.training.recipe import NEW_MASK, Mntp, Recipe, SimCse, Stage, Supervised
from unmask.training.steps import Run, make_step, seed_of
from unmask.training.sts import StsFile
from unmask.training.trainee import Trainee

_RECIPE: Final = "recipe.json"
_DONE: Final = "done.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a recipe is run, which changes nothing of what it makes but where it says so.

    Attributes:
        device: ``auto`` or a torch device; with several processes, that of each.
        dtype: of the base: ``auto`` is bfloat16 on CUDA, float32 elsewhere. Adapters are float32.
        tokens: most tokens of one pass; None for what the device usually holds.
        checkpointing: compute layers again in backward, for less memory.
        sts: scored pairs that decide which adapter is kept.
        pace: how often to pause, and when to end.
        progress: show bars and reports.
    """

    device: str = "auto"
    dtype: str = "auto"
    tokens: int | None = None
    checkpointing: bool = False
    sts: StsFile | None = None
    pace: Pace = field(default_factory=Pace)
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage came to.

    Attributes:
        kind: of the stage.
        reached: how far it came.
        trainable: trained parameters.
        data: the report of what was read, as lines.
        device: what it ran on.
        processes: how many.
        loss: mean of its last twentieth of steps.
    """

    kind: str
    reached: Reached
    trainable: int
    data: list[str]
    device: str
    processes: int
    loss: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on per second of training."""
        return self.reached.tokens / max(self.reached.seconds, 1e-9)


def run_recipe(
    recipe: Recipe, folder: Path, *, options: Options, resume: bool = False, say: Callable[[str], None] = print
) -> Path:
    """Run a recipe and return the folder of the encoder it made.

    Args:
        recipe: what to run; every stage has data.
        folder: of the run; must not exist, unless it is taken up again.
        options: how.
        resume: go on with the run in ``folder``.
        say: told what was read and made, a line at a time.

    Raises:
        InputError: a setting or the data cannot be used, or the folder holds another run.
        BackboneError: the base cannot be bidirectional.
        TrainingError: the run cannot go on; its checkpoints are whole.
    """
    require_data(recipe)
    accelerator = Accelerator(cpu=options.device == "cpu")
    tell = say if options.progress and accelerator.is_main_process else _silent
    if accelerator.is_main_process:
        _claim(folder, recipe, resume)
    accelerator.wait_for_everyone()
    adapters = list(recipe.adapters)
    results: list[StageResult] = []
    for number, stage in enumerate(recipe.stages, start=1):
        place = folder / f"{number}-{stage.kind}"
        result = _result_of(place)
        if result is None:
            work = _Work(recipe=recipe, data=folder / "data", accelerator=accelerator, options=options, say=tell)
            result = work.train(stage, adapters, place)
        adapters.append(str(place / "adapter"))
        results.append(result)
    encoder = folder / "encoder"
    if accelerator.is_main_process and not encoder.is_dir():
        _save_encoder(recipe, adapters, results, encoder, options)
    accelerator.wait_for_everyone()
    return encoder


def load_base(recipe: Recipe, stage: Stage, adapters: Sequence[str], options: Options) -> Encoder:
    """Return the encoder that a stage starts from, adapters merged."""
    return Encoder.load(
        recipe.base,
        adapters=adapters,
        bidirectional=recipe.bidirectional,
        pooling=recipe.pooling,
        max_length=stage.max_length,
        device=options.device,
        dtype=options.dtype,
        progress=options.progress,
    )


def read_rows(stage: Stage, encoder: Encoder, folder: Path, *, limit: int | None, progress: bool) -> Rows:
    """Return the rows that a stage trains on, at most ``limit``."""
    texts = encoder.pipeline.tokenizer
    if isinstance(stage, Mntp):
        return store.blocks(
            stage.data, encoder.tokenizer, length=stage.max_length, limit=limit, folder=folder, progress=progress
        )
    if isinstance(stage, SimCse):
        return store.sentences(stage.data, texts, limit=limit, folder=folder, progress=progress)
    assert isinstance(stage, Supervised)
    return store.pairs(stage.data, texts, folder=folder, progress=progress)


def prepare(
    recipe: Recipe, stage: Stage, encoder: Encoder, accelerator: Accelerator, options: Options
) -> tuple[Run, Any, Any]:
    """Put a stage's adapter on an encoder's model, and return the run, its step and its optimiser."""
    if stage.batch % accelerator.num_processes:
        raise InputError(
            f"{stage.kind}.batch is {stage.batch}, which {accelerator.num_processes} processes cannot share; "
            "expected a multiple."
        )
    torch.manual_seed(seed_of(recipe.seed))
    trainee = Trainee(
        encoder.backbone,
        stage.lora,
        attention_dropout=stage.attention_dropout,
        checkpointing=options.checkpointing,
        new_mask=isinstance(stage, Mntp) and stage.mask_token == NEW_MASK,
    )
    optimizer = make_optimizer(stage, trainee.parameters_trained)
    model, wrapped = accelerator.prepare(trainee, optimizer)
    trainee.train()
    run = Run(trainee=trainee, model=model, accelerator=accelerator, seed=recipe.seed, tokens=options.tokens)
    step = make_step(stage, run, tokenizer=encoder.tokenizer, base=encoder.checkpoint.base, pooling=recipe.pooling)
    return run, step, wrapped


def require_data(recipe: Recipe) -> None:
    """Raise :class:`InputError` unless every stage has data."""
    for stage in recipe.stages:
        if not stage.data:
            raise InputError(
                f"Stage {stage.kind} of recipe {recipe.name!r} has no data. Give it a file, folder or data set: "
                f"--data {stage.kind}=PATH."
            )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all stages of a run share."""

    recipe: Recipe
    data: Path
    accelerator: Accelerator
    options: Options
    say: Callable[[str], None]

    def train(self, stage: Stage, adapters: Sequence[str], place: Path) -> StageResult:
        """Train one stage in ``place`` and leave its result there."""
        encoder = load_base(self.recipe, stage, adapters, self.options)
        rows = self._read(stage, encoder)
        batches = Batches(rows, batch=stage.batch, seed=self.recipe.seed, homogeneous=isinstance(stage, Supervised))
        for group, count in batches.left_out.items():
            self.say(f"left out {rows.report.sources[group].name}: {count:,} rows, fewer than a batch")
        run, step, optimizer = prepare(self.recipe, stage, encoder, self.accelerator, self.options)
        place.mkdir(parents=True, exist_ok=True)
        sts = self.options.sts
        reached = Training(
            stage=stage,
            run=run,
            step=step,
            optimizer=optimizer,
            rows=rows,
            batches=batches,
            folder=place,
            base=self.recipe.base,
            score=partial(sts.score, encoder) if sts else None,
            pace=self.options.pace,
            progress=self.options.progress,
        )()
        result = StageResult(
            kind=stage.kind,
            reached=reached,
            trainable=run.trainee.trainable,
            data=rows.report.lines(),
            device=card.hardware(self.accelerator.device),
            processes=self.accelerator.num_processes,
            loss=_last_loss(place),
        )
        self._finish(result, place)
        return result

    def _read(self, stage: Stage, encoder: Encoder) -> Rows:
        steps = min(stage.steps, self.options.pace.max_steps or stage.steps)
        shown = self.options.progress and self.accelerator.is_main_process
        with self.accelerator.main_process_first():
            rows = read_rows(stage, encoder, self.data, limit=steps * stage.batch, progress=shown)
        for line in rows.report.lines():
            self.say(line)
        return rows

    def _finish(self, result: StageResult, place: Path) -> None:
        if self.accelerator.is_main_process:
            monitor.draw(place, f"{self.recipe.name}: {result.kind}")
            with writing(place / _DONE), atomic_file(place / _DONE, replace=True) as draft:
                draft.write_text(json.dumps(asdict(result), indent=2), encoding="utf-8")
            shutil.rmtree(place / "checkpoints")
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()
        gc.collect()


def _last_loss(place: Path) -> float:
    """Return the mean loss of the last twentieth of a stage's steps."""
    losses = [line["loss"] for line in monitor.read_metrics(place) if "loss" in line]
    tail = losses[-max(1, len(losses) // 20) :]
    return float(sum(tail) / len(tail))


def _claim(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run's folder, or see that the run in it is the one to go on with."""
    file = folder / _RECIPE
    if not folder.exists():
        folder.mkdir(parents=True)
        with atomic_file(file) as draft:
            draft.write_text(json.dumps(recipe.as_dict(), indent=2), encoding="utf-8")
        return
    if not resume:
        raise InputError(f"{folder} exists already. Give another folder, or --resume to go on with the run in it.")
    if not file.is_file():
        raise InputError(f"{folder} holds no run ({_RECIPE} is not there). Give the folder of one.")
    before = json.loads(file.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(recipe.as_dict()))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise TrainingError(
            f"{folder} is a run of other settings: {', '.join(changed)} differ. Resume with the same ones, or start in "
            "another folder."
        )


def _result_of(place: Path) -> StageResult | None:
    """Return the result of a stage that is done."""
    file = place / _DONE
    if not file.is_file():
        return None
    data = json.loads(file.read_text(encoding="utf-8"))
    return StageResult(**(data | {"reached": Reached(**data["reached"])}))


def _save_encoder(
    recipe: Recipe, adapters: Sequence[str], results: Sequence[StageResult], folder: Path, options: Options
) -> None:
    longest = max(stage.max_length for stage in recipe.stages)
    encoder = load_base(
        recipe, replace(recipe.stages[-1], max_length=longest), adapters, replace(options, progress=False)
    )
    encoder.save(folder, notes=card.notes(recipe, results, options.sts.name if options.sts else None))


def _silent(line: str) -> None:
    pass

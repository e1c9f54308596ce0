"""A recipe, run: every stage in turn, each on the base with the adapters before it merged, then the encoder.

RUN/
  recipe.json            what is run; a run is only taken up again with the same
  options.json           of how it is run, what changes the result; the same holds
  data/                  tokenised rows
  1-mntp/                one folder a stage: adapter/, checkpoints/, metrics.jsonl, tensorboard/, plot.png
  2-simcse/
  encoder/               the result: loads with Encoder.load, and in sentence-transformers
  .lock                  held while the run goes on, so that a second process is refused
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from accelerate import Accelerator, DistributedType

from unmask.checkpoint import MAX_LENGTH
from unmask.encoder import Encoder
from unmask.errors import InputError, UnmaskError
from unmask.training import card, monitor
from unmask.training.checkpoints import Reached, writing
from unmask.training.data.batches import Batches
from unmask.training.data.report import Tally
from unmask.training.data.rows import Rows
from unmask.training.data.sources import read_pairs, read_texts
from unmask.training.extras import ALWAYS, SCORES, require_extras
from unmask.training.folder import (
    DONE,
    OPTIONS,
    RECIPE,
    claim,
    digest,
    is_done,
    is_free,
    read_json,
    same_data,
    write_json,
)
from unmask.training.loop import Training
from unmask.training.preparing import Options, check_later, load_base, prepare, read_rows, require_data
from unmask.training.recipe import Recipe, Stage, Supervised

_ENCODER: Final = "encoder"


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage came to.

    Attributes:
        kind: of the stage.
        reached: how far it came.
        trainable: trained parameters.
        data: the report of what was read, as lines.
        processes: how many.
        loss: mean of its last twentieth of steps.
    """

    kind: str
    reached: Reached
    trainable: int
    data: list[str]
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
    require_extras(*ALWAYS, *(SCORES if options.sts else ()))
    require_data(recipe)
    accelerator = Accelerator(cpu=options.device == "cpu")
    if options.sts and accelerator.distributed_type == DistributedType.FSDP:
        raise InputError(
            "Scores on the way cannot be had under FSDP, whose parts hold no whole model. Leave out --sts."
        )
    tell = say if options.progress and accelerator.is_main_process else _silent
    places = [folder / f"{number}-{stage.kind}" for number, stage in enumerate(recipe.stages, start=1)]
    begun = is_free(folder)
    work = _Work(recipe=recipe, folder=folder, accelerator=accelerator, options=options, say=tell)
    main = accelerator.is_main_process
    with claim(folder, _begun_as(recipe, options), resume=resume) if main else nullcontext():
        accelerator.wait_for_everyone()
        if is_finished(folder):
            tell(f"{folder} is finished; nothing was left to do.")
            return folder / _ENCODER
        try:
            adapters, results = work.train_all(places)
        except UnmaskError:
            if begun and main and not any(place.is_dir() for place in places):
                shutil.rmtree(folder)  # nothing was trained: what was wrong with the input can be put right at once
            raise
        if main:
            _save_encoder(recipe, adapters, results, folder / _ENCODER, options)
        accelerator.wait_for_everyone()
    return folder / _ENCODER


def is_finished(folder: Path) -> bool:
    """Return whether the run in ``folder`` has made its encoder."""
    return (folder / _ENCODER).is_dir()


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all stages of a run share."""

    recipe: Recipe
    folder: Path
    accelerator: Accelerator
    options: Options
    say: Callable[[str], None]

    def train_all(self, places: Sequence[Path]) -> tuple[list[str], list[StageResult]]:
        """Train the stages that are not done, each in its place; return all adapters and results."""
        stages = self.recipe.stages
        self._check([stage for stage, place in zip(stages, places, strict=True) if not is_done(place)])
        adapters = list(self.recipe.adapters)
        results: list[StageResult] = []
        for number, place in enumerate(places):
            results.append(_result_of(place) or self._train(stages[number:], adapters, place))
            adapters.append(str(place / "adapter"))
        return adapters, results

    def _check(self, stages: Sequence[Stage]) -> None:
        """Refuse at once what would otherwise come to light after the hours that earlier stages take."""
        count = self.accelerator.num_processes
        for number, stage in enumerate(stages):
            if stage.batch % count:
                raise InputError(
                    f"{stage.kind}.batch is {stage.batch}, which {count} processes cannot share; expected a multiple."
                )
            if number == 0:  # it begins in a moment, and is refused then
                continue
            for source in stage.data:
                read = read_pairs if isinstance(stage, Supervised) else read_texts
                with closing(read(source, Tally(name=source.name))) as texts:
                    next(texts, None)

    def _train(self, stages: Sequence[Stage], adapters: Sequence[str], place: Path) -> StageResult:
        """Train the first of ``stages`` in ``place`` and leave its result there."""
        stage, *later = stages
        encoder = load_base(self.recipe, stage, adapters, self.options)
        for one in later:
            check_later(one, encoder)
        # Before the data is read, which may take long: a setting that cannot be used is refused here.
        run, step, optimizer = prepare(self.recipe, stage, encoder, self.accelerator, self.options)
        rows = self._read(stage, encoder)
        batches = Batches(rows, batch=stage.batch, seed=self.recipe.seed, homogeneous=isinstance(stage, Supervised))
        for group, count in batches.left_out.items():
            self.say(f"  left out {rows.report.sources[group].name}: {count:,} rows, fewer than a batch")
        self._begin(stage, rows, place)
        sts = self.options.sts
        reached = Training(
            stage=stage,
            run=run,
            step=step,
            optimizer=optimizer,
            rows=rows,
            batches=batches,
            folder=place,
            base=adapters[-1] if adapters else self.recipe.base,
            score=partial(sts.score, encoder) if sts else None,
            pace=self.options.pace,
            progress=self.options.progress,
            say=self.say,
        )()
        result = StageResult(
            kind=stage.kind,
            reached=reached,
            trainable=run.trainee.trainable,
            data=rows.report.lines(),
            processes=self.accelerator.num_processes,
            loss=_last_loss(place),
        )
        self._finish(result, place)
        return result

    def _read(self, stage: Stage, encoder: Encoder) -> Rows:
        shown = self.options.progress and self.accelerator.is_main_process
        limit = None if isinstance(stage, Supervised) else stage.steps * stage.batch
        data = self.folder / "data"
        with self.accelerator.main_process_first(), writing(data):
            rows = read_rows(stage, encoder, data, limit=limit, progress=shown)
        for line in rows.report.lines():
            self.say(f"  {line}")
        return rows

    def _begin(self, stage: Stage, rows: Rows, place: Path) -> None:
        """Make the stage's folder, or see that its rows are those it was begun with; say what begins."""
        if self.accelerator.is_main_process:
            same_data(place, rows.report.as_dict())
        self.accelerator.wait_for_everyone()
        steps = self.options.pace.steps_of(stage)
        self.say(f"{stage.kind}: {steps:,} steps of {stage.batch:,} rows; metrics in {place / monitor.METRICS}")

    def _finish(self, result: StageResult, place: Path) -> None:
        if self.accelerator.is_main_process:
            with writing(place / monitor.PLOT):
                monitor.draw(place, f"{self.recipe.name}: {result.kind}")
            write_json(place / DONE, asdict(result))
            shutil.rmtree(place / "checkpoints")
        reached = result.reached
        best = (
            "" if reached.best_score is None else f", best score {reached.best_score:.4f} at step {reached.best_step:,}"
        )
        self.say(f"  loss {result.loss:.3f} at the end{best}; adapter in {place / 'adapter'}")
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()
        gc.collect()


def _last_loss(place: Path) -> float:
    """Return the mean loss of the last twentieth of a stage's steps."""
    losses = [line["loss"] for line in monitor.read_metrics(place) if "loss" in line]
    tail = losses[-max(1, len(losses) // 20) :]
    return float(sum(tail) / len(tail))


def _begun_as(recipe: Recipe, options: Options) -> dict[str, Any]:
    """Return all that must stay as it is when a run is taken up again, by file."""
    scored = options.pace.evaluate if options.sts else None
    lasting = {"dtype": options.dtype, "sts": digest(options.sts), "every": scored}
    # The recipe last: with it, the folder is a run.
    return {OPTIONS: lasting, RECIPE: recipe.as_dict()}


def _result_of(place: Path) -> StageResult | None:
    """Return the result of a stage that is done."""
    if not is_done(place):
        return None
    data = read_json(place / DONE)
    return StageResult(**(data | {"reached": Reached(**data["reached"])}))


def _save_encoder(
    recipe: Recipe, adapters: Sequence[str], results: Sequence[StageResult], folder: Path, options: Options
) -> None:
    # Trained on short texts, an encoder still reads long ones; the published ones saw 128 tokens in SimCSE.
    longest = max(MAX_LENGTH, *(stage.max_length for stage in recipe.stages))
    encoder = load_base(
        recipe, replace(recipe.stages[-1], max_length=longest), adapters, replace(options, progress=False)
    )
    with writing(folder):
        encoder.save(folder, notes=card.notes(recipe, results, options.sts.name if options.sts else None))


def _silent(line: str) -> None:
    pass

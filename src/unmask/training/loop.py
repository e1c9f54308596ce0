"""The loop over the steps of one stage: learning rate, checkpoints, scores, and a stop at the first bad number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from unmask.errors import TrainingError
from unmask.hardware import hardware
from unmask.hub.cache import atomic_folder
from unmask.progress import Progress
from unmask.training.checkpoints import Checkpoints, Reached, writing
from unmask.training.data.batches import Batches
from unmask.training.data.rows import Rows
from unmask.training.lora import adapter_tensors, save_adapter
from unmask.training.monitor import Monitor
from unmask.training.recipe import Stage
from unmask.training.sharing import Run
from unmask.training.steps import Step

#: AdamW's, as transformers' trainer has them, with which the published adapters were made.
_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a stage pauses, and when it ends.

    Attributes:
        checkpoint: steps between checkpoints.
        evaluate: steps between scores.
        max_steps: end after so many steps, though the stage has more.
        max_tokens: end after so many tokens.
    """

    checkpoint: int = 100
    evaluate: int = 100
    max_steps: int | None = None
    max_tokens: int | None = None

    def steps_of(self, stage: Stage) -> int:
        """Return the steps after which a stage ends, if its tokens do not end it before."""
        return min(stage.steps, self.max_steps or stage.steps)


def make_optimizer(stage: Stage, parameters: list[torch.nn.Parameter]) -> torch.optim.AdamW:
    """Return the optimiser of a stage; its state is float32, like the adapter."""
    return torch.optim.AdamW(
        parameters, lr=stage.learning_rate, betas=_BETAS, eps=_EPSILON, weight_decay=stage.weight_decay
    )


@dataclass(frozen=True, kw_only=True)
class Training:
    """One stage, ready to be trained.

    Attributes:
        stage: its settings.
        run: what is trained, on what.
        step: computes the gradients of a batch.
        optimizer: of the trained parameters, as the accelerator wrapped it.
        rows: the training rows.
        batches: which rows each step takes.
        folder: of the stage; exists.
        base: what the adapter belongs on, for its configuration.
        score: higher is better; the adapter kept is that of the highest score, or the last one if None.
        pace: how often to pause, and when to end.
        progress: show a bar.
        say: told what the user should know, a line at a time.
    """

    stage: Stage
    run: Run
    step: Step
    optimizer: Any
    rows: Rows
    batches: Batches
    folder: Path
    base: str
    score: Callable[[], float] | None = None
    pace: Pace
    progress: bool = True
    say: Callable[[str], None] = print

    def __call__(self) -> Reached:
        """Train from the newest checkpoint, or from the beginning, and leave the adapter in ``folder/adapter``.

        Returns:
            How far the run came.

        Raises:
            TrainingError: a loss or gradient is not a number, or nothing can be written. Checkpoints stay whole.
        """
        checkpoints = Checkpoints(self.folder / "checkpoints", self.run.model, self.optimizer, self.run.accelerator)
        reached = self._here(checkpoints.load_newest())
        main = self.run.accelerator.is_main_process
        bar = Progress(
            self.stage.kind,
            total=self.pace.steps_of(self.stage),
            initial=reached.step,
            unit="steps",
            extra_unit="tokens",
            enabled=self.progress and main,
        )
        with Monitor(self.folder, reached.step, enabled=main) as monitor, bar:
            while not self._ended(reached):
                reached = self._step(reached, monitor, bar)
                ended = self._ended(reached)
                if self.score is not None and (ended or reached.step % self.pace.evaluate == 0):
                    reached = self._evaluate(reached, monitor)
                if ended or reached.step % self.pace.checkpoint == 0:
                    checkpoints.save(reached)
        if reached.best_step is None or not (self.folder / "adapter").is_dir():
            self._keep_adapter()
        return reached

    def _here(self, reached: Reached) -> Reached:
        """Say where the run goes on, if elsewhere: with another number of threads, too, sums are rounded otherwise."""
        here = hardware(self.run.device)
        if reached.hardware not in (None, here):
            self.say(
                f"  goes on from step {reached.step:,} on {here}, was on {reached.hardware}: from here on it "
                "differs, in the last digits at first, from a run never stopped"
            )
        return replace(reached, hardware=here)

    def _ended(self, reached: Reached) -> bool:
        enough = self.pace.max_tokens is not None and reached.tokens >= self.pace.max_tokens
        return enough or reached.step >= self.pace.steps_of(self.stage)

    def _step(self, reached: Reached, monitor: Monitor, bar: Progress) -> Reached:
        """Take one step, and write down how it went."""
        begun = time.perf_counter()
        rows = [self.rows[index] for index in self.batches.indices(reached.step).tolist()]
        outcome = self.step(rows, reached.step)
        rate = self.stage.rate_at(reached.step)
        norm = self._update(reached.step + 1, outcome.loss, rate)
        seconds = time.perf_counter() - begun
        reached = replace(
            reached,
            step=reached.step + 1,
            tokens=reached.tokens + outcome.tokens,
            seconds=reached.seconds + seconds,
        )
        accuracy = {} if outcome.accuracy is None else {"accuracy": outcome.accuracy}
        timing = {"tokens": outcome.tokens, "seconds": seconds, "tokens_per_second": outcome.tokens / seconds}
        values = {"loss": outcome.loss, **accuracy, "learning_rate": rate, "gradient_norm": norm, **timing}
        monitor.write(reached.step, values)
        bar.note = f"loss {outcome.loss:.3f}"
        bar.advance(extra=outcome.tokens)
        return reached

    def _update(self, number: int, loss: float, rate: float) -> float:
        """Take one step of the optimiser, and return the gradient's length before it was clipped."""
        limit = math.inf if self.stage.clip is None else self.stage.clip
        norm = float(self.run.accelerator.clip_grad_norm_(self.run.trainee.parameters_trained, limit))
        for name, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"The {name} of {self.stage.kind} step {number} is {value}. Nothing of this step was kept; lower "
                    f"{self.stage.kind}.learning_rate, which was {rate:.2g} there, and start anew."
                )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _evaluate(self, reached: Reached, monitor: Monitor) -> Reached:
        """Score the model as it is, and keep its adapter if none was better."""
        assert self.score is not None
        self.run.trainee.eval()
        value = self.score()
        self.run.trainee.train()
        if not math.isfinite(value):
            raise TrainingError(
                f"The score of {self.stage.kind} step {reached.step} is {value}: all vectors are alike, or no numbers. "
                f"Nothing after the last checkpoint was kept; lower {self.stage.kind}.learning_rate and start anew."
            )
        monitor.write(reached.step, {"sts": value})
        if reached.best_score is not None and value <= reached.best_score:
            return reached
        self._keep_adapter()
        return replace(reached, best_score=value, best_step=reached.step)

    def _keep_adapter(self) -> None:
        target = self.folder / "adapter"
        tensors = adapter_tensors(self.run.trainee.model)  # every process: where they are sharded they are gathered
        if self.run.accelerator.is_main_process:
            with writing(target), atomic_folder(target, replace=True) as draft:
                save_adapter(self.run.trainee.model, draft, self.stage.lora, base=self.base, tensors=tensors)
        self.run.accelerator.wait_for_everyone()

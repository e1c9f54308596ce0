"""What a run would take, measured on one step of each stage; nothing of it is kept."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from unmask.training.data.batches import Batches
from unmask.training.extras import ALWAYS, require_extras
from unmask.training.preparing import Options, load_base, prepare, read_rows, require_data
from unmask.training.recipe import Recipe, Stage, Supervised

#: A trained parameter, its gradient and AdamW's two moments, float32 each.
_BYTES_TRAINED = 16


def estimate(recipe: Recipe, options: Options) -> Iterator[str]:
    """Yield what each stage of a recipe would take, as lines: parameters, tokens, memory, time.

    The first batch of its data is trained on twice; the second time is measured, the first warms up.

    Raises:
        InputError: a setting or the data cannot be used.
    """
    require_extras(*ALWAYS)
    require_data(recipe)
    accelerator = Accelerator(cpu=options.device == "cpu")
    total = 0.0
    for stage in recipe.stages:
        with tempfile.TemporaryDirectory(prefix="unmask-") as folder:
            lines, seconds = _measure(recipe, stage, Path(folder), accelerator, options)
        total += seconds
        yield from lines
        accelerator.free_memory()
    if len(recipe.stages) > 1:
        yield f"all stages: {_time(total)}"


def _measure(
    recipe: Recipe, stage: Stage, folder: Path, accelerator: Accelerator, options: Options
) -> tuple[list[str], float]:
    encoder = load_base(recipe, stage, recipe.adapters, options)
    weights = sum(parameter.nbytes for parameter in encoder.backbone.model.parameters())
    rows = read_rows(stage, encoder, folder, limit=stage.batch * len(stage.data), progress=False)
    batches = Batches(rows, batch=stage.batch, seed=recipe.seed, homogeneous=isinstance(stage, Supervised))
    # Without the evaluation, checkpoints and the loading of data, which take little.
    run, step, optimizer = prepare(recipe, replace(stage, data=()), encoder, accelerator, options)
    _reset_peak(accelerator.device)
    for number in range(2):
        begun = time.perf_counter()
        outcome = step([rows[index] for index in batches.indices(0).tolist()], number)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - begun
    steps = options.pace.steps_of(stage)
    if options.pace.max_tokens:
        steps = min(steps, -(-options.pace.max_tokens // outcome.tokens))
    trained = run.trainee.trainable
    share = trained / sum(parameter.numel() for parameter in run.trainee.parameters())
    return [
        f"{stage.kind}: {trained:,} trainable parameters, {100 * share:.2f} % of all",
        f"  tokens a step: {outcome.tokens:,} in {stage.batch:,} rows",
        f"  memory: {_size(_peak(accelerator.device))} at most on {accelerator.device} (weights {_size(weights)}, "
        f"adapter with gradients and optimiser {_size(trained * _BYTES_TRAINED)}, the rest is states of the layers)",
        f"  time: {seconds:.1f} s a step ({outcome.tokens / seconds:,.0f} tokens/s), {_time(steps * seconds)} for "
        f"{steps:,} steps, scores and checkpoints not counted",
    ], steps * seconds


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    """Return the most memory in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

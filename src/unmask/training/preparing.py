"""What a stage needs before its first step: options, the encoder it starts from, rows, a trainee and its optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.training.data import store
from unmask.training.data.rows import Rows
from unmask.training.loop import Pace, make_optimizer
from unmask.training.recipe import NEW_MASK, Mntp, Recipe, SimCse, Stage, Supervised
from unmask.training.sharing import Run, seed_of
from unmask.training.steps import make_step
from unmask.training.sts import StsFile
from unmask.training.trainee import Trainee, check_trainable


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


def require_data(recipe: Recipe) -> None:
    """Raise :class:`InputError` unless every stage has data."""
    for stage in recipe.stages:
        if not stage.data:
            raise InputError(
                f"Stage {stage.kind} of recipe {recipe.name!r} has no data. Give it a file, folder or data set: "
                f"--data {stage.kind}=PATH."
            )


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
    """Return the rows that a stage trains on, at most ``limit``; None for all there are."""
    texts = encoder.pipeline.tokenizer
    if isinstance(stage, Mntp):
        return store.blocks(
            stage.data, encoder.tokenizer, length=stage.max_length, limit=limit, folder=folder, progress=progress
        )
    if isinstance(stage, SimCse):
        return store.sentences(stage.data, texts, limit=limit, folder=folder, progress=progress)
    assert isinstance(stage, Supervised)
    return store.pairs(stage.data, texts, limit=limit, folder=folder, progress=progress)


def prepare(
    recipe: Recipe, stage: Stage, encoder: Encoder, accelerator: Accelerator, options: Options
) -> tuple[Run, Any, Any]:
    """Put a stage's adapter on an encoder's model, and return the run, its step and its optimiser."""
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


def check_later(stage: Stage, encoder: Encoder) -> None:
    """Refuse a stage that will not be able to train this base, whose encoder an earlier stage has loaded.

    Raises:
        InputError: its texts have no room, or its adapter or dropout does not fit the model.
    """
    settings = replace(encoder.settings, max_length=stage.max_length)
    Encoder(encoder.backbone, encoder.tokenizer, settings, encoder.checkpoint)
    check_trainable(encoder.backbone, stage.lora, attention_dropout=stage.attention_dropout)

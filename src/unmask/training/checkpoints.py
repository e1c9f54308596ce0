"""Checkpoints of a run: folders that appear whole or not at all, the newest of which is taken up again.

    step-000200/
      trained.safetensors   the trained parameters, by name
      optimizer.pt          AdamW's moments
      about.json            how far the run was

Nothing random is kept: every step draws from a seed of its own (:mod:`unmask.training.steps`). State is read
and set through torch's own functions, which gather it where several devices share it.
"""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from unmask.errors import TrainingError
from unmask.hub.cache import atomic_folder

_OPTIONS: Final = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)
_WEIGHTS, _OPTIMIZER, _ABOUT = "trained.safetensors", "optimizer.pt", "about.json"
_STEP: Final = "step-"
#: The newest, and one before it in case the newest proves to have gone wrong.
_KEPT: Final = 2


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a run is.

    Attributes:
        step: steps done.
        tokens: tokens trained on.
        seconds: time spent training, of earlier parts of the run too.
        best_score: highest score so far, None before the first evaluation.
        best_step: step of that score.
        hardware: what computed the last step; another may round otherwise.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_step: int | None = None
    hardware: str | None = None


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: made with the first checkpoint.
        model: what is trained, as the accelerator wrapped it.
        optimizer: of it.
        accelerator: of the run; every process calls each method, the first one writes.
    """

    def __init__(self, folder: Path, model: Any, optimizer: Any, accelerator: Accelerator) -> None:
        self._folder, self._model, self._optimizer, self._accelerator = folder, model, optimizer, accelerator

    def save(self, reached: Reached) -> Path:
        """Write a checkpoint, and remove those that are no longer kept.

        Raises:
            TrainingError: it cannot be written; the earlier ones are as they were.
        """
        state = get_model_state_dict(self._model, options=_OPTIONS)
        weights = {name: cast("Tensor", tensor).contiguous() for name, tensor in state.items()}
        moments = get_optimizer_state_dict(
            self._model, getattr(self._optimizer, "optimizer", self._optimizer), options=_OPTIONS
        )
        target = self._folder / f"{_STEP}{reached.step:06d}"
        if self._accelerator.is_main_process:
            with writing(target), atomic_folder(target, replace=True) as draft:
                save_file(weights, draft / _WEIGHTS)
                torch.save(moments, draft / _OPTIMIZER)
                (draft / _ABOUT).write_text(json.dumps(asdict(reached)), encoding="utf-8")
            for old in self._all()[:-_KEPT]:
                shutil.rmtree(old)
        self._accelerator.wait_for_everyone()
        return target

    def load_newest(self) -> Reached:
        """Take up the newest checkpoint; without one, the beginning.

        Raises:
            TrainingError: it is damaged.
        """
        found = self._all()
        if not found:
            return Reached()
        newest = found[-1]
        try:
            reached = Reached(**json.loads((newest / _ABOUT).read_text(encoding="utf-8")))
            weights = load_file(newest / _WEIGHTS)
            count = len(weights)  # torch adds the frozen ones to it
            moments = torch.load(newest / _OPTIMIZER, map_location="cpu", weights_only=True)
            foreign = set_model_state_dict(self._model, weights, options=_OPTIONS).unexpected_keys
            set_optimizer_state_dict(
                self._model, getattr(self._optimizer, "optimizer", self._optimizer), moments, options=_OPTIONS
            )
        except (
            OSError,
            EOFError,
            ValueError,
            TypeError,
            KeyError,
            RuntimeError,
            SafetensorError,
            pickle.UnpicklingError,
        ) as error:
            raise TrainingError(
                f"Checkpoint {newest} is damaged or of another run: {error}. Remove it; the run then goes on from the "
                "one before."
            ) from error
        trained = sum(parameter.requires_grad for parameter in self._model.parameters())
        if foreign or count != trained:
            raise TrainingError(
                f"Checkpoint {newest} is of another model: it has {count} tensors, {len(foreign)} of them "
                f"unknown here; expected the {trained} that are trained. Remove it."
            )
        return reached

    def _all(self) -> list[Path]:
        """Return the folders, in the order of their steps: names sort otherwise from step 1,000,000 on."""
        found = [path for path in self._folder.glob(f"{_STEP}*") if path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.removeprefix(_STEP)))


class writing:  # noqa: N801 - a context manager
    """Turns what libraries raise when they cannot write into one clear error."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Raise :class:`TrainingError` for a failed write; torch and safetensors have errors of their own for it."""
        if isinstance(error, OSError | SafetensorError | RuntimeError):
            raise TrainingError(
                f"{self._target} cannot be written: {str(error).splitlines()[0]}. Make room, then resume: the "
                "checkpoints before it are whole."
            ) from error

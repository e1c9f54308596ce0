"""Recipes as files: the ``recipe.json`` that every run keeps, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unmask.errors import InputError
from unmask.training.data.sources import PairSource, Source
from unmask.training.lora import Lora
from unmask.training.recipe import Mntp, Recipe, SimCse, Stage, Supervised

_STAGES: Final[Mapping[str, type[Stage]]] = {stage.kind: stage for stage in (Mntp, SimCse, Supervised)}


def recipe_json(recipe: Recipe) -> str:
    """Return a recipe as JSON."""
    return json.dumps(recipe.as_dict(), indent=2, ensure_ascii=False)


def read_recipe(file: Path) -> Recipe:
    """Read a recipe; settings that it does not name have their defaults.

    Raises:
        InputError: there is no such file, or it is no recipe.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as JSON: {error}. Expected a recipe.json, as a run writes it."
        ) from error
    try:
        stages = tuple(_stage(dict(stage)) for stage in data.pop("stages"))
        adapters = tuple(map(str, data.pop("adapters", ())))
        return Recipe(stages=stages, adapters=adapters, **data)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"{file} is no recipe: {error}. See: unmask train recipe small --show") from error


def _stage(data: dict[str, Any]) -> Stage:
    kind = data.pop("kind")
    if kind not in _STAGES:
        raise InputError(f"stage kind is {kind!r}; expected one of {', '.join(_STAGES)}.")
    source = PairSource if kind == Supervised.kind else Source
    data["data"] = tuple(source(**entry) for entry in data.get("data", ()))
    if "lora" in data:
        lora = dict(data["lora"])
        targets = lora.get("targets")
        data["lora"] = Lora(**(lora | {"targets": tuple(targets) if targets is not None else None}))
    if "dimensions" in data:
        data["dimensions"] = tuple(data["dimensions"])
    return _STAGES[kind](**data)

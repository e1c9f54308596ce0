"""Recipes as files: the ``recipe.json`` that every run keeps, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

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
        return _recipe(data)
    except InputError as error:
        raise InputError(f"{file}: {error} See: unmask train recipe small --show") from error


def _recipe(data: Any) -> Recipe:
    given = _object(data, "A recipe")
    for name in ("name", "base", "stages"):
        if name not in given:
            raise InputError(f"There is no {name}; expected name, base and stages.")
    stages = given.pop("stages")
    if not isinstance(stages, list):
        raise InputError(f"stages is {stages!r}; expected a list.")
    return Recipe(stages=tuple(map(_stage, stages)), **_checked(Recipe, given, ""))


def _stage(data: Any) -> Stage:
    given = _object(data, "A stage")
    kind = given.pop("kind", None)
    if kind not in _STAGES:
        raise InputError(f"The kind of a stage is {kind!r}; expected one of {', '.join(_STAGES)}.")
    parts: dict[str, Any] = {}
    if "data" in given:
        make = PairSource if kind == Supervised.kind else Source
        sources = given.pop("data")
        if not isinstance(sources, list):
            raise InputError(f"{kind}.data is {sources!r}; expected a list.")
        parts["data"] = tuple(make(**_source(make, one, f"{kind}.data.")) for one in sources)
    if "lora" in given:
        parts["lora"] = Lora(**_checked(Lora, _object(given.pop("lora"), f"{kind}.lora"), f"{kind}.lora."))
    return _STAGES[kind](**parts, **_checked(_STAGES[kind], given, f"{kind}."))


def _source(make: type[Source], data: Any, where: str) -> dict[str, Any]:
    given = _object(data, "A source")
    if "path" not in given:
        raise InputError(f"There is no {where}path; expected a file, a folder or a data set's name.")
    return _checked(make, given, where)


def _object(data: Any, what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{what} is {data!r}; expected an object.")
    return dict(data)


def _checked(kind: type, given: dict[str, Any], where: str) -> dict[str, Any]:
    """Return settings as the dataclass ``kind`` takes them: each is known, and of its type."""
    hints = get_type_hints(kind)
    known = [one.name for one in fields(kind)]
    for name, value in given.items():
        if name not in known:
            raise InputError(f"There is no setting {where}{name}; expected some of {', '.join(known)}.")
        if not _fits(value, hints[name]):
            hint = hints[name]
            expected = str(hint).replace("typing.", "") if get_args(hint) else hint.__name__
            raise InputError(f"{where}{name} is {value!r}; expected a value of type {expected}.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value is of a type."""
    options = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(item, options[0]) for item in value)
    if get_origin(hint) is Literal:
        return value in options
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)

"""Recipes by name."""

from __future__ import annotations

from typing import Final

from unmask.errors import InputError
from unmask.training.recipe import Recipe
from unmask.training.recipes import published, small, smollm2

RECIPES: Final[dict[str, Recipe]] = {
    recipe.name: recipe for recipe in (*smollm2.RECIPES, *small.RECIPES, *published.RECIPES)
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}; expected one of {', '.join(RECIPES)}.")
    return RECIPES[name]

"""The part of a model card that says how an encoder was trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.training.data.sources import HUB
from unmask.training.recipe import Recipe

if TYPE_CHECKING:
    from unmask.training.running import StageResult


def notes(recipe: Recipe, results: Sequence[StageResult], sts: str | None) -> str:
    """Return the section, Markdown: a table of the stages, their data, and the whole recipe."""
    rows = ["## How it was trained", "", recipe.about, ""]
    rows += ["| stage | steps | tokens | tokens/s | trained parameters | loss at the end | score |"]
    rows += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for result in results:
        reached = result.reached
        score = "" if reached.best_score is None else f"{reached.best_score:.4f} (step {reached.best_step})"
        rows.append(
            f"| {result.kind} | {reached.step:,} | {reached.tokens:,} | {result.tokens_per_second:,.0f} | "
            f"{result.trainable:,} | {result.loss:.3f} | {score} |"
        )
    rows.append("")
    if sts:
        rows += [f"Score: Spearman's correlation of cosine and people's scores on `{sts}`, by which the adapter of "
                 "each stage was chosen.", ""]  # fmt: skip
    rows += [
        f"Hardware: {results[-1].reached.hardware}{_several(results[-1].processes)}. Seed {recipe.seed}.",
        "",
        "Data:",
        "",
    ]
    rows += [f"- {result.kind}: {line.strip()}" for result in results for line in result.data]
    rows += ["", "<details><summary>Recipe</summary>", "", "```json", json.dumps(_public(recipe), indent=2), "```", ""]
    return "\n".join([*rows, "</details>"])


def _public(recipe: Recipe) -> dict[str, object]:
    """Return the recipe without the folders of this machine."""
    data = recipe.as_dict()
    data["base"] = _last(data["base"])
    data["adapters"] = [_last(name) for name in data["adapters"]]
    for stage in data["stages"]:
        for source in stage["data"]:
            source["path"] = _last(source["path"])
    return data


def _last(name: str) -> str:
    """Return a name without the folders of this machine; a hub name stays as it is."""
    place = Path(name.removeprefix(HUB))
    is_here = place.exists() or place.is_absolute() or place.parts[:1] in ((".",), ("..",), ("~",))
    return place.name if is_here else name


def _several(processes: int) -> str:
    return f", {processes} processes" if processes > 1 else ""

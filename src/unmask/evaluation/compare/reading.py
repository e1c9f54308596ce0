"""A model's folder of results, with what lies beside its tasks.

    smollm2-135m-unsup/
      model.json, STS-B.json, …     see unmask.evaluation.outcome
      mteb/                         mteb's own results, as unmask.evaluation.mteb.reading reads them
      analysis/analysis.json        what cutting vectors costs, among other things; may lie in the folder itself, too

The analysis is that of ``unmask eval --analysis``, or any file with
``{"measure": "Spearman, STS-B", "dimensions": [{"dimension": 64, "quality": 0.61}, …]}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unmask.errors import InputError
from unmask.evaluation.mteb.reading import read_mteb, result_files
from unmask.evaluation.outcome import ANALYSIS_FOLDER, MTEB_FOLDER, Measured, Outcome, read_results

#: Where an analysis may lie in a model's folder.
ANALYSES: Final = (f"{ANALYSIS_FOLDER}/analysis.json", "analysis.json")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How good vectors are of which only the first components are kept.

    Attributes:
        measure: what quality is; only figures of the same measure may stand side by side.
        points: dimension and quality, smallest dimension first.
    """

    measure: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A model that takes part in a comparison.

    Attributes:
        folder: where its results lie.
        model: what was measured.
        outcomes: by task.
        cut: the quality of cut vectors; None if it was not measured.
    """

    folder: Path
    model: Measured
    outcomes: Mapping[str, Outcome]
    cut: Cut | None = None


def read_entrants(folders: Sequence[Path]) -> list[Entrant]:
    """Read several models' folders.

    Raises:
        InputError: a folder is given twice, is no folder of results, or a file in it is damaged.
    """
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise InputError(f"{folder} is given twice; expected each model's folder once. Leave one out.")
        seen.add(folder.resolve())
    return [read_entrant(folder) for folder in folders]


def read_entrant(folder: Path) -> Entrant:
    """Read a model's folder.

    Raises:
        InputError: it is no folder of results, or a file in it is damaged.
    """
    of_mteb = result_files(folder / MTEB_FOLDER)
    results = read_results(folder, may_be_empty=bool(of_mteb))
    outcomes = dict(results.outcomes)
    if of_mteb:
        outcomes |= read_mteb(folder / MTEB_FOLDER)
    found = [folder / place for place in ANALYSES if (folder / place).is_file()]
    return Entrant(folder=folder, model=results.model, outcomes=outcomes, cut=_read_cut(found[0]) if found else None)


def _read_cut(file: Path) -> Cut | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        points = sorted((int(dimension), float(quality)) for dimension, quality in _points(data))
        measure = str(data.get("measure") or data.get("forms", {}).get("measure") or "quality")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: {error}. Remove it and run the analysis again.") from error
    return Cut(measure=measure, points=tuple(points)) if points else None


def _points(data: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return dimensions and qualities, of the plain form or of Unmask's analysis, whose qualities have intervals."""
    if "dimensions" in data:
        return [(row["dimension"], row["quality"]) for row in data["dimensions"]]
    kept = data.get("forms", {}).get("kept", [])
    # Undefined qualities are null there.
    return [
        (row["dimensions"], row["quality"]["value"])
        for row in kept
        if row["output"] == "float32" and row["quality"]["value"] is not None
    ]

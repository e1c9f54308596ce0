"""Results of ``unmask eval`` → what the catalogue says of a model; no figure of ours is typed by hand.

python -m unmask.gateway.catalogue.measuring RESULTS [MODELS]

Of each folder ``RESULTS/SLUG`` whose model the folder ``MODELS`` (by default the one that Unmask comes with) has a
``SLUG.toml`` of, the main figures go to ``MODELS/SLUG.measured.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from unmask.errors import InputError
from unmask.gateway.catalogue.catalogue import SHIPPED
from unmask.gateway.catalogue.fields import Figure, Measurement
from unmask.gateway.catalogue.reading import MEASURED
from unmask.hub.cache import atomic_file

#: As `unmask.evaluation.outcome` writes it; that module needs numpy, which the catalogue does without.
_MODEL: Final = "model.json"


def read_results(folder: Path) -> Measurement:
    """Return what a model's folder of results says.

    Raises:
        InputError: there are no results, or a file is damaged.
    """
    file = folder / _MODEL
    try:
        model = json.loads(file.read_text(encoding="utf-8"))
        figures = []
        for file in sorted(folder.glob("*.json")):
            # A run that was killed leaves a hidden draft.
            if file.name != _MODEL and not file.name.startswith("."):
                figures.append(_figure(json.loads(file.read_text(encoding="utf-8"))))
        return Measurement(
            date=model["date"][:10],
            hardware=model["hardware"],
            tokens_per_second=model["tokens_per_second"] and round(model["tokens_per_second"], 1),
            max_length=model["max_length"],
            figures=tuple(figures),
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{file} cannot be read as a result of unmask eval: {error}. Run the evaluation.") from error


def as_json(measured: Measurement) -> str:
    """Return a measurement as its file has it."""
    return json.dumps(measured.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def write_all(results: Path, models: Path = SHIPPED) -> list[Path]:
    """Write the file of every model that has both results and an entry, and return the files.

    Raises:
        InputError: there is no such model, a result is damaged, or a file cannot be written.
    """
    slugs = [file.parent.name for file in sorted(results.glob(f"*/{_MODEL}"))]
    files = [models / f"{slug}{MEASURED}" for slug in slugs if (models / f"{slug}.toml").exists()]
    if not files:
        raise InputError(
            f"{results} has results of no model of {models}; expected folders SLUG/{_MODEL} where there is a SLUG.toml."
            " Run unmask eval with --name SLUG."
        )
    for file in files:
        text = as_json(read_results(results / file.name.removesuffix(MEASURED)))
        with atomic_file(file, replace=True) as draft:
            draft.write_text(text, encoding="utf-8")
    return files


def _figure(outcome: dict[str, Any]) -> Figure:
    metric = outcome["metrics"][outcome["main"]]
    return Figure(
        name=outcome["task"],
        kind=outcome["kind"],
        metric=outcome["main"],
        value=_percent(metric["value"]),
        low=None if metric["low"] is None else _percent(metric["low"]),
        high=None if metric["high"] is None else _percent(metric["high"]),
        items=outcome["items"],
        data=str(outcome["settings"].get("data", "")),
    )


def _percent(value: float) -> float:
    return round(100 * value, 4)


def main(arguments: list[str]) -> None:
    """Write the files of some results."""
    if not 1 <= len(arguments) <= 2:
        raise SystemExit("Expected: python -m unmask.gateway.catalogue.measuring RESULTS [MODELS]")
    try:
        files = write_all(*map(Path, arguments))
    except InputError as error:
        raise SystemExit(str(error)) from error
    sys.stdout.write("".join(f"{file}\n" for file in files))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measure the encoders in a row, then write the table and the plot.

    python -m experiments.ladder --quick                                  # only the similarity of sentences
    python -m experiments.ladder --model 'causal + SimCSE=RUN/encoder'    # beside the untrained and the shipped

Vectors are kept in .bench/ladder by the model's files, so a rerun encodes only what is new; after a change in how
Unmask encodes, remove that folder. Figures go to experiments/results/ladder.json after each task and stay there until
the row is measured again or a setting changes; `python -m experiments.ladder.report` writes the page from them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from experiments.ladder import report
from experiments.ladder.models import MINILM, SHIPPED, TRAINED, UNTRAINED, MiniLM, Model, Row, vectors_of
from experiments.ladder.tasks import Task, load_tasks, settings

from unmask.hub import locate
from unmask.hub.catalogue import find

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments/results/ladder.json"
KEPT = ROOT / ".bench/ladder"


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m experiments.ladder", description=__doc__.split("\n")[0])
    parser.add_argument("--model", action="append", default=[], type=parse_row, metavar="LABEL=FOLDER[,OPTION=…]")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/dev", help="the development sets")
    parser.add_argument("--quick", action="store_true", help="only STS-B dev and SICK trial")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"Nothing measured: {options.data} is not there. Give the folder of development sets with --data.")
        return
    models: list[Model] = [*UNTRAINED, *there([*SHIPPED, *options.model]), MiniLM()]
    measure(models, load_tasks(options.data, quick=options.quick))
    report.write(json.loads(RESULTS.read_text()), ROOT / "docs")


def parse_row(text: str) -> Row:
    """Return the row that ``label=source[,adapter=…][,pooling=…][,bidirectional=true|false]`` stands for.

    Raises:
        ArgumentTypeError: it is not of that form.
    """
    label, equals, rest = text.partition("=")
    source, *options = rest.split(",")
    row = Row(label=label.strip(), source=source.strip())
    if not (equals and row.label and row.source):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; expected 'label=folder'. Write for example '+ MNTP=runs/mntp'."
        )
    for option in options:
        match [part.strip() for part in option.split("=")]:
            case ["adapter", folder]:
                row = replace(row, adapters=(*row.adapters, folder))
            case ["pooling", pooling]:
                row = replace(row, pooling=pooling)
            case ["bidirectional", ("true" | "false") as value]:
                row = replace(row, bidirectional=value == "true")
            case _:
                raise argparse.ArgumentTypeError(
                    f"got {option!r}; expected adapter=FOLDER, pooling=NAME or bidirectional=true|false. "
                    "Separate options by commas."
                )
    return row


def there(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose folders are there, and name the others."""
    found = []
    for row in rows:
        missing = [str(place) for place in map(_place, (row.source, *row.adapters)) if place and not place.exists()]
        if missing:
            print(f"{row.label}: left out, {' and '.join(missing)} is not there.", file=sys.stderr)
        else:
            found.append(row)
    return found


def _place(source: str) -> Path | None:
    """Return the folder that must be there for ``source``: None for a base, which is fetched."""
    entry = find(source)
    if entry is None:
        return Path(source)
    return locate.SHIPPED / entry.shipped[-1] if entry.shipped else None


def measure(models: Sequence[Model], tasks: Sequence[Task]) -> None:
    """Measure each model on each task, task by task: a run that is stopped leaves whole columns."""
    for task in tasks:
        for model in models:
            vectors, seconds = vectors_of(model, task, KEPT)
            figure = asdict(task.score(vectors)) | {"metric": task.metric, "seconds": round(seconds, 1)}
            print(f"{model.label:24} {task.name:16} {figure['value']:.4f}  {seconds:.0f} s", flush=True)
            keep(model, task.name, figure)


def keep(model: Model, task: str, figure: dict[str, Any]) -> None:
    """Put a figure into the result file, among those of earlier runs with the same settings."""
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = old["rows"] if old.get("settings") == settings() else {}
    same = rows.get(model.label, {}).get("fingerprint") == model.fingerprint
    figures = rows[model.label]["figures"] if same else {}
    rows[model.label] = {
        "source": model.source,
        "fingerprint": model.fingerprint,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": f"{_processor()}, {torch.get_num_threads()} thread(s)",
        "versions": {name: version(name) for name in ("unmask", "torch", "transformers", "scikit-learn", "scipy")},
        "figures": figures | {task: figure},
    }
    order = [*(row.label for row in UNTRAINED), *TRAINED, *(label for label in rows if label != MINILM), MINILM]
    result = {
        "settings": settings(),
        "untrained": [row.label for row in UNTRAINED],
        "ladder": [*(row.label for row in UNTRAINED), *TRAINED, MINILM],
        "rows": dict(sorted(rows.items(), key=lambda item: order.index(item[0]))),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()

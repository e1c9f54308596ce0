"""Measure the encoders in a row, then write the table and the plot.

    python -m experiments.ladder
    python -m experiments.ladder --model 'causal + SimCSE=RUN/encoder' --tasks STSBenchmark-dev,SICK-trial

Runs on `unmask.evaluation`: what is done is not done again, and vectors are kept. Figures go to
experiments/results/ladder, a folder a row; `python -m experiments.ladder.report` writes the page from them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.ladder import report
from experiments.ladder.models import SHIPPED, UNTRAINED, MiniLM, Row

from unmask.evaluation.running import evaluate
from unmask.evaluation.suite import read_suite
from unmask.evaluation.tasks import Options
from unmask.hub import locate
from unmask.hub.catalogue import find

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments/results/ladder"
TASKS = ("SICK-trial", "STSBenchmark-dev", "TREC-QC", "SearchSnippets", "TIME", "MEDLINE")
#: Items a task, so that a row takes some five minutes on two cores.
LIMIT = 1_500


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m experiments.ladder", description=__doc__.split("\n")[0])
    parser.add_argument("--model", action="append", default=[], type=parse_row, metavar="LABEL=FOLDER[,OPTION=…]")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/dev", help="the development sets")
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of them")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"Nothing measured: {options.data} is not there. Give the folder of development sets with --data.")
        return
    suite = read_suite(options.data, Options(limit=LIMIT), chosen=options.tasks.split(","))
    rows: list[Row | MiniLM] = [*UNTRAINED, *there([*SHIPPED, *options.model]), MiniLM()]
    for row in rows:
        print(row.label, flush=True)
        evaluate(row.subject(), suite, RESULTS, replace_other=True, say=print, progress=True).check()
    report.write(report.read(RESULTS), ROOT / "docs")


def parse_row(text: str) -> Row:
    """Return the row that ``label=source[,pooling=…][,bidirectional=true|false]`` stands for.

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
            case ["pooling", pooling]:
                row = replace(row, pooling=pooling)
            case ["bidirectional", ("true" | "false") as value]:
                row = replace(row, bidirectional=value == "true")
            case _:
                raise argparse.ArgumentTypeError(
                    f"got {option!r}; expected pooling=NAME or bidirectional=true|false. Separate options by commas."
                )
    return row


def there(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose folders are there, and name the others."""
    found = []
    for row in rows:
        place = _place(row.source)
        if place is not None and not place.exists():
            print(f"{row.label}: left out, {place} is not there.", file=sys.stderr)
        else:
            found.append(row)
    return found


def _place(source: str) -> Path | None:
    """Return the folder that must be there for ``source``: None for a base, which is fetched."""
    entry = find(source)
    if entry is None:
        return Path(source)
    return locate.SHIPPED / entry.shipped[-1] if entry.shipped else None


if __name__ == "__main__":
    main()

"""The README's table of encoders, from their folders of results: no number is typed by hand.

python -m experiments.readme_table    # README.md from experiments/results/evaluation/MODEL/
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from unmask.errors import InputError
from unmask.evaluation.compare.comparing import compare
from unmask.evaluation.compare.layout import tasks
from unmask.evaluation.compare.reading import read_entrants
from unmask.evaluation.compare.table import Sheet, as_markdown, scores
from unmask.evaluation.outcome import MODEL_FILE

START: Final = "<!-- evaluation -->"
END: Final = "<!-- /evaluation -->"
ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path("experiments/results/evaluation")


def folders(results: Path) -> list[Path]:
    """Return the models' folders in a folder of results, in the order of their names."""
    return sorted(file.parent for file in results.glob(f"*/{MODEL_FILE}"))


def block(models: list[Path], shown: str) -> str:
    """Return what stands between the markers: the table, and how to read and to make it.

    Args:
        models: folders of results.
        shown: how the text calls the folder they lie in.
    """
    comparison = compare(read_entrants(models), tested=False)
    hardware = sorted({row.model.hardware for row in comparison.rows})
    dates = sorted({row.model.date[:10] for row in comparison.rows})
    versions = sorted({f"{name} {version}" for row in comparison.rows for name, version in row.model.versions.items()})
    notes = "".join(f" {note}" for note in comparison.notes)
    return f"""{as_markdown(_tasks_down(scores(comparison)))}

Times 100, with 95 % bootstrap intervals; the best of each row is bold. Averages run over the
{tasks(len(comparison.common))} that every model has.{notes}
{"; ".join(hardware)}; {" to ".join(dict.fromkeys((dates[0], dates[-1])))}; {", ".join(versions)}.
Made by `python -m experiments.readme_table` from `{shown}`; `unmask eval compare {shown}/*` tests the differences.
"""


def _tasks_down(sheet: Sheet) -> Sheet:
    """Turn a table whose rows are models: a page has more length than width."""
    if sheet.rows and sheet.header[1].startswith("all,"):
        header, *rows = zip(sheet.header, *sheet.rows, strict=True)
        return Sheet(title=sheet.title, header=header, rows=tuple(rows))
    return sheet


def rewritten(text: str, inside: str) -> str:
    """Return a page's text with what stands between the markers replaced.

    Raises:
        InputError: the markers are not there, once each.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in after or END in after:
        raise InputError(f"The page has no one place for the table; expected {START} and {END} once each. Put them in.")
    return f"{before}{START}\n{inside}{END}{after}"


def main() -> None:
    """Rewrite the README's block."""
    models = folders(ROOT / RESULTS)
    if not models:
        raise SystemExit(f"{RESULTS} holds no model's results; expected MODEL/{MODEL_FILE}. Run: make evaluate")
    readme = ROOT / "README.md"
    try:
        text = rewritten(readme.read_text(encoding="utf-8"), block(models, str(RESULTS)))
    except InputError as error:
        raise SystemExit(str(error)) from error
    readme.write_text(text, encoding="utf-8")
    print(f"README.md: {len(models)} models from {RESULTS}")


if __name__ == "__main__":
    main()

"""``unmask eval compare``: what it prints and writes, what it refuses; and the README's table."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from experiments import readme_table

from tests.compared import figures, outcome, write_results, write_three
from unmask.cli.compare import compare
from unmask.cli.outcome import run
from unmask.errors import InputError

Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three models' results: base, equal, better."""
    return write_three(tmp_path_factory.mktemp("results"))[0].parent


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Compare:
    """Run the command in this process: status, standard output, standard error."""
    app = typer.Typer()
    app.command()(compare)

    def call(*arguments: object) -> tuple[int, str, str]:
        status = run(app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def three(results: Path) -> list[Path]:
    return [results / name for name in ("base", "equal", "better")]


# --- what it says and writes ------------------------------------------------------------------------


def test_a_table_with_tests_and_a_page(command: Compare, results: Path) -> None:
    status, out, err = command(*three(results), "-o", "report.html")
    assert status == 0, err
    row = next(line for line in out.splitlines() if line.lstrip().startswith("CACM, ndcg@10"))
    assert re.search(r"CACM, ndcg@10 +\d\d\.\d +\d\d\.\d +\*\d\d\.\d ▲", row)
    assert "Differences from base" in out
    assert "TIME: no figure for equal: not measured." in out
    assert "Testing differences: 5 tests" in err
    assert "Wrote report.html: 3 models, 5 tasks. Open it in a browser." in err
    assert Path("report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_is_all_that_stands_on_standard_output(command: Compare, results: Path) -> None:
    status, out, err = command(*three(results), "--json", "--baseline", "better")
    assert status == 0
    data = json.loads(out)
    assert data["baseline"] == "better"
    assert {each["verdict"] for each in data["differences"] if each["difference"]} == {-1}
    assert f"Next: unmask eval compare {results}/base" in err


def test_markdown_is_all_that_stands_on_standard_output(command: Compare, results: Path) -> None:
    status, out, _ = command(*three(results), "--markdown")
    assert status == 0
    assert out.startswith("|  | base | equal | better |")
    assert "| all, 2 tasks |" in out
    assert "### Published: Word level" in out


# --- what it refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["base"], "1 folder was given; expected two or more"),
        (["base", "base"], "is given twice"),
        (["base", "nothing"], "holds no model.json; expected a folder written by: unmask eval"),
        (["base", "equal", "-o", "report.png"], "has the ending .png; expected .html"),
        (["base", "equal", "-o", "there.html"], "there.html exists already"),
        (["base", "equal", "--json", "--markdown"], "Both --markdown and --json were given"),
        (["base", "equal", "--baseline", "better"], "No model is called better; expected one of base, equal"),
        (["base", "alone"], "base, alone have no task in common"),
        (["base", "namesake/base"], "base is given twice"),
        (["base", "broken"], "CACM.json is damaged"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    command: Compare, results: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    for name in ("base", "equal"):
        Path(name).symlink_to(results / name)
    write_results(tmp_path / "alone", {"other": outcome("other", figures(0.3))})
    write_results(tmp_path / "namesake" / "base", {"CACM": outcome("CACM", figures(0.3))})
    write_results(tmp_path / "broken", {"CACM": outcome("CACM", figures(0.3))})
    Path("broken/CACM.json").write_text("{}")
    Path("there.html").touch()
    before = sorted(Path().rglob("*"))
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_a_page_can_be_replaced(command: Compare, results: Path) -> None:
    Path("report.html").write_text("old")
    status, _, err = command(*three(results)[:2], "-o", "report.html", "--replace")
    assert status == 0, err
    assert "old" not in Path("report.html").read_text(encoding="utf-8")[:100]


# --- the README's table -----------------------------------------------------------------------------


def test_the_readmes_block_is_made_from_results(results: Path) -> None:
    found = readme_table.block(readme_table.folders(results), "results")
    lines = found.splitlines()
    assert lines[0].startswith("|  | base | better | equal |")
    assert "| all, 2 tasks |" in found
    assert "| CACM, ndcg@10 |" in found
    assert "TIME: no figure for equal: not measured." in found
    page = f"before\n{readme_table.START}\nold\n{readme_table.END}\nafter\n"
    new = readme_table.rewritten(page, found)
    assert new == f"before\n{readme_table.START}\n{found}{readme_table.END}\nafter\n"
    assert readme_table.rewritten(new, found) == new


@pytest.mark.parametrize("page", ["", readme_table.START, f"{readme_table.END}{readme_table.START}"])
def test_a_page_without_a_place_for_the_table_is_refused(page: str) -> None:
    with pytest.raises(InputError, match="no one place"):
        readme_table.rewritten(page, "table\n")


def test_the_readme_says_what_the_results_say() -> None:
    models = readme_table.folders(readme_table.ROOT / readme_table.RESULTS)
    text = (readme_table.ROOT / "README.md").read_text(encoding="utf-8")
    if not models or readme_table.START not in text:
        pytest.skip("no results of an evaluation are kept yet, or the README has no place for their table")
    assert readme_table.rewritten(text, readme_table.block(models, str(readme_table.RESULTS))) == text

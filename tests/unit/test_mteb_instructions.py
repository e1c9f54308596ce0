"""Which texts of mteb's tasks get which instruction."""

from __future__ import annotations

import ast
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unmask.evaluation.instructions import read_instructions
from unmask.evaluation.mteb import instructions
from unmask.evaluation.mteb.instructions import Instructions, with_colon


def test_mteb_is_not_imported_before_it_is_used() -> None:
    for file in Path(instructions.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] == "mteb"], file


class PromptType(Enum):
    """As mteb's."""

    query = "query"
    document = "document"


def task(prompt: Any, name: str = "Notes") -> Any:
    return SimpleNamespace(name=name, prompt=prompt)


@pytest.mark.parametrize("prompt", ["Find the note.", {"query": "Find the note."}, {"query": "Find the note: "}])
@pytest.mark.parametrize("prompt_type", [PromptType.query, None])
def test_queries_and_both_sides_of_symmetric_tasks_have_the_tasks_prompt(prompt: Any, prompt_type: Any) -> None:
    assert Instructions().of(task(prompt), prompt_type) == "Find the note:"


@pytest.mark.parametrize("own", [{}, {"Notes": "Mine:"}])
def test_documents_have_none(own: dict[str, str]) -> None:
    assert Instructions(own=own).of(task({"query": "Find.", "document": "Keep."}), PromptType.document) == ""


def test_ones_own_win_and_are_left_as_they_are() -> None:
    own = Instructions(own={"Notes": "Find notes, please? ", "Other": ""})
    assert own.of(task("Find."), PromptType.query) == "Find notes, please?"
    assert own.of(task("Find.", name="Other")) == ""
    assert own.of(task("Find.", name="Third")) == "Find:"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", ""), (" ", ""), ("Find", "Find:"), ("Find. ", "Find:"), ("Find: ", "Find:"), ("Why?", "Why?:")],
)
def test_the_colon(given: str, expected: str) -> None:
    assert with_colon(given) == expected


def test_a_file_as_the_references(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text('{\n    "NoteSearch": "Given a question, find notes:",\n    "STS16": "Find the like:"\n}')
    own = Instructions(own=read_instructions(file))
    assert own.of(task(None, name="STS16")) == "Find the like:"
    assert own.of(task("Retrieve", name="NoteSearch"), PromptType.query) == "Given a question, find notes:"


def test_a_digest_tells_instructions_apart() -> None:
    both = {"A": "Find:", "B": "Keep:"}
    assert Instructions(own=both).digest() == Instructions(own=dict(sorted(both.items(), reverse=True))).digest()
    assert Instructions(own=both).digest() != Instructions(own={"A": "Find:", "B": "Find:"}).digest()
    assert Instructions().digest() == ""

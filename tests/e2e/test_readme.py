"""What the README shows runs, on a tiny model under the short name."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.test_api_support import ServerProcess, write_settings
from tests.npm import folder_with_openai, run_script
from tests.tiny import write_base, write_home
from unmask import Encoder

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
MODEL = "smollm2-135m-unsup"
CATS = ["a cat", "a kitten"]


def blocks(kind: str) -> list[str]:
    """Return the README's code of a kind."""
    found: list[str] = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    return found


def test_python_snippets_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", write_home(tmp_path / "home") / "encoders")
    snippets = blocks("python")
    assert len(snippets) >= 2
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, str(README), "exec"), names)
    assert Encoder.load("my-encoder").dimension == 64


def test_every_block_is_run_or_says_that_it_is_not() -> None:
    kinds = re.findall(r"^```(.+)$", TEXT, flags=re.MULTILINE)
    assert set(kinds) == {"python", "python notest", "python served", "js", "sh"}
    assert [kinds.count(kind) for kind in ("python served", "js", "sh")] == [2, 1, 1]


# --- a server, and those who call it ---------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A server that the README's command has started."""

    url: str
    encoder: Encoder

    def at(self, snippet: str) -> str:
        """Return a snippet that calls this server."""
        assert "http://127.0.0.1:8000" in snippet
        return snippet.replace("http://127.0.0.1:8000", self.url)

    def check(self, vectors: Any) -> None:
        np.testing.assert_allclose(vectors, self.encoder.encode(CATS, normalize=True), atol=1e-5)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    tiny = write_base(root / "tiny")
    config = write_settings(root, {MODEL: {"source": str(tiny)}})
    section = TEXT.partition("## Serve it")[2]
    line = next(line for line in section.splitlines() if line.startswith("    unmask serve"))
    program, *arguments = shlex.split(line, comments=True)
    assert (program, arguments) == ("unmask", ["serve"])
    # The model and the port come by the file; nothing else differs from what the README says.
    with ServerProcess([sys.executable, "-m", "unmask.cli", *arguments], UNMASK_CONFIG=str(config)) as server:
        server.wait_until_ready()
        yield Served(server.url, Encoder.load(tiny, device="cpu"))


def run_python(snippet: str, shown: str) -> Any:
    """Run a snippet as a program, and return the value of an expression."""
    program = f"{snippet}\nimport json\nprint(json.dumps({shown}))"
    return json.loads(subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE).stdout)


def test_called_from_python(served: Served) -> None:
    served.check(run_python(served.at(blocks("python served")[0]), "vectors"))


def test_called_from_javascript(served: Served, pytestconfig: pytest.Config) -> None:
    folder = folder_with_openai(pytestconfig)
    script = served.at(blocks("js")[0]) + "\nconsole.log(JSON.stringify(vectors));"
    served.check(json.loads(run_script(folder, "readme", script)))


def test_called_by_curl(served: Served) -> None:
    shown = served.at(blocks("sh")[0])
    answer = json.loads(subprocess.run(["bash", "-ec", shown], check=True, capture_output=True).stdout)
    served.check([row["embedding"] for row in answer["data"]])


def test_called_from_langchain_and_llama_index(served: Served) -> None:
    for package in ("langchain_openai", "llama_index.embeddings.openai"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    shown = f"[langchain.embed_documents({CATS}), llama_index.get_text_embedding_batch({CATS})]"
    for vectors in run_python(served.at(blocks("python served")[1]), shown):
        served.check(vectors)


def test_what_is_said_of_the_server_is_true(served: Served) -> None:
    instruction, *_ = httpx.get(f"{served.url}/v1/models/{MODEL}").json()["instructions"]
    asked = [{"input": f"{instruction} a cat"}, {"input": "a cat", "instruction": instruction}]
    answers = [httpx.post(f"{served.url}/v1/embeddings", json={"model": MODEL} | each).json() for each in asked]
    expected = served.encoder.encode("a cat", instruction=instruction, normalize=True)
    for answer in answers:
        np.testing.assert_allclose(answer["data"][0]["embedding"], expected, atol=1e-5)
    assert httpx.get(f"{served.url}/docs").status_code == 200


# --- the tree --------------------------------------------------------------------------------------


def test_the_annotated_tree_is_true() -> None:
    tree = re.search(r"## Where things are\n\n(.*?)\n\nImports", TEXT, re.DOTALL)
    assert tree
    root = README.parent
    listed = re.findall(r"^      (\w[\w.]*/?) ", tree[1], re.MULTILINE)
    package = root / "src" / "unmask"
    there = {p.name + "/" * p.is_dir() for p in package.iterdir()} - {
        "__pycache__/",
        "__init__.py",
        "_version.py",
        "py.typed",
    }
    assert set(listed) == there
    for folder in re.findall(r"^    (\w+/) ", tree[1], re.MULTILINE):
        assert (root / folder).is_dir()

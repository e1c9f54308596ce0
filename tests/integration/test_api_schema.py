"""The server keeps its OpenAPI document's word: schemathesis asks it thousands of things, right and wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_api_support import KEY, Running, serving
from unmask.engine.fake import FakeEngine

#: What schemathesis looks at. That all data which the document allows is taken is left out: how many dimensions a
#: model has, or which files a caller has, no document can say.
CHECKS = ("--checks", "all", "--exclude-checks", "positive_data_acceptance")
#: The same requests in every run.
SEED = ("--seed", "5", "--generation-database", "none")
LINE = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "fake", "input": "a"}}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Serve instant models, to one key."""
    engines: dict[str, Any] = {"engine": FakeEngine(("fake",)), "rerankers": FakeEngine(("ranker",), dimension=1)}
    with serving(tmp_path / "data", api_keys=(KEY,), log_requests=False, **engines) as running:
        yield running


def document(running: Running) -> dict[str, Any]:
    """Return the server's document, in which names are often those of things that are there."""
    with running.client(KEY) as client:
        found: dict[str, Any] = client.get("/v1/openapi.json").json()
        form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", json.dumps(LINE))}}
        file_id = client.post("/v1/files", **form).json()["id"]
    schemas = found["components"]["schemas"]
    for name, model in {"EmbeddingRequest": "fake", "RerankRequest": "ranker", "TokenizeRequest": "fake"}.items():
        schemas[name]["properties"]["model"] = {"enum": [model]}
    inputs = schemas["BatchRequest"]["properties"]
    inputs["input_file_id"] = {"anyOf": [{"enum": [file_id]}, inputs["input_file_id"]]}
    return found


def statuses(running: Running) -> dict[tuple[str, int], int]:
    """Return how many requests were answered with what, by path and status."""
    with running.client() as client:
        lines = re.findall(r'requests_total\{path="([^"]*)",status="(\d+)"\} (\d+)', client.get("/metrics").text)
    return {(path, int(status)): int(count) for path, status, count in lines}


def ask(running: Running, folder: Path, *options: str) -> dict[tuple[str, int], int]:
    """Have schemathesis ask, and return what was answered."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(document(running)))
    command = [str(Path(sys.executable).with_name("st")), "run", str(file), "--url", running.url]
    key = ("--header", f"Authorization: Bearer {KEY}")
    done = subprocess.run(
        [*command, *key, *CHECKS, *SEED, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    found = statuses(running)
    assert not any(status >= 500 for _, status in found)
    with running.client(KEY) as client:
        assert client.post("/v1/embeddings", json={"model": "fake", "input": "a"}).status_code == 200
    return found


def test_some_requests(running: Running, tmp_path: Path) -> None:
    found = ask(running, tmp_path, "--phases", "fuzzing", "--max-examples", "12")
    assert sum(found.values()) >= 150
    paths = document(running)["paths"]
    assert {path for path, _ in found} >= set(paths)
    for path in ("/v1/embeddings", "/v1/rerank", "/v1/tokenize"):
        assert (path, 200) in found


@pytest.mark.slow  # minutes
@pytest.mark.timeout(3000)
def test_thousands_of_requests(running: Running, tmp_path: Path) -> None:
    found = ask(running, tmp_path, "--max-examples", "300")
    assert sum(found.values()) >= 5000
    paths = set(document(running)["paths"])
    assert {path for path, status in found if 400 <= status < 500} >= paths
    # A batch of one request has ended before anybody can cancel it.
    assert {path for path, status in found if status == 200} >= paths - {"/v1/batches/{id}/cancel"}

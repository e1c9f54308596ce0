"""What ``unmask serve`` says of its models: the instruction of a checkpoint, and one that cannot be loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from tests.integration.test_api_support import Unmask
from tests.tiny import write_base
from unmask import Encoder

QUERY = "Given a question, find notes:"
TOLD = "Find what helps:"


@dataclass(frozen=True)
class Site:
    """A server, where its models lie, and one of them in this process."""

    server: Unmask
    folder: Path
    encoder: Encoder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("models")
    encoder = Encoder.load(write_base(root / "base"), device="cpu")
    saved = encoder.save(root / "saved") / "unmask.json"
    said = json.loads(saved.read_text())
    said["settings"]["query_instruction"] = QUERY
    saved.write_text(json.dumps(said))
    models: dict[str, dict[str, Any]] = {
        "asks": {"source": str(saved.parent)},
        "told": {"source": str(saved.parent), "query_instruction": TOLD},
        "gone": {"source": str(root / "nowhere"), "preload": False},
        "broken": {"source": str(root / "broken"), "preload": False},
    }
    # A tokenizer that can be read, and weights that cannot.
    broken = write_base(root / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with Unmask(root, models) as server:
        yield Site(server, root, encoder)


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with site.server.client() as client:
        yield client


def vector(client: httpx.Client, model: str, given: str, **fields: Any) -> NDArray[np.float64]:
    answer = client.post("/v1/embeddings", json={"model": model, "input": given, **fields})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"])


@pytest.mark.parametrize(("model", "instruction", "known"), [("asks", QUERY, [QUERY]), ("told", TOLD, [TOLD, QUERY])])
def test_a_checkpoints_own_instruction(
    site: Site, client: httpx.Client, model: str, instruction: str, known: list[str]
) -> None:
    described = client.get(f"/v1/models/{model}").json()
    assert described["query_instruction"] == instruction
    assert described["instructions"][: len(known)] == known
    expected = site.encoder.encode("what rusts", instruction=instruction, normalize=True)
    np.testing.assert_allclose(vector(client, model, "what rusts", input_type="query"), expected, atol=1e-5)
    own = site.encoder.encode("what rusts", instruction=QUERY, normalize=True)
    np.testing.assert_allclose(vector(client, model, f"{QUERY} what rusts"), own, atol=1e-5)
    plain = site.encoder.encode("what rusts", normalize=True)
    np.testing.assert_allclose(vector(client, model, "what rusts"), plain, atol=1e-5)
    assert np.abs(plain - own).max() > 1e-3


@pytest.mark.parametrize("model", ["gone", "broken"])
def test_clients_learn_that_a_model_is_unavailable_and_the_operator_learns_why(
    site: Site, client: httpx.Client, model: str
) -> None:
    heads = {"prefer": "wait=60"}
    body = {"model": model, "input": "a"}
    refused = client.post("/v1/embeddings", json=body, headers=heads)
    assert refused.status_code == 503
    error = refused.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("model_unavailable", "model", "server_error")
    assert model in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert client.get(f"/v1/models/{model}").json()["status"] == "failed"
    answers = [
        refused,
        client.post("/v1/rerank", json={"model": model, "query": "a", "documents": ["b"]}, headers=heads),
        client.post("/v1/tokenize", json={"model": model, "input": "a"}),
        *(client.get(path) for path in ("/v1/models", f"/v1/models/{model}", "/ready", "/metrics")),
    ]
    assert not any(str(site.folder) in answer.text or "Error:" in answer.text for answer in answers)
    reasons = [line["message"] for line in site.server.lines if " has failed: " in line["message"]]
    assert any(str(site.folder / {"gone": "nowhere", "broken": "broken"}[model]) in reason for reason in reasons)
    tries: list[Any] = []
    with (
        openai.DefaultHttpxClient(event_hooks={"request": [tries.append]}) as http,
        openai.OpenAI(base_url=f"{site.server.url}/v1", api_key="none", max_retries=5, http_client=http) as api,
        pytest.raises(openai.InternalServerError),
    ):
        api.embeddings.create(model=model, input="a")
    assert len(tries) == 1

"""Reranking by a cross-encoder, over HTTP: its scores, its states, and what becomes of its worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest
from sentence_transformers import CrossEncoder

from tests import light_worker
from tests.integration.conftest import Unmask as Command
from tests.integration.test_api_support import RecordingEngine, Running, Unmask, serving, wait_until
from tests.tiny import write_base
from tests.tiny_cross_encoder import write_cross_encoder
from tests.tiny_tokenizer import SENTENCES
from unmask.engine.engine import Engine
from unmask.engine.pairs import RERANKER
from unmask.engine.settings import EngineSettings, ModelSettings
from unmask.errors import InputError, QueueFullError
from unmask.gateway.api import settings as settings_module
from unmask.gateway.api.app import Application
from unmask.gateway.api.settings import ModelSettings as EncoderSettings
from unmask.gateway.api.settings import RerankerSettings, Settings, load_settings

DOCUMENTS = [*SENTENCES[:30], " ".join(SENTENCES)]
QUERY = "Who repaired the radio?"


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "ranker", "query": QUERY, "documents": DOCUMENTS} | changes


def light(**options: Any) -> Engine:
    """Return an engine whose workers start at once: a score is the number of words of both sides."""
    model = ModelSettings(name="ranker", source=options.pop("source", "size=1"), preload=options.pop("preload", True))
    return Engine(
        EngineSettings(models=(model,), devices=("cpu",), retry_seconds=0.2, **options), worker=light_worker.COMMAND
    )


def status(client: httpx.Client, name: str = "ranker") -> str:
    state: str = client.get(f"/v1/models/{name}").json()["status"]
    return state


# --- a cross-encoder -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("model") / "ranker")


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    model = CrossEncoder(str(folder), device="cpu")
    return model.predict([(QUERY, document) for document in DOCUMENTS], show_progress_bar=False)


@pytest.fixture(scope="module")
def running(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    model = ModelSettings(name="ranker", source=str(folder), preload=True)
    engine = Engine(EngineSettings(models=(model,), devices=("cpu",), threads=1), worker=RERANKER)
    with serving(tmp_path_factory.mktemp("data"), rerankers=engine) as running, running.client() as client:
        assert client.get("/ready").status_code == 503
        wait_until(lambda: client.get("/ready").status_code == 200, 240)
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def test_scores_are_the_cross_encoders(client: httpx.Client, expected: Any) -> None:
    answer = client.post("/v1/rerank", json=body()).json()
    assert (answer["object"], answer["model"]) == ("list", "ranker")
    assert [row["index"] for row in answer["results"]] == np.argsort(-expected, kind="stable").tolist()
    scores = {row["index"]: row["relevance_score"] for row in answer["results"]}
    np.testing.assert_allclose([scores[index] for index in range(len(DOCUMENTS))], expected, atol=2e-5)
    assert all(0 < score < 1 for score in scores.values())
    assert "document" not in answer["results"][0]
    best = client.post("/v1/rerank", json=body(top_n=3, return_documents=True)).json()["results"]
    assert [row["index"] for row in best] == [row["index"] for row in answer["results"][:3]]
    assert [row["document"]["text"] for row in best] == [DOCUMENTS[row["index"]] for row in best]


def test_an_instruction_stands_before_the_query(client: httpx.Client, folder: Path) -> None:
    answer = client.post("/v1/rerank", json=body(documents=DOCUMENTS[:1], instruction=" Find it: ")).json()
    (score,) = CrossEncoder(str(folder), device="cpu").predict([(f"Find it: {QUERY}", DOCUMENTS[0])])
    assert answer["results"][0]["relevance_score"] == pytest.approx(score, abs=2e-5)


def test_tokens_are_those_that_the_model_read(client: httpx.Client, folder: Path) -> None:
    read = CrossEncoder(str(folder), device="cpu").preprocess([(QUERY, document) for document in DOCUMENTS])
    usage = client.post("/v1/rerank", json=body()).json()["usage"]
    total = int(read["attention_mask"].sum())
    assert usage == {"prompt_tokens": total, "total_tokens": total}
    lines = client.get("/metrics").text.splitlines()
    assert any(line.startswith('unmask_tokens_total{model="ranker"}') for line in lines)
    assert any(line.startswith('unmask_engine_tokens_total{engine="rerankers"}') for line in lines)


def test_what_does_not_fit_is_named(client: httpx.Client) -> None:
    answer = client.post("/v1/rerank", json=body(truncate=False))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "documents", None)
    assert "Document 30 and the query" in error["message"]
    many = ["the old bridge " * 30] * 2048
    error = client.post("/v1/rerank", json=body(documents=many * 1, query=QUERY)).json()
    assert len(error["results"]) == 2048  # 64 tokens each
    assert client.post("/v1/rerank", json=body(documents=[*many, "one"])).status_code == 400


def test_it_is_listed_with_what_it_can_do(client: httpx.Client) -> None:
    listed = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
    assert listed["fake"]["endpoints"] == ["/v1/embeddings", "/v1/rerank", "/v1/tokenize"]
    ranker = listed["ranker"]
    assert (ranker["endpoints"], ranker["status"]) == (["/v1/rerank"], "ready")
    assert (ranker["dimensions"], ranker["max_length"]) == (None, 64)
    detail = client.get("/v1/models/ranker").json()
    assert (detail["query_instruction"], detail["instructions"]) == (None, [])


def test_it_gives_no_vectors_and_no_tokens(running: Running, client: httpx.Client) -> None:
    for path in ("/v1/embeddings", "/v1/tokenize"):
        answer = client.post(path, json={"model": "ranker", "input": "a"})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "model", "model_not_supported")
        assert "/v1/rerank" in error["message"]
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as api:
        assert {model.id for model in api.models.list()} == {"fake", "ranker"}


def test_encoders_go_on_ranking_by_cosine(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/rerank", json=body(model="fake", documents=[f"document {number}" for number in range(20)])
    )
    assert min(row["relevance_score"] for row in answer.json()["results"]) < 0
    assert client.post("/v1/rerank", json=body(model="none")).status_code == 404


def test_the_server_knows_nothing_of_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from unmask.gateway.api import app, server; from unmask.engine import engine, pairs; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)


# --- states and faults, with workers that start at once --------------------------------------------


def test_a_worker_killed_amid_a_request_loses_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, rerankers=light()) as running, running.client() as client:
        wait_until(lambda: status(client) == "ready")
        found: list[httpx.Response] = []
        asked = body(documents=[f"slow w{number}" for number in range(8)], query="w1")
        thread = threading.Thread(target=lambda: found.append(client.post("/v1/rerank", json=asked)))
        thread.start()
        engine = running.app._engines["rerankers"]
        wait_until(lambda: engine.load().running_tokens > 0)
        (worker,) = (child for child in psutil.Process().children() if "light_worker" in " ".join(child.cmdline()))
        os.kill(worker.pid, signal.SIGKILL)
        thread.join()
        assert found[0].status_code == 200, found[0].text
        assert [row["relevance_score"] for row in found[0].json()["results"]] == [3] * 8
        metrics = client.get("/metrics").text
        assert 'unmask_worker_restarts_total{engine="rerankers"} 1.0' in metrics
        assert 'unmask_worker_restarts_total{engine="embeddings"} 0.0' in metrics


def test_a_document_that_kills_its_worker_fails_alone(tmp_path: Path) -> None:
    with serving(tmp_path, rerankers=light()) as running, running.client() as client:
        wait_until(lambda: status(client) == "ready")
        answer = client.post("/v1/rerank", json=body(documents=["w1", "w2", "die"], query="w1"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "encoding_failed")
        assert "Text 2 " in answer.json()["error"]["message"]
        good = body(documents=["w1", "w2"], query="w1")
        assert client.post("/v1/rerank", json=good, headers={"prefer": "wait=20"}).status_code == 200


def test_a_model_without_its_files_fails_and_the_encoders_answer(tmp_path: Path) -> None:
    missing = light(source=f"file={tmp_path / 'none'}")
    with serving(tmp_path, rerankers=missing) as running, running.client() as client:
        wait_until(lambda: status(client) == "failed")
        answer = client.post("/v1/rerank", json=body())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert str(tmp_path) not in answer.text
        assert client.get("/ready").json() == {"status": "warming", "models": {"fake": "ready", "ranker": "failed"}}
        assert client.post("/v1/embeddings", json={"model": "fake", "input": "a"}).status_code == 200
        (tmp_path / "none").touch()
        wait_until(lambda: client.post("/v1/rerank", json=body()).status_code == 200)


def test_a_cold_one_says_when_to_come_back_or_is_waited_for(tmp_path: Path) -> None:
    told = Settings(
        data=tmp_path, models={"fake": EncoderSettings()}, rerankers={"ranker": RerankerSettings(preload=False)}
    )
    app = Application(told, RecordingEngine(), light(source="seconds=0.5", preload=False))
    with serving(tmp_path, app=app) as running, running.client() as client:
        assert client.get("/ready").status_code == 200
        wait_until(lambda: client.get("/v1/models/ranker").json()["max_length"])
        assert status(client) == "cold"
        answer = client.post("/v1/rerank", json=body())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_cold")
        assert int(answer.headers["retry-after"]) >= 1
        assert client.post("/v1/rerank", json=body(), headers={"prefer": "wait=20"}).status_code == 200
        assert status(client) == "ready"


def test_a_full_queue_refuses_and_who_hangs_up_leaves_it(tmp_path: Path) -> None:
    engine = light(queue_tokens=100, batch_tokens=10)
    with serving(tmp_path, rerankers=engine) as running, running.client() as client:
        wait_until(lambda: status(client) == "ready")
        with socket.create_connection(running.address) as connection:
            slow = json.dumps(body(documents=["slow"] * 60, query="w1")).encode()
            head = b"POST /v1/rerank HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
            connection.sendall(head + b"content-length: %d\r\n\r\n" % len(slow) + slow)
            wait_until(lambda: engine.load().queued_tokens["realtime"] > 50)
            answer = client.post("/v1/rerank", json=body(documents=["w1"] * 60, query="w1"))
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert int(answer.headers["retry-after"]) >= 1
        wait_until(lambda: engine.load().queued_tokens["realtime"] == 0, 2)
        assert client.post("/v1/rerank", json=body(documents=["w1"] * 40, query="w1")).status_code == 200


def test_tiers_waits_and_keys_reach_its_engine(tmp_path: Path) -> None:
    pairs = RecordingEngine(("ranker",), dimension=1)
    limits: dict[str, Any] = {"api_keys": ("gr-one", "gr-two"), "tokens_per_minute": 100}
    with serving(tmp_path, rerankers=pairs, **limits) as running, running.client("gr-one") as client:
        headers = {"x-tier": "batch", "prefer": "wait=7"}
        answer = client.post("/v1/rerank", json=body(documents=["abc"], query="de", truncate=False), headers=headers)
        assert answer.headers["x-ratelimit-remaining-tokens"] == "94"  # "de abc"
        (asked,) = pairs.knobs.asked
        assert (asked.priority, asked.wait, asked.truncate) == ("batch", 7, False)
        assert asked.caller.startswith("key-")
        assert running.knobs.asked == []
        pairs.knobs.failures.append(QueueFullError("Full.", retry_after=3))
        assert client.post("/v1/rerank", json=body(documents=["abc"], query="de")).headers["retry-after"] == "3"


def test_a_batch_may_not_ask_it_for_vectors(tmp_path: Path) -> None:
    pairs = RecordingEngine(("ranker",), dimension=1)
    with serving(tmp_path, rerankers=pairs) as running, running.client() as client:
        line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "ranker", "input": "a"}}
        form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", json.dumps(line))}}
        file_id = client.post("/v1/files", **form).json()["id"]
        start = {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        batch = client.post("/v1/batches", json=start).json()["id"]
        wait_until(lambda: client.get(f"/v1/batches/{batch}").json()["status"] == "completed")
        errors = client.get(f"/v1/batches/{batch}").json()["error_file_id"]
        answer = client.get(f"/v1/files/{errors}/content").json()["response"]
        assert (answer["status_code"], answer["body"]["error"]["code"]) == (400, "model_not_supported")


# --- settings --------------------------------------------------------------------------------------


def test_rerankers_come_from_the_file_the_environment_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        'threads = 3\n[rerankers.one]\nsource = "a/b"\nmax_length = 256\ndtype = "float32"\npreload = false\n'
    )
    found = load_settings(file)
    told = found.reranker_engine()
    assert told is not None
    assert (told.threads, told.devices) == (3, found.devices)
    (model,) = told.models
    assert (model.name, model.source, model.max_length, model.dtype, model.preload) == (
        "one", "a/b", 256, "float32", False,
    )  # fmt: skip
    assert "one" not in found.preloaded()
    monkeypatch.setenv("UNMASK_RERANKERS", '{"two": {}}')
    assert list(load_settings().rerankers) == ["two"]
    assert "two" in load_settings().preloaded()
    monkeypatch.delenv("UNMASK_RERANKERS")
    flags: dict[str, Any] = {"rerankers": {"three": {}}}
    assert [model.source for model in (load_settings(None, flags).reranker_engine() or told).models] == ["three"]


def test_the_commands_flag_names_a_reranker(unmask: Command) -> None:
    status, shown, _ = unmask("serve", "--reranker", "a/b", "--reranker", "c/d", "--show-config")
    assert status == 0
    assert set(json.loads(shown)["rerankers"]) == {"a/b", "c/d"}


def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="rerankers.*names an encoder, too"):
        load_settings(None, {"models": {"one": {}}, "rerankers": {"one": {}}})
    with pytest.raises(InputError, match=r"rerankers\.one\.adapters"):
        load_settings(None, {"rerankers": {"one": {"adapters": []}}})
    monkeypatch.setattr(settings_module, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r'pip install "unmask\[rerank\]"'):
        Settings(rerankers={"one": RerankerSettings()}).check()
    Settings().check()


@pytest.mark.slow  # two workers with torch
def test_the_command_serves_an_encoder_and_a_reranker(
    tmp_path: Path, folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = write_base(tmp_path / "base", tokenizer="llama3")
    monkeypatch.setenv("UNMASK_RERANKERS", json.dumps({"ranker": {"source": str(folder)}}))
    with Unmask(tmp_path, {"tiny": {"source": str(encoder)}}) as server:
        with server.client() as client:
            scores = client.post("/v1/rerank", json=body()).json()["results"]
            assert max(row["relevance_score"] for row in scores) == pytest.approx(expected.max(), abs=2e-5)
            assert client.post("/v1/embeddings", json={"model": "tiny", "input": "a"}).status_code == 200
        assert server.end(signal.SIGTERM) == 0

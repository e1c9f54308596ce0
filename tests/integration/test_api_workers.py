"""The API over the engine itself, whose workers die, hang and give no numbers: every request has its right answer."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.integration.test_api_support import Running, serving, wait_until
from tests.light_worker import COMMAND, IDS, vector
from unmask.engine.engine import Engine
from unmask.engine.settings import EngineSettings, ModelSettings

READY = {"prefer": "wait=20"}


@pytest.fixture
def engine() -> Engine:
    model = ModelSettings(name="m", source="size=1", preload=True)
    return Engine(EngineSettings(models=(model,), devices=("cpu",), batch_tokens=8), worker=COMMAND)


@pytest.fixture
def running(engine: Engine, tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, engine=engine) as running, running.client() as client:
        wait_until(lambda: client.get("/ready").status_code == 200)
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def embed(client: httpx.Client, given: Any) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "m", "input": given, "normalize": False}, headers=READY)


def check(answer: httpx.Response, texts: list[str]) -> None:
    """The answer is good, and holds the vectors of its texts."""
    assert answer.status_code == 200, answer.text
    expected = [vector([IDS[word] for word in text.split()]) for text in texts]
    assert np.array_equal([row["embedding"] for row in answer.json()["data"]], expected)
    assert answer.json()["usage"]["total_tokens"] == sum(len(text.split()) for text in texts)


def kill_worker() -> None:
    (worker,) = (child for child in psutil.Process().children() if "light_worker" in " ".join(child.cmdline()))
    os.kill(worker.pid, signal.SIGKILL)


def test_a_worker_killed_mid_batch(running: Running, client: httpx.Client, engine: Engine) -> None:
    requests = [[f"slow w{caller}", *(f"w{caller} w{number}" for number in range(20))] for caller in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(embed, client, texts) for texts in requests]
        wait_until(lambda: engine.load().running_tokens > 0)
        kill_worker()
    for answer, texts in zip(answers, requests, strict=True):
        check(answer.result(), texts)
    assert 'unmask_worker_restarts_total{engine="embeddings"} 1.0' in client.get("/metrics").text
    check(embed(client, "w1"), ["w1"])


@pytest.mark.parametrize("word", ["nan", "bad", "die"])
def test_a_text_without_a_vector_fails_its_own_request_alone(client: httpx.Client, word: str) -> None:
    good = [f"w{number} slow" for number in range(4)]
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(embed, client, good)
        refused = pool.submit(embed, client, ["w1", f"w2 {word}", "w3"])
    check(beside.result(), good)
    error = refused.result().json()["error"]
    assert (refused.result().status_code, error["code"]) == (500, "encoding_failed")
    assert "Text 1 " in error["message"]
    assert refused.result().headers["x-should-retry"] == "false"
    check(embed(client, "w1"), ["w1"])


def test_a_worker_killed_during_a_batch_job(client: httpx.Client, engine: Engine) -> None:
    lines = [
        {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/embeddings", "body": body}
        for number in range(200)
        for body in [{"model": "m", "input": f"w{number}" if number % 20 else f"w{number} slow", "normalize": False}]
    ]
    form: dict[str, Any] = {
        "data": {"purpose": "batch"},
        "files": {"file": ("in.jsonl", "\n".join(map(json.dumps, lines)))},
    }
    start = {"endpoint": "/v1/embeddings", "completion_window": "24h"}
    start["input_file_id"] = client.post("/v1/files", **form).json()["id"]
    path = f"/v1/batches/{client.post('/v1/batches', json=start).json()['id']}"
    wait_until(lambda: engine.load().running_tokens > 0)
    kill_worker()
    wait_until(lambda: client.get(path).json()["status"] == "completed")
    batch = client.get(path).json()
    assert batch["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
    output = [json.loads(row) for row in client.get(f"/v1/files/{batch['output_file_id']}/content").text.splitlines()]
    found = {row["custom_id"]: row["response"]["body"]["data"][0]["embedding"] for row in output}
    assert len(found) == len(output) == 200
    for number in range(200):
        ids = [IDS[f"w{number}"]] + ([] if number % 20 else [IDS["slow"]])
        assert np.array_equal(found[f"id-{number}"], vector(ids))
    assert engine.load().restarts == 1


def test_who_hangs_up_leaves_the_queue(running: Running, client: httpx.Client, engine: Engine) -> None:
    body = json.dumps({"model": "m", "input": ["slow"] * 300}).encode()
    started = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"}, timeout=0.5)
    wait_until(lambda: engine.load().queued_tokens["realtime"] == 0)
    check(embed(client, "w1"), ["w1"])
    assert time.monotonic() - started < 20  # sixty seconds of work were dropped

"""The API over real HTTP: every form of input and output, every refusal, headers, keys."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.integration.test_api_support import KEY, ROOT, Running, serving
from unmask.errors import (
    BackboneError,
    CheckpointError,
    EncodingFailedError,
    InputError,
    ModelColdError,
    ModelUnavailableError,
    QueueFullError,
    StoppingError,
    UnknownModelError,
)
from unmask.gateway.api.instructions import DEFAULTS
from unmask.gateway.api.settings import ModelSettings
from unmask.text import Text

QUERY = "Find the answer:"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    model = ModelSettings(query_instruction=QUERY, instructions=("Find", "Say what it is about:"))
    with serving(tmp_path_factory.mktemp("data"), models={"fake": model}) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    running.knobs.failures.clear()
    running.knobs.asked.clear()
    with running.client() as client:
        yield client


def embed(client: httpx.Client, given: Any = "a text", status: int = 200, **fields: Any) -> Any:
    response = client.post("/v1/embeddings", json={"model": "fake", "input": given, **fields})
    assert response.status_code == status, response.text
    return response.json()


def vectors(client: httpx.Client, given: Any, **fields: Any) -> np.ndarray[Any, Any]:
    data = embed(client, given, **fields)["data"]
    assert [row["index"] for row in data] == list(range(len(data)))
    return np.array([row["embedding"] for row in data])


# --- embeddings ------------------------------------------------------------------------------------


def test_all_forms_of_input_give_the_same_vector(client: httpx.Client) -> None:
    text = "déjà vu"
    alone = vectors(client, text)
    assert alone.shape == (1, 384)
    np.testing.assert_allclose(np.linalg.norm(alone), 1, atol=1e-6)
    tokens = client.post("/v1/tokenize", json={"model": "fake", "input": text}).json()["data"][0]["tokens"]
    for given in ([text], tokens, [tokens], [text, "another"], [tokens, tokens]):
        np.testing.assert_array_equal(vectors(client, given)[0], alone[0])


def test_the_answer_has_openais_shape_and_counts_the_models_tokens(client: httpx.Client) -> None:
    answer = embed(client, ["four", "sixsix"], user="somebody", encoding_format=None)
    assert set(answer) == {"object", "data", "model", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "fake")
    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    assert set(answer["data"][1]) == {"object", "index", "embedding"}
    assert answer["data"][1]["object"] == "embedding"


def test_base64_holds_the_very_floats_little_endian(client: httpx.Client) -> None:
    floats = vectors(client, ["one", "two"]).astype("<f4")
    rows = embed(client, ["one", "two"], encoding_format="base64")["data"]
    for row, expected in zip(rows, floats, strict=True):
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(row["embedding"]), "<f4"), expected)


def test_many_vectors_are_written_as_few_are(client: httpx.Client) -> None:
    texts = [f"text {number}" for number in range(300)]  # 115,200 numbers: written in a thread
    np.testing.assert_array_equal(vectors(client, texts)[[0, 299]], vectors(client, [texts[0], texts[299]]))


def test_dimensions_cut_and_normalise_again(client: httpx.Client) -> None:
    full, cut = vectors(client, "a text", normalize=False), vectors(client, "a text", dimensions=8, normalize=False)
    assert np.linalg.norm(full) > 2
    np.testing.assert_allclose(cut[0], full[0, :8] / np.linalg.norm(full[0, :8]), atol=1e-6)
    assert embed(client, dimensions=385, status=400)["error"]["message"].endswith("have 1 to 384.")


def test_int8_and_binary(client: httpx.Client) -> None:
    floats = vectors(client, "a text")[0]
    whole = vectors(client, "a text", embedding_types="int8")[0]
    np.testing.assert_array_equal(whole, np.rint(floats * (127 / np.abs(floats).max())))
    bits = vectors(client, "a text", embedding_types=["binary"])[0]
    np.testing.assert_array_equal(bits, np.packbits(floats > 0))
    packed = embed(client, embedding_types="binary", encoding_format="base64")["data"][0]["embedding"]
    assert base64.b64decode(packed) == bytes(bits.astype(np.uint8))


def asked(running: Running) -> list[Text]:
    return running.knobs.asked[-1].texts


@pytest.mark.parametrize(
    ("given", "fields", "expected"),
    [
        ("plain", {}, Text("", "plain")),
        ("plain", {"instruction": "Do:"}, Text("Do:", "plain")),
        ("plain", {"input_type": "query"}, Text(QUERY, "plain")),
        ("plain", {"input_type": "query", "instruction": "Do:"}, Text("Do:", "plain")),
        (f"{QUERY} plain", {}, Text(QUERY, " plain")),
        (f"{QUERY}\nplain", {"input_type": "query"}, Text(QUERY, "\nplain")),
        ("Say what it is about: x", {"input_type": "query"}, Text("Say what it is about:", " x")),
        (f"{QUERY} plain", {"input_type": "document"}, Text("", f"{QUERY} plain")),
        (f"{QUERY} plain", {"instruction": ""}, Text("", f"{QUERY} plain")),
        ("Say what it is about:x", {}, Text("", "Say what it is about:x")),  # nothing parts them
        ("Say what it is about: ", {}, Text("", "Say what it is about: ")),  # nothing is left
        (f"{QUERY}plain", {}, Text("Find", " the answer:plain")),
        (f"{QUERY} ", {}, Text("Find", " the answer: ")),
        ("Finding", {}, Text("", "Finding")),
    ],
)  # fmt: skip
def test_instructions_are_fields_or_stand_in_front(
    running: Running, client: httpx.Client, given: str, fields: dict[str, Any], expected: Text
) -> None:
    embed(client, given, **fields)
    assert asked(running) == [expected]


def test_an_instruction_in_front_gives_the_very_vector_of_the_field(client: httpx.Client) -> None:
    inside = f"{QUERY} what is a cat"
    by_field = vectors(client, "what is a cat", instruction=QUERY)
    np.testing.assert_array_equal(vectors(client, inside), by_field)
    np.testing.assert_array_equal(vectors(client, [list(inside.encode())]), by_field)
    assert np.abs(vectors(client, "what is a cat") - by_field).max() > 0.01
    assert np.abs(vectors(client, inside, instruction="") - by_field).max() > 0.01


def test_tier_and_preference_reach_the_engine(running: Running, client: httpx.Client) -> None:
    embed(client, truncate=False)
    plain = running.knobs.asked[-1]
    assert (plain.priority, plain.wait, plain.truncate, plain.caller) == ("realtime", 0, False, "anyone")
    headers = {"x-tier": "batch", "prefer": "respond-async, wait=30"}
    client.post("/v1/embeddings", json={"model": "fake", "input": "a"}, headers=headers)
    flexible = running.knobs.asked[-1]
    assert (flexible.priority, flexible.wait, flexible.truncate) == ("batch", 30, True)
    client.post("/v1/embeddings", json={"model": "fake", "input": "a"}, headers={"prefer": "wait=99999"})
    assert running.knobs.asked[-1].wait == 120
    for tier in ("gold", ""):
        response = client.post("/v1/embeddings", json={"model": "fake", "input": "a"}, headers={"x-tier": tier})
        assert response.status_code == 400


# --- rerank, tokenize, models ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "own", "query", "known"),
    [
        (None, None, None, ()),
        (None, "Own:", "Own:", ("Own:",)),
        ("Told:", "Own:", "Told:", ("Told:", "Own:")),
        ("", "Own:", None, ("Own:",)),
    ],
)
def test_the_checkpoints_own_instruction_is_what_queries_have_unless_the_operator_says_otherwise(
    tmp_path: Path, told: str | None, own: str | None, query: str | None, known: tuple[str, ...]
) -> None:
    settings = {"fake": ModelSettings(query_instruction=told)}
    with serving(tmp_path, models=settings) as running, running.client() as client:
        running.knobs.query_instruction = own
        model = client.get("/v1/models/fake").json()
        assert (model["query_instruction"], model["instructions"]) == (query, [*known, *DEFAULTS])
        embed(client, "x", input_type="query")
        assert asked(running) == [Text(query or "", "x")]
        client.post("/v1/rerank", json={"model": "fake", "query": "x", "documents": ["y"]})
        assert asked(running) == [Text("", "y"), Text(query or "", "x")]
        embed(client, "Own: x")
        assert asked(running) == [Text("Own:", " x") if own else Text("", "Own: x")]


def test_nothing_is_split_before_the_checkpoints_own_instruction_is_known(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        served, engine = running.engine.served, running.engine

        async def read(model: str, texts: Sequence[Text], *, wait: float, **options: Any) -> list[Any]:
            assert (list(texts), wait) == ([], 5)
            running.knobs.query_instruction = "Own:"
            engine.served = served  # type: ignore[method-assign]
            return []

        engine.served = lambda: tuple(replace(each, max_length=None) for each in served())  # type: ignore[method-assign]
        engine.tokenize = read  # type: ignore[assignment, method-assign]
        model = client.get("/v1/models/fake").json()
        assert (model["query_instruction"], model["instructions"]) == (None, list(DEFAULTS))
        body = {"model": "fake", "input": "x", "input_type": "query"}
        assert client.post("/v1/embeddings", json=body, headers={"prefer": "wait=5"}).status_code == 200
        assert asked(running) == [Text("Own:", "x")]


def test_rerank_orders_by_cosine(client: httpx.Client) -> None:
    documents = [f"document {number}" for number in range(6)]
    query = vectors(client, "a question", input_type="query")[0]
    expected = vectors(client, documents) @ query
    body = {"model": "fake", "query": "a question", "documents": documents}
    answer = client.post("/v1/rerank", json=body).json()
    assert [row["index"] for row in answer["results"]] == np.argsort(-expected).tolist()
    scores = [row["relevance_score"] for row in answer["results"]]
    np.testing.assert_allclose(scores, np.sort(expected)[::-1], atol=1e-6)
    assert answer["usage"]["total_tokens"] == len(f"{QUERY} a question") + sum(map(len, documents))
    best = client.post("/v1/rerank", json=body | {"top_n": 2, "return_documents": True}).json()["results"]
    assert [row["document"]["text"] for row in best] == [documents[row["index"]] for row in answer["results"][:2]]


def test_tokenize_counts_the_instruction(client: httpx.Client) -> None:
    body = {"model": "fake", "input": ["ab"], "instruction": "Do:"}
    answer = client.post("/v1/tokenize", json=body).json()
    assert answer["data"][0] == {"object": "tokens", "index": 0, "tokens": list(b"Do: ab"), "content_start": 4}
    assert answer["usage"]["total_tokens"] == 6


def test_models(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert [(each["id"], each["object"], each["status"]) for each in listed["data"]] == [("fake", "model", "ready")]
    model = client.get("/v1/models/fake").json()
    assert (model["dimensions"], model["max_length"], model["query_instruction"]) == (384, 512, QUERY)
    assert {QUERY, "Find", "Say what it is about:"} < set(model["instructions"])
    assert client.get("/v1/models/owner/other").json()["error"]["code"] == "model_not_found"


# --- refusals --------------------------------------------------------------------------------------

DEEP = b'{"model":"fake","input":' + b"[" * 5000 + b"]" * 5000 + b"}"
BAD: list[tuple[str, bytes, str | None, str]] = [
    ("no JSON", b"{", None, "invalid_json"),
    ("nothing", b"", None, "invalid_json"),
    ("no object", b"[]", None, "invalid_json"),
    ("not UTF-8", b'{"model":"fake","input":"\xff"}', None, "invalid_json"),
    ("half a character", b'{"model":"fake","input":"\\ud800"}', None, "invalid_json"),
    ("NaN", b'{"model":"fake","input":"a","dimensions":NaN}', None, "invalid_json"),
    ("Infinity", b'{"model":"fake","input":[Infinity]}', None, "invalid_json"),
    ("deep", DEEP, None, "invalid_json"),
    ("deeper than the schema", b'{"model":"fake","input":[[[[1]]]]}', "input[0][0]", "invalid_type"),
    ("a key twice", b'{"model":"fake","input":"a","input":"b"}', None, "invalid_json"),
    ("no model", b'{"input":"a"}', "model", "missing_required_parameter"),
    ("no input", b'{"model":"fake"}', "input", "missing_required_parameter"),
    ("another field", b'{"model":"fake","input":"a","inputs":"b"}', "inputs", "unknown_parameter"),
    ("an object as input", b'{"model":"fake","input":{"a":1}}', "input", "invalid_type"),
    ("null as input", b'{"model":"fake","input":null}', "input", "invalid_type"),
    ("an empty string", b'{"model":"fake","input":""}', "input", "empty_string"),
    ("a blank string", b'{"model":"fake","input":["a"," \\n"]}', "input[1]", "empty_string"),
    ("no inputs", b'{"model":"fake","input":[]}', "input", "empty_array"),
    ("no tokens", b'{"model":"fake","input":[[1],[]]}', "input[1]", "empty_array"),
    ("a boolean as token", b'{"model":"fake","input":[1,true]}', "input[1]", "invalid_type"),
    ("a boolean as first token", b'{"model":"fake","input":[true]}', "input[0]", "invalid_type"),
    ("a fraction as token", b'{"model":"fake","input":[1.5]}', "input[0]", "invalid_type"),
    ("a negative token", b'{"model":"fake","input":[-1]}', "input[0]", "invalid_value"),
    ("a huge token", b'{"model":"fake","input":[99999999999999999999999]}', "input[0]", "invalid_type"),
    ("an unknown token", b'{"model":"fake","input":[[65],[999]]}', "input", ""),
    ("tokens of nothing", b'{"model":"fake","input":[32,10]}', "input", ""),
    ("mixed", b'{"model":"fake","input":["a",1]}', "input[1]", "invalid_type"),
    ("mixed arrays", b'{"model":"fake","input":[[1],"a"]}', "input[1]", "invalid_type"),
    ("no dimensions", b'{"model":"fake","input":"a","dimensions":0}', "dimensions", "invalid_value"),
    ("true dimensions", b'{"model":"fake","input":"a","dimensions":true}', "dimensions", "invalid_type"),
    ("an unknown format", b'{"model":"fake","input":"a","encoding_format":"hex"}', "encoding_format", "invalid_value"),
    ("a number as model", b'{"model":1,"input":"a"}', "model", "invalid_type"),
    ("too long", b'{"model":"fake","truncate":false,"input":"%b"}' % (b"a" * 513), "input", ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param", "code"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_request_is_400_in_openais_shape(
    client: httpx.Client, body: bytes, param: str | None, code: str
) -> None:
    response = client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert response.status_code == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code or None)
    assert len(error["message"]) < 400
    embed(client)


def test_a_key_may_be_the_same_as_a_value(client: httpx.Client) -> None:
    embed(client, "input", user="model")


def test_2048_inputs_are_taken_and_2049_are_not(client: httpx.Client) -> None:
    assert len(embed(client, ["a"] * 2048)["data"]) == 2048
    for one_too_many in (["a"] * 2049, [[97]] * 2049):
        error = embed(client, one_too_many, status=400)["error"]
        assert (error["param"], error["code"]) == ("input", "array_above_max_length")
    embed(client)


def test_300_000_tokens_are_taken_and_one_more_is_not(client: httpx.Client) -> None:
    assert embed(client, ["a" * 500] * 600)["usage"]["total_tokens"] == 300_000
    error = embed(client, ["a" * 500] * 600 + ["b"], status=400)["error"]
    assert (error["type"], error["code"]) == ("max_tokens_per_request",) * 2
    assert embed(client, [[97] * 500] * 600 + [[98]], status=400)["error"]["code"] == "max_tokens_per_request"
    # What is cut off was sent, and counts.
    long = embed(client, [[97] * 100_000] * 3 + [[97]], status=400)["error"]
    assert long["code"] == "max_tokens_per_request"
    flat = embed(client, [97] * 300_001, status=400)["error"]
    assert flat["param"] == "input"
    documents = {"model": "fake", "query": "b", "documents": ["a" * 500] * 600}
    refused = client.post("/v1/rerank", json=documents).json()["error"]
    assert (refused["param"], refused["code"]) == ("documents", "max_tokens_per_request")
    embed(client)


def test_a_large_request_is_tokenised_by_its_embedding_alone(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(model: str, texts: Sequence[Text], **options: Any) -> list[Any]:
        assert not texts
        return []

    monkeypatch.setattr(running.engine, "tokenize", never)
    embed(client, ["a" * 500] * 600)
    assert len(running.knobs.asked) == 1


def test_characters_count_for_as_many_bytes_as_they_have(running: Running, client: httpx.Client) -> None:
    running.engine.max_length = 10**7  # so that nothing is cut
    try:
        assert embed(client, "é" * 150_000)["usage"]["total_tokens"] == 300_000
        assert embed(client, "é" * 150_001, status=400)["error"]["code"] == "max_tokens_per_request"
    finally:
        running.engine.max_length = 512


@pytest.mark.parametrize(
    ("failure", "status", "code", "headers"),
    [
        (InputError("Text 0 is bad."), 400, None, {}),
        (UnknownModelError("No."), 404, "model_not_found", {}),
        (QueueFullError("Full.", retry_after=2.4), 429, "rate_limit_exceeded", {"retry-after": "3"}),
        (EncodingFailedError("Text 0."), 500, "encoding_failed", {"x-should-retry": "false"}),
        (ModelColdError("Cold.", retry_after=7), 503, "model_cold", {"retry-after": "7", "retry-after-ms": "7000"}),
        (ModelUnavailableError("It cannot."), 503, "model_unavailable", {"x-should-retry": "false"}),
        (StoppingError("Stopping."), 503, "stopping", {"connection": "close"}),
        (CheckpointError("a/secret/path"), 503, "model_unavailable", {"x-should-retry": "false"}),
        (BackboneError("a/secret/path"), 503, "model_unavailable", {}),
        (OSError(28, "No space left"), 507, "storage_full", {}),
        (KeyError("a caller's text"), 500, "internal_error", {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_engine_raises(
    running: Running, client: httpx.Client, failure: Exception, status: int, code: str | None, headers: dict[str, str]
) -> None:
    running.knobs.failures.append(failure)
    response = client.post("/v1/embeddings", json={"model": "fake", "input": "a"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert headers.items() <= dict(response.headers).items()
    assert "secret" not in response.text
    assert "caller" not in response.text
    embed(client)


def test_paths_methods_and_types(client: httpx.Client) -> None:
    missing = client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_url")
    method = client.get("/v1/embeddings")
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    assert method.json()["error"]["code"] == "method_not_allowed"
    for headers in (
        {"content-type": "text/plain"},
        {},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ):
        plain = client.post("/v1/embeddings", content=b'{"model":"fake","input":"a"}', headers=headers)
        assert (plain.status_code, plain.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert embed(client, status=404, model="other")["error"]["param"] == "model"


def test_bytes_that_are_no_text_are_refused_wherever_they_are(client: httpx.Client) -> None:
    assert client.get("/v1/models/%ff%fe").json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/files/%ff%00").status_code == 404
    assert client.get("/v1/files?after=%ff&limit=1").status_code == 400
    heads = [(b"x-tier", b"\xff"), (b"x-request-id", b"\xff"), (b"prefer", b"wait=\xff")]
    assert client.post("/v1/embeddings", json={"model": "fake", "input": "a"}, headers=heads).status_code == 400
    for form in (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n\xff\r\n--x--\r\n',
        b'--x\r\ncontent-disposition: form-data; name="\xff"; filename="\xff"\r\n\r\n{}\r\n--x--\r\n',
    ):
        kind = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post("/v1/files", content=form, headers=kind).status_code == 400
    embed(client)


def test_every_answer_has_an_id_and_a_time(client: httpx.Client) -> None:
    for path in ("/v1/models", "/health", "/nothing"):
        response = client.get(path)
        assert response.headers["x-request-id"].startswith("req_")
        assert int(response.headers["openai-processing-ms"]) >= 0
        assert "x-ratelimit-limit-requests" not in response.headers
    own = {"x-request-id": "mine-1.2"}
    assert client.get("/health", headers=own).headers["x-request-id"] == "mine-1.2"
    assert client.get("/health", headers={"x-request-id": "no spaces"}).headers["x-request-id"].startswith("req_")


def test_bodies_beyond_the_limit_are_413(tmp_path: Path) -> None:
    with serving(tmp_path, body_bytes=1000) as running, running.client() as client:
        embed(client, "a" * 900)
        for content in (b"x" * 1001, iter([b"x" * 600, b"x" * 600])):
            response = client.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
            assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


def test_an_answer_that_takes_too_long_is_504(tmp_path: Path) -> None:
    with serving(tmp_path, request_seconds=0.2) as running, running.client() as client:
        running.knobs.seconds = 5
        assert embed(client, status=504)["error"]["code"] == "timeout"
        assert running.knobs.cancelled == 1
        running.knobs.seconds = 0.05
        embed(client)


# --- keys and rates --------------------------------------------------------------------------------


def test_a_key_is_needed_and_only_taken_from_the_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path, api_keys=(KEY, "gr-another"), log_requests=True) as running, running.client() as client:
        refused = [
            client.get("/v1/models"),
            client.get("/v1/models", headers={"authorization": f"Basic {KEY}"}),
            client.get("/v1/models", headers={"authorization": f"Bearer {KEY}x"}),
            client.get("/v1/models", headers={"authorization": f"Bearer {KEY[:-1]}"}),
            client.get("/v1/models", headers={"authorization": "Bearer"}),
            client.get(f"/v1/models?api_key={KEY}&key={KEY}&access_token={KEY}"),
            client.post(f"/v1/embeddings?api_key={KEY}", json={"model": "fake", "input": "a"}),
        ]
        for response in refused:
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        for key in (KEY, "gr-another"):
            assert client.get("/v1/models", headers={"authorization": f"bearer {key}"}).status_code == 200
            post = {"model": "fake", "input": "a"}
            client.post("/v1/embeddings", json=post, headers={"authorization": f"Bearer {key}"})
        assert len({each.caller for each in running.knobs.asked}) == 2
        for path in ("/health", "/ready", "/metrics", "/docs", "/v1/openapi.json"):
            assert client.get(path).status_code == 200
    assert KEY not in caplog.text
    assert all(KEY not in str(vars(record)) for record in caplog.records)


def test_requests_and_tokens_of_a_key_are_limited(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"requests_per_minute": 4, "tokens_per_minute": 100}
    with serving(tmp_path, api_keys=(KEY, "gr-another"), **limits) as running, running.client(KEY) as client:
        response = client.post("/v1/embeddings", json={"model": "fake", "input": "a" * 60})
        left = {name: value for name, value in response.headers.items() if name.startswith("x-ratelimit")}
        assert left.pop("x-ratelimit-reset-requests") in {"15s", "14.9s", "14.8s"}
        assert left.pop("x-ratelimit-reset-tokens").startswith(("36", "35"))
        assert left == {
            "x-ratelimit-limit-requests": "4",
            "x-ratelimit-remaining-requests": "3",
            "x-ratelimit-limit-tokens": "100",
            "x-ratelimit-remaining-tokens": "40",
        }
        refused = client.post("/v1/embeddings", json={"model": "fake", "input": "a" * 400})
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["code"]) == (429, "tokens", "rate_limit_exceeded")
        assert 25 <= int(refused.headers["retry-after"]) <= 36
        for _ in range(2):
            assert client.get("/v1/models").status_code == 200
        refused = client.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "requests")
        other = {"authorization": "Bearer gr-another"}
        assert client.get("/v1/models", headers=other).headers["x-ratelimit-remaining-requests"] == "3"


# --- about the server ------------------------------------------------------------------------------


def test_ready_waits_for_the_models_that_are_preloaded(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        running.knobs.state = "warming"
        response = client.get("/ready")
        assert (response.status_code, response.json()["models"]) == (503, {"fake": "warming"})
        assert client.get("/health").status_code == 200
        running.knobs.state = "ready"
        assert client.get("/ready").status_code == 200
        running.knobs.state = "cold"  # it had to make room
        assert client.get("/ready").status_code == 200


def test_metrics_count(client: httpx.Client) -> None:
    def value(line: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return next((float(each.rsplit(" ", 1)[1]) for each in lines if each.startswith(line)), 0.0)

    good = 'unmask_requests_total{path="/v1/embeddings",status="200"}'
    before, tokens = value(good), value('unmask_tokens_total{model="fake"}')
    embed(client, "12345")
    assert value(good) == before + 1
    assert value('unmask_tokens_total{model="fake"}') == tokens + 5
    assert value('unmask_request_seconds_bucket{le="+Inf",path="/v1/embeddings"}') >= before + 1
    client.get("/no/such/path/with/a/secret")
    assert value('unmask_requests_total{path="unknown",status="404"}') >= 1
    assert value('unmask_model_ready{model="fake"}') == 1


def test_the_openapi_document_is_the_committed_one(client: httpx.Client) -> None:
    served = client.get("/v1/openapi.json").json()
    path = ROOT / "docs" / "openapi.json"
    if os.environ.get("UNMASK_WRITE_OPENAPI"):
        path.write_text(json.dumps(served, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == served, "UNMASK_WRITE_OPENAPI=1 pytest … writes it anew"


def test_the_docs_page_loads_nothing_and_names_everything(client: httpx.Client) -> None:
    response = client.get("/docs")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "<script" not in response.text
    assert "src=" not in response.text
    assert "//" not in response.text
    for path in client.get("/v1/openapi.json").json()["paths"]:
        assert path in response.text


def test_head_and_options(client: httpx.Client) -> None:
    assert client.head("/health").content == b""
    assert client.options("/v1/embeddings").status_code == 405


# --- OpenAI's client -------------------------------------------------------------------------------


def test_openais_client_works_unchanged(running: Running, client: httpx.Client) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=2) as api:
        answer = api.embeddings.create(model="fake", input=["one", "two"], dimensions=16)
        np.testing.assert_array_equal(
            np.array([row.embedding for row in answer.data], dtype=np.float32),
            vectors(client, ["one", "two"], dimensions=16).astype(np.float32),
        )
        assert [model.id for model in api.models.list()] == ["fake"]
        assert api.models.retrieve("fake").id == "fake"
        with pytest.raises(openai.BadRequestError) as bad:
            api.embeddings.create(model="fake", input="")
        assert bad.value.param == "input"
        with pytest.raises(openai.NotFoundError) as unknown:
            api.embeddings.create(model="gpt", input="a")
        assert unknown.value.code == "model_not_found"


def test_openais_client_tries_again_when_told_to(running: Running, client: httpx.Client) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=2) as api:
        running.knobs.failures += [QueueFullError("Full.", retry_after=0.01), ModelColdError("Cold.", retry_after=0.01)]
        api.embeddings.create(model="fake", input="a")
        assert len(running.knobs.asked) == 3
        running.knobs.failures += [EncodingFailedError("No.")] * 3
        with pytest.raises(openai.InternalServerError):
            api.embeddings.create(model="fake", input="a")
        assert len(running.knobs.asked) == 4
        running.knobs.failures.clear()

"""The clients that people have, unchanged, against ``unmask serve`` with real workers on tiny models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from tests.integration.test_api_support import KEY, Unmask, wait_until
from tests.mteb_tasks import LocalSTS
from tests.npm import folder_with_openai, run_script
from tests.tiny import write_base
from unmask import Encoder

TEXTS = ["A short text", "the library opens every morning " * 9, "图书馆每天早上开门。", "🙂🚲🏔️", "two\nlines"]
#: For a request that more than fills half of the queue.
MANY = [f"text {number} of quite a few, one like another" for number in range(60)]
WAIT = {"prefer": "wait=60"}


@dataclass(frozen=True)
class Api:
    """A server, and the model that it serves as ``tiny``, in this process."""

    server: Unmask
    encoder: Encoder

    @property
    def url(self) -> str:
        return f"{self.server.url}/v1"

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(**({"base_url": self.url, "api_key": KEY} | options))

    def asynchronous(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**({"base_url": self.url, "api_key": KEY} | options))

    def check(self, vectors: Any, texts: Sequence[str] = TEXTS, *, least: float = 0.99999, **options: Any) -> None:
        """Hold vectors to those of the encoder."""
        expected = self.encoder.encode(texts, normalize=True, **options)
        found: NDArray[np.float64] = np.asarray(vectors, dtype=np.float64)
        assert found.shape == expected.shape
        assert (found * expected).sum(-1).min() >= least
        np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)

    def count(self, status: int) -> float:
        """Return how many requests for embeddings were answered so."""
        label = f'unmask_requests_total{{path="/v1/embeddings",status="{status}"}}'
        lines = httpx.get(f"{self.server.url}/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(label)), 0.0)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    root = tmp_path_factory.mktemp("clients")
    tiny, other = write_base(root / "tiny"), write_base(root / "other", seed=1)
    encoder = Encoder.load(tiny, device="cpu")
    size = sum(each.numel() * each.element_size() for each in encoder.backbone.model.parameters())
    models: dict[str, dict[str, Any]] = {
        "tiny": {"source": str(tiny)},
        "other": {"source": str(other), "preload": False},
    }
    # Room for one of the two models, and for not quite two of the large requests.
    limits = {"memory_bytes": size * 3 // 2, "queue_tokens": 2000}
    with Unmask(root, models, keys=f"{KEY},gr-other", **limits) as server:
        yield Api(server, encoder)


# --- OpenAI's own ----------------------------------------------------------------------------------


def test_every_form_of_input_by_default_and_as_floats(api: Api) -> None:
    with api.client() as client, api.server.client(KEY) as plain:
        rows = plain.post("/v1/tokenize", json={"model": "tiny", "input": TEXTS}).json()["data"]
        tokens = [row["tokens"] for row in rows]
        for format_ in (openai.NOT_GIVEN, "float", "base64"):
            for given in (TEXTS, tokens):
                answer = client.embeddings.create(model="tiny", input=given, encoding_format=format_)  # type: ignore[arg-type]
                if format_ == "base64":
                    assert all(isinstance(row.embedding, str) for row in answer.data)
                    continue
                api.check([row.embedding for row in answer.data])
                assert answer.usage.prompt_tokens == sum(map(len, tokens))
            for text, ids in zip(TEXTS, tokens, strict=True):
                alone = [client.embeddings.create(model="tiny", input=given) for given in (text, ids)]
                api.check([answer.data[0].embedding for answer in alone], [text] * 2)
        raw = client.embeddings.with_raw_response.create(model="tiny", input="asked for as it comes")
        assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str), "base64 is what the client asks for"
        cut = client.embeddings.create(model="tiny", input=TEXTS, dimensions=16)
        api.check([row.embedding for row in cut.data], dimensions=16)


def test_many_at_a_time_by_the_asynchronous_client(api: Api) -> None:
    async def work() -> None:
        async with api.asynchronous() as client:
            asked = (client.embeddings.create(model="tiny", input=TEXTS[n % 5 :]) for n in range(30))
            for number, answer in enumerate(await asyncio.gather(*asked)):
                api.check([row.embedding for row in answer.data], TEXTS[number % 5 :])
            assert [model.id async for model in client.models.list()] == ["tiny", "other"]

    asyncio.run(work())


def test_each_error_is_of_its_class(api: Api) -> None:
    with api.client(api_key="gr-wrong") as stranger, pytest.raises(openai.AuthenticationError) as unknown:
        stranger.embeddings.create(model="tiny", input="a")
    assert unknown.value.code == "invalid_api_key"
    with api.client() as client:
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="gpt", input="a")
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        for given in ("", [], [10**6], TEXTS * 500):
            with pytest.raises(openai.BadRequestError) as bad:
                client.embeddings.create(model="tiny", input=given)
            assert str(bad.value.param).startswith("input")
        with pytest.raises(openai.BadRequestError, match="1 to 64"):
            client.embeddings.create(model="tiny", input="a", dimensions=65)


def test_a_full_queue_is_asked_again_by_the_client_itself(api: Api) -> None:
    async def ask(retries: int) -> list[Any]:
        async with api.asynchronous(max_retries=retries) as client:
            asked = (client.embeddings.create(model="tiny", input=MANY) for _ in range(8))
            return await asyncio.gather(*asked, return_exceptions=True)

    refused = [answer for answer in asyncio.run(ask(0)) if isinstance(answer, Exception)]
    assert {type(error) for error in refused} == {openai.RateLimitError}
    assert {getattr(error, "code", None) for error in refused} == {"rate_limit_exceeded"}
    before = api.count(429)
    for answer in asyncio.run(ask(20)):
        api.check([row.embedding for row in answer.data], MANY)
    assert api.count(429) > before


def test_a_cold_model_is_asked_again_by_the_client_itself(api: Api) -> None:
    with api.client(max_retries=0) as client:
        for model in ("other", "tiny"):  # each makes the other one cold
            client.embeddings.create(model=model, input="a", extra_headers=WAIT)
        with pytest.raises(openai.InternalServerError) as cold:
            client.embeddings.create(model="other", input="a")
        assert (cold.value.status_code, cold.value.code) == (503, "model_cold")
        client.embeddings.create(model="other", input="a", extra_headers=WAIT)
    with api.client(max_retries=10) as client:
        raw = client.embeddings.with_raw_response.create(model="tiny", input=TEXTS)
        assert raw.retries_taken >= 1
        api.check([row.embedding for row in raw.parse().data])


def test_a_batch(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    bodies = [{"model": "tiny", "input": text} for text in TEXTS]
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": body}
        for number, body in enumerate(bodies)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with api.client() as client:
        file = client.files.create(file=path, purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        wait_until(lambda: client.batches.retrieve(batch.id).status == "completed")
        output = client.batches.retrieve(batch.id).output_file_id
        assert output is not None
        answers = [json.loads(line) for line in client.files.content(output).text.splitlines()]
        answers.sort(key=lambda answer: int(answer["custom_id"]))
        api.check([answer["response"]["body"]["data"][0]["embedding"] for answer in answers])
    with api.client(api_key="gr-other") as other, pytest.raises(openai.NotFoundError):
        other.batches.retrieve(batch.id)


SCRIPT = """
import OpenAI, { toFile } from "openai";

const { baseURL, apiKey, texts, tokens, many, lines } = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 20 });
const hasty = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const stranger = new OpenAI({ baseURL, apiKey: "gr-wrong" });

const vectors = async (body, from = client) =>
  (await from.embeddings.create({ model: "tiny", ...body })).data.map((row) => row.embedding);
const failure = async (work) => {
  try { await work; } catch (error) { return [error.constructor.name, error.status, error.code]; }
};
const crowd = (from) => Promise.allSettled(Array.from({ length: 8 }, () => vectors({ input: many }, from)));

const found = {
  cold: await vectors({ input: texts }),
  floats: await vectors({ input: texts, encoding_format: "float" }),
  tokens: await vectors({ input: tokens }),
  one: await vectors({ input: texts[0] }),
  ids: await vectors({ input: tokens[0] }),
  cut: await vectors({ input: texts, dimensions: 16 }),
  models: (await client.models.list()).data.map((model) => model.id),
  failures: [
    await failure(vectors({ input: "a" }, stranger)),
    await failure(vectors({ input: "a", model: "gpt" })),
    await failure(vectors({ input: "" })),
  ],
  refused: (await crowd(hasty)).filter((each) => each.reason).map((each) => each.reason.constructor.name),
  taken: (await crowd(client)).map((each) => each.value),
};

const file = await client.files.create({ file: await toFile(Buffer.from(lines), "in.jsonl"), purpose: "batch" });
const window = { endpoint: "/v1/embeddings", completion_window: "24h" };
let batch = await client.batches.create({ input_file_id: file.id, ...window });
while (!batch.output_file_id) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  batch = await client.batches.retrieve(batch.id);
}
found.batch = await (await client.files.content(batch.output_file_id)).text();
console.log(JSON.stringify(found));
"""


def test_the_client_for_javascript(api: Api, pytestconfig: pytest.Config) -> None:
    folder = folder_with_openai(pytestconfig)
    with api.client() as client, api.server.client(KEY) as plain:
        rows = plain.post("/v1/tokenize", json={"model": "tiny", "input": TEXTS}).json()["data"]
        client.embeddings.create(model="other", input="a", extra_headers=WAIT)  # from now on, tiny is cold
    line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "tiny", "input": TEXTS}}
    told = {
        "baseURL": api.url,
        "apiKey": KEY,
        "texts": TEXTS,
        "tokens": [row["tokens"] for row in rows],
        "many": MANY,
        "lines": json.dumps(line) + "\n",
    }
    before = api.count(503)
    found = json.loads(run_script(folder, "clients", SCRIPT, json.dumps(told)))
    assert api.count(503) > before, "a cold model is asked again by the client itself"
    for form in ("cold", "floats", "tokens"):
        api.check(found[form])
    for form in ("one", "ids"):
        api.check(found[form], TEXTS[:1])
    api.check(found["cut"], dimensions=16)
    assert found["models"] == ["tiny", "other"]
    assert found["failures"] == [
        ["AuthenticationError", 401, "invalid_api_key"],
        ["NotFoundError", 404, "model_not_found"],
        ["BadRequestError", 400, "empty_string"],
    ]
    assert set(found["refused"]) == {"RateLimitError"}
    for vectors in found["taken"]:
        api.check(vectors, MANY)
    batch = json.loads(found["batch"])["response"]["body"]["data"]
    api.check([row["embedding"] for row in batch])


# --- what stands on it -----------------------------------------------------------------------------


def test_langchain(api: Api) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    # Else it sends numbers of tokens of another vocabulary.
    options = {"model": "tiny", "base_url": api.url, "api_key": KEY, "check_embedding_ctx_length": False}
    with httpx.Client() as http:
        embeddings = langchain.OpenAIEmbeddings(**options, http_client=http)
        api.check(embeddings.embed_documents(TEXTS))
        api.check([embeddings.embed_query(text) for text in TEXTS])

    async def work() -> None:
        async with httpx.AsyncClient() as http:
            embeddings = langchain.OpenAIEmbeddings(**options, http_async_client=http)
            api.check([*await embeddings.aembed_documents(TEXTS), await embeddings.aembed_query("a")], [*TEXTS, "a"])

    asyncio.run(work())


def test_llama_index(api: Api) -> None:
    llama_index = pytest.importorskip(
        "llama_index.embeddings.openai", reason="llama-index-embeddings-openai is not installed"
    )
    options = {"model_name": "tiny", "api_base": api.url, "api_key": KEY}
    texts = [text.replace("\n", " ") for text in TEXTS]  # so it does itself
    with httpx.Client() as http:
        embedding = llama_index.OpenAIEmbedding(**options, http_client=http)
        api.check(embedding.get_text_embedding_batch(TEXTS), texts)
        api.check([embedding.get_query_embedding(TEXTS[0])], texts[:1])

    async def work() -> None:
        async with httpx.AsyncClient() as http:
            embedding = llama_index.OpenAIEmbedding(**options, async_http_client=http)
            api.check(await embedding.aget_text_embedding_batch(TEXTS), texts)

    asyncio.run(work())


def test_mteb(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wrapper of OpenAI's API, through the whole of its protocol."""
    import mteb
    import tiktoken
    from scipy.stats import spearmanr

    # It counts tokens by an encoding that would have to be fetched; one a byte cuts nothing here either.
    each_byte = tiktoken.Encoding(
        "bytes", pat_str=r"(?s:.)", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", each_byte)
    meta = mteb.get_model_meta("openai/text-embedding-3-small").model_copy(
        update={"name": "ours/tiny", "embed_dim": 64}
    )
    with api.client() as client:
        model = meta.load_model(embed_dim=64, client=client)
        result = mteb.evaluate(model, LocalSTS(), cache=None, co2_tracker=False, show_progress_bar=False)
    left, right, scores = zip(*LocalSTS.rows, strict=True)
    cosines = (api.encoder.encode(left, normalize=True) * api.encoder.encode(right, normalize=True)).sum(-1)
    found = result.task_results[0].scores["test"][0]["cosine_spearman"]
    assert found == pytest.approx(spearmanr(cosines, scores).statistic)

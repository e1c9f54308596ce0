"""Requests that are paid for, from the outside: who is let in, what is charged, and what never is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.integration.test_api_support import wait_until
from tests.integration.test_hosting_support import BATCH_COST, COST, MODEL, TEXT, Customer, Hosted, embed, hosted
from unmask.errors import EncodingFailedError, QueueFullError
from unmask.gateway.accounts.audit import audit
from unmask.gateway.db.errors import DatabaseUnavailableError

pytest_plugins = ("tests.databases",)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    with hosted(tmp_path_factory.mktemp("gateway")) as running:
        yield running
        assert not running.do(audit(running.gateway.database)).findings


@pytest.fixture(autouse=True)
def _calm(gateway: Hosted) -> None:
    gateway.knobs.seconds = 0.0
    gateway.knobs.failures.clear()
    gateway.knobs.asked.clear()


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


def test_openais_client_is_answered_and_charged_to_the_millionth(gateway: Hosted) -> None:
    customer = gateway.customer(credit=100)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=customer.secret, max_retries=0)
    found = client.embeddings.create(model=MODEL, input=[TEXT, TEXT])
    assert len(found.data) == 2
    assert found.usage.total_tokens == 800
    assert gateway.settled(customer) == 100 - 2 * COST
    (charge, _) = gateway.do(gateway.gateway.ledger.entries(customer.id))
    assert (charge.kind, charge.amount, charge.model, charge.units) == ("charge", -2 * COST, MODEL, 800)
    assert charge.key_id == customer.key.id


def test_the_batch_tier_costs_less(gateway: Hosted) -> None:
    customer = gateway.customer(credit=100)
    with gateway.client(customer) as client:
        assert embed(client, **{"x-tier": "batch"}).status_code == 200
    assert gateway.settled(customer) == 100 - BATCH_COST


@pytest.mark.parametrize(
    "key",
    [None, "gr-nobody", "gr-" + "a" * 38, "sk-0123456789abcdef"],
)
def test_a_key_that_is_none_opens_nothing(gateway: Hosted, key: str | None) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=gateway.url, headers=headers) as client:
        error = refused(embed(client), 401, "invalid_api_key")
        refused(client.get("/v1/models"), 401, "invalid_api_key")
    assert key is None or key not in error["message"]
    assert not gateway.knobs.asked


def test_a_revoked_key_opens_nothing_from_then_on(gateway: Hosted) -> None:
    customer = gateway.customer()
    with gateway.client(customer) as client:
        assert embed(client).status_code == 200
        gateway.do(gateway.gateway.keyring.revoke(customer.id, customer.key.id))
        error = refused(embed(client), 401, "invalid_api_key")
    assert customer.secret not in error["message"]


def test_out_of_credit_is_402_and_not_to_be_tried_again(gateway: Hosted) -> None:
    customer = gateway.customer(credit=COST - 1)
    with gateway.client(customer) as client:
        response = embed(client)
    refused(response, 402, "insufficient_credit")
    assert response.headers["x-should-retry"] == "false"
    assert not gateway.knobs.running
    assert gateway.balance(customer) == (COST - 1, 0)
    with pytest.raises(openai.APIStatusError) as caught:
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=customer.secret).embeddings.create(model=MODEL, input=TEXT)
    assert caught.value.status_code == 402
    assert len(gateway.knobs.asked) == 2  # each was tokenised once, and OpenAI's client did not try again


@pytest.mark.parametrize("slow", [0.0, 0.1])
def test_credit_for_ten_serves_exactly_ten_of_sixty_four(gateway: Hosted, slow: float) -> None:
    gateway.knobs.seconds = slow
    customer = gateway.customer(credit=10 * COST + COST - 1)
    with gateway.client(customer) as client, ThreadPoolExecutor(64) as pool:
        statuses = sorted(response.status_code for response in pool.map(lambda _: embed(client), range(64)))
    assert statuses == [200] * 10 + [402] * 54
    assert gateway.settled(customer) == COST - 1


FAILURES: dict[str, tuple[Callable[[], Exception], int]] = {
    "a worker fails": (lambda: EncodingFailedError("Text 0 failed."), 500),
    "the queue is full": (lambda: QueueFullError("Full.", retry_after=1.0), 429),
    "a defect": (lambda: RuntimeError("a defect"), 500),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_is_not_answered_is_not_billed(gateway: Hosted, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, status = FAILURES[failure]
    customer = gateway.customer(credit=100)
    embed_well = gateway.engine.embed

    async def fails_after_it_was_let_in(*arguments: Any, **options: Any) -> Any:
        await embed_well(*arguments, **options)
        held.append(await gateway.gateway.ledger.balance(customer.id))
        raise make()

    held: list[Any] = []
    monkeypatch.setattr(gateway.engine, "embed", fails_after_it_was_let_in)
    with gateway.client(customer) as client:
        assert embed(client).status_code == status
    assert held[0].held == COST
    assert gateway.settled(customer) == 100
    assert [entry.kind for entry in gateway.do(gateway.gateway.ledger.entries(customer.id))] == ["top_up"]


def test_a_caller_who_hangs_up_is_not_billed(gateway: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = gateway.customer(credit=100)
    embed_well = gateway.engine.embed

    async def slow_after_it_was_let_in(*arguments: Any, **options: Any) -> Any:
        result = await embed_well(*arguments, **options)
        gateway.knobs.seconds = 30
        await embed_well(*arguments, **options | {"admit": None})
        return result

    monkeypatch.setattr(gateway.engine, "embed", slow_after_it_was_let_in)
    cancelled = gateway.knobs.cancelled
    with gateway.client(customer) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/embeddings", json={"model": MODEL, "input": TEXT}, timeout=0.3)
    wait_until(lambda: gateway.knobs.cancelled > cancelled)
    assert gateway.settled(customer) == 100


def test_an_idempotency_key_makes_a_retry_free(gateway: Hosted) -> None:
    customer = gateway.customer(credit=100)
    with gateway.client(customer, **{"idempotency-key": "order 1"}) as client:
        first = embed(client)
        assert gateway.settled(customer) == 100 - COST
        asked = len(gateway.knobs.asked)
        again = embed(client)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        refused(embed(client, "another text"), 422, "idempotency_mismatch")
        refused(embed(client, **{"x-tier": "batch"}), 422, "idempotency_mismatch")
    other = gateway.customer(credit=100)
    with gateway.client(other, **{"idempotency-key": "order 1"}) as client:
        assert "idempotent-replayed" not in embed(client).headers
    assert gateway.settled(customer) == 100 - COST
    assert gateway.settled(other) == 100 - COST
    assert len(gateway.knobs.asked) > asked


def test_of_two_at_once_with_one_idempotency_key_one_is_answered(
    gateway: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = gateway.customer(credit=100)
    embed_well = gateway.engine.embed

    let_in, go_on = threading.Event(), threading.Event()

    async def waits_after_it_was_let_in(*arguments: Any, **options: Any) -> Any:
        result = await embed_well(*arguments, **options)
        let_in.set()
        await asyncio.to_thread(go_on.wait)
        return result

    monkeypatch.setattr(gateway.engine, "embed", waits_after_it_was_let_in)
    with gateway.client(customer, **{"idempotency-key": "order 2"}) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(embed, client)
        assert let_in.wait(20)
        refused(embed(client), 409, "idempotency_in_progress")
        go_on.set()
        assert first.result().status_code == 200
    assert gateway.settled(customer) == 100 - COST


@pytest.mark.parametrize("gone", ["write", "read"])
def test_nothing_is_free_when_the_database_is_away(gateway: Hosted, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known, unknown = gateway.customer(credit=100), gateway.customer(credit=100)
    with gateway.client(known) as client:
        assert embed(client).status_code == 200
    gateway.settled(known)

    async def away(*_: Any, **__: Any) -> Any:
        raise DatabaseUnavailableError("The database sqlite:////secret/path cannot be used now.")

    gateway.knobs.asked.clear()
    running = gateway.knobs.running
    with monkeypatch.context() as patch:
        patch.setattr(gateway.gateway.database, gone, away)
        with gateway.client(unknown if gone == "read" else known) as client:
            response = embed(client)
        error = refused(response, 503, "accounts_unavailable")
    assert "secret" not in error["message"]
    assert int(response.headers["retry-after"]) >= 1
    assert gateway.knobs.running == running
    assert gateway.settled(unknown) == 100


def test_an_answer_is_charged_when_the_database_is_back(gateway: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = gateway.customer(credit=100)
    settle, tries = gateway.gateway.ledger.settle, []

    async def away_twice(*arguments: Any, **options: Any) -> Any:
        tries.append(1)
        if len(tries) <= 2:
            raise DatabaseUnavailableError("away")
        return await settle(*arguments, **options)

    monkeypatch.setattr(gateway.gateway.ledger, "settle", away_twice)
    with gateway.client(customer) as client:
        assert embed(client).status_code == 200
    assert gateway.settled(customer) == 100 - COST
    assert len(tries) == 3


def test_a_key_has_limits_of_its_own(gateway: Hosted) -> None:
    with gateway.client(gateway.limited(requests_per_minute=2)) as client:
        assert [embed(client).status_code for _ in range(2)] == [200, 200]
        response = embed(client)
        assert refused(response, 429, "rate_limit_exceeded")["type"] == "requests"
        assert 1 <= int(response.headers["retry-after"]) <= 30
        assert response.headers["x-ratelimit-limit-requests"] == "2"
    with gateway.client(gateway.limited(tokens_per_minute=399)) as client:
        response = embed(client)
        assert refused(response, 429, "rate_limit_exceeded")["type"] == "tokens"
        assert response.headers["x-should-retry"] == "false"  # it never fits
    with gateway.client(gateway.limited(spend_per_day=COST)) as client:
        assert embed(client).status_code == 200
        assert refused(embed(client), 429, "rate_limit_exceeded")["type"] == "spending"


def test_a_key_may_be_for_some_models_only(gateway: Hosted) -> None:
    with gateway.client(gateway.customer(models=frozenset({"smollm2-135m-sup"}))) as client:
        assert "smollm2-135m-unsup" in refused(embed(client), 403, "model_not_allowed")["message"]
    with gateway.client(gateway.customer(models=frozenset({MODEL}))) as client:
        assert embed(client).status_code == 200


def upload(client: httpx.Client, lines: list[str]) -> str:
    file = {"file": ("in.jsonl", "\n".join(lines).encode())}
    return str(client.post("/v1/files", files=file, data={"purpose": "batch"}).json()["id"])


def line(number: int, model: str = MODEL) -> str:
    return (
        f'{{"custom_id": "{number}", "method": "POST", "url": "/v1/embeddings", '
        f'"body": {{"model": "{model}", "input": "{TEXT}"}}}}'
    )


def begin(client: httpx.Client, file_id: str) -> str:
    body = {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return str(client.post("/v1/batches", json=body).json()["id"])


def ended(client: httpx.Client, batch: str) -> dict[str, Any]:
    wait_until(lambda: client.get(f"/v1/batches/{batch}").json()["status"] == "completed")
    found: dict[str, Any] = client.get(f"/v1/batches/{batch}").json()
    return found


def test_a_batch_is_charged_line_by_line_until_the_credit_is_used_up(gateway: Hosted) -> None:
    customer = gateway.customer(credit=3 * BATCH_COST)
    with gateway.client(customer) as client:
        batch = ended(client, begin(client, upload(client, [line(number) for number in range(5)])))
        assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
        errors = client.get(f"/v1/files/{batch['error_file_id']}/content").text
    assert errors.count("insufficient_credit") == 2
    assert gateway.settled(customer) == 0


def test_files_and_batches_are_their_owners_with_any_of_the_keys(gateway: Hosted) -> None:
    customer, other = gateway.customer(), gateway.customer()
    with gateway.client(customer) as client, gateway.client(other) as theirs:
        file_id = upload(client, [line(0)])
        batch = begin(client, file_id)
        ended(client, batch)
        for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content", f"/v1/batches/{batch}"):
            assert client.get(path).status_code == 200
            assert theirs.get(path).status_code == 404
        assert theirs.delete(f"/v1/files/{file_id}").status_code == 404
        assert theirs.post(f"/v1/batches/{batch}/cancel").status_code == 404
        assert theirs.get("/v1/files").json()["data"] == theirs.get("/v1/batches").json()["data"] == []
        body = {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        assert theirs.post("/v1/batches", json=body).status_code == 404
    new, secret = gateway.do(gateway.gateway.keyring.rotate(customer.id, customer.key.id, overlap_seconds=0))
    with gateway.client(Customer(customer.id, new, secret.reveal())) as client:
        assert client.get(f"/v1/batches/{batch}").status_code == 200


def test_a_batch_spends_nothing_once_its_key_is_revoked(gateway: Hosted) -> None:
    customer = gateway.customer()
    gateway.knobs.failures.append(QueueFullError("Full.", retry_after=0.2))  # so that it is not answered at once
    with gateway.client(customer) as client:
        batch = begin(client, upload(client, [line(0)]))
        gateway.do(gateway.gateway.keyring.revoke(customer.id, customer.key.id))
    new, secret = gateway.do(gateway.gateway.keyring.issue(customer.id, "another"))
    with gateway.client(Customer(customer.id, new, secret.reveal())) as client:
        assert ended(client, batch)["request_counts"]["failed"] == 1
    assert gateway.settled(customer) == 1_000_000


def test_it_is_the_same_on_every_database(url: str, tmp_path: Path) -> None:
    with hosted(tmp_path, database=url) as gateway:
        customer = gateway.customer(credit=10 * COST)
        with gateway.client(customer) as client, ThreadPoolExecutor(16) as pool:
            statuses = sorted(response.status_code for response in pool.map(lambda _: embed(client), range(20)))
        assert statuses == [200] * 10 + [402] * 10
        assert gateway.settled(customer) == 0
        assert not gateway.do(audit(gateway.gateway.database)).findings

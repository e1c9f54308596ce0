"""Files and batches: the whole life of a batch, and that nothing is lost or done twice whatever happens."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.integration.test_api_support import KEY, Process, Running, serving, wait_until
from unmask.errors import EncodingFailedError, ModelColdError, QueueFullError
from unmask.gateway.api import batch_lines, batch_store, file_store
from unmask.gateway.api.batch_schemas import ENDED

Batch = dict[str, Any]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def line(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": "fake", "input": f"text {number}"}
    return {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/embeddings", "body": body} | changes


def post_file(client: httpx.Client, text: str | bytes, **options: Any) -> httpx.Response:
    form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", text)}}
    return client.post("/v1/files", **(form | options))


def upload(client: httpx.Client, lines: Sequence[Any]) -> Any:
    text = "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines)
    response = post_file(client, text)
    assert response.status_code == 200, response.text
    return response.json()["id"]


def start(client: httpx.Client, file_id: str) -> Batch:
    body = {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    response = client.post("/v1/batches", json=body | {"metadata": {"who": "me"}})
    assert response.status_code == 200, response.text
    batch: Batch = response.json()
    return batch


def get(client: httpx.Client, batch: Batch) -> Batch:
    found: Batch = client.get(f"/v1/batches/{batch['id']}").json()
    return found


def ended(client: httpx.Client, batch: Batch) -> Batch:
    wait_until(lambda: get(client, batch)["status"] in ENDED)
    return get(client, batch)


def content(client: httpx.Client, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    response = client.get(f"/v1/files/{file_id}/content")
    assert response.status_code == 200
    return [json.loads(each) for each in response.text.splitlines()]


def run(client: httpx.Client, lines: Sequence[Any]) -> Batch:
    return ended(client, start(client, upload(client, lines)))


# --- files -----------------------------------------------------------------------------------------


def test_a_file_is_kept_listed_fetched_and_deleted(client: httpx.Client) -> None:
    first, second = upload(client, [line(1)]), upload(client, [line(2), line(3)])
    described = client.get(f"/v1/files/{second}").json()
    assert (described["object"], described["purpose"], described["filename"]) == ("file", "batch", "in.jsonl")
    assert described["bytes"] == len(client.get(f"/v1/files/{second}/content").content)
    assert content(client, second) == [line(2), line(3)]
    listed = client.get("/v1/files").json()
    assert {each["id"] for each in listed["data"]} == {first, second}
    assert client.get("/v1/files?purpose=batch_output").json()["data"] == []
    assert client.delete(f"/v1/files/{first}").json() == {"id": first, "object": "file", "deleted": True}
    for path in (f"/v1/files/{first}", f"/v1/files/{first}/content", "/v1/files/..%2f..%2flock"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"data": {"purpose": "fine-tune"}}, "purpose"),
        ({"data": {}}, "purpose"),
        ({"data": {"purpose": "batch", "more": "1"}}, "more"),
        ({"files": {"other": ("in.jsonl", "{}")}}, "file"),
        ({"files": {"file": ("in.jsonl", "")}}, "file"),
    ],
)
def test_a_form_that_is_wrong_is_refused(client: httpx.Client, options: dict[str, Any], param: str) -> None:
    response = post_file(client, "{}\n", **options)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert client.get("/v1/files").json()["data"] == []


def test_what_is_no_form_is_refused(client: httpx.Client) -> None:
    assert client.post("/v1/files", json={}).status_code == 415
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        response = client.post("/v1/files", content=b"nothing of the kind", headers={"content-type": kind})
        assert response.status_code == 400, response.text


def test_a_file_beyond_the_limit_is_413(tmp_path: Path) -> None:
    with serving(tmp_path, file_bytes=10) as running, running.client() as client:
        assert post_file(client, "x" * 200_000).status_code == 413
        assert list((tmp_path / "files").iterdir()) == []


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    with serving(tmp_path, api_keys=(KEY, "gr-other")) as running:
        with running.client(KEY) as mine, running.client("gr-other") as other:
            file_id = upload(mine, [line(1)])
            batch = ended(mine, start(mine, file_id))
            for path in (f"/v1/files/{file_id}", f"/v1/batches/{batch['id']}", f"/v1/files/{batch['output_file_id']}"):
                assert mine.get(path).status_code == 200
                assert other.get(path).status_code == 404
            assert other.get("/v1/files").json()["data"] == other.get("/v1/batches").json()["data"] == []
            assert other.delete(f"/v1/files/{file_id}").status_code == 404
            body = {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
            assert other.post("/v1/batches", json=body).status_code == 404
        assert {each.caller for each in running.knobs.asked} == {running.knobs.asked[0].caller}


# --- the life of a batch ---------------------------------------------------------------------------


def test_a_batch_from_its_start_to_its_output(running: Running, client: httpx.Client) -> None:
    lines = [line(number) for number in range(150)]
    lines[7]["body"]["input"] = ""
    lines[8]["body"]["model"] = "other"
    lines[9]["body"]["encoding_format"] = "base64"
    batch = start(client, upload(client, lines))
    assert (batch["object"], batch["status"], batch["metadata"]) == ("batch", "validating", {"who": "me"})
    assert batch["expires_at"] - batch["created_at"] == 86_400
    batch = ended(client, batch)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 150, "completed": 148, "failed": 2}
    times = [batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
    assert times == sorted(times)
    output = {each["custom_id"]: each for each in content(client, batch["output_file_id"])}
    assert len(output) == 148
    answer = output["id-3"]
    assert set(answer) == {"id", "custom_id", "response", "error"}
    assert (answer["error"], answer["response"]["status_code"]) == (None, 200)
    assert answer["response"]["request_id"]
    alone = client.post("/v1/embeddings", json=lines[3]["body"]).json()
    assert answer["response"]["body"] == alone
    assert isinstance(output["id-9"]["response"]["body"]["data"][0]["embedding"], str)
    errors = {each["custom_id"]: each["response"] for each in content(client, batch["error_file_id"])}
    assert {name: error["status_code"] for name, error in errors.items()} == {"id-7": 400, "id-8": 404}
    assert errors["id-8"]["body"]["error"]["code"] == "model_not_found"
    of_batch = running.knobs.asked[:-1]
    assert {each.priority for each in of_batch} == {"batch"}
    described = client.get(f"/v1/files/{batch['output_file_id']}").json()
    assert (described["purpose"], described["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("{", "invalid_json_line"),
        ("[]", "invalid_json_line"),
        (line(1, custom_id="id-0"), "duplicate_custom_id"),
        (line(1, custom_id=None), "invalid_custom_id"),
        (line(1, custom_id=""), "invalid_custom_id"),
        (line(1, method="GET"), "invalid_method"),
        (line(1, url="/v1/rerank"), "invalid_url"),
        (line(1, body="text"), "invalid_body"),
    ],
)
def test_a_file_with_a_bad_line_fails_and_says_where(
    running: Running, client: httpx.Client, bad: Any, code: str
) -> None:
    batch = run(client, [line(0), "", bad, line(2)])
    assert batch["status"] == "failed"
    assert [(each["code"], each["line"]) for each in batch["errors"]["data"]] == [(code, 3)]
    assert batch["output_file_id"] is None
    assert running.knobs.asked == []


DEEP = b'{"custom_id":"a","body":' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    "bad",
    [b'{"custom_id":"\xff"}', b'{"custom_id":"\\ud800"}', b'{"custom_id":"a","body":{"a":NaN}}', DEEP, b"\x00"],
    ids=["not UTF-8", "half a character", "NaN", "deep", "NUL"],
)
def test_a_line_that_is_no_json_fails_the_file_and_the_server_lives(
    running: Running, client: httpx.Client, bad: bytes
) -> None:
    text = b"\n".join([json.dumps(line(0)).encode(), bad, json.dumps(line(1)).encode()])
    batch = ended(client, start(client, post_file(client, text).json()["id"]))
    assert batch["status"] == "failed"
    assert [(each["code"], each["line"]) for each in batch["errors"]["data"]] == [("invalid_json_line", 2)]
    assert running.knobs.asked == []
    assert run(client, [line(0)])["status"] == "completed"


def test_a_request_beyond_the_limits_fails_alone(client: httpx.Client) -> None:
    lines = [line(number) for number in range(6)]
    lines[1]["body"]["input"] = ["a"] * 2049
    lines[2]["body"]["input"] = ["a" * 500] * 600 + ["b"]
    lines[3]["body"]["input"] = [[1], "a"]
    lines[4]["body"]["input"] = "a" * 600
    lines[4]["body"]["truncate"] = False
    batch = run(client, lines)
    assert batch["request_counts"] == {"total": 6, "completed": 2, "failed": 4}
    found = {each["custom_id"]: each["response"] for each in content(client, batch["error_file_id"])}
    assert {each["status_code"] for each in found.values()} == {400}
    codes = [found[f"id-{number}"]["body"]["error"]["code"] for number in (1, 2, 3, 4)]
    assert codes == ["array_above_max_length", "max_tokens_per_request", "invalid_type", None]


def test_too_many_requests_fail(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_lines.MAX_REQUESTS == 50_000
    monkeypatch.setattr(batch_lines, "MAX_REQUESTS", 10)
    assert run(client, [line(number) for number in range(10)])["status"] == "completed"
    assert run(client, [line(number) for number in range(11)])["errors"]["data"][0]["code"] == "too_many_requests"
    assert run(client, [""])["errors"]["data"][0]["code"] == "empty_file"


def test_what_passes_by_itself_is_waited_for(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.knobs.failures += [QueueFullError("Full.", retry_after=0.05), ModelColdError("Cold.", retry_after=0.05)]
    running.knobs.failures += [EncodingFailedError("Text 0."), ValueError("a bug")]
    batch = run(client, [line(number) for number in range(5)])
    assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
    codes = {each["response"]["body"]["error"]["code"] for each in content(client, batch["error_file_id"])}
    assert codes == {"encoding_failed", "internal_error"}


def test_a_model_that_cannot_be_loaded_is_not_waited_for(running: Running, client: httpx.Client) -> None:
    running.knobs.state = "failed"
    running.knobs.failures.append(ModelColdError("It could not be loaded.", retry_after=3600))
    batch = run(client, [line(0)])
    assert batch["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    assert content(client, batch["error_file_id"])[0]["response"]["status_code"] == 503


def test_a_batch_can_be_cancelled_and_keeps_what_is_done(running: Running, client: httpx.Client) -> None:
    running.knobs.seconds = 0.05
    file_id = upload(client, [line(number) for number in range(600)])
    batch = start(client, file_id)
    wait_until(lambda: get(client, batch)["request_counts"]["completed"] > 100)
    running.knobs.seconds = 600  # what is asked from now on is not waited for
    wait_until(lambda: len(running.knobs.asked) == get(client, batch)["request_counts"]["completed"] + 64)
    assert client.delete(f"/v1/files/{file_id}").status_code == 400
    cancelled = client.post(f"/v1/batches/{batch['id']}/cancel").json()
    assert cancelled["status"] in {"cancelling", "cancelled"}
    batch = ended(client, batch)
    assert batch["status"] == "cancelled"
    assert batch["cancelling_at"] <= batch["cancelled_at"]
    done, undone = content(client, batch["output_file_id"]), content(client, batch["error_file_id"])
    assert 100 < len(done) < 600
    assert len({each["custom_id"] for each in [*done, *undone]}) == 600
    assert {each["error"]["code"] for each in undone} == {"batch_cancelled"}
    assert batch["request_counts"] == {"total": 600, "completed": len(done), "failed": len(undone)}
    wait_until(lambda: running.knobs.running == 0)
    assert client.post(f"/v1/batches/{batch['id']}/cancel").status_code == 400
    assert client.delete(f"/v1/files/{file_id}").status_code == 200


def test_a_batch_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_store, "WINDOW_SECONDS", 2)
    with serving(tmp_path) as running, running.client() as client:
        running.knobs.seconds = 0.3
        batch = run(client, [line(number) for number in range(1000)])
        assert batch["status"] == "expired"
        undone = content(client, batch["error_file_id"])
        assert {each["error"]["code"] for each in undone} == {"batch_expired"}
        assert len(undone) + len(content(client, batch["output_file_id"])) == 1000


def test_lists_come_in_pages(client: httpx.Client) -> None:
    made = [run(client, [line(number)])["id"] for number in range(3)]
    first = client.get("/v1/batches?limit=2").json()
    assert first["has_more"]
    second = client.get(f"/v1/batches?limit=2&after={first['last_id']}").json()
    assert not second["has_more"]
    assert sorted(each["id"] for each in [*first["data"], *second["data"]]) == sorted(made)
    for query in ("limit=0", "limit=101", "limit=x", "limit=", "after=no", "order=up"):
        assert client.get(f"/v1/batches?{query}").status_code == 400, query
    assert client.get("/v1/batches?order=asc").json()["data"] == client.get("/v1/batches").json()["data"][::-1]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"input_file_id": "file-none"}, 404),
        ({"endpoint": "/v1/rerank"}, 400),
        ({"completion_window": "1h"}, 400),
        ({"metadata": {"a": 1}}, 400),
        ({"metadata": {str(number): "" for number in range(17)}}, 400),
    ],
)
def test_a_batch_that_cannot_be_is_refused(client: httpx.Client, change: dict[str, Any], status: int) -> None:
    body = {"input_file_id": upload(client, [line(1)]), "endpoint": "/v1/embeddings", "completion_window": "24h"}
    assert client.post("/v1/batches", json=body | change).status_code == status
    assert client.get("/v1/batches").json()["data"] == []


def test_openais_client_runs_a_batch(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(line(number)) + "\n" for number in range(3)))
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as api:
        file = api.files.create(file=path, purpose="batch")
        batch = api.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        wait_until(lambda: api.batches.retrieve(batch.id).status == "completed")
        output = api.batches.retrieve(batch.id).output_file_id
        assert output is not None
        assert len(api.files.content(output).text.splitlines()) == 3
        assert [each.id for each in api.batches.list(limit=1)] == [batch.id]
        assert {each.id for each in api.files.list(limit=1)} == {file.id, output}
        assert api.files.delete(file.id).deleted


# --- whatever happens ------------------------------------------------------------------------------


def check_whole(client: httpx.Client, batch: Batch, total: int) -> None:
    """Every request has one answer, and the counts say so."""
    assert batch["status"] == "completed"
    seen = Counter(each["custom_id"] for each in content(client, batch["output_file_id"]))
    assert seen == Counter(f"id-{number}" for number in range(total))
    assert batch["request_counts"] == {"total": total, "completed": total, "failed": 0}


def test_killed_and_started_again_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    total = 1500
    with Process(tmp_path, 0.05) as server, server.client() as client:
        batch = start(client, upload(client, [line(number) for number in range(total)]))
        wait_until(lambda: get(client, batch)["request_counts"]["completed"] > 200)
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
    output = tmp_path / "files" / f"{batch_store.file_ids(batch['id'])[0]}.data"
    done = output.read_bytes().count(b"\n")
    assert 200 < done < total
    with output.open("ab") as file:  # what a power cut leaves of a write
        file.write(b'{"id":"batch_req_1","custom_id":"id-1499","resp')
    with Process(tmp_path, 0.0) as server, server.client() as client:
        check_whole(client, ended(client, batch), total)
        asked = client.get("/metrics").text
        assert server.end(signal.SIGTERM) == 0
    batches = next(each for each in asked.splitlines() if each.startswith("unmask_engine_batches_total"))
    assert float(batches.split()[1]) == 2 * (total - done)  # the recording engine asks the fake one twice


def test_stopped_and_started_again_a_batch_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        running.knobs.seconds = 0.05
        batch = start(client, upload(client, [line(number) for number in range(500)]))
        wait_until(lambda: get(client, batch)["request_counts"]["completed"] > 60)
    assert running.knobs.running == 0
    with serving(tmp_path) as running, running.client() as client:
        check_whole(client, ended(client, batch), 500)


@pytest.mark.parametrize("step", ["before it runs", "while it is finalised", "before it is completed"])
def test_killed_between_two_steps_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """What the disk looks like if the process dies at a step: the step never happens, and a new server comes."""

    def die(*_: Any, **__: Any) -> None:
        raise RuntimeError("the process is dead")

    with monkeypatch.context() as dying:
        owner, name = {
            "before it runs": (batch_store.BatchStore, "move"),
            "while it is finalised": (file_store.FileStore, "publish"),
            "before it is completed": (batch_store.BatchStore, "finish"),
        }[step]
        with serving(tmp_path) as running, running.client() as client:
            file_id = upload(client, [line(number) for number in range(20)])
            dying.setattr(owner, name, die)
            dying.setattr(batch_store.BatchStore, "note", lambda *_: None)
            batch = start(client, file_id)
            wait_until(lambda: running.app._runner.running() == 0)
    with serving(tmp_path) as running, running.client() as client:
        check_whole(client, ended(client, batch), 20)


def test_a_full_disk_fails_the_batch_and_the_server_lives(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.knobs.seconds = 0.01
    original = os.fsync
    calls = [0]

    def fsync(number: int) -> None:
        output = Path(f"/proc/self/fd/{number}").readlink().name.endswith("o.data")
        calls[0] += output
        if output and calls[0] > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(number)

    monkeypatch.setattr(os, "fsync", fsync)
    batch = run(client, [line(number) for number in range(300)])
    assert batch["status"] == "failed"
    assert [each["code"] for each in batch["errors"]["data"]] == ["storage_full"]
    done = content(client, batch["output_file_id"])  # whole lines, as many as are counted
    assert 0 < len(done) == batch["request_counts"]["completed"] < 300
    monkeypatch.undo()
    assert run(client, [line(1)])["status"] == "completed"


def test_a_disk_that_takes_nothing_at_all_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running, running.client() as client:
        file_id = upload(client, [line(number) for number in range(300)])
        running.knobs.seconds = 0.01
        batch = start(client, file_id)
        wait_until(lambda: get(client, batch)["request_counts"]["completed"] > 100)

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            batch = ended(client, batch)  # in memory alone
            assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "storage_full")
            assert client.post("/v1/embeddings", json=line(0)["body"]).status_code == 200
            assert post_file(client, "{}\n").status_code == 507
            body = {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
            assert client.post("/v1/batches", json=body).status_code == 507
        asked = len(running.knobs.asked)
    with serving(tmp_path) as running, running.client() as client:  # there is space again
        check_whole(client, ended(client, batch), 300)
        assert len(running.knobs.asked) < 300 < asked + len(running.knobs.asked)


def test_a_client_who_hangs_up_while_a_file_is_sent_does_no_harm(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        assert client.get("/v1/files").json()["data"] == []
        files = len(list(Path("/proc/self/fd").iterdir()))  # with this client's connection
        head = b"POST /v1/files HTTP/1.1\r\nhost: here\r\ncontent-type: multipart/form-data; boundary=x\r\n"
        part = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"a" * 3_000_000
        with socket.create_connection(running.address) as connection:
            connection.sendall(head + b"content-length: 9000000\r\n\r\n" + part)
        large = post_file(client, "a" * 30_000_000).json()["id"]
        for _ in range(5):
            with socket.create_connection(running.address) as connection:
                connection.sendall(b"GET /v1/files/%b/content HTTP/1.1\r\nhost: here\r\n\r\n" % large.encode())
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert len(client.get(f"/v1/files/{large}/content").content) == 30_000_000
        assert [each["id"] for each in client.get("/v1/files").json()["data"]] == [large]
        wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files)


def test_a_gigabyte_of_a_file_is_refused_before_it_is_sent(running: Running, client: httpx.Client) -> None:
    head = b"POST /v1/files HTTP/1.1\r\nhost: here\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(running.address) as connection:
        connection.settimeout(10)
        connection.sendall(head + b"content-length: 1000000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert run(client, [line(0)])["status"] == "completed"


def test_a_full_disk_refuses_an_upload(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("shutil.copyfileobj", full)
        response = post_file(client, "{}\n")
    assert (response.status_code, response.json()["error"]["code"]) == (507, "storage_full")
    assert response.headers["x-should-retry"] == "false"
    assert list((tmp_path / "files").iterdir()) == []
    upload(client, [line(1)])


def test_a_server_that_starts_sweeps_up_what_is_no_file(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        kept = upload(client, [line(1)])
    (tmp_path / "files" / "file-half.data").write_bytes(b"half an upload")
    (tmp_path / "files" / f"{kept}.json.draft").write_bytes(b"{")
    with serving(tmp_path) as running, running.client() as client:
        assert content(client, kept) == [line(1)]
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [f"{kept}.data", f"{kept}.json"]

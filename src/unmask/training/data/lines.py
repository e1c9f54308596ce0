"""Lines of text files, compressed or not, decoded one by one in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from unmask.errors import InputError

#: Longest line in bytes; a longer one is hardly text, and would have to be held in memory whole.
LONGEST_LINE: Final = 64_000_000
KINDS: Final = (".txt", ".jsonl")
_BOM: Final = b"\xef\xbb\xbf"
_DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


def _open_zstd(path: Path) -> io.BufferedReader:
    # Unlike the zstandard package's reader, pyarrow's says so when the file ends too early.
    stream: Any = pa.input_stream(str(path), compression="zstd")
    return io.BufferedReader(stream)


_COMPRESSIONS: Final[dict[str, Callable[[Path], Any]]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zstd,
}


def split_name(path: Path) -> tuple[str, str]:
    """Return a file's name without its endings, and its kind: one of :data:`KINDS`, or what else it ends in."""
    name = path.name
    if path.suffix.lower() in _COMPRESSIONS:
        name = path.stem
    return Path(name).stem, Path(name).suffix.lower()


def files_at(path: Path) -> list[Path]:
    """Return the file ``path``, or the text files below the folder ``path`` in sorted order, hidden ones left out.

    Raises:
        InputError: there is nothing at ``path``, it is of another kind, or the folder has no such file.
    """
    expected = f"{' or '.join(KINDS)} (also with {', '.join(_COMPRESSIONS)})"
    if path.is_dir():
        below = (file for file in path.rglob("*") if split_name(file)[1] in KINDS and file.is_file())
        files = sorted(file for file in below if not _is_hidden(file.relative_to(path)))
        if not files:
            raise InputError(f"The folder {path} has no text file; expected at least one {expected} in it or below.")
        return files
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a file or folder of texts. Check the path.")
    kind = split_name(path)[1]
    if kind not in KINDS:
        raise InputError(
            f"{path} ends in {kind or 'nothing'!r}; expected {expected}. Convert it, or give the folder of a "
            "Parquet data set as hf:FOLDER."
        )
    return [path]


def read_lines(path: Path) -> Generator[tuple[str, str], None, None]:
    """Yield where each line stands, and the line without its end.

    Raises:
        InputError: the file cannot be read, is damaged or cut short, is not UTF-8, or has a line of more than
            :data:`LONGEST_LINE` bytes. Names the file and the line, counted from 1.
    """
    opener: Callable[[Path], Any] = _COMPRESSIONS.get(path.suffix.lower(), lambda path: path.open("rb"))
    try:
        stream = opener(path)
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read: {reason}. Check its rights, or fetch it again.") from error
    with stream:
        for number in itertools.count(1):
            try:
                line: bytes = stream.readline(LONGEST_LINE + 1)
            except _DAMAGE as error:
                reason = str(error) or type(error).__name__
                raise InputError(
                    f"{path} is damaged after line {number - 1}: {reason}. Fetch or compress it again."
                ) from error
            if not line:
                return
            where = f"{path}, line {number}"
            yield where, _decode(line.removeprefix(_BOM) if number == 1 else line, where)


def _decode(line: bytes, where: str) -> str:
    if len(line) > LONGEST_LINE:
        raise InputError(f"{where}: longer than {LONGEST_LINE:,} bytes; expected a text a line. Split it first.")
    try:
        return line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte {error.start + 1} is 0x{line[error.start]:02x}, which is not UTF-8; expected UTF-8 text. "
            "Convert it, for example with: iconv -t UTF-8"
        ) from error


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)

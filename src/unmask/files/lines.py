"""Lines of text files, compressed or not, decoded one by one in bounded memory.

Every error names the file and the line, counted from 1.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, Final

from unmask.errors import InputError

#: Longest line in bytes; a longer one is hardly text, and would have to be held in memory whole.
LONGEST_LINE: Final = 64_000_000
_BOM: Final = b"\xef\xbb\xbf"
_DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)


def _open_zstd(path: Path) -> io.BufferedReader:
    import pyarrow as pa

    # Unlike the zstandard package's reader, pyarrow's says so when the file ends too early.
    stream: Any = pa.input_stream(str(path), compression="zstd")
    return io.BufferedReader(stream)


#: What a compressed file's name ends in, and what opens it.
COMPRESSIONS: Final[dict[str, Callable[[Path], Any]]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zstd,
}


def split_name(path: Path) -> tuple[str, str]:
    """Return a file's name without its endings, and the ending of its kind: ``a``, ``.jsonl`` of ``a.jsonl.gz``."""
    name = path.stem if path.suffix.lower() in COMPRESSIONS else path.name
    return Path(name).stem, Path(name).suffix.lower()


def open_file(path: Path) -> IO[bytes]:
    """Open a file to be read, decompressed.

    Raises:
        InputError: it cannot be opened.
    """
    opener: Callable[[Path], Any] = COMPRESSIONS.get(path.suffix.lower(), lambda path: path.open("rb"))
    try:
        stream: IO[bytes] = opener(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check its path and rights.") from error
    return stream


def decode_lines(stream: IO[bytes], name: str) -> Iterator[str]:
    """Yield lines as they stand, line ends included; a byte order mark is left out.

    Args:
        stream: as :func:`open_file` returns it.
        name: of the file, for errors.

    Raises:
        InputError: the file is damaged or cut short, is not UTF-8, or has a line of more than
            :data:`LONGEST_LINE` bytes.
    """
    for number in itertools.count(1):
        try:
            line = stream.readline(LONGEST_LINE + 1)
        except _DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise InputError(
                f"{name} is damaged after line {number - 1}: {reason}. Fetch or compress it again."
            ) from error
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise InputError(
                f"{name}, line {number}: longer than {LONGEST_LINE:,} bytes; expected a text a line. Split it first."
            )
        try:
            yield (line.removeprefix(_BOM) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number}: byte {error.start + 1} is 0x{error.object[error.start]:02x}, which is not "
                "UTF-8; expected UTF-8 text. Convert it, for example with: iconv -t UTF-8"
            ) from error


def read_lines(path: Path) -> Generator[tuple[str, str], None, None]:
    """Yield where each line of a file stands, and the line without its end.

    Raises:
        InputError: as :func:`open_file` and :func:`decode_lines`.
    """
    with open_file(path) as stream:
        for number, line in enumerate(decode_lines(stream, str(path)), start=1):
            yield f"{path}, line {number}", line.rstrip("\r\n")

"""The body of an embeddings response → an array, while it arrives.

A response to 2,048 texts has tens of megabytes. Its vectors are decoded one by one, straight into the array that the
caller gets, and their text is dropped at once; what is left, the skeleton, is a few kilobytes of JSON in which numbers
stand for the vectors, and is read as a whole. So there is never more of the text in memory than one vector.

    {"data": [{"index": 0, "embedding": "AACAPw…"}, …], …}  →  array, {"data": [{"index": 0, "embedding": 0}, …], …}

In JSON, ``"embedding"`` with a colon behind it is a key wherever it stands: inside of a string its quotes are escaped.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

_VECTOR: Final = re.compile(rb'"embedding"\s*:\s*(["\[])')
#: Bytes at the end of what has arrived that may be the beginning of a match.
_HELD_BACK: Final = 64
#: Components of a vector, where it is not known how many there are to be.
_LARGEST: Final = 16_384
#: Bytes of a component at most, written as a number in JSON or in base64.
_WIDEST: Final = 32
#: Bytes of the skeleton, and as many more for each vector.
_SKELETON: Final = 65_536
_EACH: Final = 512


class MalformedError(Exception):
    """A response is not as OpenAI's contract wants it; says what is wrong, never what stands there."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """A response.

    Attributes:
        array: ``[N, D]`` float32, in the order of the texts.
        tokens: of all texts, None if the response does not say.
    """

    array: NDArray[np.float32]
    tokens: int | None


class VectorReader:
    """Takes a response piece by piece.

    Args:
        count: vectors that it must have.
        dimension: components of each, None for as many as the first has.
    """

    def __init__(self, count: int, dimension: int | None) -> None:
        self._count = count
        self._dimension = dimension
        self._array: NDArray[np.float32] | None = None
        self._found = 0
        self._buffer = bytearray()
        self._skeleton = bytearray()
        self._most_skeleton = _SKELETON + count * _EACH
        self._most_vector = (dimension or _LARGEST) * _WIDEST + 1024
        self._end: bytes | None = None
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            MalformedError: they cannot belong to such a response.
        """
        self._buffer += data
        while self._take_vector() if self._end else self._find_vector():
            pass

    def finish(self) -> Vectors:
        """Return the whole response.

        Raises:
            MalformedError: it is not whole, or not right.
        """
        if self._end:
            raise MalformedError("it ends inside of a vector")
        self._keep(len(self._buffer))
        try:
            said = orjson.loads(self._skeleton)
        except orjson.JSONDecodeError as error:
            raise MalformedError("it is not JSON") from error
        data = said.get("data") if isinstance(said, dict) else None
        if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
            raise MalformedError("it has no list of data")
        if len(data) != self._count or self._found != self._count or self._array is None:
            raise MalformedError(f"it has {min(len(data), self._found)} vectors for {self._count} texts")
        everyone = list(range(self._count))
        if [each.get("embedding") for each in data] != everyone:
            raise MalformedError("its vectors are not where they belong")
        places = [each.get("index", position) for position, each in enumerate(data)]
        if any(type(place) is not int for place in places) or sorted(places) != everyone:
            raise MalformedError("the indices of its vectors are not those of the texts")
        if places != everyone:
            self._array = self._array[np.argsort(places)]
        return Vectors(array=self._array, tokens=_tokens(said.get("usage")))

    def _find_vector(self) -> bool:
        """Pass everything up to the next vector to the skeleton; return whether there is one."""
        match = _VECTOR.search(self._buffer)
        if match is None:
            self._keep(max(0, len(self._buffer) - _HELD_BACK))
            return False
        self._end = b'"' if match[1] == b'"' else b"]"
        self._skeleton += self._buffer[: match.start(1)] + str(self._found).encode()
        self._check_skeleton()
        del self._buffer[: match.start(1)]
        self._searched = 1
        return True

    def _take_vector(self) -> bool:
        """Decode the vector at the beginning of the buffer; return whether it is there as a whole."""
        assert self._end is not None
        end = self._buffer.find(self._end, self._searched)
        if (len(self._buffer) if end < 0 else end) > self._most_vector:
            raise MalformedError("a vector of it is far too long")
        if end < 0:
            self._searched = len(self._buffer)
            return False
        written = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._put(_from_base64(written) if self._end == b'"' else _from_numbers(written))
        self._end = None
        return True

    def _put(self, vector_D: NDArray[np.float32]) -> None:
        if self._dimension is None:
            self._dimension = len(vector_D)
        if len(vector_D) != self._dimension or not self._dimension:
            raise MalformedError(f"a vector of it has {len(vector_D)} components; expected {self._dimension or 'some'}")
        if not np.isfinite(vector_D).all():
            raise MalformedError("a vector of it holds what is no number")
        if not vector_D.any():
            raise MalformedError("a vector of it is all zeros")
        if self._found == self._count:
            raise MalformedError(f"it has more vectors than the {self._count} texts")
        if self._array is None:
            self._array = np.empty((self._count, self._dimension), dtype=np.float32)
        self._array[self._found] = vector_D
        self._found += 1

    def _keep(self, size: int) -> None:
        self._skeleton += self._buffer[:size]
        del self._buffer[:size]
        self._check_skeleton()

    def _check_skeleton(self) -> None:
        if len(self._skeleton) > self._most_skeleton:
            raise MalformedError("it is far too long")


def _from_base64(written: bytes) -> NDArray[np.float32]:
    if b"\\" in written:  # some encoders escape slashes
        written = b'"%b"' % _loads(written, str).encode()
    try:
        raw = binascii.a2b_base64(memoryview(written)[1:-1], strict_mode=True)
    except binascii.Error as error:
        raise MalformedError("a vector of it is not base64") from error
    if len(raw) % 4:
        raise MalformedError("a vector of it is no row of float32")
    return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)


def _from_numbers(written: bytes) -> NDArray[np.float32]:
    numbers = _loads(written, list)
    if not all(type(each) in (float, int) for each in numbers):
        raise MalformedError("a vector of it holds what is no number")
    with np.errstate(over="ignore"):  # what is too large is not finite, and refused as such
        return np.array(numbers, dtype=np.float64).astype(np.float32)


def _loads(written: bytes, kind: type[Any]) -> Any:
    try:
        value = orjson.loads(written)
    except orjson.JSONDecodeError as error:
        raise MalformedError("it is not JSON") from error
    if not isinstance(value, kind):
        raise MalformedError("it is not JSON")
    return value


def _tokens(usage: Any) -> int | None:
    if not isinstance(usage, dict):
        return None
    found = next((usage[name] for name in ("prompt_tokens", "total_tokens") if usage.get(name) is not None), None)
    if found is None:
        return None
    if type(found) is not int or found < 0:
        raise MalformedError("its usage is no number of tokens")
    return found

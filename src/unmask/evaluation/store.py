"""Vectors that are kept on disk while they are made: each distinct text is encoded once, whatever happens.

A model's folder holds segments, files of some hundred vectors with the keys of their texts. A segment is
named by its own checksum, so that what a power cut left of one is told from a whole one.

Shapes: D dimensions.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.subject import Subject
from unmask.evaluation.tasks import Matrix
from unmask.hub.cache import atomic_file, home
from unmask.progress import Progress
from unmask.text import Text

#: What is encoded before it is written: texts, and characters. About a minute's work on two cores at most.
SEGMENT_TEXTS: Final = 512
SEGMENT_CHARACTERS: Final = 100_000
#: Part of every folder's name: raise it when vectors change though neither model nor settings did.
_FORMAT: Final = 1
_KEY_BYTES: Final = 16


class VectorStore:
    """The vectors of a subject, kept from run to run; what tasks are run on.

    Args:
        subject: the model.
        folder: where to keep them; ``evaluation`` in Unmask's cache folder by default.
        bar: shows how far it is.
        say: takes a line for the user.

    Attributes:
        bar: as given; may be set on the way.
        texts: how many were encoded by this store, those found on disk left out.
        tokens: how many tokens these had, as far as the subject tells.
        seconds: how long that took.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        folder: Path | None = None,
        bar: Progress | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.texts, self.tokens, self.seconds = 0, 0, 0.0
        name = hashlib.sha256(repr((_FORMAT, subject.identity, subject.dimension)).encode()).hexdigest()[:32]
        self._folder = (folder or home() / "evaluation") / name
        self._subject, self._say = subject, say
        self.bar = bar or Progress("Encoding", enabled=False).__enter__()  # it has nothing to close
        row: Any = [("key", f"V{_KEY_BYTES}"), ("vector", "<f4", (subject.dimension,))]
        self._row: Final[np.dtype[Any]] = np.dtype(row)
        self._segments: list[Path] = []
        #: Where the vector of a key is: which segment, which row of it.
        self._places: dict[bytes, tuple[int, int]] = {}
        for file in sorted(self._folder.glob("[!.]*.npy")):
            self._open(file)

    @property
    def encoder(self) -> Encoder:
        """The encoder itself.

        Raises:
            InputError: the model is not one of Unmask's.
        """
        if self._subject.encoder is None:
            raise InputError(
                f"{self._subject.name} gives vectors of texts only; this task needs one of Unmask's encoders. "
                "Leave the task out."
            )
        return self._subject.encoder

    @property
    def tokens_per_second(self) -> float | None:
        """How fast texts were encoded, None if none were, or their tokens are not known."""
        return self.tokens / self.seconds if self.tokens and self.seconds else None

    def advance(self, texts: int, tokens: int = 0) -> None:
        """Move the progress bar."""
        self.bar.advance(texts, extra=tokens)

    def vectors(self, texts: Iterable[Text]) -> Matrix:
        """Return the vectors of ``texts``, ``[n, D]`` float32, in their order; those of blank texts are zero.

        Raises:
            InputError: the model gives what is no number, or vectors of another shape.
        """
        keys: list[bytes | None] = []
        missing: dict[bytes, Text] = {}
        characters = encoded = 0
        for text in texts:
            key = _key(text) if text.content.strip() else None
            keys.append(key)
            if key is None or key in self._places or key in missing:
                continue
            missing[key] = text
            characters += len(text.content)
            if len(missing) == SEGMENT_TEXTS or characters >= SEGMENT_CHARACTERS:
                self._encode(missing)
                encoded += len(missing)
                missing, characters = {}, 0
        if missing:
            self._encode(missing)
            encoded += len(missing)
        self.bar.advance(len(keys) - encoded)
        return self._gather(keys)

    def _encode(self, texts: dict[bytes, Text]) -> None:
        """Encode texts and put them on disk as a segment."""
        count, tokens, start = self.bar.count, self.bar.extra, time.perf_counter()
        vectors = self._subject.encode(list(texts.values()), self.bar)
        self.seconds += time.perf_counter() - start
        self.tokens += self.bar.extra - tokens
        self.texts += len(texts)
        self.bar.advance(len(texts) - (self.bar.count - count))  # what a foreign model has not said
        if vectors.shape != (len(texts), self._subject.dimension):
            raise InputError(
                f"{self._subject.name} gives vectors of shape {vectors.shape} for {len(texts)} texts; expected "
                f"{(len(texts), self._subject.dimension)}. Correct the model's dimension."
            )
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if broken.size:
            content = list(texts.values())[broken[0]].content
            raise InputError(
                f"{self._subject.name} gives {broken.size:,} of {len(texts):,} texts a vector with NaN or infinity, "
                f"for instance {content[:60]!r}. Check the model, or load it in float32."
            )
        self._write(list(texts), vectors)

    def _write(self, keys: list[bytes], vectors: Matrix) -> None:
        rows = np.empty(len(keys), dtype=self._row)
        rows["key"] = np.frombuffer(b"".join(keys), dtype=f"V{_KEY_BYTES}")
        rows["vector"] = vectors
        data = io.BytesIO()
        np.save(data, rows, allow_pickle=False)
        file = self._folder / f"{_checksum(data.getbuffer())}.npy"
        with atomic_file(file, replace=True) as draft:
            draft.write_bytes(data.getbuffer())
        self._add(file, rows["key"])

    def _open(self, file: Path) -> None:
        """Take up a segment of an earlier run; one that is not whole is removed."""
        with file.open("rb") as stream:
            whole = hashlib.file_digest(stream, _hash).hexdigest() == file.stem
        if not whole:
            self._say(f"{file} is damaged; it is removed, and its texts are encoded again.")
            file.unlink()
            return
        self._add(file, np.load(file, mmap_mode="r")["key"])

    def _add(self, file: Path, keys: NDArray[np.void]) -> None:
        for row, key in enumerate(keys):
            self._places.setdefault(key.tobytes(), (len(self._segments), row))
        self._segments.append(file)

    def _gather(self, keys: list[bytes | None]) -> Matrix:
        """Return the vectors of ``keys``, read segment by segment; None stands for a zero vector."""
        found = np.zeros((len(keys), self._subject.dimension), dtype=np.float32)
        places = np.array([(-1, 0) if key is None else self._places[key] for key in keys]).reshape(-1, 2)
        for number in np.unique(places[:, 0]):
            if number >= 0:
                at = np.flatnonzero(places[:, 0] == number)
                found[at] = np.load(self._segments[number], mmap_mode="r")["vector"][places[at, 1]]
        return found


def _key(text: Text) -> bytes:
    instruction, content = (part.encode("utf-8", "surrogatepass") for part in (text.instruction, text.content))
    data = len(instruction).to_bytes(8, "little") + instruction + content
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()


def _hash() -> Any:
    return hashlib.blake2b(digest_size=_KEY_BYTES)


def _checksum(data: memoryview) -> str:
    digest = _hash()
    digest.update(data)
    return str(digest.hexdigest())

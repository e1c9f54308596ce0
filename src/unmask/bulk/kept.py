"""Vectors that are kept from run to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from unmask.bulk.vectors import vector_file
from unmask.hub.cache import atomic_folder, home
from unmask.identity import identity

if TYPE_CHECKING:
    from unmask.encoder import Encoder

Matrix = NDArray[np.float32]

#: Part of every key: raise it when vectors change though neither model nor settings did.
_FORMAT: Final = 1


class KeptVectors:
    """Vectors of corpora, kept in the cache folder: the same texts, model and settings are encoded once.

    Args:
        encoder: the model.
        folder: where to keep them; ``vectors`` in Unmask's cache folder by default.
    """

    def __init__(self, encoder: Encoder, *, folder: Path | None = None) -> None:
        self._encoder = encoder
        self._folder = folder or home() / "vectors"

    def find(self, texts: Sequence[str], *, instruction: str | None = None) -> Matrix | None:
        """Return the vectors of ``texts``, ``[N, D]``, if they are kept and intact, else None."""
        return self._read(self._place(texts, instruction), len(texts))

    def of(self, texts: Sequence[str], *, instruction: str | None = None, progress: bool = False) -> Matrix:
        """Return the vectors of ``texts``, ``[N, D]`` float32, encoded now if they are not kept; blank ones are zero.

        The result lies on disk and is read as it is used.

        Args:
            texts: the corpus.
            instruction: put before each text.
            progress: show the encoding.
        """
        place = self._place(texts, instruction)
        kept = self._read(place, len(texts))
        if kept is None:
            self._write(place, texts, instruction, progress)
            kept = self._read(place, len(texts))
            assert kept is not None
        return kept

    def _place(self, texts: Sequence[str], instruction: str | None) -> Path:
        digest = hashlib.sha256(repr((_FORMAT, identity(self._encoder), instruction)).encode())
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return self._folder / digest.hexdigest()[:32]

    def _read(self, place: Path, count: int) -> Matrix | None:
        file = place / "vectors.npy"
        try:
            about = json.loads((place / "about.json").read_text(encoding="utf-8"))
            if about["blake2b"] != _checksum(file):
                return None
            vectors: Matrix = np.load(file, mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return vectors if vectors.shape == (count, self._encoder.dimension) else None

    def _write(self, place: Path, texts: Sequence[str], instruction: str | None, progress: bool) -> None:
        stream = self._encoder.encode_stream(
            texts, instruction=instruction, normalize=False, empty="zero", progress=progress, total=len(texts)
        )
        with atomic_folder(place, replace=True) as draft:
            with vector_file(draft / "vectors.npy") as file, closing(stream):  # type: ignore[type-var]
                for vectors in stream:
                    file.write(vectors)
            about = {"blake2b": _checksum(draft / "vectors.npy"), "texts": len(texts), "instruction": instruction}
            (draft / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, hashlib.blake2b).hexdigest()

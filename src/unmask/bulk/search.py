"""Exact search: the nearest texts of a corpus by cosine, and vectors that are kept from run to run.

Shapes: N texts of a corpus, Q queries, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.bulk.vectors import vector_file
from unmask.errors import InputError
from unmask.hub.cache import atomic_folder, home

if TYPE_CHECKING:
    from unmask.encoder import Encoder

Matrix = NDArray[np.float32]

#: Rows of a corpus that are worked on at a time.
_BLOCK: Final = 32_768
#: A corpus whose vectors all point one way this much is centred: the mean cosine of two of its texts.
ANISOTROPIC: Final = 0.5
#: Fewer texts than this say too little about their mean.
_ENOUGH: Final = 100
_FORMAT: Final = 1


class Index:
    """The vectors of a corpus, ready for search; they are read block by block and may lie on disk.

    Vectors of a model that was not trained as an encoder share a large common part, which drowns what
    tells texts apart. Taking the corpus's mean direction off brings that out ("all-but-the-top", step 1,
    arXiv 1702.01417). It is done where two texts of the corpus are alike by more than
    :data:`ANISOTROPIC` on average.

    Args:
        vectors: ``[N, D]`` of any number format but packed bits; not copied.
        centred: whether to take the mean off; None: as said above.

    Attributes:
        likeness: mean cosine of two texts of the corpus.
        centred: whether the mean is taken off.
    """

    def __init__(self, vectors: NDArray[np.generic], *, centred: bool | None = None) -> None:
        if vectors.ndim != 2 or len(vectors) == 0:
            raise InputError(f"The corpus has vectors of shape {vectors.shape}; expected [texts, dimensions], not empty.")
        self._vectors = vectors
        total, count = np.zeros(vectors.shape[1]), 0
        for _, block in self._blocks(None):
            total += block.sum(axis=0, dtype=np.float64)
            count += int(block.any(axis=1).sum())
        mean = (total / max(count, 1)).astype(np.float32)
        # |mean|² is the mean over all pairs, those of a text with itself (1 each) included.
        self.likeness = float((mean @ mean * count - 1) / (count - 1)) if count > 1 else 0.0
        self.centred = count >= _ENOUGH and self.likeness > ANISOTROPIC if centred is None else centred
        self._mean = mean if self.centred else None

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._vectors)

    def nearest(self, queries: NDArray[np.generic], count: int) -> tuple[Matrix, NDArray[np.int64]]:
        """Return the texts nearest to each query, best first; of equal ones the earlier first.

        Args:
            queries: ``[Q, D]``.
            count: how many texts for each; at most N come back.

        Returns:
            Cosines and positions in the corpus, both ``[Q, min(count, N)]``. A zero vector has cosine 0
            with everything.
        """
        queries = np.atleast_2d(queries)
        if queries.shape[1] != self._vectors.shape[1] or count < 1:
            raise InputError(
                f"Asked for {count} texts near vectors of {queries.shape[1]} dimensions; expected at least 1 and "
                f"{self._vectors.shape[1]} dimensions, as the corpus has."
            )
        unit_QD = _unit(queries, self._mean)
        scores: Matrix = np.zeros((len(queries), 0), dtype=np.float32)
        positions: NDArray[np.int64] = np.zeros((len(queries), 0), dtype=np.int64)
        for start, block in self._blocks(self._mean):
            new_scores = unit_QD @ block.T
            new = np.broadcast_to(np.arange(start, start + len(block)), new_scores.shape)
            scores, positions = _best(
                np.concatenate([scores, new_scores], axis=1), np.concatenate([positions, new], axis=1), count
            )
        return scores, positions

    def _blocks(self, mean: Matrix | None) -> Iterator[tuple[int, Matrix]]:
        """Yield unit vectors, block by block, with the position of the first."""
        for start in range(0, len(self._vectors), _BLOCK):
            yield start, _unit(self._vectors[start : start + _BLOCK], mean)


def _unit(vectors: NDArray[np.generic], mean: Matrix | None) -> Matrix:
    """Return vectors of length 1, their mean taken off if given; zero vectors stay zero."""
    unit = _scaled(np.asarray(vectors, dtype=np.float32))
    if mean is None:
        return unit
    return _scaled(np.where(unit.any(axis=1, keepdims=True), unit - mean, unit))


def _scaled(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _best(scores: Matrix, positions: NDArray[np.int64], count: int) -> tuple[Matrix, NDArray[np.int64]]:
    """Return the best columns of each row, sorted; columns with equal scores in the order of their positions."""
    if scores.shape[1] > count:
        # All that equal the last one that fits must be looked at, or chance would choose among them.
        least = np.partition(scores, -count, axis=1)[:, -count]
        kept = [np.flatnonzero(row >= limit) for row, limit in zip(scores, least, strict=True)]
    else:
        kept = [np.arange(scores.shape[1])] * len(scores)
    order = [at[np.lexsort((positions[i, at], -scores[i, at]))[:count]] for i, at in enumerate(kept)]
    rows = np.arange(len(scores))[:, None]
    columns = np.stack(order)
    return scores[rows, columns], positions[rows, columns]


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


def identity(encoder: Encoder) -> str:
    """Return what a vector depends on besides its text: the model's files, how they are used, the settings.

    Files are told apart by place, size and time of change, not read: that would take seconds.
    """
    checkpoint = encoder.checkpoint
    folders = [checkpoint.base, checkpoint.tokenizer, *checkpoint.adapters]
    files = [(str(folder), _stamps(folder)) for folder in folders]
    return repr((files, encoder.settings, str(encoder.dtype)))


def _stamps(path: Path) -> list[tuple[Any, ...]]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, hashlib.blake2b).hexdigest()

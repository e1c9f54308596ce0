"""Mining: pairs and a corpus → pairs with hard negatives, in steps that a crash does not undo.

Shapes: N documents of the corpus, Q queries, R rows, D dimensions.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace as altered
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from unmask._version import __version__
from unmask.bulk.kept import KeptVectors, Matrix
from unmask.bulk.negatives import Mined, MiningSettings, choose_negatives
from unmask.bulk.pairs import Distinct, Pair
from unmask.bulk.search import Index
from unmask.bulk.vectors import check_target
from unmask.errors import InputError
from unmask.hub.cache import atomic_file
from unmask.identity import identity
from unmask.progress import Progress

if TYPE_CHECKING:
    from unmask.encoder import Encoder

#: Queries that are searched for at a time, and the rows of one file of finished work.
_QUERIES: Final = 256
#: What is kept of a finished block: the arrays of :class:`Mined`.
_ARRAYS: Final = ("positions", "scores", "positive_scores", "others")
#: Queries that tell what all queries have in common.
_SAMPLE: Final = 4096


def check_output(target: Path, *, replace: bool = False) -> None:
    """Check, before any work is done, that rows can be written to ``target``; nothing is made.

    Raises:
        InputError: it is no .jsonl, something is there already, or nothing can be written there.
    """
    if target.suffix.lower() != ".jsonl":
        raise InputError(f"{target} ends in {target.suffix or 'nothing'!r}; expected .jsonl as the output's ending.")
    check_target(target, replace=replace)
    above = next(folder for folder in target.resolve().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{target} cannot be written; expected a place where you may write. Choose another one.")


def mine_to_file(
    encoder: Encoder,
    pairs: Sequence[Pair],
    corpus: Sequence[str] | None,
    target: Path,
    settings: MiningSettings,
    *,
    replace: bool = False,
    progress: bool = False,
) -> Mined:
    """Mine, and write the rows that have their negatives, in their order; the file appears whole or not at all.

    A line is the row with ``negative`` set: a string where one was asked for, else a list. What the row had
    there before is replaced, its other fields stay.

    What is finished lies in a folder beside ``target``, its name with ``.work``, until the file is there: after
    a crash the same call goes on where it was.

    Raises:
        InputError: as :func:`mine` and :func:`check_output`; no row has enough negatives.
    """
    check_output(target, replace=replace)
    work = target.with_name(f"{target.name}.work")
    texts = [pair.positive for pair in pairs] if corpus is None else corpus
    mined = mine(encoder, pairs, texts, settings, folder=work, progress=progress)
    if not mined.found.any():
        raise InputError(
            f"None of {len(pairs):,} rows has {settings.negatives} negatives with at most {settings.margin:g} of its "
            f"positive's score among ranks {settings.skip_first + 1} to {settings.top}; expected one at least. Raise "
            f"--top or --margin; the vectors are kept in {work}."
        )
    with atomic_file(target, replace=replace) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for pair, positions in zip(pairs, mined.positions.tolist(), strict=True):
            if positions[0] >= 0:
                negatives = [texts[at] for at in positions]
                row = pair.row | {"negative": negatives if settings.negatives > 1 else negatives[0]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    shutil.rmtree(work)
    return mined


def mine(
    encoder: Encoder,
    pairs: Sequence[Pair],
    corpus: Sequence[str],
    settings: MiningSettings,
    *,
    folder: Path,
    progress: bool = False,
) -> Mined:
    """Find hard negatives for each pair: encode what is distinct once, search exactly, choose.

    The texts are held in memory; vectors lie on disk, and the search takes block by block. A query's own are
    all positives that any row gives it, and a document that is the query itself.

    Args:
        encoder: the model.
        pairs: the rows.
        corpus: where negatives come from; of texts that are the same, the first.
        settings: what to look for.
        folder: for shards of vectors and finished blocks of rows; what is there of the same model, settings and
            texts is used again, anything else is not.
        progress: show the encoding and the search.

    Raises:
        InputError: there are no pairs, or the corpus is smaller than any row needs.
    """
    if not pairs:
        raise InputError("Got no pairs; expected at least one, with query and positive.")
    plan = Distinct.of(pairs, corpus)
    most = len(plan.distinct) - min(len(own) for own in plan.own)
    if most < settings.skip_first + settings.negatives:
        raise InputError(
            f"{len(plan.distinct):,} distinct texts to choose from, at most {most:,} of them not a query's own; "
            f"expected {settings.skip_first + settings.negatives}: {settings.skip_first} to skip and "
            f"{settings.negatives} to take. Give a larger --corpus, or ask for fewer."
        )
    asked = encoder.settings.query_instruction if settings.instruction is None else settings.instruction
    run = folder / plan.fingerprint(__version__, identity(encoder), asked, settings)
    run.mkdir(parents=True, exist_ok=True)
    vectors = _Vectors(encoder, folder / "vectors", progress)
    queries = vectors.of(plan.queries, run / "queries.npy", "Encoding queries", instruction=asked)
    documents = vectors.of(plan.documents, run / "documents.npy", "Encoding documents")
    index = Index(documents[: len(plan.distinct)], standardised=settings.standardised)
    index.expect(queries[:: 1 + len(queries) // _SAMPLE])
    found = Mined.empty(len(pairs), settings.negatives)
    with Progress("Mining", total=len(pairs), unit="rows", enabled=progress) as bar:
        for start in range(0, len(queries), _QUERIES):
            rows, file = plan.rows(start, start + _QUERIES), run / f"{start:012}.npz"
            block = _finished(file)
            if block is None:
                block = _mine_block(index, plan, rows, queries=queries, documents=documents, settings=settings)
                with atomic_file(file, replace=True) as draft:
                    np.savez(draft, **{name: getattr(block, name) for name in _ARRAYS})
            for name in _ARRAYS:
                getattr(found, name)[rows] = getattr(block, name)
            bar.advance(len(rows))
    # -1, for none, stays -1: it takes the last.
    positions = np.append(plan.distinct, -1)[found.positions]
    return altered(found, positions=positions, standardised=index.standardised)


# --- the parts -------------------------------------------------------------------------------------


class _Vectors:
    """Encodes in shards, which are kept: those that are finished are never encoded again."""

    def __init__(self, encoder: Encoder, folder: Path, progress: bool) -> None:
        self._kept = KeptVectors(encoder, folder=folder)
        self._dimension = encoder.dimension
        # Some passes of the model long: little is lost when a run is killed, nor by starting each shard anew.
        self._shard = max(1, encoder.pipeline.token_budget // 8)
        self._progress = progress

    def of(self, texts: Sequence[str], file: Path, what: str, *, instruction: str | None = None) -> Matrix:
        """Return vectors ``[len(texts), D]`` that lie in ``file``, written anew from the shards."""
        shape = (len(texts), self._dimension)
        vectors: Matrix = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        with Progress(what, total=len(texts), unit="texts", enabled=self._progress) as bar:
            for start in range(0, len(texts), self._shard):
                part = self._kept.of(texts[start : start + self._shard], instruction=instruction)
                vectors[start : start + len(part)] = part
                bar.advance(len(part))
        return vectors


def _mine_block(
    index: Index,
    plan: Distinct,
    rows: NDArray[np.int64],
    *,
    queries: Matrix,
    documents: Matrix,
    settings: MiningSettings,
) -> Mined:
    """Mine for ``rows``, all rows of some queries."""
    asked, beside = np.unique(plan.query_of[rows], return_inverse=True)
    # Deep enough for `top` others, whatever the number of a query's own.
    depth = settings.top + max(len(plan.own[query]) for query in asked)
    scores, candidates = index.nearest(queries[asked], depth)
    return choose_negatives(
        scores[beside],
        candidates[beside],
        index.paired(queries[asked][beside], documents[plan.positive_of[rows]]),
        own=[plan.own[query] for query in plan.query_of[rows]],
        settings=settings,
    )


def _finished(file: Path) -> Mined | None:
    """Return a finished block, None if it is not there or not whole."""
    try:
        with file.open("rb") as stream, np.load(stream) as arrays:
            return Mined(**{name: arrays[name] for name in _ARRAYS})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None

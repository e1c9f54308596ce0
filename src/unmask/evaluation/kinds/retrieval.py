"""Retrieval: whether the documents nearest to a query are those that were judged relevant.

Shapes: Q queries, B documents of a block, D dimensions, K documents kept a query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.evaluation.kinds.beir import Collection, documents, read_collection
from unmask.evaluation.kinds.cosines import ROUNDING, unit
from unmask.evaluation.kinds.tables import draw, settings_of
from unmask.evaluation.outcome import Samples
from unmask.evaluation.tasks import Kind, Matrix, Model, Options, Task
from unmask.text import Text

#: Documents that are scored at a time.
BLOCK: Final = 4_096
#: Documents that are kept a query, as trec_eval does.
KEPT: Final = 1_000
#: What ir-measures calls each metric.
MEASURES: Final = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100", "map": "AP"}

Positions = NDArray[np.int64]


def statistic(samples: Samples) -> dict[str, float]:
    """Return the mean over queries of each metric."""
    return {name: float(samples[name].mean()) for name in MEASURES}


KIND: Final = Kind(name="retrieval", main="ndcg@10", statistic=statistic)


def read(folder: Path, options: Options) -> list[Task]:
    """Read a folder in BEIR's layout.

    With a limit, so many queries are drawn; then come the documents that were judged for them, all of them, and
    others up to the limit.

    Raises:
        InputError: see :func:`unmask.evaluation.kinds.beir.read_collection`.
    """
    whole = read_collection(folder)
    part = _part(whole, options)
    wanted = None if len(part.documents) == len(whole.documents) else frozenset(part.documents)
    instruction = options.instruction(folder.name, options.query)

    def run(model: Model) -> Samples:
        queries = unit(model.vectors(Text(instruction, text) for text in part.queries.values()))
        best = _search(model, queries, documents(whole.corpus, wanted))
        ranked = {
            query: {part.documents[position]: float(-rank) for rank, position in enumerate(row)}
            for query, row in zip(part.queries, best, strict=True)
        }
        return _measure(part.qrels, ranked)

    settings: dict[str, Any] = settings_of(
        options,
        *whole.files,
        queries=(len(part.queries), len(whole.queries)),
        documents=(len(part.documents), len(whole.documents)),
    )
    size = len(part.queries) + len(part.documents)
    return [Task(name=folder.name, kind=KIND, size=size, settings=settings | {"instruction": instruction}, run=run)]


def _part(whole: Collection, options: Options) -> Collection:
    """Return what the limit leaves of a collection."""
    if options.limit is None:
        return whole
    chosen = draw(list(whole.queries), options)
    qrels = {query: whole.qrels[query] for query in chosen}
    judged = {document for grades in qrels.values() for document in grades}
    others = [document for document in whole.documents if document not in judged]
    kept = judged.union(draw(others, options, count=max(0, options.limit - len(judged))))
    return replace(
        whole,
        queries={query: whole.queries[query] for query in chosen},
        qrels=qrels,
        documents=[document for document in whole.documents if document in kept],
    )


def _search(model: Model, queries: Matrix, found: Iterator[tuple[str, str]]) -> Positions:
    """Return the positions of the documents nearest to each query, best first, ``[Q, K]``.

    Of documents with equal cosine the earlier comes first.
    """
    scores = np.zeros((len(queries), 0), dtype=np.float32)
    positions: Positions = np.zeros((len(queries), 0), dtype=np.int64)
    start, differ = 0, False
    while block := list(islice(found, BLOCK)):
        vectors_BD = unit(model.vectors(Text("", text) for _, text in block))
        new = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
        scores = np.hstack([scores, queries @ vectors_BD.T])
        differ = differ or bool(np.ptp(scores, axis=1).max() >= ROUNDING)
        scores, positions = _best(scores, np.hstack([positions, new]))
        start += len(block)
    if not differ:
        raise InputError(
            f"The model gives each of the {start:,} documents the same cosine with a query: the figures are undefined. "
            "Check the model: it does not tell texts apart."
        )
    order = np.lexsort((positions, -scores), axis=1)
    return np.asarray(np.take_along_axis(positions, order, axis=1))


def _best(scores: Matrix, positions: Positions) -> tuple[Matrix, Positions]:
    """Return the :data:`KEPT` best columns of each row, in no order."""
    if scores.shape[1] <= KEPT:
        return scores, positions
    chosen = np.argpartition(-scores, KEPT - 1, axis=1)[:, :KEPT]
    return np.take_along_axis(scores, chosen, axis=1), np.take_along_axis(positions, chosen, axis=1)


def _measure(qrels: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Mapping[str, float]]) -> Samples:
    """Return each metric of each query, ``[Q]``, in the order of ``ranked``."""
    import ir_measures

    measures = {ir_measures.parse_measure(theirs): ours for ours, theirs in MEASURES.items()}
    row = {query: number for number, query in enumerate(ranked)}
    figures = {name: np.zeros(len(row)) for name in MEASURES}
    for figure in ir_measures.iter_calc(list(measures), qrels, ranked):
        figures[measures[figure.measure]][row[figure.query_id]] = figure.value
    return figures

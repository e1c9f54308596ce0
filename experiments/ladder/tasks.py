"""The development sets as tasks: texts to encode, and what their vectors are worth."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from experiments.ladder import metrics
from experiments.ladder.metrics import Figure
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression

from unmask.text import Text

#: Most tokens of a text. One core encodes some 200 tokens a second with the base model: these lengths and sample sizes
#: keep a model under a quarter of an hour there.
SHORT: Final = 128
LONG: Final = 64
TRAIN_ROWS: Final = 1_000
CLUSTER_ROWS: Final = 1_000
CLUSTERINGS: Final = 3
SEED: Final = 0
#: What stands before a query; documents have none.
INSTRUCTIONS: Final = {
    "MEDLINE": "Given a medical question, retrieve the abstracts that answer it:",
    "TIME": "Given a question about world affairs, retrieve the news articles that answer it:",
}

Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A development set.

    Attributes:
        name: the set.
        metric: what its figure is.
        texts: what to encode, in the order in which ``score`` wants the vectors.
        max_length: most tokens of a text.
        score: from the vectors to the figure.
    """

    name: str
    metric: str
    texts: tuple[Text, ...]
    max_length: int
    score: Callable[[Vectors], Figure]


def load_tasks(folder: Path, *, quick: bool = False) -> list[Task]:
    """Return the tasks, the cheap ones first; ``quick`` leaves only the similarity of sentences."""
    tasks = [
        sts("SICK trial", folder / "sts/SICK-trial.tsv"),
        sts("STS-B dev", folder / "sts/STSBenchmark-dev.tsv"),
    ]
    if quick:
        return tasks
    return [
        *tasks,
        classification("TREC-QC", folder / "classification/TREC-QC"),
        clustering("SearchSnippets", folder / "clustering/SearchSnippets.tsv"),
        *(retrieval(name, folder / "retrieval" / name, INSTRUCTIONS[name]) for name in ("TIME", "MEDLINE")),
    ]


def settings() -> dict[str, Any]:
    """Return what the figures depend on besides the models and the files."""
    return {
        "max_length": {"retrieval": LONG, "others": SHORT},
        "train_rows": TRAIN_ROWS,
        "cluster_rows": CLUSTER_ROWS,
        "clusterings": CLUSTERINGS,
        "seed": SEED,
        "resamples": metrics.RESAMPLES,
        "instructions": INSTRUCTIONS,
    }


def cosines(left: Vectors, right: Vectors) -> Vectors:
    """Return the cosine of each row of ``left`` with the same row of ``right``."""
    return np.asarray((unit(left) * unit(right)).sum(axis=1))


def unit(vectors: Vectors) -> Vectors:
    """Return the vectors scaled to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def sts(name: str, file: Path) -> Task:
    """Return similarity of sentences, from lines of score, sentence, sentence."""
    rows = _rows(file)
    truth = [float(row[0]) for row in rows]

    def score(vectors: Vectors) -> Figure:
        return metrics.spearman(cosines(vectors[: len(rows)], vectors[len(rows) :]), truth)

    texts = _texts([*(row[1] for row in rows), *(row[2] for row in rows)])
    return Task(name=name, metric="Spearman of cosine", texts=texts, max_length=SHORT, score=score)


def retrieval(name: str, folder: Path, instruction: str) -> Task:
    """Return retrieval in BEIR's layout; queries without a relevant document are left out."""
    documents = {entry["_id"]: f"{entry['title']} {entry['text']}".strip() for entry in _lines(folder / "corpus.jsonl")}
    column = {identifier: number for number, identifier in enumerate(documents)}
    judged: dict[str, dict[int, float]] = {}
    for query, document, grade in _rows(folder / "qrels.tsv")[1:]:
        judged.setdefault(query, {})[column[document]] = float(grade)
    queries = {entry["_id"]: entry["text"] for entry in _lines(folder / "queries.jsonl") if entry["_id"] in judged}
    relevance = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(queries):
        relevance[row, list(judged[query])] = list(judged[query].values())

    def score(vectors: Vectors) -> Figure:
        found = unit(vectors[: len(queries)]) @ unit(vectors[len(queries) :]).T
        return metrics.mean(metrics.ndcg_at_10(relevance, found))

    texts = (*_texts(list(queries.values()), instruction), *_texts(list(documents.values())))
    return Task(name=name, metric="nDCG@10", texts=texts, max_length=LONG, score=score)


def classification(name: str, folder: Path) -> Task:
    """Return classification by a logistic regression on frozen vectors."""
    train, test = _sample(_rows(folder / "train.tsv"), TRAIN_ROWS), _rows(folder / "test.tsv")
    labels = [row[0] for row in train]

    def score(vectors: Vectors) -> Figure:
        fitted = LogisticRegression(max_iter=1_000).fit(vectors[: len(train)], labels)
        return metrics.mean(fitted.predict(vectors[len(train) :]) == np.array([row[0] for row in test]))

    texts = _texts([row[1] for row in (*train, *test)])
    return Task(name=name, metric="accuracy", texts=texts, max_length=SHORT, score=score)


def clustering(name: str, file: Path) -> Task:
    """Return clustering by k-means, with as many clusters as labels."""
    rows = _sample(_rows(file), CLUSTER_ROWS)
    labels = [row[0] for row in rows]

    def score(vectors: Vectors) -> Figure:
        makers = (MiniBatchKMeans(len(set(labels)), random_state=SEED + number) for number in range(CLUSTERINGS))
        return metrics.v_measure(labels, [maker.fit_predict(vectors) for maker in makers])

    return Task(name=name, metric="V-measure", texts=_texts([r[1] for r in rows]), max_length=SHORT, score=score)


def _rows(file: Path) -> list[list[str]]:
    # Not the csv module: quotation marks in these files are text.
    return [line.split("\t") for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def _lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def _sample(rows: list[list[str]], most: int) -> list[list[str]]:
    return random.Random(SEED).sample(rows, most) if len(rows) > most else rows  # noqa: S311 - not for secrets


def _texts(contents: Sequence[str], instruction: str = "") -> tuple[Text, ...]:
    return tuple(Text(instruction, content) for content in contents)

"""Tasks of mteb over a few sentences of our own: nothing is downloaded, mteb's evaluators do the rest.

A task a kind. Each class has its rows as plain data, from which a test can compute the score once more.
"""

from __future__ import annotations

from typing import Any, ClassVar

from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetNotFoundError
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.summarization import AbsTaskSummarization


def _about(name: str, kind: str, main_score: str, prompt: Any = None) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        type=kind,
        main_score=main_score,
        prompt=prompt,
        description="A handful of sentences.",
        reference=None,
        dataset={"path": "none", "revision": "1"},
        category="t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        date=("2026-01-01", "2026-01-02"),
        dialect=[],
        domains=[],
        task_subtypes=[],
        license="mit",
        annotations_creators="derived",
        modalities=["text"],
        sample_creation="created",
        bibtex_citation="",
    )


class LocalSTS(AbsTaskSTS):  # type: ignore[misc]
    """One sentence stands in two pairs."""

    metadata = _about("LocalSTS", "STS", "cosine_spearman")
    rows: ClassVar = [
        ("A boat drifts down the river.", "A ship floats along the stream.", 4.2),
        ("A boat drifts down the river.", "The baker sells warm bread.", 0.3),
        ("Two children build a kite.", "Kids are making a kite together.", 4.8),
        ("The train was late again.", "Rain fell on the old roof.", 0.9),
        ("She repaired the radio.", "The radio was fixed by her.", 4.5),
        ("He hates mushrooms.", "He dislikes most vegetables.", 2.4),
    ]

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        left, right, score = zip(*self.rows, strict=True)
        data = Dataset.from_dict({"sentence1": left, "sentence2": right, "score": score})
        self.dataset = DatasetDict({"test": data})
        self.data_loaded = True


class LocalPairs(AbsTaskPairClassification):  # type: ignore[misc]
    """Pairs that mean the same, or not."""

    metadata = _about("LocalPairs", "PairClassification", "similarity_ap")
    rows: ClassVar = [
        ("How do I boil an egg?", "What is the way to cook an egg in water?", 1),
        ("How do I boil an egg?", "Why do hens stop laying?", 0),
        ("Where is the station?", "Which way is it to the station?", 1),
        ("Is the shop open on Sunday?", "When did the shop burn down?", 0),
        ("Can cats swim?", "Are cats able to swim?", 1),
        ("Who wrote the letter?", "How heavy is a letter?", 0),
    ]

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        left, right, labels = zip(*self.rows, strict=True)
        data = Dataset.from_dict({"sentence1": left, "sentence2": right, "labels": labels})
        self.dataset = DatasetDict({"test": data})
        self.data_loaded = True


class LocalRetrieval(AbsTaskRetrieval):  # type: ignore[misc]
    """Documents with and without title; one text twice, one empty."""

    metadata = _about(
        "LocalRetrieval", "Retrieval", "ndcg_at_10", {"query": "Given a question, retrieve the note that answers it"}
    )
    documents: ClassVar = {
        "d1": ("Bees", "They dance to tell where flowers are."),
        "d2": ("", "Iron rusts when water and air reach it."),
        "d3": ("Tides", "The moon pulls at the sea twice a day."),
        "d4": ("", "Iron rusts when water and air reach it."),
        "d5": ("Clocks", "A pendulum of one metre swings once a second."),
        "d6": ("", ""),
    }
    queries: ClassVar = {"q1": "Why does iron rust?", "q2": "What makes the tides?", "q3": "How do bees talk?"}
    relevant: ClassVar = {"q1": {"d2": 1, "d4": 1}, "q2": {"d3": 1}, "q3": {"d1": 1}}
    candidates: ClassVar[dict[str, list[str]] | None] = None

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        documents = [{"id": key, "title": title, "text": text} for key, (title, text) in self.documents.items()]
        queries = [{"id": key, "text": text} for key, text in self.queries.items()]
        self.dataset = {
            "default": {
                "test": {
                    "corpus": Dataset.from_list(documents),
                    "queries": Dataset.from_list(queries),
                    "relevant_docs": {query: dict(found) for query, found in self.relevant.items()},
                    "top_ranked": self.candidates,
                }
            }
        }
        self.data_loaded = True


class LocalReranking(LocalRetrieval):
    """Each query ranks candidates of its own."""

    metadata = _about("LocalReranking", "Reranking", "map_at_1000", {"query": "Rerank the notes."})
    relevant: ClassVar = {"q1": {"d2": 1}, "q2": {"d3": 1, "d5": 1}, "q3": {"d1": 1}}
    candidates: ClassVar = {"q1": ["d1", "d2", "d5"], "q2": ["d1", "d3", "d5", "d2"], "q3": ["d3", "d5", "d1"]}


class LocalClassification(AbsTaskClassification):  # type: ignore[misc]
    """So few texts of a class that every experiment of mteb's takes them all."""

    metadata = _about("LocalClassification", "Classification", "accuracy", "Say what the remark is about.")
    n_experiments = 2
    train: ClassVar = [
        ("The soup needs salt and pepper.", 0), ("This soup is too sweet.", 0), ("Fry onions for the soup.", 0),
        ("Our keeper missed the ball!", 1), ("She hit the ball and won!", 1), ("He lost the ball again!", 1),
    ]  # fmt: skip
    test: ClassVar = [
        ("The soup is still warm.", 0), ("He won the ball twice!", 1), ("Onions need pepper.", 0),
        ("The keeper missed again!", 1), ("Salt won.", 1), ("Stir this soup.", 0),
    ]  # fmt: skip

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        splits = {"train": self.train, "test": self.test}
        self.dataset = DatasetDict(
            {
                name: Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
                for name, rows in splits.items()
            }
        )
        self.data_loaded = True


class LocalClustering(AbsTaskClustering):  # type: ignore[misc]
    """mteb draws texts with replacement, three times, and clusters what it drew."""

    metadata = _about("LocalClustering", "Clustering", "v_measure")
    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 24
    n_clusters = 3
    rows: ClassVar = [
        ("Snow closed the pass.", 0), ("Hail broke the glass.", 0), ("Fog hid the bridge.", 0), ("It thawed.", 0),
        ("The choir sang low.", 1), ("A flute answered.", 1), ("Drums woke the street.", 1), ("He hummed.", 1),
        ("The fox ran off.", 2), ("An owl slept above.", 2), ("Mice like the barn.", 2), ("The hen sat still.", 2),
    ]  # fmt: skip

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        sentences, labels = zip(*self.rows, strict=True)
        self.dataset = DatasetDict({"test": Dataset.from_dict({"sentences": sentences, "labels": labels})})
        self.data_loaded = True


class LocalSummarization(AbsTaskSummarization):  # type: ignore[misc]
    """Summaries by machines, which people judged, beside summaries by people."""

    metadata = _about("LocalSummarization", "Summarization", "cosine_spearman")
    min_score = 1
    max_score = 5
    rows: ClassVar = [
        (
            "The council met on Monday and voted to widen the harbour.",
            ["The council voted for a wider harbour.", "On Monday a wider harbour was agreed on."],
            ["The harbour will be widened.", "The council met.", "A cat slept."],
            [4.5, 2.5, 1.0],
        ),
        (
            "After a dry summer the lake fell by two metres and the ferry stopped.",
            ["The lake fell so low that the ferry stopped.", "A dry summer stopped the ferry."],
            ["Trains were on time.", "The ferry stopped as the lake had fallen.", "The lake fell."],
            [1.2, 4.8, 3.1],
        ),
    ]

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        texts, people, machines, relevance = zip(*self.rows, strict=True)
        data = {"text": texts, "human_summaries": people, "machine_summaries": machines, "relevance": relevance}
        self.dataset = DatasetDict({"test": Dataset.from_dict(data)})
        self.data_loaded = True


class LocalFailing(LocalSTS):
    """Its data cannot be fetched."""

    metadata = _about("LocalFailing", "STS", "cosine_spearman")

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        raise ConnectionError("the data set\ncould not be reached")


class LocalPrivate(LocalSTS):
    """Its data is not for everyone; mteb tells so in its result instead of raising."""

    metadata = _about("LocalPrivate", "STS", "cosine_spearman").model_copy(update={"is_public": False})

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        raise DatasetNotFoundError("gated")


class LocalEmpty(LocalSTS):
    """Its split holds nothing."""

    metadata = _about("LocalEmpty", "STS", "cosine_spearman")

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        self.dataset = DatasetDict({"test": Dataset.from_dict({"sentence1": [], "sentence2": [], "score": []})})
        self.data_loaded = True


class LocalOneClass(LocalClassification):
    """All it learns from is of one class."""

    metadata = _about("LocalOneClass", "Classification", "accuracy")
    train: ClassVar = [(text, 0) for text, _ in LocalClassification.train]


class LocalPublished(LocalSTS):
    """Called as a task of which others published figures."""

    metadata = _about("STS12", "STS", "cosine_spearman")


class LocalConstant(LocalSTS):
    """Every pair has the same score, so that no correlation is defined."""

    metadata = _about("LocalConstant", "STS", "cosine_spearman")
    rows: ClassVar = [(left, right, 3.0) for left, right, _ in LocalSTS.rows]

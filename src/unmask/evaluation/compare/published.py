"""Figures that others published, as data. Nothing here was measured by us.

LLM2Vec's are from the paper: P. BehnamGhader et al., LLM2Vec: Large Language Models Are Secretly Powerful Text
Encoders, COLM 2024, arXiv 2404.05961: MTEB's mean over 56 tasks (unsupervised and supervised), the STS test sets, and
the word-level probes on CoNLL-2003.

all-MiniLM-L6-v2's are those its makers recorded in the MTEB part of its model card,
huggingface.co/sentence-transformers/all-MiniLM-L6-v2, README.md at commit 97ef89b ("Add MTEB metadata"). STS12, STS13,
STS15, STS16, STSBenchmark, SICK-R, ArguAna, SCIDOCS, SprintDuplicateQuestions and SummEval agree to two digits with
MTEB's own collection of results, github.com/embeddings-benchmark/results,
results/sentence-transformers__all-MiniLM-L6-v2/8b3219a92973c328a8e22fadcfa821b5dc75636a.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

LLM2VEC: Final = "LLM2Vec paper, arXiv 2404.05961"
MINILM: Final = "model card of all-MiniLM-L6-v2, commit 97ef89b"
#: Kind of the tasks whose names are MTEB's own: only beside these may a published figure of MTEB stand.
MTEB: Final = "mteb"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model's published figures.

    Attributes:
        model: as its makers call it.
        source: where the figures stand.
        figures: by task, in hundredths, as they were published.
    """

    model: str
    source: str
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Published figures that stand in one table.

    Attributes:
        title: of the table.
        kind: of our tasks of the same names; None if we have none that are the same.
        tasks: columns.
        rows: one a model.
    """

    title: str
    kind: str | None
    tasks: tuple[str, ...]
    rows: tuple[Published, ...]


def _rows(source: str, tasks: tuple[str, ...], figures: Mapping[str, tuple[float, ...]]) -> tuple[Published, ...]:
    return tuple(
        Published(model=model, source=source, figures=dict(zip(tasks, values, strict=True)))
        for model, values in figures.items()
    )


_STAGES: Final = ("causal, weighted mean", "+ MNTP", "+ SimCSE", "supervised")
_STS: Final = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
_WORDS: Final = ("chunking", "NER", "POS")
_OTHERS: Final = {
    "ArguAna": 50.17,
    "NFCorpus": 31.59,
    "SCIDOCS": 21.64,
    "SciFact": 64.51,
    "TRECCOVID": 47.25,
    "AskUbuntuDupQuestions": 63.48,
    "SciDocsRR": 87.11,
    "StackOverflowDupQuestions": 50.76,
    "Banking77Classification": 79.75,
    "TweetSentimentExtractionClassification": 55.41,
    "RedditClustering": 50.67,
    "StackExchangeClustering": 53.36,
    "TwentyNewsgroupsClustering": 46.86,
    "SprintDuplicateQuestions": 94.55,
    "TwitterSemEval2015": 67.86,
    "TwitterURLCorpus": 84.70,
    "SummEval": 30.81,
}

#: Every published figure, a table each.
COLLECTED: Final = (
    Collected(
        title="MTEB, English, mean of 56 tasks",
        kind=None,
        tasks=_STAGES,
        rows=_rows(
            LLM2VEC,
            _STAGES,
            {
                "LLM2Vec S-LLaMA-1.3B": (35.05, 41.43, 49.42, 61.85),
                "LLM2Vec Llama-2-7B": (44.54, 45.70, 55.36, 64.14),
                "LLM2Vec Mistral-7B": (42.46, 49.43, 56.80, 64.80),
                "LLM2Vec Llama-3-8B": (43.98, 48.84, 56.23, 65.01),
            },
        ),
    ),
    Collected(
        title="MTEB, the STS test sets, Spearman",
        kind=MTEB,
        tasks=_STS,
        rows=(
            *_rows(
                LLM2VEC,
                _STS,
                {
                    "LLM2Vec S-LLaMA-1.3B + MNTP + SimCSE": (60.09, 72.52, 66.70, 77.69, 75.94, 73.36, 69.34),
                    "LLM2Vec Llama-3-8B + MNTP + SimCSE": (61.60, 79.71, 72.11, 82.18, 79.41, 77.44, 72.16),
                },
            ),
            *_rows(MINILM, _STS, {"all-MiniLM-L6-v2": (72.37, 80.60, 75.59, 85.39, 78.99, 82.03, 77.58)}),
        ),
    ),
    Collected(
        title="MTEB, other tasks, main metric",
        kind=MTEB,
        tasks=tuple(_OTHERS),
        rows=(Published(model="all-MiniLM-L6-v2", source=MINILM, figures=_OTHERS),),
    ),
    Collected(
        title="Word level, CoNLL-2003, linear probe on the frozen encoder",
        kind=None,
        tasks=_WORDS,
        rows=_rows(
            LLM2VEC,
            _WORDS,
            {
                "S-LLaMA-1.3B, causal": (86.10, 96.09, 90.89),
                "S-LLaMA-1.3B, bidirectional": (76.50, 92.17, 89.18),
                "S-LLaMA-1.3B, bidirectional + MNTP": (90.51, 96.59, 92.04),
                "S-LLaMA-1.3B, bidirectional + MNTP + SimCSE": (89.33, 95.90, 90.38),
                "DeBERTa-large": (85.74, 94.97, 86.49),
            },
        ),
    ),
)


def beside(tasks: Collection[tuple[str, str]]) -> tuple[Published, ...]:
    """Return the published rows that may stand beside ours, with the figures of the same tasks only.

    A set of ours with a similar name (STS-B's development set) is another task: name and kind must be MTEB's.

    Args:
        tasks: kind and name of each column.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for sheet in COLLECTED:
        for row in sheet.rows:
            same = {task: value for task, value in row.figures.items() if (sheet.kind, task) in tasks}
            if same:
                found.setdefault((row.model, row.source), {}).update(same)
    return tuple(Published(model=model, source=source, figures=figures) for (model, source), figures in found.items())

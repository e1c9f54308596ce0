"""Results of models that never existed, with differences that are known, written as an evaluation writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.evaluation.bootstrap import intervals
from unmask.evaluation.kinds import KINDS
from unmask.evaluation.outcome import Measured, Outcome, write_model, write_outcome

#: A kind whose statistic is a mean: the truth can be worked out by hand.
KIND = "retrieval"
MAIN = "ndcg@10"
ITEMS = 120


def measured(name: str, **changes: Any) -> Measured:
    """What was measured, for a model of a name."""
    fields: dict[str, Any] = {
        "name": name,
        "source": f"models/{name}",
        "identity": name,
        "dimension": 64,
        "max_length": 512,
        "parameters": 135_000_000,
        "tokens_per_second": 450.0,
        "hardware": "a processor, 2 threads",
        "versions": {"unmask": "0.1.0"},
        "date": "2026-01-12",
    }
    return Measured(**fields | changes)


def figures(quality: float, *, seed: int = 0, items: int = ITEMS) -> NDArray[np.float64]:
    """A figure an item: the same hard and easy items for every model, and noise of its own."""
    difficulty = np.random.default_rng(99).uniform(0.0, 0.4, items)
    return np.clip(quality + difficulty + np.random.default_rng(seed).normal(0, 0.05, items), 0, 1)


def outcome(task: str, values: NDArray[np.float64], **changes: Any) -> Outcome:
    """The outcome of a task whose main metric is the mean of ``values``."""
    samples = dict.fromkeys(("ndcg@10", "mrr@10", "recall@100", "map"), values)
    fields: dict[str, Any] = {
        "task": task,
        "kind": KIND,
        "main": MAIN,
        "metrics": intervals(KINDS[KIND].statistic, samples, resamples=100),
        "items": len(values),
        "settings": {"data": f"hash of {task}", "instruction": "Find what answers it:"},
        "seconds": 1.0,
        "samples": samples,
    }
    return Outcome(**fields | changes)


def write_results(folder: Path, outcomes: Mapping[str, Outcome], **about: Any) -> Path:
    """Write a model's folder, called like the model."""
    folder.mkdir(parents=True)
    write_model(folder, measured(folder.name, **about))
    for each in outcomes.values():
        write_outcome(folder, each)
    return folder


def write_mteb(folder: Path, scores: Mapping[str, float], *, revision: str = "abc") -> None:
    """Write mteb's own files into a model's folder."""
    place = folder / "mteb" / "results" / folder.name / revision
    place.mkdir(parents=True)
    for task, score in scores.items():
        data = {
            "task_name": task,
            "mteb_version": "2.20.1",
            "dataset_revision": "b0",
            "evaluation_time": 1.5,
            "scores": {"test": [{"main_score": score, "hf_subset": "default"}]},
        }
        (place / f"{task}.json").write_text(json.dumps(data))


def write_three(folder: Path) -> list[Path]:
    """Write a base, an equal and a better model, with two tasks in common and one that the equal one lacks."""
    qualities = {"base": (0.30, 1), "equal": (0.30, 2), "better": (0.45, 3)}
    found = []
    for name, (quality, seed) in qualities.items():
        tasks = ["CACM", "CISI", *(["TIME"] if name != "equal" else [])]
        outcomes = {task: outcome(task, figures(quality, seed=seed + 10 * at)) for at, task in enumerate(tasks)}
        speed = {"base": 450.0, "equal": 900.0, "better": 150.0}[name]
        found.append(write_results(folder / name, outcomes, tokens_per_second=speed))
    for path, kept in zip(found, (0.5, 0.5, 0.6), strict=True):
        rows = [{"dimension": size, "quality": kept - 1 / size} for size in (64, 16, 32)]
        (path / "analysis").mkdir()
        (path / "analysis" / "analysis.json").write_text(json.dumps({"measure": "Spearman", "dimensions": rows}))
    write_mteb(found[0], {"STS12": 0.61, "STSBenchmark": 0.7}, revision="one")
    write_mteb(found[2], {"STS12": 0.66}, revision="other")
    return found

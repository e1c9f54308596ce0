"""The table and the plot of the ladder's results.

python -m experiments.ladder.report    # docs/training.md and docs/ladder.png from experiments/results/ladder/ROW/
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from experiments.ladder.models import MINILM, TRAINED, UNTRAINED

from unmask.evaluation.outcome import MODEL_FILE, read_results

START: Final = "<!-- ladder -->"
END: Final = "<!-- /ladder -->"
PAGE: Final = f"""# Training

A causal language model becomes an encoder in steps: the mask comes off, masked next token prediction (MNTP) teaches the
model to use what it now sees, and contrastive learning (SimCSE without labels, or pairs and hard negatives) shapes the
space. The ladder below measures each step on development sets, beside all-MiniLM-L6-v2 as a yardstick.

{START}
{END}
"""
_YARDSTICK: Final = "#b91c1c"
_TRAINED: Final = "#2563eb"
_UNTRAINED: Final = "#6b7280"


def read(folder: Path) -> dict[str, Any]:
    """Return the rows in ``folder`` by their labels, in the ladder's order."""
    order = [*(row.label for row in UNTRAINED), *TRAINED, MINILM]
    found = {
        results.model.name: results for results in map(read_results, (f.parent for f in folder.glob(f"*/{MODEL_FILE}")))
    }
    rows = {
        label: {
            "model": asdict(found[label].model),
            "settings": {task: outcome.settings for task, outcome in found[label].outcomes.items()},
            "figures": {
                task: asdict(outcome.score) | {"metric": outcome.main, "n": outcome.items}
                for task, outcome in found[label].outcomes.items()
            },
        }
        for label in (*(label for label in order if label in found), *(label for label in found if label not in order))
    }
    return {"untrained": [row.label for row in UNTRAINED], "ladder": order, "rows": rows}


def columns(result: dict[str, Any]) -> dict[str, str]:
    """Return the tasks that were measured and their metrics, the most complete row's order first."""
    rows = sorted(result["rows"].values(), key=lambda row: -len(row["figures"]))
    return {task: figure["metric"] for row in rows for task, figure in row["figures"].items()}


def table(result: dict[str, Any]) -> str:
    """Return the figures as a Markdown table, times 100 with their intervals, the best of a column in bold."""
    tasks = columns(result)
    found = {
        task: [row["figures"][task]["value"] for row in result["rows"].values() if task in row["figures"]]
        for task in tasks
    }
    best = {task: max(values) if len(values) > 1 else None for task, values in found.items()}
    lines = [
        "| | " + " | ".join(f"{task}, {metric}" for task, metric in tasks.items()) + " |",
        "| --- |" + " ---: |" * len(tasks),
    ]
    for label, row in result["rows"].items():
        cells = [_cell(row["figures"].get(task), best[task]) for task in tasks]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None, best: float | None) -> str:
    if figure is None:
        return "–"
    value = f"{100 * figure['value']:.1f}"
    shown = f"**{value}**" if figure["value"] == best else value
    return f"{shown} ({100 * figure['low']:.1f}–{100 * figure['high']:.1f})"


def section(result: dict[str, Any]) -> str:
    """Return what stands between the markers: the table, the plot, and how it was measured."""
    rows = result["rows"]
    settings = {task: each for row in rows.values() for task, each in row["settings"].items()}
    given = [f"{task} “{each['instruction']}”" for task, each in settings.items() if each.get("instruction")]
    instructions = f" ({', '.join(given)})" if given else ""
    counts = {task: figure["n"] for row in rows.values() for task, figure in row["figures"].items()}
    sizes = ", ".join(f"{task} {count:,}" for task, count in counts.items())
    lengths = sorted({row["model"]["max_length"] for row in rows.values()})
    missing = [label for label in result["ladder"] if label not in rows]
    left_out = f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""
    runs = sorted({(row["model"]["date"][:10], row["model"]["hardware"], _versions(row)) for row in rows.values()})
    return f"""{table(result)}

![The same figures with their intervals](ladder.png)
{left_out}
A dash: not measured yet. Times 100, with the 95 % bootstrap interval over the items ({sizes}); the best of a column is
bold. The rows share their items, so a difference between two rows is surer than their two intervals look;
`unmask eval compare experiments/results/ladder/*` tests each.

Texts are cut at {" and ".join(map(str, lengths))} tokens, to spare time: retrieval sees only the beginning of a
document, and its figures cannot be set beside those on whole documents. Queries have an instruction{instructions},
except for {MINILM}, which knows none; all other texts stand without.

{chr(10).join(f"{date}; {hardware}; {versions}." for date, hardware, versions in runs)}

Made by `python -m experiments.ladder.report` from `experiments/results/ladder`.
"""


def _versions(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["model"]["versions"].items())


def write(result: dict[str, Any], folder: Path) -> None:
    """Write ``ladder.png`` to ``folder`` and the section into its ``training.md``, which is made if need be.

    Raises:
        ValueError: the page lacks the markers.
    """
    page = folder / "training.md"
    text = page.read_text(encoding="utf-8") if page.exists() else PAGE
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{page} has no place for the table; expected {START} and {END}. Put them where it belongs.")
    plot(result, folder / "ladder.png")
    page.write_text(f"{before}{START}\n{section(result)}{END}{after}", encoding="utf-8")


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw a panel a task and a line a model: a dot, and its interval as a bar."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tasks, labels = columns(result), list(result["rows"])
    across = min(3, len(tasks))
    down = -(-len(tasks) // across)
    size = (2.2 + 2.9 * across, 0.9 * down + 0.27 * len(labels) * down)
    figure, axes = plt.subplots(down, across, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (task, metric) in zip(axes.flat, tasks.items(), strict=False):
        for height, label in enumerate(labels):
            found = result["rows"][label]["figures"].get(task)
            if found is None:
                continue
            low, value, high = (100 * found[key] for key in ("low", "value", "high"))
            axis.plot([low, high], [height, height], color=_colour(result, label), linewidth=2.5, alpha=0.4)
            axis.plot(value, height, "o", color=_colour(result, label), markersize=5.5)
        axis.set_title(f"{task}: {metric}", fontsize=10)
        axis.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(length=0, labelsize=9)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.5, -0.5)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _colour(result: dict[str, Any], label: str) -> str:
    if label == result["ladder"][-1]:
        return _YARDSTICK
    return _UNTRAINED if label in result["untrained"] else _TRAINED


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    write(read(root / "experiments/results/ladder"), root / "docs")

"""The table and the plot of a benchmark's result file.

python benchmarks/report.py    # docs/speed.md and docs/speed.png from benchmarks/results/cpu.json
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

NAMES = {
    "unmask": "Unmask",
    "sentence-transformers": "sentence-transformers",
    "llm2vec": "llm2vec",
    "ceiling": "the model's own matrix products, alone",
}


def rates(mix: dict[str, Any]) -> dict[str, list[float]]:
    """Return tokens a second of each contender, a value a round."""
    return {name: [mix["tokens"] / taken for taken in seconds] for name, seconds in mix["seconds"].items() if seconds}


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table: medians, their ranges, and ratios."""
    lines = [
        "| tokens a second, median (range) | " + " | ".join(_title(n, m) for n, m in result["mixes"].items()) + " |",
        "| --- |" + " ---: |" * len(result["mixes"]),
    ]
    by_mix = {name: rates(mix) for name, mix in result["mixes"].items()}
    for name in next(iter(by_mix.values())):
        cells = []
        for mix in by_mix.values():
            values = mix[name]
            ours = statistics.median(mix["unmask"]) / statistics.median(values)
            share = "" if name == "unmask" else f", Unmask is {ours:.2f} ×"
            cells.append(f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f}){share}")
        lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _title(name: str, mix: dict[str, Any]) -> str:
    return f"{name}: {mix['texts']} texts of {mix['tokens'] / mix['texts']:.0f} tokens"


def write(result: dict[str, Any], folder: Path) -> None:
    """Write ``speed.md`` and ``speed.png`` to ``folder``, and the table into the README beside it."""
    hardware = result["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    cosines = {
        name: min(mix["cosine"][name] for mix in result["mixes"].values())
        for name in next(iter(result["mixes"].values()))["cosine"]
        if name != "unmask"
    }
    smallest = ", ".join(f"{NAMES[name]} {value:.6f}" for name, value in cosines.items())
    rounds = len(next(iter(result["mixes"].values()))["seconds"]["unmask"])
    text = f"""# Speed on a CPU

{table(result)}

![Tokens a second](speed.png)

{result["model"]} in float32, {hardware["processor"]}, {hardware["threads"]} threads, {hardware["instructions"]};
{result["date"]}; `{result["command"]}`; {versions}.
Texts: docstrings of the Python standard library. All took turns in one run, {rounds} rounds, with their defaults.

Smallest cosine to Unmask's vectors, over both mixes: {smallest}. (llm2vec cuts texts over 400 tokens, its
`doc_max_length`, and so does a little less work: docs/differences.md.)

Made by `benchmarks/report.py` from `benchmarks/results/cpu.json`.
"""
    file = folder / "speed.md"
    _, heading, training = (file.read_text() if file.exists() else "").partition("\n## Training\n")
    file.write_text(text + heading + training)
    _plot(result, folder / "speed.png")
    readme = folder.parent / "README.md"
    before, rest = readme.read_text().split("<!-- speed -->")
    _, after = rest.split("<!-- /speed -->")
    readme.write_text(f"{before}<!-- speed -->\n{table(result)}\n<!-- /speed -->{after}")


def _plot(result: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(result["mixes"]), figsize=(10, 3.2), sharex=True, layout="constrained")
    for axis, (name, mix) in zip(axes, result["mixes"].items(), strict=True):
        values = rates(mix)
        ceiling = statistics.median(values.pop("ceiling"))
        names = list(reversed(values))
        medians = [statistics.median(values[n]) for n in names]
        spread = [[m - min(values[n]), max(values[n]) - m] for n, m in zip(names, medians, strict=True)]
        colours = ["#2563eb" if n.startswith("unmask") else "#9ca3af" for n in names]
        axis.barh([NAMES[n] for n in names], medians, color=colours, xerr=list(zip(*spread, strict=True)))
        axis.axvline(ceiling, color="#b91c1c", linestyle="--", linewidth=1, label="the model's matrix products, alone")
        axis.set_title(_title(name, mix), fontsize=10)
        axis.set_xlabel("tokens a second")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8, loc="lower right")
    axes[1].set_yticklabels([])
    figure.savefig(file, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    write(json.loads((root / "benchmarks/results/cpu.json").read_text()), root / "docs")

"""The table and the plot of the training benchmark's result file.

python benchmarks/train_report.py    # both again from benchmarks/results/train.json
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = {
    "unmask": "Unmask",
    "unmask-undropped": "Unmask, LoRA dropout 0",
    "llm2vec": "llm2vec",
    "floor": "the step's matrix products, alone",
}
_COLOURS = {"unmask": "#2563eb", "unmask-undropped": "#93b4f5", "llm2vec": "#9ca3af"}
_BEGIN, _END = "<!-- train-speed -->", "<!-- /train-speed -->"
#: What the project asks of itself: times the reference's speed.
GOAL = 1.5


def rates(work: dict[str, Any]) -> dict[str, list[float]]:
    """Return tokens a second of each side and of the floor, a value a round."""
    counted = sum(work["operations"][name] for name in ("frozen", "lora", "head"))
    measured = {name: [work["tokens"] / taken for taken in times] for name, times in work["seconds"].items()}
    return measured | {"floor": [work["tokens"] * rate / counted for rate in work["products_per_second"]]}


def title(work: dict[str, Any]) -> str:
    """Return what a workload is."""
    if work["stage"] == "mntp":
        return f"MNTP, {work['rows']} blocks of {work['length']}"
    return f"SimCSE, {work['rows']} sentences of {work['tokens'] / work['rows'] / 2:.0f}, twice"


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table: medians, their ranges, ratios, and memory."""
    lines = [
        "| one training step | tokens a second, median (range) | Unmask is | memory at most | more than when loaded |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for work in result["workloads"].values():
        by_side = rates(work)
        ours = statistics.median(by_side["unmask"])
        for name in sorted(by_side, key=list(NAMES).index):
            values = by_side[name]
            middle = statistics.median(values)
            ratio = "" if name == "unmask" else f"{ours / middle:.2f} ×"
            most, loaded = work["peak"].get(name), work["loaded"].get(name)
            memory = f"{_giga(most)} | {_giga(most - loaded)}" if most else "|"
            label = f"**{title(work)}**: {NAMES[name]}" if name == "unmask" else NAMES[name]
            lines.append(f"| {label} | {middle:,.0f} ({min(values):,.0f}–{max(values):,.0f}) | {ratio} | {memory} |")
    return "\n".join(lines)


def verdict(result: dict[str, Any]) -> str:
    """Say of each workload whether the goal is met, and how near the floor it comes."""
    lines = [f"Goal: {GOAL} × llm2vec, in no more memory.", ""]
    for work in result["workloads"].values():
        by_side = {name: statistics.median(values) for name, values in rates(work).items()}
        ratio, peak = by_side["unmask"] / by_side["llm2vec"], work["peak"]
        attention = work["operations"]["attention"] / sum(work["operations"].values())
        lines.append(
            f"- {title(work)}: {ratio:.2f} ×, {_met(ratio >= GOAL)}; memory {peak['unmask'] / peak['llm2vec']:.2f} × "
            f"llm2vec's, {_met(peak['unmask'] <= peak['llm2vec'])}; {by_side['unmask'] / by_side['floor']:.0%} of the "
            f"floor, which leaves out attention's own products, {attention:.0%} of all operations."
        )
    return "\n".join(lines)


def _met(holds: bool) -> str:
    return "met" if holds else "**not met**"


def _giga(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def section(result: dict[str, Any]) -> str:
    """Return all that stands between the markers."""
    hardware, lora = result["hardware"], result["settings"]["lora"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    losses = "; ".join(
        f"{title(work)}: " + ", ".join(f"{NAMES[name]} {loss:.3f}" for name, loss in work["first_loss"].items())
        for work in result["workloads"].values()
    )
    return f"""{table(result)}

{verdict(result)}

![Tokens a second and memory of a training step](train-speed.png)

{result["model"]} in float32, LoRA of rank {lora["rank"]}, α {lora["alpha"]}, dropout {lora["dropout"]} on all linear
layers; {hardware["processor"]}, {hardware["threads"]} threads, {hardware["instructions"]}; {result["date"]};
`{result["command"]}`, seed {result["settings"]["seed"]}, {result["rounds"]} rounds in turn after one step to warm up;
{versions}.
Loss of the first step, which shows that the sides do the same work: {losses}."""


def write(result: dict[str, Any], folder: Path) -> None:
    """Write the section between the markers of ``speed.md`` in ``folder``, and ``train-speed.png``."""
    file = folder / "speed.md"
    before, rest = file.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    file.write_text(f"{before}{_BEGIN}\n{section(result)}\n{_END}{after}")
    plot(result, folder / "train-speed.png")


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw speed and memory, a group of bars a workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    works = list(result["workloads"].values())
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for place, work in enumerate(works):
        by_side = rates(work)
        floor = statistics.median(by_side.pop("floor"))
        sides = sorted(by_side, key=list(NAMES).index)
        for name, x in zip(sides, _places(place, len(sides)), strict=True):
            values = by_side[name]
            middle = statistics.median(values)
            spread = [[middle - min(values)], [max(values) - middle]]
            look: dict[str, Any] = {"width": _WIDTH * 0.92, "color": _COLOURS[name]}
            speed.bar(x, middle, yerr=spread, capsize=2, **look)
            memory.bar(x, work["peak"][name] / 1e9, **look)
            memory.bar(
                x,
                work["loaded"][name] / 1e9,
                fill=False,
                hatch="////",
                edgecolor="white",
                linewidth=0,
                width=_WIDTH * 0.92,
            )
        speed.hlines(floor, place - 0.42, place + 0.42, colors="#b91c1c", linestyles="--", linewidth=1.2)
    shown = [name for name in NAMES if any(name in work["seconds"] for work in works)]
    handles: list[Any] = [mpl.patches.Patch(color=_COLOURS[name], label=NAMES[name]) for name in shown]
    line = mpl.lines.Line2D([], [], color="#b91c1c", linestyle="--", linewidth=1.2, label=NAMES["floor"])
    hatched = mpl.patches.Patch(facecolor="#9ca3af", edgecolor="white", hatch="////", label="in use before training")
    speed.set_title("tokens a second", fontsize=10)
    memory.set_title("memory of the process at most, GB", fontsize=10)
    for axis, extra in ((speed, line), (memory, hatched)):
        axis.set_xticks(range(len(works)), [title(work).replace(", ", "\n", 1) for work in works], fontsize=8)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
        axis.legend(
            handles=[*handles, extra] if axis is speed else [extra],
            fontsize=8,
            loc="upper left",
            frameon=False,
            ncols=2,
        )
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


_WIDTH = 0.26


def _places(place: int, count: int) -> Sequence[float]:
    """Return where the bars of a group stand, centred on ``place``."""
    return [place + _WIDTH * (number - (count - 1) / 2) for number in range(count)]


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    write(json.loads((root / "benchmarks/results/train.json").read_text()), root / "docs")

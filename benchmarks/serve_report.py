"""The page and the plot of the serving benchmark's result file.

python benchmarks/serve_report.py    # docs/serving-speed.md and .png from benchmarks/results/serve.json
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

#: What the project asks of itself.
SHARE, SLOWEST = 0.92, 0.015
#: Share of the memory by which it may grow from the second to the last third of the minutes and count as flat.
FLAT = 0.01
#: Seconds that keys and credit may add to what 99 % are answered within.
ADDED = 0.005
NAMES = {
    "unmask": "Unmask",
    "sentence-transformers": "sentence-transformers behind FastAPI",
    "infinity": "infinity",
}
#: Least cosine of vectors that are the same but for rounding.
SAME = 0.9999
_BLUE, _LIGHT, _GREY = "#2563eb", "#93b4f5", "#9ca3af"


def rates(mix: dict[str, Any]) -> dict[str, list[float]]:
    """Return tokens a second of each side, a value a round."""
    return {name: [mix["tokens"] / taken for taken in times] for name, times in mix["seconds"].items()}


def share(mix: dict[str, Any], name: str, other: str) -> float:
    """Return how fast one is beside another: the median of the rounds' ratios."""
    pairs = zip(mix["seconds"][other], mix["seconds"][name], strict=True)
    return float(median(theirs / ours for theirs, ours in pairs))


def growth(values: Sequence[float]) -> float:
    """Return by what share memory grew from the second to the last third."""
    third = len(values) // 3
    return mean(values[2 * third :]) / mean(values[third : 2 * third]) - 1


def slope(seconds: Sequence[float], values: Sequence[float]) -> float:
    """Return by how much memory grew a minute, by least squares, once the first third is over."""
    third = len(values) // 3
    return float(np.polyfit(np.array(seconds[third:]) / 60, np.array(values[third:], dtype=float), 1)[0])


def _saturation(part: dict[str, Any]) -> str:
    lines = ["| texts | | tokens a second, median (range) | of `Encoder.encode` |", "| --- | --- | ---: | ---: |"]
    shares = []
    for name, mix in part["mixes"].items():
        for who, values in rates(mix).items():
            first = who == "Encoder.encode"
            title = _title(name, mix) if first else ""
            if not first:
                shares.append(share(mix, who, "Encoder.encode"))
            label = "`Encoder.encode`" if first else f"HTTP, {who}"
            lines.append(f"| {title} | {label} | {_spread(values)} | {'' if first else f'{shares[-1]:.1%}'} |")
    errors = _told(_all(part["mixes"].values()))
    cosine = min(mix["cosine"] for mix in part["mixes"].values())
    table = "\n".join(lines)
    return f"""## Through HTTP at saturation

{table}

Goal: {SHARE:.0%} of `Encoder.encode`; {_met(min(shares) >= SHARE)}. Errors: {errors}. Smallest cosine between the two
vectors of a text: {cosine:.6f}. Both had all cores, by turns, on the same texts (docstrings of the Python standard
library)."""


def _fake(part: dict[str, Any]) -> str:
    rounds, rate, goal = part["rounds"], part["rate"], part["goal"]
    fast = [each["requests_per_second"] for each in rounds]
    cost = [1e6 * each["processor_seconds_per_request"] for each in rounds]
    busy = [100 * each["client_processor_share"] for each in rounds]
    late = [1e3 * each["lateness"] for each in rounds]
    slowest = [each["steady"]["p99"] for each in rounds]
    rows = "\n".join(
        f"| {kind} | " + " | ".join(_spread([1e3 * each[key][kind] for each in rounds], 1) for key in _LOADS) + " |"
        for kind in rounds[0]["steady"]
    )
    return f"""## The API alone

One process, an engine that computes nothing, one short text a request (“{part["text"]}”), base64, a line of log each.

As fast as {part["clients"]} clients can: **{_spread(fast)} requests a second**, {_spread(cost)} µs of processor time
each. Goal: {goal:,}; {_met(median(fast) >= goal)}. The clients, which share the machine, took {_spread(busy)} % of a
core.

| answered within, ms, median (range) | {rate:,} requests a second | {part["clients"]} clients, as fast as they can |
| --- | ---: | ---: |
{rows}

The first column is an open loop: requests are due at even times, whether there are answers or not, and an answer's time
counts from when its request was due (99 % were sent within {_spread(late, 1)} ms of that: the clients' own part). Goal:
99 % within {1e3 * SLOWEST:.0f} ms; {_met(median(slowest) <= SLOWEST)}. Errors: {_told(_all(rounds))}."""


_LOADS = ("steady", "saturated")


def _credit(part: dict[str, Any]) -> str:
    rounds, rate, goal = part["rounds"], part["rate"], part["goal"]
    fast, cost = (
        {name: [scale * each[name][key] for each in rounds] for name in ("plain", "paid")}
        for key, scale in (("requests_per_second", 1), ("processor_seconds_per_request", 1e6))
    )
    rows = "\n".join(
        f"| {kind} | "
        + " | ".join(_spread([1e3 * each[name]["steady"][kind] for each in rounds], 1) for name in fast)
        + f" | {_spread([1e3 * each for each in _added(part, kind)], 1)} |"
        for kind in rounds[0]["paid"]["steady"]
    )
    added = median(_added(part, "p99"))
    return f"""## Keys and credit

The same over the same engine, without keys and through the gateway: each request's key is looked up, its price
reserved, and charged once it is answered, in SQLite. By turns.

As fast as {part["clients"]} clients can: **{_spread(fast["paid"])} requests a second** in one process,
{_spread(cost["paid"])} µs of processor time each; without keys {_spread(fast["plain"])}, {_spread(cost["plain"])} µs.
Goal: {goal:,}; {_met(median(fast["paid"]) >= goal)}.

| answered within, ms, at {rate:,} requests a second | without keys | the gateway | added |
| --- | ---: | ---: | ---: |
{rows}

Goal: 99 % no more than {1e3 * ADDED:.0f} ms later; {_met(added <= ADDED)}. Errors: {_told(_all(rounds))}."""


def _added(part: dict[str, Any], kind: str) -> list[float]:
    """Return how many seconds later answers were, a value a round."""
    return [each["paid"]["steady"][kind] - each["plain"]["steady"][kind] for each in part["rounds"]]


def _endurance(part: dict[str, Any]) -> str:
    memory, latency = part["memory"], part["latency"]
    rows, grown = [], []
    for who, title in (("server", "the server's process"), ("workers", "its worker")):
        values = memory[who]
        grown.append(growth(values))
        rows.append(
            f"| {title} | {mean(values) / 1e6:,.0f} MB | {max(values) / 1e6:,.0f} MB | {grown[-1]:+.2%} "
            f"| {slope(memory['seconds'], values) / 1e6:+.2f} MB |"
        )
    table = "\n".join(rows)
    return f"""## {part["clients"]} clients for {part["minutes"]:g} minutes

{part["requests"]:,} requests of one text each, short and long ones, {part["requests"] / part["seconds"]:.1f} a second.
Errors: {_told(part["errors"])}. Half were answered within {latency["p50"]:.1f} s, 99 % within
{latency["p99"]:.1f} s, which is the time that {part["clients"]} clients wait for one another.

| memory | mean | most | last third against the second | a minute, by least squares |
| --- | ---: | ---: | ---: | ---: |
{table}

Goal: no error, and memory that is flat (grows by less than {FLAT:.0%});
{_met(not part["errors"] and max(grown) < FLAT)}."""


def _peers(part: dict[str, Any]) -> str:
    names = list(next(iter(part["mixes"].values()))["seconds"])
    heads = [
        f"{name}: {mix['texts']} of {mix['tokens'] / mix['texts']:.0f} tokens" for name, mix in part["mixes"].items()
    ]
    lines = ["| tokens a second, median (range) | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name in names:
        cells = []
        for mix in part["mixes"].values():
            ratio = "" if name == "unmask" else f", Unmask is {share(mix, 'unmask', name):.2f} ×"
            cells.append(f"{_spread(rates(mix)[name])}{ratio}")
        lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    ahead = all(share(mix, "unmask", name) > 1 for mix in part["mixes"].values() for name in names if name != "unmask")
    cosines = ", ".join(
        f"{NAMES[name]} {min(mix['cosine'][name] for mix in part['mixes'].values()):.6f}" for name in names
    )
    errors = _told(_all(part["mixes"].values()))
    installed = "; ".join(f"{NAMES[name]}: {', '.join(packages)}" for name, packages in part["packages"].items())
    table = "\n".join(lines)
    return f"""## Other servers

{table}

The same model, in float32, by turns; {part["way"]}, each its next when it has its answer. Goal: Unmask ahead;
{_met(ahead)}. Errors: {errors}. Smallest cosine to `Encoder.encode`'s vectors: {cosines}.
{installed}.{_causal(part)}"""


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "saturation": _saturation,
    "fake": _fake,
    "credit": _credit,
    "endurance": _endurance,
    "peers": _peers,
}


def page(result: dict[str, Any]) -> str:
    """Return all of ``docs/serving-speed.md``; what was not measured is not in it."""
    sections = []
    for name, section in SECTIONS.items():
        if part := result["parts"].get(name):
            machine = part["hardware"]
            versions = ", ".join(f"{what} {version}" for what, version in part["versions"].items())
            sections.append(
                f"{section(part)}\n\n{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
                f"{machine['instructions']}; {part['date']};\n`{part['command']}`, {part['took']} s; {versions}."
            )
    return "\n\n".join(
        [
            "# Speed of the server",
            f"`make bench-serve`: {result['model']} in float32. Clients and server share the machine.",
            "![Tokens a second of servers, and memory over time](serving-speed.png)",
            *sections,
            "Made by `benchmarks/serve_report.py` from `benchmarks/results/serve.json`.\n",
        ]
    )


def _causal(part: dict[str, Any]) -> str:
    """Say why a server's vectors are others, where they are."""
    mixes = part["mixes"].values()
    others = [NAMES[name] for name in next(iter(mixes))["cosine"] if min(mix["cosine"][name] for mix in mixes) < SAME]
    if not others:
        return ""
    return (
        f"\nThe vectors of {' and '.join(others)} are not the model's: it brings a transformers before 5, which does "
        "not\nknow `is_causal` and keeps the causal mask. The work is the same."
    )


def _title(name: str, mix: dict[str, Any]) -> str:
    return f"**{name}**: {mix['texts']} of {mix['tokens'] / mix['texts']:.0f} tokens"


def _all(measured: Iterable[dict[str, Any]]) -> dict[str, int]:
    return dict(sum((Counter(each["errors"]) for each in measured), Counter()))


def _told(errors: dict[str, int]) -> str:
    return ", ".join(f"{what} {count} ×" for what, count in errors.items()) or "none"


def _spread(values: Sequence[float], digits: int = 0) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _met(holds: bool) -> str:
    return "met" if holds else "**not met**"


def write(result: dict[str, Any], folder: Path) -> None:
    """Write ``serving-speed.md`` and ``serving-speed.png`` to ``folder``."""
    (folder / "serving-speed.md").write_text(page(result))
    _plot(result["parts"], folder / "serving-speed.png")


def _plot(parts: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    if "peers" in parts:
        _bars(left, parts["peers"]["mixes"])
    if "endurance" in parts:
        _lines(right, parts["endurance"])
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _bars(axis: Any, mixes: dict[str, Any]) -> None:
    names = list(next(iter(mixes.values()))["seconds"])
    width = 0.8 / len(names)
    for number, (name, colour) in enumerate(zip(names, (_BLUE, _GREY, _LIGHT), strict=False)):
        values = [rates(mix)[name] for mix in mixes.values()]
        medians = [median(each) for each in values]
        spread = [[m - min(v), max(v) - m] for m, v in zip(medians, values, strict=True)]
        places = [place + number * width for place in range(len(mixes))]
        axis.bar(places, medians, width, color=colour, label=NAMES[name], yerr=list(zip(*spread, strict=True)))
    axis.set_xticks([place + width * (len(names) - 1) / 2 for place in range(len(mixes))], list(mixes))
    axis.set_ylabel("tokens a second")
    axis.set_title("through HTTP, the same model and texts", fontsize=10)
    axis.margins(y=0.35)  # room for the legend above the bars
    axis.legend(fontsize=8)


def _lines(axis: Any, part: dict[str, Any]) -> None:
    memory = part["memory"]
    for who, colour, title in (("workers", _BLUE, "worker"), ("server", _GREY, "server")):
        axis.plot([s / 60 for s in memory["seconds"]], [b / 1e6 for b in memory[who]], color=colour, label=title)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("minutes")
    axis.set_ylabel("resident memory, MB")
    axis.set_title(f"{part['clients']} clients, texts of all lengths", fontsize=10)
    axis.legend(fontsize=8)


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    write(json.loads((root / "benchmarks/results/serve.json").read_text()), root / "docs")

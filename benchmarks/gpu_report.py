"""The table and the plot of the GPU benchmark's result file.

python benchmarks/gpu_report.py    # docs/gpu-speed.md and docs/gpu-speed.png from benchmarks/results/gpu.json
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gpu_goals import Found, bandwidth, floor, goals, mixes, speed

#: Contenders, and what they are called.
NAMES: Final = {
    "bf16": "Unmask, bf16",
    "fp8": "Unmask, fp8",
    "sentence-transformers": "sentence-transformers",
    "padded": "the reference's way",
}
_COLOURS: Final = {"bf16": "#2563eb", "fp8": "#93b4f5", "sentence-transformers": "#9ca3af", "padded": "#d1d5db"}
_WIDTH: Final = 0.2


def text(result: Found) -> str:
    """Return all tables and goals, as Markdown."""
    parts = [f"Measured on: {result['device']}." + (" Too small to mean anything." if result["quick"] else "")]
    for name, job in result["jobs"].items():
        parts.append("\n".join(_section(name, job)))
    return "\n\n".join(parts)


def _section(name: str, job: Found) -> Iterator[str]:
    title = job["parts"].get("about", {}).get("title", name)
    yield f"## {title}{', training' if name.startswith('training-') else ''}"
    yield f"\n{job['date']}, {job['seconds']:.0f} s in all."
    for table in (_encoding(job), _training(job), _right(job), _profile(job), _sweep(job)):
        if table:
            yield "\n" + "\n".join(table)
    reached = [f"- {goal}" for goal in goals(job)]
    if reached:
        yield "\nGoals:\n\n" + "\n".join(reached)
    if job["notes"]:
        yield "\nNot measured:\n\n" + "\n".join(f"- {note['note'].splitlines()[0]}" for note in job["notes"])


def _encoding(job: Found) -> list[str]:
    """Return the table of speeds: medians and their ranges, the share of the floor, and ratios."""
    measured = mixes(job)
    if not measured:
        return []
    titles = [_title(name, mix) for name, mix in measured.items()]
    lines = [
        "| tokens a second, median (range) | " + " | ".join(titles) + " |",
        "| --- |" + " ---: |" * len(titles),
    ]
    for name in NAMES:
        cells = [_cell(name, mix, bandwidth(job)) for mix in measured.values()]
        if any(cells):
            lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    for form in ("bf16", "fp8"):
        if all(form in mix["rates"] for mix in measured.values()):
            cells = [f"{floor(mix, form, bandwidth(job)):,.0f}" for mix in measured.values()]
            lines.append(f"| the floor, {form} | " + " | ".join(cells) + " |")
    for name, label in {"bf16": "bf16", "joined": "bf16, joined", "fp8": "fp8"}.items():
        cells = [_tera(mix["rates"].get(name)) for mix in measured.values()]
        lines.append(f"| its matrix products, {label}, TFLOP/s | " + " | ".join(cells) + " |")
    return [*lines, "", *_means(job, measured)]


def _means(job: Found, measured: Found) -> Iterator[str]:
    about, any_mix = job["parts"].get("about", {}), next(iter(measured.values()))
    kernels = ", ".join(sorted({kernel for mix in measured.values() for kernel in mix["kernels"]})) or "none seen"
    yield (
        f"Attention: {kernels}; layers: {any_mix['form']}; {any_mix['budget']:,} tokens a pack; "
        f"copies {bandwidth(job) / 1e12:.2f} TB/s; {about.get('memory', 0) / 1e9:.1f} GB in use when loaded."
    )
    if floors := _floors(job):
        yield f"Floor by length, from rates taken before, tokens a second: {floors}."
    if different := any_mix.get("different_texts"):
        yield f"Cosine of two different texts: {different['median']:.3f} (median), {different['most']:.3f} at most."


def _floors(job: Found) -> str:
    part = job["parts"].get("floor", {})
    found = []
    for name, mix in part.get("mixes", {}).items():
        rates = {
            form: floor({**mix, "rates": part["rates"]}, form, bandwidth(job))
            for form in ("bf16", "fp8")
            if form in part["rates"]
        }
        found.append(f"{name}: " + ", ".join(f"{rate:,.0f} in {form}" for form, rate in rates.items()))
    return "; ".join(found)


def _cell(name: str, mix: Found, most: float) -> str:
    seconds = mix["seconds"].get(name)
    if not seconds:
        return ""
    values = [mix["tokens"] / taken for taken in seconds]
    cell = f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"
    if name in mix["rates"]:
        cell += f", {speed(mix, name) / floor(mix, name, most):.0%} of its floor"
    if name != "bf16" and mix["seconds"].get("bf16"):
        cell += f", Unmask in bf16 is {speed(mix, 'bf16') / speed(mix, name):.2f} ×"
    return cell


def _title(name: str, mix: Found) -> str:
    kind = "mix" if name == "real" else "fixed"
    return f"{kind}: {mix['texts']:,} texts of {mix['tokens'] / mix['texts']:.0f} tokens"


def _tera(rates: list[float] | None) -> str:
    return f"{statistics.median(rates) / 1e12:,.3g}" if rates else ""


def _training(job: Found) -> list[str]:
    steps = {name: part for name, part in job["parts"].items() if "products_per_second" in part}
    if not steps:
        return []
    lines = [
        "| one training step | tokens a second | share of the floor | memory at most |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, part in steps.items():
        where, kind = name.split("/")
        if where == "alone":
            lines.append(
                _step(
                    f"**{kind}, full rows of one length**: Unmask", part, part["seconds"], part["share"], part["peak"]
                )
            )
            continue
        mixed = f"{kind}, {part['rows']} rows of mixed lengths, {part['padded_tokens'] / part['tokens']:.1f} × padded"
        for side, label in (("unmask", f"**{mixed}**: Unmask"), ("padded", "the padded step")):
            lines.append(_step(label, part, part["seconds"][side], part["share"][side], part["peak"][side]))
    return lines


def _step(label: str, part: Found, seconds: list[float], share: float, peak: float) -> str:
    rate = part["tokens"] / statistics.median(seconds)
    return f"| {label} | {rate:,.0f} | {share:.0%} | {peak / 1e9:.1f} GB |"


def _right(job: Found) -> list[str]:
    right = job["parts"].get("right")
    if not right:
        return []
    lines = [
        f"{right['texts']} texts, random weights; packed vectors against the same texts in another way:",
        "",
        "| | largest relative error | least cosine |",
        "| --- | ---: | ---: |",
    ]
    return lines + [
        f"| {way} | {found['relative_error']:.1e} | {found['cosine']:.6f} |" for way, found in right["ways"].items()
    ]


def _profile(job: Found) -> list[str]:
    part = job["parts"].get("profile")
    if not part:
        return []
    host, device = part["host"], part["device"]
    lines = [
        f"Where the time goes, bf16: {host['seconds']:.2f} s for {part['texts']:,} texts; the main thread computed for "
        f"{host['main_thread']:.2f} s, all threads for {host['all_threads']:.2f} s.",
    ]
    if device["seconds"] is None:
        return lines
    whole = device["seconds"]
    kinds = "; ".join(f"{kind} {seconds / whole:.1%}" for kind, seconds in device["kinds"].items())
    lines += [
        f"Of the device's {whole:.2f} s: {kinds}; idle {1 - device['busy'] / whole:.1%}.",
        "",
        "| kernel | share | calls |",
    ]
    lines.append("| --- | ---: | ---: |")
    return lines + [f"| `{top['name']}` | {top['seconds'] / whole:.1%} | {top['count']:,} |" for top in device["top"]]


def _sweep(job: Found) -> list[str]:
    part = job["parts"].get("sweep")
    if not part or not part["seconds"]:
        return []
    found = {int(budget): part["tokens"] / statistics.median(seconds) for budget, seconds in part["seconds"].items()}
    cells = "; ".join(f"{budget:,}: {rate:,.0f}" for budget, rate in sorted(found.items()))
    return [f"Tokens a second on half of the mix by token budget (planned: {part['planned']:,}): {cells}."]


def write(result: dict[str, Any], folder: Path) -> None:
    """Write ``gpu-speed.md`` and ``gpu-speed.png`` to ``folder``.

    Raises:
        SystemExit: it was not measured on a CUDA device, or with little work only.
    """
    if not result["cuda"] or result["quick"]:
        raise SystemExit(
            f"The result was measured on {result['device']}{', quickly' if result['quick'] else ''}; expected one of "
            "`make bench-gpu` on a CUDA device. Nothing was written."
        )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    (folder / "gpu-speed.md").write_text(f"""# Speed on a GPU

{text(result)}

![Tokens a second](gpu-speed.png)

Random weights, made on the device; texts of words from the standard library's docstrings, the mix log-normal of mean
130 and at most 512 tokens; strings in, vectors on the CPU out; all by turns in one run, medians; seed {result["seed"]};
`{result["command"]}`; {versions}.

The floor is the counted operations at the measured rate of the model's own matrix products, or the bytes at that of a
copy, whichever takes longer (`benchmarks/gpu_floor.py`); a training step's leaves attention out, and what gradient
checkpointing computes again counts for nothing (`benchmarks/train_floor.py`). sentence-transformers: its defaults,
batches of 32 sorted by length, on the same weights in bf16 with torch's attention. The reference's way: batches of 32
sorted by characters and padded on the left, as `LLM2Vec.encode` does it (`benchmarks/gpu_encode.py`).

Made by `benchmarks/gpu_report.py` from `benchmarks/results/gpu.json`.
""")
    _plot(result, folder / "gpu-speed.png")


def _plot(result: Found, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    jobs = {name: job for name, job in result["jobs"].items() if mixes(job)}
    if not jobs:
        return
    figure, axes = plt.subplots(1, len(jobs), figsize=(4.2 * len(jobs), 3.6), layout="constrained", squeeze=False)
    for axis, (title, job) in zip(axes[0], jobs.items(), strict=True):
        measured = mixes(job)
        for place, mix in enumerate(measured.values()):
            for number, name in enumerate(NAMES):
                if mix["seconds"].get(name):
                    x = place + _WIDTH * (number - 1.5)
                    axis.bar(x, speed(mix, name), width=_WIDTH * 0.92, color=_COLOURS[name])
            for form, style in (("bf16", "-"), ("fp8", ":")):
                if form in mix["rates"]:
                    height = floor(mix, form, bandwidth(job))
                    axis.hlines(height, place - 0.42, place + 0.42, colors="#b91c1c", linestyles=style, linewidth=1.2)
        axis.set_title(job["parts"].get("about", {}).get("title", title), fontsize=10)
        axis.set_xticks(range(len(measured)), list(measured), fontsize=8)
        axis.set_xlabel("tokens of a text")
        axis.spines[["top", "right"]].set_visible(False)
    handles: list[Any] = [mpl.patches.Patch(color=_COLOURS[name], label=label) for name, label in NAMES.items()]
    for form, style in (("bf16", "-"), ("fp8", ":")):
        handles.append(mpl.lines.Line2D([], [], color="#b91c1c", linestyle=style, label=f"the floor, {form}"))
    axes[0][0].set_ylabel("tokens a second")
    figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    write(json.loads((root / "benchmarks/results/gpu.json").read_text()), root / "docs")

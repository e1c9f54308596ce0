"""The pictures of an analysis, as PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final

from unmask.evaluation.analysis.effects import LengthBucket
from unmask.evaluation.analysis.forms import OUTPUTS
from unmask.evaluation.analysis.running import Analysis
from unmask.evaluation.outcome import Metric

_COLOURS: Final = ("#9db8d9", "#1f5aa6", "#c4572b")
#: int8 mostly lies on float32; both are to be seen.
_LINES: Final = MappingProxyType({"float32": "-", "int8": "--", "binary": "-"})


def movement(analysis: Analysis) -> bytes | None:
    """Draw how far states are from the causal base's, by layer and position, as LLM2Vec's Figure 5 does."""
    found = analysis.layers
    if found is None:
        return None
    figure, axes = _figure(1, 2, width=11, height=4.6, sharey=True)
    drawn = (("base, both ways, weights unchanged", found.base_both_ways), (analysis.model, found.encoder))
    least = min(0.0, *(value for _, moved in drawn for layer in moved.positions for value in layer))
    for axis, (title, moved) in zip(axes, drawn, strict=True):
        picture = axis.imshow(
            moved.positions, origin="lower", aspect="auto", cmap="viridis", vmin=least, vmax=1, interpolation="none"
        )
        axis.set(xlabel="position of the token", title=title)
    axes[0].set_ylabel("layer (0: embeddings)")
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label(f"cosine with the same token in {found.base}, causal")
    figure.suptitle(f"States of {found.texts} texts against the causal base")
    return _png(figure)


def layers(analysis: Analysis) -> bytes:
    """Draw layer by layer: how far a last token moves the first, the movement, the anisotropy."""
    found = analysis.layers
    figure, axes = _figure(1, 3 if found else 1, width=12 if found else 5, height=3.6)
    first = axes[0] if found else axes
    moved = analysis.direction.layers
    first.bar(range(1, len(moved) + 1), moved, color=_COLOURS[1])
    if any(moved):
        first.set_yscale("log")
    first.set(xlabel="layer", ylabel="share of the state's size", title="Another last token moves the first")
    if found:
        both = (("base, both ways", found.base_both_ways.layers), (analysis.model, found.encoder.layers))
        for colour, (name, values) in zip(_COLOURS[1:], both, strict=True):
            axes[1].plot(values, color=colour, label=name)
        axes[1].set(xlabel="layer", ylabel="cosine", title="The same token in the causal base")
        for colour, (name, values) in zip(_COLOURS, found.anisotropy.items(), strict=True):
            axes[2].plot(values, color=colour, label=name)
        axes[2].set(xlabel="layer", ylabel="mean cosine", title="Tokens of different texts")
        for axis in axes[1:]:
            axis.legend(fontsize=8)
    return _png(figure)


def effects(analysis: Analysis) -> bytes:
    """Draw what length and cutting do."""
    figure, axes = _figure(1, 3, width=12, height=3.6)
    names = [_span(bucket) for bucket in analysis.lengths]
    axes[0].bar(names, [bucket.norm for bucket in analysis.lengths], color=_COLOURS[1])
    axes[0].set(xlabel="tokens", ylabel="norm", title="Length of the vector")
    for colour, name in ((_COLOURS[1], "within"), (_COLOURS[2], "others")):
        points = [
            (span, value) for span, b in zip(names, analysis.lengths, strict=True) if _known(value := getattr(b, name))
        ]
        if points:
            label = {"within": "texts of the same length", "others": "with all other texts"}[name]
            axes[1].plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=label)
    axes[1].set(xlabel="tokens", ylabel="mean cosine", title="Similarity of two texts")
    axes[1].legend(fontsize=8)
    if analysis.cuts:
        _with_interval(axes[2], [(cut.tokens, cut.cosine) for cut in analysis.cuts], _COLOURS[1], None)
        axes[2].set_xticks([cut.tokens for cut in analysis.cuts])
    axes[2].set(xlabel="tokens left", ylabel="cosine with the whole text", title="Cut texts")
    return _png(figure)


def dimensions(analysis: Analysis) -> bytes:
    """Draw the quality that fewer components and smaller numbers keep."""
    found = analysis.forms
    figure, axes = _figure(1, 2, width=10, height=4)
    for colour, output in zip(reversed(_COLOURS), OUTPUTS, strict=True):
        kept = [each for each in found.kept if each.output == output]
        for axis, name in zip(axes, ("quality", "neighbours"), strict=True):
            _with_interval(axis, [(each.dimensions, getattr(each, name)) for each in kept], colour, output)
    axes[0].set(ylabel=found.measure, title="Quality")
    axes[1].set(ylabel="share", title="Ten nearest texts that stay")
    sizes = sorted({each.dimensions for each in found.kept})
    ticks = [size for size in sizes if size == sizes[-1] or size * 1.3 < sizes[-1]]
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("first components")
        axis.legend(fontsize=8)
    return _png(figure)


#: Each file's name, and what draws it; None where that was not measured.
PLOTS: Final[Mapping[str, Callable[[Analysis], bytes | None]]] = MappingProxyType({
    "movement.png": movement,
    "layers.png": layers,
    "effects.png": effects,
    "dimensions.png": dimensions,
})  # fmt: skip


def _with_interval(axis: Any, points: list[tuple[int, Metric]], colour: str, label: str | None) -> None:
    places = [place for place, _ in points]
    values = [metric.value for _, metric in points]
    line = _LINES.get(label or "", "-")
    axis.plot(places, values, line, color=colour, marker="o", markersize=4, label=label)
    ends = [(metric.low, metric.high) for _, metric in points]
    if all(_known(low) for low, _ in ends):
        axis.fill_between(places, *zip(*ends, strict=True), color=colour, alpha=0.15, linewidth=0)


def _span(bucket: LengthBucket) -> str:
    return f"{bucket.least}–{bucket.most}" if bucket.most else f"{bucket.least}–"


def _known(value: float | None) -> bool:
    return value is not None


def _figure(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), dpi=150, layout="constrained", **options)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    stream = BytesIO()
    figure.savefig(stream, format="png")
    pyplot.close(figure)
    return stream.getvalue()

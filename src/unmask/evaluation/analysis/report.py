"""An analysis as a folder (JSON and plots) and as rows of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from unmask.evaluation.analysis.effects import LengthBucket
from unmask.evaluation.analysis.forms import OUTPUTS
from unmask.evaluation.analysis.layers import Movement
from unmask.evaluation.analysis.plots import PLOTS
from unmask.evaluation.analysis.running import Analysis
from unmask.evaluation.outcome import Metric
from unmask.hub.cache import atomic_file

ANALYSIS_FILE: Final = "analysis.json"
COLUMNS: Final = ("part", "figure", "value")

Row = tuple[str, str, str]


def write(folder: Path, analysis: Analysis) -> list[Path]:
    """Write ``analysis.json`` and the plots of what was measured; each file appears whole.

    Returns:
        The files written, the JSON first.
    """
    data = {**asdict(analysis), "passed": analysis.passed}
    files = [folder / ANALYSIS_FILE]
    with atomic_file(files[0], replace=True) as draft:
        draft.write_text(json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    for name, plot in PLOTS.items():
        if (picture := plot(analysis)) is not None:
            with atomic_file(folder / name, replace=True) as draft:
                draft.write_bytes(picture)
            files.append(folder / name)
    return files


def _plain(value: Any) -> Any:
    """Return data as JSON has it: what is not a number becomes null, six digits of the others are kept."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        # A cosine of 0.9999999 must not become 1: seven digits behind the point.
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def rows(analysis: Analysis) -> list[Row]:
    """Return the analysis as rows of :data:`COLUMNS`."""
    sections = (_sample, _direction, _movement, _geometry, _effects, _packing, _forms)
    found = [row for section in sections for row in section(analysis)]
    return found + [(part, "not measured", reason) for part, reason in analysis.not_measured.items()]


def verdict(analysis: Analysis) -> str:
    """Return one line: whether everything that must hold does."""
    worst = min(analysis.invariance.arrangements, key=lambda each: each.cosine)
    looks = "looks both ways" if analysis.direction.both_ways else "is causal"
    if analysis.passed:
        return f"passed: {analysis.model} {looks}; a text's vector does not depend on what shares its forward pass."
    return (
        f"FAILED: {analysis.model} {looks}, but a text's vector depends on what shares its forward pass: cosine "
        f"{worst.cosine:.7f} with its vector alone ({worst.name}); expected at least {analysis.invariance.required}."
    )


def _sample(analysis: Analysis) -> Iterator[Row]:
    given = f"{analysis.texts} of {analysis.given}, {analysis.tokens:,} tokens, seed {analysis.seed}"
    yield "texts", analysis.source, given


def _direction(analysis: Analysis) -> Iterator[Row]:
    found = analysis.direction
    yield "direction", "looks both ways", "yes" if found.both_ways else "no: causal"
    yield "", "last token moves the first, by layer", f"{min(found.layers):.2g} to {max(found.layers):.2g}"
    yield "", "… in the whole model", f"{found.first_token:.2g}"
    yield "", "neighbour in a row moves a text", f"{found.leak:.1g}"


def _movement(analysis: Analysis) -> Iterator[Row]:
    found = analysis.layers
    if found is None:
        return
    yield "layers", f"cosine with {found.base}, causal", f"{found.texts} texts, {found.tokens:,} tokens"
    for name, moved in (("base, both ways", found.base_both_ways), ("this encoder", found.encoder)):
        yield "", name, _spread(moved)
    for name, by_layer in found.anisotropy.items():
        yield "", f"cosine of random tokens, {name}", f"{by_layer[-1]:.3f} (most {max(by_layer):.3f})"


def _spread(moved: Movement) -> str:
    least = min(range(len(moved.layers)), key=moved.layers.__getitem__)
    return f"{moved.layers[-1]:.3f} in the last layer; least {moved.layers[least]:.3f}, in layer {least}"


def _geometry(analysis: Analysis) -> Iterator[Row]:
    found = analysis.geometry
    yield "geometry", "anisotropy (mean cosine of two texts)", f"{found.anisotropy:.3f}"
    yield "", "uniformity (lower is more even)", f"{found.uniformity:.3f}"
    value = "–" if found.alignment is None else f"{found.alignment:.3f}, {found.positives} pairs"
    yield "", "alignment (lower is closer)", f"{value} ({found.positives_from})"


def _effects(analysis: Analysis) -> Iterator[Row]:
    found = analysis.instruction
    yield "instruction", repr(found.instruction), f"{found.texts} texts"
    yield "", "cosine with and without", _metric(found.cosine)
    yield "", "ten nearest that stay", _metric(found.neighbours)
    for number, bucket in enumerate(analysis.lengths):
        yield "" if number else "length", f"{_bounds(bucket)} tokens, {bucket.texts} texts", _bucket(bucket)
    for number, cut in enumerate(analysis.cuts):
        whole = f"cut at {cut.tokens} tokens of {cut.whole:.0f}, {cut.texts} texts"
        yield "" if number else "truncation", whole, f"cosine {_metric(cut.cosine)}"


def _bounds(bucket: LengthBucket) -> str:
    return f"{bucket.least} to {bucket.most}" if bucket.most else f"{bucket.least} and more"


def _bucket(bucket: LengthBucket) -> str:
    cosines = [("with each other", bucket.within), ("with the rest", bucket.others)]
    told = [f"{value:.3f} {name}" for name, value in cosines if value is not None]
    return f"norm {bucket.norm:.2f}; cosine {', '.join(told)}" if told else f"norm {bucket.norm:.2f}"


def _packing(analysis: Analysis) -> Iterator[Row]:
    found = analysis.invariance
    verdict = "nil" if found.passed else f"FAILED: expected a cosine of at least {found.required}"
    yield "packing", f"effect on {found.texts} texts, {found.tokens:,} tokens", verdict
    for each in found.arrangements:
        yield "", each.name, f"cosine ≥ {each.cosine:.7f}, components ± {each.difference:.1e}"


def _forms(analysis: Analysis) -> Iterator[Row]:
    found = analysis.forms
    yield "dimensions", found.measure, f"{found.pairs:,} pairs; ten nearest that stay, of {found.texts} texts"
    for output in OUTPUTS:
        for kept in (each for each in found.kept if each.output == output):
            quality = f"{_metric(kept.quality)}; {kept.neighbours.value:.0%} of neighbours; {kept.bytes:,} bytes"
            yield "", f"{kept.dimensions} × {kept.output}", quality


def _metric(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"

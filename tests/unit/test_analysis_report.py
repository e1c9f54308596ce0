"""An analysis on disk and in a table: everything that was found is there, and what failed is said."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from unmask.evaluation.analysis import Analysis, report, rows, verdict, write
from unmask.evaluation.analysis.effects import Cut, InstructionEffect, LengthBucket
from unmask.evaluation.analysis.forms import OUTPUTS, Forms, Kept
from unmask.evaluation.analysis.geometry import Geometry
from unmask.evaluation.analysis.invariance import Arrangement, Invariance
from unmask.evaluation.analysis.layers import Layers, Movement
from unmask.evaluation.analysis.plots import PLOTS
from unmask.evaluation.analysis.running import Direction
from unmask.evaluation.outcome import Metric

METRIC = Metric(value=0.75, low=0.5, high=0.875)
MOVED = Movement(layers=(1.0, 0.5, 0.25), positions=((1.0, 1.0), (0.25, 0.75), (-0.5, 0.5)))
ANALYSIS = Analysis(
    model="tiny",
    source="given",
    given=300,
    texts=200,
    tokens=4321,
    seed=0,
    direction=Direction(both_ways=True, layers=(0.3, 0.0004), first_token=0.2, leak=0.0),
    layers=Layers(
        base="tiny-base",
        texts=2,
        tokens=4,
        counts=(2, 2),
        base_both_ways=MOVED,
        encoder=MOVED,
        anisotropy={"base, causal": (0.1, 0.9, 0.4), "base, both ways": (0.1, 0.2, 0.3), "this encoder": (0, 0, 0.2)},
    ),
    geometry=Geometry(
        texts=200, anisotropy=0.4321, uniformity=-2.5, alignment=None, positives=0, positives_from="no pairs"
    ),
    instruction=InstructionEffect(instruction="Say it:", texts=20, cosine=METRIC, neighbours=METRIC),
    lengths=(
        LengthBucket(least=1, most=8, texts=1, norm=3.5, within=None, others=0.125),
        LengthBucket(least=257, most=None, texts=2, norm=4.5, within=0.25, others=0.125),
    ),
    cuts=(
        Cut(tokens=32, texts=12, whole=300.4, cosine=METRIC),
        Cut(tokens=64, texts=12, whole=300.4, cosine=METRIC),
    ),
    invariance=Invariance(
        texts=5,
        tokens=50,
        arrangements=(
            Arrangement(name="all at once", difference=2e-6, relative=1e-7, cosine=0.99999991),
            Arrangement(name="shuffled", difference=4e-6, relative=2e-7, cosine=0.99999987),
        ),
        required=0.99999,
        passed=True,
    ),
    forms=Forms(
        measure="Spearman, scores of dev",
        pairs=500,
        texts=200,
        kept=tuple(
            Kept(dimensions=size, output=output, bytes=size, quality=METRIC, neighbours=METRIC)
            for output in OUTPUTS
            for size in (32, 64)
        ),
    ),
    not_measured={},
    seconds=12.5,
)
BROKEN = replace(
    ANALYSIS.invariance,
    arrangements=(*ANALYSIS.invariance.arrangements, Arrangement(name="packs", difference=1, relative=0.1, cosine=0.9)),
    passed=False,
)


def is_picture(content: bytes) -> bool:
    """Whether a PNG shows data: axes and their labels are grey."""
    from matplotlib.image import imread

    pixels = imread(BytesIO(content), format="png")[:, :, :3]
    coloured = pixels.max(axis=2) - pixels.min(axis=2) > 0.1
    return bool(min(pixels.shape[:2]) > 300 and coloured.mean() > 0.003)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PLOTS", {})


def test_the_folder_holds_figures_and_pictures(tmp_path: Path) -> None:
    files = write(tmp_path / "new", ANALYSIS)
    assert [file.name for file in files] == [
        "analysis.json", "movement.png", "layers.png", "effects.png", "dimensions.png",
    ]  # fmt: skip
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)
    assert all(is_picture(file.read_bytes()) for file in files[1:])


@pytest.mark.usefixtures("no_plots")
def test_json_holds_every_figure(tmp_path: Path) -> None:
    data = json.loads(write(tmp_path, ANALYSIS)[0].read_text())
    assert data["passed"] is True
    assert data["layers"]["encoder"]["positions"] == [[1, 1], [0.25, 0.75], [-0.5, 0.5]]
    assert data["invariance"]["arrangements"][1]["cosine"] == 0.9999999
    assert data["cuts"][1]["cosine"] == {"value": 0.75, "low": 0.5, "high": 0.875}
    assert data["lengths"][1]["most"] is None
    assert set(data) == {*Analysis.__dataclass_fields__, "passed"}


@pytest.mark.usefixtures("no_plots")
def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    geometry = replace(ANALYSIS.geometry, anisotropy=float("nan"))
    data = json.loads(write(tmp_path, replace(ANALYSIS, geometry=geometry))[0].read_text())
    assert data["geometry"]["anisotropy"] is None


@pytest.mark.usefixtures("no_plots")
def test_an_old_analysis_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, ANALYSIS)
    data = json.loads(write(tmp_path, replace(ANALYSIS, model="other"))[0].read_text())
    assert data["model"] == "other"


def test_what_was_not_measured_is_not_drawn_but_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PLOTS", {name: PLOTS[name] for name in ("movement.png", "effects.png")})
    without = replace(ANALYSIS, layers=None, cuts=(), not_measured={"layers": "no base", "truncation": "too short"})
    files = write(tmp_path, without)
    assert [file.name for file in files] == ["analysis.json", "effects.png"]
    assert is_picture(files[1].read_bytes())
    assert rows(without)[-2:] == [("layers", "not measured", "no base"), ("truncation", "not measured", "too short")]


def test_rows_say_what_was_found() -> None:
    found = {(figure, value) for _, figure, value in rows(ANALYSIS)}
    assert {
        ("given", "200 of 300, 4,321 tokens, seed 0"),
        ("looks both ways", "yes"),
        ("this encoder", "0.250 in the last layer; least 0.250, in layer 2"),
        ("cosine of random tokens, base, causal", "0.400 (most 0.900)"),
        ("anisotropy (mean cosine of two texts)", "0.432"),
        ("alignment (lower is closer)", "– (no pairs)"),
        ("cosine with and without", "0.750 [0.500, 0.875]"),
        ("1 to 8 tokens, 1 texts", "norm 3.50; cosine 0.125 with the rest"),
        ("257 and more tokens, 2 texts", "norm 4.50; cosine 0.250 with each other, 0.125 with the rest"),
        ("cut at 64 tokens of 300, 12 texts", "cosine 0.750 [0.500, 0.875]"),
        ("effect on 5 texts, 50 tokens", "nil"),
        ("shuffled", "cosine ≥ 0.9999999, components ± 4.0e-06"),
        ("64 × int8", "0.750 [0.500, 0.875]; 75% of neighbours; 64 bytes"),
    } <= found
    assert all(len(row) == 3 for row in rows(ANALYSIS))


def test_a_causal_encoder_is_called_so() -> None:
    causal = replace(ANALYSIS, direction=Direction(both_ways=False, layers=(0.0, 0.0), first_token=0.0, leak=0.0))
    assert ("direction", "looks both ways", "no: causal") in rows(causal)
    assert verdict(causal).startswith("passed: tiny is causal;")
    picture = PLOTS["layers.png"](causal)
    assert picture is not None
    assert is_picture(picture)


def test_a_failure_is_said_and_names_the_worst() -> None:
    broken = replace(ANALYSIS, invariance=BROKEN)
    assert not broken.passed
    assert verdict(broken) == (
        "FAILED: tiny looks both ways, but a text's vector depends on what shares its forward pass: cosine "
        "0.9000000 with its vector alone (packs); expected at least 0.99999."
    )
    assert ("packing", "effect on 5 texts, 50 tokens", "FAILED: expected a cosine of at least 0.99999") in rows(broken)


def test_success_is_one_line() -> None:
    assert ANALYSIS.passed
    assert verdict(ANALYSIS).startswith("passed: tiny looks both ways;")
    assert "\n" not in verdict(ANALYSIS)

"""The GPU benchmark counts as a hand does, says what was measured where, and runs to its end on a processor."""

from __future__ import annotations

import importlib
import io
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unmask.backbone.float8 import on_processor

_FOLDER = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, _FOLDER)
gpu: Any = importlib.import_module("gpu")
floors: Any = importlib.import_module("gpu_floor")
encode: Any = importlib.import_module("gpu_encode")
job: Any = importlib.import_module("gpu_job")
goals: Any = importlib.import_module("gpu_goals")
profile: Any = importlib.import_module("gpu_profile")
report: Any = importlib.import_module("gpu_report")
shapes: Any = importlib.import_module("gpu_shapes")
texts: Any = importlib.import_module("gpu_texts")
train: Any = importlib.import_module("gpu_train")
train_floor: Any = importlib.import_module("train_floor")
sys.path.remove(_FOLDER)

#: Two layers of hidden size 4: q and o 4 × 4, k and v 4 × 2, gate and up 4 × 6, down 6 × 4.
CONFIG = SimpleNamespace(
    hidden_size=4,
    intermediate_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    vocab_size=11,
)
SIZES = [(4, 4), (4, 2), (4, 2), (4, 4), (4, 6), (4, 6), (6, 4)] * 2
SHAPE = train_floor.Shape(
    linears=tuple(train_floor.Linear(*size) for size in SIZES), hidden=4, vocabulary=11, layers=2, attention=4
)


def test_the_floors_operations_and_bytes_are_those_that_a_hand_counts() -> None:
    work = floors.Work.of(SHAPE, CONFIG, [3, 5], packs=2)
    weights = 2 * (16 + 8 + 8 + 16 + 24 + 24 + 24)
    assert work.linear == 2 * 8 * weights
    # Q·K and P·V of each layer and text: [L, 4] × [4, L] and [L, L] × [L, 4].
    assert work.attention == 2 * (2 * 3 * 4 * 3 + 2 * 3 * 3 * 4 + 2 * 5 * 4 * 5 + 2 * 5 * 5 * 4)
    assert work.weights == 2 * weights
    # Eight tokens, two layers, each tensor written and read: q, k, v, attention's, o's, gate times up, down's.
    assert work.states == 8 * 2 * 2 * (4 + 2 + 2 + 4 + 4 + 6 + 4)


def test_the_floor_is_the_larger_of_computing_and_moving() -> None:
    work = floors.Work(linear=600, attention=100, weights=10, states=5)
    rates = {"bf16": 100.0, "fp8": 200.0}
    assert work.seconds("bf16", rates, bandwidth=1000) == 7
    assert work.seconds("fp8", rates, bandwidth=1000) == 4  # attention stays in bf16
    assert work.seconds("bf16", rates, bandwidth=3) == 10
    assert work.seconds("fp8", rates, bandwidth=4) == 5  # its weights are of one byte


def test_products_that_are_faster_joined_raise_the_floor() -> None:
    mix = _mix() | {"rates": {"bf16": [50.0, 70.0, 60.0], "joined": [100.0, 90.0, 200.0]}}
    assert goals.floor(mix, "bf16", math.inf) == 100 / 10
    assert goals.floor(mix | {"rates": {"bf16": [125.0], "joined": [100.0]}}, "bf16", math.inf) == 100 / 8


def test_kernels_are_told_apart_and_pauses_found() -> None:
    def ran(name: str, begin: float, duration: float, category: str = "kernel") -> dict[str, Any]:
        return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": duration}

    events = [
        ran("nvjet_tst_128x256", 1000, 60),
        ran("flash_fwd_kernel<cutlass::half_t>", 1050, 30),  # ten of them beside the product
        ran("triton_poi_fused_mul_silu_0", 1090, 10),
        ran("Memcpy DtoH", 1150, 50, "gpu_memcpy"),
        ran("aten::mm", 0, 5000, "cpu_op"),
        ran("ProfilerStep", 0, 5000, "gpu_user_annotation"),
        {"ph": "M", "name": "process_name"},
    ]
    found = profile.read_trace(events)
    assert found["seconds"] == pytest.approx(200e-6)
    assert found["busy"] == pytest.approx(140e-6)
    kinds = {"matrix products": 60, "attention": 30, "other kernels": 10, "copies": 50}
    assert found["kinds"] == {kind: pytest.approx(micro * 1e-6) for kind, micro in kinds.items()}
    assert found["top"][0]["name"] == "nvjet_tst_128x256"
    assert profile.read_trace([ran("aten::mm", 0, 1, "cpu_op")]) == {"seconds": None}


def test_the_mixs_lengths_are_bounded_and_of_the_mean() -> None:
    lengths = texts.real_lengths(4000, seed=1)
    assert lengths.mean() == pytest.approx(130, abs=0.5)
    assert (lengths.min(), lengths.max()) == (8, 512)


def test_texts_have_the_lengths_that_were_asked_for() -> None:
    entries = [SimpleNamespace(text=f"Return the {kind} of a file's contents, 3.5 times.") for kind in "abcdefgh"] * 9
    tokenizer = texts.learn_tokenizer(entries, 400, files=0)
    made = texts.mixes(texts.Words(entries, tokenizer), {"16": 20, "real": 5}, seed=3)
    assert {len(ids) for ids in tokenizer(made["16"])["input_ids"]} == {16}
    assert [len(ids) for ids in tokenizer(made["real"])["input_ids"]] == texts.lengths_of("real", 5)


def test_twins_share_weights_and_nothing_else() -> None:
    model = shapes.random_model(shapes.SHAPES["tiny"].fields, torch.device("cpu"), seed=0)
    other = shapes.padded_twin(model)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(a is b for a, b in pairs)
    assert other.config is not model.config
    assert other.layers[0] is not model.layers[0]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # read by peft
def test_both_steps_learn_the_same() -> None:
    stages = (train.Mntp(batch=4, max_length=64), train.SimCse(batch=4, max_length=32))
    found = train.compare(
        shapes.SHAPES["tiny"].fields, stages, rounds=1, seed=1, device=torch.device("cpu"), left=lambda: 100.0
    )
    for kind, most in (("mntp", math.log(1024)), ("simcse", math.log(4))):
        # Before anything is learnt, all tokens are as likely; views are told apart by dropout alone.
        assert all(0 < loss < 1.1 * most for loss in found[kind]["first_loss"].values())
        assert found[kind]["seconds"].keys() == {"unmask", "padded"}
    assert found["mntp"]["first_loss"]["padded"] == pytest.approx(found["mntp"]["first_loss"]["unmask"], rel=0.05)
    assert found["simcse"]["tokens"] == 2 * sum(min(32, n) for n in texts.lengths_of("real", 4, seed=1))


def _mix() -> dict[str, Any]:
    """100 tokens and 1,000 operations: at 100 operations a second the floor is ten tokens a second."""
    return {
        "texts": 10,
        "tokens": 100,
        "longest": 20,
        "budget": 64,
        "packs": 2,
        "work": {"linear": 900.0, "attention": 100.0, "weights": 1.0, "states": 1.0},
        "seconds": {
            "bf16": [12.5, 10.0, 20.0],
            "fp8": [10.0, 5.0, 5.0],
            "sentence-transformers": [25.0],
            "padded": [20.0],
        },
        "rates": {"bf16": [100.0], "joined": [90.0], "fp8": [180.0]},
        "warm_up": 1.0,
        "kernels": ["varlen"],
        "form": "compiled",
        "cosine": {"fp8": {"least": 0.99, "median": 1.0}, "padded": {"least": 0.9995, "median": 1.0}},
        "different_texts": {"median": 0.5, "most": 0.75},
    }


def _result(**changes: Any) -> dict[str, Any]:
    """Return a result as the benchmark writes it; its figures are made up."""
    step = {"tokens": 100, "operations": 1.0, "attention_share": 0.1, "products_per_second": 1.0}
    encoding = {
        "about": {"title": "A shape", "memory": 2e9},
        "floor": {"bandwidth": 2e12, "rates": {"bf16": [50.0], "joined": [50.0]}, "mixes": {"64": _mix()}},
        "mix/real": _mix(),
        "right": {"texts": 3, "ways": {"alone": {"relative_error": 0.02, "cosine": 0.99995}}},
        "profile": {
            "texts": 5,
            "host": {"seconds": 2.0, "main_thread": 0.5, "all_threads": 0.75},
            "device": {
                "seconds": 2.0,
                "busy": 1.5,
                "kinds": {"matrix products": 1.0},
                "top": [{"name": "nvjet", "kind": "matrix products", "seconds": 1.0, "count": 7}],
            },
        },
        "sweep": {"planned": 64, "texts": 5, "tokens": 50, "seconds": {"32": [5.0], "64": [2.0]}, "cut": True},
    }
    compare = step | {
        "rows": 4,
        "padded_tokens": 250,
        "seconds": {"unmask": [2.0], "padded": [5.0]},
        "share": {"unmask": 0.5, "padded": 0.2},
        "peak": {"unmask": 3e9, "padded": 4e9},
    }
    note = {"note": "mix/512 left out: 3 s left of 9", "failed": False}
    return {
        "date": "2026-01-01",
        "command": "make bench-gpu",
        "device": "A device",
        "cuda": True,
        "quick": False,
        "versions": {"torch": "9.9"},
        "seed": 7,
        "jobs": {
            "shape": {"date": "2026-01-01", "seconds": 61.0, "parts": encoding, "notes": [note]},
            "training-shape": {"date": "2026-01-01", "seconds": 9.0, "parts": {"compare/mntp": compare}, "notes": []},
        },
    } | changes


def test_the_report_says_what_was_measured_and_what_was_missed() -> None:
    lines = report.text(_result()).splitlines()
    assert lines[0] == "Measured on: A device."
    assert "| Unmask, bf16 | 8 (5–10), 80% of its floor |" in lines
    assert "| Unmask, fp8 | 20 (10–20), 120% of its floor, Unmask in bf16 is 0.40 × |" in lines
    assert "| sentence-transformers | 4 (4–4), Unmask in bf16 is 2.00 × |" in lines
    assert "| the floor, bf16 | 10 |" in lines
    assert "- mix: share of the floor in bf16: 0.8, goal ≥ 0.85: **missed**" in lines
    assert "- mix: fp8, times bf16: 2.5, goal ≥ 1.5: met" in lines
    assert "- mix: times padded: 1.6, goal ≥ 2: **missed**" in lines
    assert "- mix: fp8, least cosine: 0.99, goal ≥ 0.995: **missed**" in lines
    assert "- alone: relative error: 0.02, goal ≤ 0.01: **missed**" in lines
    assert "- alone: least cosine: 0.99995, goal ≥ 0.9999: met" in lines
    assert "Of the device's 2.00 s: matrix products 50.0%; idle 25.0%." in lines
    assert "- mix/512 left out: 3 s left of 9" in lines
    assert any(line.endswith("by token budget (planned: 64): 32: 10; 64: 25.") for line in lines)
    assert "| **mntp, 4 rows of mixed lengths, 2.5 × padded**: Unmask | 50 | 50% | 3.0 GB |" in lines
    assert "- mntp: times the padded step: 2.5, goal ≥ 2: met" in lines
    assert not goals.Goal(what="", value=math.nan, bound=0).met


@pytest.mark.parametrize("changes", [{"cuda": False}, {"quick": True}])
def test_figures_that_no_gpu_gave_reach_no_document(tmp_path: Path, changes: dict[str, bool]) -> None:
    with pytest.raises(SystemExit, match="Nothing was written"):
        report.write(_result(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_page_and_the_plot_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report.write(_result(), tmp_path)
    page = (tmp_path / "gpu-speed.md").read_text()
    assert page.startswith("# Speed on a GPU\n\nMeasured on: A device.")
    assert "seed 7" in page
    assert (tmp_path / "gpu-speed.png").stat().st_size > 0


def _script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    """Put a job in the place of the real one that does one part and then something else."""
    script = tmp_path / "job.py"
    said = json.dumps({"part": "floor", "value": {"bandwidth": 1.0}, "seconds": 0.5})
    script.write_text(f"import sys, time\nprint({said!r}, flush=True)\n{rest}\n")
    monkeypatch.setattr(gpu, "SCRIPT", script)


def test_what_was_measured_before_a_job_died_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path, monkeypatch, "sys.exit('no such kernel')")
    file = tmp_path / "gpu.json"
    result = gpu.begin(file, "cpu", quick=True)
    states: list[tuple[int, int]] = []
    write = gpu._write

    def writing(result: dict[str, Any], file: Path) -> None:
        job = result["jobs"]["tiny"]
        states.append((len(job["parts"]), len(job["notes"])))
        write(result, file)

    monkeypatch.setattr(gpu, "_write", writing)
    assert not gpu.run(["tiny"], result, file, device="cpu", minutes=1)
    assert states == [(1, 0), (1, 1)]  # as soon as there is something
    written = json.loads(file.read_text())["jobs"]["tiny"]
    assert written["parts"] == {"floor": {"bandwidth": 1.0, "took": 0.5}}
    assert written["notes"] == [{"note": "the job ended with status 1", "where": "no such kernel\n", "failed": True}]


def test_a_part_that_fails_or_has_no_time_left_says_so_and_the_next_goes_on() -> None:
    def asked(until: float) -> tuple[Any, io.StringIO]:
        answer = io.StringIO()
        return job.Job(job="tiny", device="cpu", quick=False, until=until, seed=1, answer=answer), answer

    def fails() -> None:
        raise KeyError("no kernel")

    late, answer = asked(0)
    late.part("sweep", fails)
    said = json.loads(answer.getvalue())
    assert said["note"].startswith("sweep left out: it needs 20 s")
    assert not said["failed"]
    early, answer = asked(math.inf)
    early.part("mix/16", fails)
    early.part("floor", lambda: {"bandwidth": 1})
    first, second = map(json.loads, answer.getvalue().splitlines())
    assert (first["note"], first["failed"]) == ("mix/16 failed: KeyError: 'no kernel'", True)
    assert "in fails" in first["where"]
    assert (second["part"], second["value"]) == ("floor", {"bandwidth": 1})


def test_a_contender_that_fails_takes_no_further_part() -> None:
    def fails(chosen: list[str]) -> None:
        raise RuntimeError(f"{len(chosen)} texts")

    failed: list[str] = []
    bench = encode.Bench(
        encoder=None,
        contenders={"bf16": len, "padded": fails},
        products={},
        shape=SHAPE,
        left=lambda: 1.0,
        failed=lambda name, error: failed.append(f"{name}: {error}"),
        failures=job.FAILURES,
        least=0.1,
    )
    assert bench._warm_up(["a text"] * 100) == []
    assert failed == ["padded: 64 texts"]  # ours alone warms up with all of them
    assert list(bench.contenders) == ["bf16"]


def test_a_job_without_time_left_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path, monkeypatch, "time.sleep(60)")
    monkeypatch.setattr(gpu, "_GRACE", 0.5)
    result = gpu.begin(tmp_path / "gpu.json", "cpu", quick=True)
    assert gpu.run(["tiny"], result, tmp_path / "gpu.json", device="cpu", minutes=1 / 120)
    assert result["jobs"]["tiny"]["notes"][0]["note"] == "the job had no time left"
    assert result["jobs"]["tiny"]["seconds"] < 50


def test_jobs_stay_if_the_same_device_and_versions_measured_them(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    result = gpu.begin(file, "cpu", quick=True)
    file.write_text(json.dumps(result | {"jobs": {"other": {}}}))
    assert gpu.begin(file, "cpu", quick=True)["jobs"] == {"other": {}}
    assert gpu.begin(file, "cpu", quick=False)["jobs"] == {}
    file.write_text(json.dumps(result | {"jobs": {"other": {}}, "device": "another"}))
    assert gpu.begin(file, "cpu", quick=True)["jobs"] == {}


@pytest.mark.skipif(not on_processor(), reason="this torch has no products of eight bits on a processor")
def test_it_runs_to_its_end_on_a_processor(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    result = gpu.begin(file, "cpu", quick=True)
    assert gpu.run(["tiny"], result, file, device="cpu", minutes=4), result["jobs"]["tiny"]["notes"]
    parts = json.loads(file.read_text())["jobs"]["tiny"]["parts"]
    assert list(parts) == ["about", "floor", "mix/real", "right", "profile", "mix/16", "sweep"]
    for name, tokens in (("mix/real", None), ("mix/16", 32 * 16)):
        mix = parts[name]
        assert mix["tokens"] == (tokens or mix["tokens"])
        assert all(len(seconds) == 1 for seconds in mix["seconds"].values())
        # Nothing is padded in the mix of one length: there a peer that had stayed causal would show.
        assert mix["cosine"]["padded"]["least"] > 0.9999
        if "sentence-transformers" in mix["cosine"]:
            assert mix["cosine"]["sentence-transformers"]["least"] > 0.9999
        assert mix["cosine"]["fp8"]["least"] > 0.99
        assert mix["different_texts"]["most"] < 0.99
    assert parts["right"]["ways"].keys() == {"alone", "fp8", "padded", "in other packs", "cpu float32"}
    assert all(way["cosine"] > 0.9999 for name, way in parts["right"]["ways"].items() if name != "fp8")
    assert "Too small to mean anything" in report.text(result)

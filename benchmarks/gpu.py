"""Speed on a GPU: encoding and training beside their floor and their peers, in one run of under ten minutes.

    python benchmarks/gpu.py                                    # or make bench-gpu; needs a CUDA device
    python benchmarks/gpu.py --shape llama-3-8b --only encoding   # one job; what was measured before stays
    python benchmarks/gpu.py --device cpu --shape tiny --quick    # shows that it runs; means nothing

Nothing is downloaded: weights are random and made on the device, texts are docstrings of the standard library, and the
tokenizer is learnt from them. Each job runs in a process of its own and has its share of the time; what one does not
use, the next ones have. The result is written after each part, so nothing is lost; what was left out or failed says so
in it. Writes benchmarks/results/gpu.json and, from a CUDA device, docs/gpu-speed.md and docs/gpu-speed.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import gpu_report
import torch

import unmask
from unmask.hardware import hardware

ROOT: Final = Path(__file__).parents[1]
RESULT: Final = Path(__file__).parent / "results" / "gpu.json"
SCRIPT: Final = Path(__file__).with_name("gpu_job.py")
SEED: Final = 42
#: Jobs and their share of the time, in the order in which they run.
JOBS: Final[dict[str, float]] = {
    "llama-3-8b": 0.44,
    "training-llama-3-8b": 0.18,
    "llama-3.2-1b": 0.19,
    "smollm2-135m": 0.19,
    "tiny": 0.5,
    "training-tiny": 0.5,
}
_DEFAULT: Final = ("llama-3-8b", "llama-3.2-1b", "smollm2-135m")
#: Minutes of all jobs together: under ten, with room for the report.
_MINUTES: Final = 9.2
#: Seconds after its time in which a job may end what it is at; then it is stopped.
_GRACE: Final = 10.0
_PACKAGES: Final = ("triton", "transformers", "peft", "accelerate", "sentence-transformers", "flash-attn")
#: Characters of a stopped job's last words.
_LAST_WORDS: Final = 2000


def versions() -> dict[str, str]:
    """Return the versions of what takes part."""
    found = {"unmask": unmask.__version__, "torch": torch.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def begin(file: Path, device: str, *, quick: bool) -> dict[str, Any]:
    """Return a result without jobs; with those of ``file`` if the same device and versions measured them."""
    cuda = device == "cuda"
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "make bench-gpu",
        "device": hardware(torch.device(device)),
        "cuda": cuda,
        "quick": quick,
        "versions": versions(),
        "seed": SEED,
        "jobs": {},
    }
    if file.is_file():
        before = json.loads(file.read_text())
        same = ("device", "cuda", "quick", "versions", "seed")
        if all(before[name] == result[name] for name in same):
            result["jobs"] = before["jobs"]
    return result


def run(names: Sequence[str], result: dict[str, Any], file: Path, *, device: str, minutes: float) -> bool:
    """Run jobs one after the other, writing the result after each part; return whether all went well."""
    begun, shares = time.monotonic(), [JOBS[name] for name in names]
    well = True
    for number, name in enumerate(names):
        end = begun + 60 * minutes * sum(shares[: number + 1]) / sum(shares)
        job: dict[str, Any] = {"date": result["date"], "parts": {}, "notes": [], "seconds": 0.0}
        result["jobs"][name] = job
        asked = {
            "job": name,
            "device": device,
            "quick": result["quick"],
            "until": time.time() + end - time.monotonic(),
            "seed": SEED,
        }
        well &= _run(asked, job, partial(_write, result, file))
    return well


def _run(asked: dict[str, Any], job: dict[str, Any], written: Callable[[], None]) -> bool:
    """Run one job, take down its parts and notes, and return whether it went well."""
    begun, seconds = time.monotonic(), max(0.0, asked["until"] - time.time())
    command = [sys.executable, str(SCRIPT), json.dumps(asked)]
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables) as process,
    ):
        stop = threading.Timer(seconds + _GRACE, process.kill)
        stop.start()
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            if "part" in said:
                job["parts"][said["part"]] = said["value"] | {"took": said["seconds"]}
            else:
                job["notes"].append(said)
            job["seconds"] = round(time.monotonic() - begun, 1)
            written()
            print(f"{asked['job']}, {job['seconds']:.0f} s: {said.get('part') or said['note']}", flush=True)
        status = process.wait()
        stop.cancel()
        if status:
            log.seek(0)
            late = status < 0 and time.monotonic() - begun > seconds
            why = "had no time left" if late else f"ended with status {status}"
            job["notes"].append({"note": f"the job {why}", "where": log.read()[-_LAST_WORDS:], "failed": not late})
            print(f"{asked['job']}: the job {why}\n{job['notes'][-1]['where']}", flush=True)
    job["seconds"] = round(time.monotonic() - begun, 1)
    written()
    return not any(note["failed"] for note in job["notes"])


def _write(result: dict[str, Any], file: Path) -> None:
    """Write the result whole, so that a run that is stopped leaves the last state."""
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps(result, indent=1) + "\n")
    draft.replace(file)


def main() -> None:
    """Measure, write the result, and from a CUDA device the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    encodings = [name for name in JOBS if not name.startswith("training-")]
    parser.add_argument("--shape", nargs="+", choices=encodings, default=list(_DEFAULT), metavar="NAME")
    parser.add_argument("--only", choices=("encoding", "training"), help="one kind of job")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="of all jobs together")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="little work, one round; no table or plot is written")
    parser.add_argument("--output", type=Path, default=RESULT, help="the result file; jobs in it stay")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "There is no CUDA device here. Try --device cpu --shape tiny --quick, which shows that it runs."
        )
    if options.output == RESULT and (options.quick or options.device != "cuda"):
        options.output = Path(tempfile.mkdtemp()) / "gpu.json"
    kinds = {"encoding": False, "training": True}
    wanted = [
        name
        for name in JOBS
        if name.removeprefix("training-") in options.shape
        if options.only is None or name.startswith("training-") == kinds[options.only]
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    result = begin(options.output, options.device, quick=options.quick)
    well = run(wanted, result, options.output, device=options.device, minutes=options.minutes)
    print(gpu_report.text(result), f"\nWritten: {options.output}", sep="\n")
    if result["cuda"] and not result["quick"]:
        gpu_report.write(result, options.output.parent if options.output != RESULT else ROOT / "docs")
    if not well:
        raise SystemExit("Some of it failed; the notes in the result say what.")


if __name__ == "__main__":
    main()

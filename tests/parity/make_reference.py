"""Record what the reference library (llm2vec 0.2.3) answers, as golden vectors.

    python -m tests.parity.make_reference --env DIR   # builds the environment in DIR, then records
    DIR/bin/python -m tests.parity.make_reference     # again, inside that environment

Run it from the root of the repository. It writes two files beside itself (``--out``: elsewhere).

``reference.json``
    ``versions``     of the packages that matter
    ``instruction``, ``texts``   the inputs: ``plain`` stands for [["", text], …] and
                     ``instruction`` for [[instruction, text], …]
    ``checkpoints``  name → arguments of ``write_base`` (or ``write_published``, where the name says
                     so) in ``tests/tiny.py``, and the fingerprint of the inner decoder's weights
    ``cases``        name → checkpoint, inputs, pooling, skip_instruction, bidirectional, adapters
    ``templates``    base's name → pooling → the string for an instruction and text, and for a text
    ``defects``      name → what the reference gets wrong, how it was asked, how far off it is
    ``renderings``   "checkpoint/inputs" and "checkpoint/inputs/eos_token", base folders only → for
                     each text its token ids with BOS and without padding, and ``start``: the
                     pooled span is ids[start:]
``reference.npz``
    case name → float32 [texts, 64]; ``defect/NAME/reference`` and ``defect/NAME/right`` → [64]

In every case the reference pools the right tokens: the script checks it by character offsets and
stops if not. Where the reference is wrong stands under ``defects`` alone.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import venv
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.parity.cases import CHECKPOINTS, INSTRUCTION, TEMPLATE_NAMES, TEXTS, Case, cases, pairs
from tests.parity.defects import record_defects
from tests.parity.reference import MARKER, Reference

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PINS = (
    "torch==2.13.0",
    "transformers==4.44.2",
    "tokenizers==0.19.1",
    "peft==0.13.2",  # later ones ask torch.distributed for what a CPU build has not imported
    "numpy==2.4.6",
    "safetensors==0.8.0",
    "llm2vec==0.2.3",
)


def record_cases(reference: Reference) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return arrays, descriptions and renderings, each by name.

    Raises ValueError when the reference pools other tokens than the text's, or a vector is not
    finite.
    """
    arrays: dict[str, Any] = {}
    described: dict[str, Any] = {}
    renderings: dict[str, Any] = {}
    for case in cases():
        encoder = reference.load(
            case.checkpoint,
            adapters=case.adapters,
            bidirectional=case.bidirectional,
            pooling_mode=case.pooling,
            skip_instruction=case.skip_instruction,
        )
        rendered = [_rendering(reference, encoder, case, pair) for pair in pairs(case.inputs)]
        if case.adapters == "none":
            eos = "/eos_token" if case.pooling == "eos_token" else ""
            renderings[f"{case.checkpoint}/{case.inputs}{eos}"] = rendered
        arrays[case.name] = reference.vectors(encoder, pairs(case.inputs))
        described[case.name] = asdict(case)
        if not (abs(arrays[case.name]) < 1e3).all():
            raise ValueError(f"{case.name}: the reference answered a vector that is not finite.")
    return arrays, described, renderings


def _rendering(reference: Reference, encoder: Any, case: Case, pair: list[str]) -> dict[str, Any]:
    ids, start, right = reference.span(encoder, pair)
    if start != right:
        raise ValueError(
            f"{case.name}: for {pair[1][:40]!r} the reference pools from token {start}, the text "
            f"starts at token {right}. Choose another text, or another instruction."
        )
    return {"ids": ids, "start": start}


def record_templates(reference: Reference) -> dict[str, Any]:
    """Return base's name → pooling → the strings for [instruction, text] and for a text alone."""
    encoder = reference.load("llama3")
    templates: dict[str, Any] = {}
    for name in TEMPLATE_NAMES:
        encoder.model.config._name_or_path = name
        templates[name] = {}
        for mode in ("mean", "eos_token"):
            encoder.pooling_mode = mode
            marked = [encoder._convert_to_str(before, "a text") for before in ("Do this:", "")]
            strings = [encoder.prepare_for_tokenization(text) for text in marked]
            templates[name][mode] = [text.replace(MARKER, "") for text in strings]
    return templates


def _checkpoint(reference: Reference, name: str) -> dict[str, Any]:
    """Return a checkpoint's arguments and the fingerprint of its inner decoder's weights."""
    settings = dict(CHECKPOINTS[name])
    tokenizer = reference.tiny.tiny_tokenizer(settings["tokenizer"])
    model = reference.tiny.tiny_model(settings["model_type"], seed=settings.get("seed", 0), vocab_size=len(tokenizer))
    return settings | {"weights_sha256": reference.tiny.fingerprint(model.state_dict())}


def record(out: Path) -> None:
    """Run everything and write both files to `out`."""
    numpy: Any = importlib.import_module("numpy")
    packages = [pin.split("==")[0] for pin in PINS]
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(Path(folder))
        arrays, described, renderings = record_cases(reference)
        defect_arrays, defects = record_defects(reference)
        content = {
            "versions": {package: importlib.metadata.version(package) for package in packages},
            "instruction": INSTRUCTION,
            "texts": TEXTS,
            "checkpoints": {name: _checkpoint(reference, name) for name in CHECKPOINTS},
            "cases": described,
            "templates": record_templates(reference),
            "defects": defects,
            "renderings": renderings,
        }
    numpy.savez_compressed(out / "reference.npz", **arrays, **defect_arrays)
    (out / "reference.json").write_text(_readable(content), encoding="utf-8")
    summary = f"{len(arrays)} cases of {len(TEXTS)} texts, {len(defects)} defects: {out}"
    sys.stdout.write(f"{summary}\n")


def _readable(content: dict[str, Any]) -> str:
    """Return JSON with a line for each entry of the second level."""
    lines = []
    for key, value in content.items():
        if isinstance(value, dict):
            inner = [f"  {json.dumps(k)}: {_one_line(v)}" for k, v in value.items()]
            lines.append(f" {json.dumps(key)}: {{\n" + ",\n".join(inner) + "\n }")
        else:
            lines.append(f" {json.dumps(key)}: {_one_line(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def make_environment(folder: Path) -> Path:
    """Create a virtual environment with the pins, and return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    for pins in (PINS[:1], PINS):  # torch first, so that a CPU build that is at hand is kept
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins], check=True)
    return python


def main() -> None:
    """Parse the command line; with ``--env`` build the environment and go on inside it."""
    parser = argparse.ArgumentParser(description="Record the reference library's vectors.")
    parser.add_argument("--env", type=Path, help="build the environment here and record inside it")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    arguments = parser.parse_args()
    if arguments.env is not None:
        python = make_environment(arguments.env.resolve())
        out = str(arguments.out.resolve())
        command = [str(python), "-m", "tests.parity.make_reference", "--out", out]
        subprocess.run(command, check=True, cwd=ROOT)
        return
    warnings.filterwarnings("ignore")
    record(arguments.out)


if __name__ == "__main__":
    main()

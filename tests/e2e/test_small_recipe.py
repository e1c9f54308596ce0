"""The recipe for any machine, as it is shipped, on the real model: some ten minutes on two cores."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from unmask import Encoder
from unmask.cli import app
from unmask.cli.outcome import run
from unmask.training.monitor import read_metrics


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_small_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(app, ["train", "recipe", "small", "-o", str(folder)]) == 0
    assert f"Wrote {folder / 'encoder'}" in capsys.readouterr().err
    mntp, simcse = ([line["loss"] for line in read_metrics(folder / name)] for name in ("1-mntp", "2-simcse"))
    assert (len(mntp), len(simcse)) == (25, 20)
    assert np.mean(mntp[-5:]) < np.mean(mntp[:5]) - 0.5
    assert np.isfinite(simcse).all()
    encoder = Encoder.load(folder / "encoder")
    texts = ["Compress a file with gzip.", "Make a file smaller.", "Send an e-mail."]
    near, far = encoder.similarity(encoder.encode(texts[:1]), encoder.encode(texts[1:]))[0]
    assert near > far
    assert re.search(r"\| mntp \| 25 \| 25,600 \|", (folder / "encoder" / "README.md").read_text())

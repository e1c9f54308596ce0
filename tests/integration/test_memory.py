"""A stream of a million texts stays within 2 GB beyond the model and its output."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.tiny import write_base
from unmask import Encoder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_texts_in_bounded_memory(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=4)
    encoder = Encoder.load(folder)
    encoder.encode(["warm up"] * 5000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    for vectors in encoder.encode_stream(f"the {i}th short text" for i in range(1_000_000)):
        count += len(vectors)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert count == 1_000_000
    assert grown < 200, f"{grown:.0f} MB more than after 5,000 texts"

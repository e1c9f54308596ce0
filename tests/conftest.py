"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Reading them imports mteb, once a home: too long for every server that a test starts.
os.environ.setdefault("UNMASK_MTEB_INSTRUCTIONS", "false")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """See that a test leaves torch its threads: with another number, those after it round their sums otherwise."""
    before = torch.get_num_threads()
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before

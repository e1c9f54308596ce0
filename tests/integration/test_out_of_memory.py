"""A device whose memory runs out: smaller passes, the same vectors, and one error where nothing helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import write_base
from unmask import Encoder
from unmask.backbone.layout import Layout
from unmask.errors import OutOfMemoryError

TEXTS = [f"{word} " * count for word, count in [("tree", 3), ("house", 40), ("cat", 1), ("river", 17), ("sky", 60)]] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "model")


class SmallMemory:
    """A backbone's ``hidden`` that fails above a number of tokens."""

    def __init__(self, encoder: Encoder, most: int) -> None:
        self.passes: list[int] = []
        self.failed = 0
        self._most, self._hidden = most, encoder.backbone.hidden

    def __call__(self, ids_T: Tensor, layout: Layout) -> Tensor:
        if len(ids_T) > self._most:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.passes.append(len(ids_T))
        return self._hidden(ids_T, layout)


def with_small_memory(folder: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Encoder, SmallMemory]:
    encoder = Encoder.load(folder)
    memory = SmallMemory(encoder, most)
    monkeypatch.setattr(encoder.backbone, "hidden", memory)
    return encoder, memory


def test_the_budget_is_halved_and_the_vectors_are_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = Encoder.load(folder).encode(TEXTS)
    encoder, memory = with_small_memory(folder, 200, monkeypatch)
    longest = max(len(text.ids) for text in encoder.pipeline.tokenizer.tokenize(_as_texts(TEXTS)))
    assert longest <= 200
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5
    assert max(memory.passes) <= 200
    assert encoder.pipeline.token_budget <= 200
    # Each failure halves the budget: a few, not one a pack.
    assert memory.failed <= 5
    assert "did not suffice" in caplog.text
    failed = memory.failed
    encoder.encode(TEXTS)
    assert memory.failed == failed


def test_one_text_that_does_not_fit_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, _ = with_small_memory(folder, 30, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r"does not suffice for a text of \d+ tokens. Lower max_length"):
        encoder.encode(TEXTS)
    assert encoder.encode("short").shape == (64,)


class SmallMemoryForRows:
    """A pipeline's laying out of rows that fails above a number of tokens, or each time but every second."""

    def __init__(self, encoder: Encoder, most: int | None) -> None:
        self.calls = 0
        self._most, self._row = most, encoder.pipeline._row

    def __call__(self, texts: Any) -> Any:
        self.calls += 1
        tokens = sum(len(text.ids) for text in texts)
        if self.calls % 2 if self._most is None else tokens > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return self._row(texts)


def test_a_row_that_finds_no_memory_ahead_is_laid_out_in_its_turn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = Encoder.load(folder).encode(TEXTS)
    encoder = Encoder.load(folder)
    encoder.pipeline.token_budget = 300
    rows = SmallMemoryForRows(encoder, None)
    monkeypatch.setattr(encoder.pipeline, "_row", rows)
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5
    # The pass before it had ended: nothing had to become smaller.
    assert rows.calls > 2
    assert encoder.pipeline.token_budget == 300
    assert not caplog.text


def test_a_row_that_finds_no_memory_at_all_is_halved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Encoder.load(folder).encode(TEXTS)
    encoder = Encoder.load(folder)
    monkeypatch.setattr(encoder.pipeline, "_row", SmallMemoryForRows(encoder, 200))
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5
    assert encoder.pipeline.token_budget <= 200
    monkeypatch.setattr(encoder.pipeline, "_row", SmallMemoryForRows(encoder, 30))
    with pytest.raises(OutOfMemoryError, match=r"does not suffice for a text of \d+ tokens"):
        encoder.encode(TEXTS)


def _as_texts(texts: list[str]) -> list[Any]:
    from unmask import Text

    return [Text("", text) for text in texts]

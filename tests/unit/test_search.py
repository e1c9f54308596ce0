"""Search is exact, whatever the blocks; kept vectors are used only if they are the right ones and whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unmask.bulk import search
from unmask.bulk.kept import KeptVectors
from unmask.bulk.search import Index, TextSearch
from unmask.errors import InputError

RNG = np.random.default_rng(7)


def unit(vectors: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("count", [1, 5, 300])
def test_the_nearest_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, block: int, count: int) -> None:
    monkeypatch.setattr(search, "_BLOCK", block)
    corpus, queries = RNG.standard_normal((200, 16)).astype(np.float32), RNG.standard_normal((3, 16))
    scores, positions = Index(corpus, standardised=False).nearest(queries, count)
    expected = unit(queries) @ unit(corpus).T
    order = np.argsort(-expected, axis=1)[:, :count]
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, axis=1), atol=1e-6)


@pytest.mark.parametrize("block", [2, 1000])
def test_of_equal_texts_the_first_comes_first_and_zero_vectors_have_cosine_zero(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(search, "_BLOCK", block)
    corpus = np.array([[0, 0], [0, 1], [2, 0], [1, 0], [3, 0], [-1, 0]], dtype=np.float32)
    scores, positions = Index(corpus).nearest(np.array([[1.0, 0.0], [0.0, 0.0]]), 5)
    assert positions.tolist() == [[2, 3, 4, 0, 1], [0, 1, 2, 3, 4]]
    assert scores.tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_vectors_of_any_number_format_can_be_searched(tmp_path: Path) -> None:
    corpus = (RNG.standard_normal((50, 8)) * 40).astype(np.int8)
    np.save(tmp_path / "v.npy", corpus)
    _, positions = Index(np.load(tmp_path / "v.npy", mmap_mode="r")).nearest(corpus[[3, 44]], 1)
    assert positions.tolist() == [[3], [44]]


def test_standardising_takes_off_what_all_have_in_common() -> None:
    meaning = RNG.standard_normal((300, 32))
    common, rogue = RNG.standard_normal(32) * 10, np.where(np.arange(32) == 5, 8, 1)
    corpus, queries = meaning * rogue + common, meaning[:20] * rogue + RNG.standard_normal(32) * 10
    queries[:, 5] = RNG.permutation(queries[:, 5])  # the loudest dimension says nothing
    index = Index(corpus)
    pairs = unit(corpus) @ unit(corpus).T
    assert index.likeness == pytest.approx((pairs.sum() - 300) / (300 * 299), abs=1e-4)
    right = {}
    for standardised in (False, True):
        index = Index(corpus, standardised=standardised)
        index.expect(queries)
        right[standardised] = int((index.nearest(queries, 1)[1][:, 0] == np.arange(20)).sum())
    assert right[True] >= 18 > 10 > right[False]


def test_vectors_are_standardised_only_where_they_are_alike_and_many() -> None:
    alike = RNG.standard_normal((200, 8)) + 5
    assert Index(alike).standardised
    assert not Index(alike[:20]).standardised
    assert not Index(alike - 5).standardised


def test_a_constant_corpus_and_zero_vectors_survive_standardising() -> None:
    corpus = np.vstack([np.ones((150, 4)), np.zeros((1, 4))]).astype(np.float32)
    scores, _ = Index(corpus, standardised=True).nearest(np.ones((1, 4)), 151)
    assert np.isfinite(scores).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="not empty"):
        Index(np.zeros((0, 4)))
    with pytest.raises(InputError, match="3 dimensions; expected at least 1, and 4"):
        Index(np.ones((2, 4))).nearest(np.ones((1, 3)), 1)


# --- kept vectors ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    max_length: int = 512
    query_instruction: str | None = None


@dataclass
class FakeEncoder:
    """Counts what it encodes; a text's vector depends on its letters, and on the instruction."""

    folder: Path
    settings: Settings = Settings()
    dimension: int = 5
    dtype: str = "float32"
    encoded: list[str] = field(default_factory=list)

    @property
    def checkpoint(self) -> SimpleNamespace:
        return SimpleNamespace(base=self.folder, tokenizer=self.folder, adapters=())

    def encode(self, texts: list[str], *, instruction: str | None = None) -> Any:
        rows = [[len(text), text.count("a"), text.count("b"), text.count("c"), 1] for text in texts]
        return np.array(rows, dtype=np.float32) + len(instruction or "")

    def encode_stream(self, texts: list[str], *, instruction: str | None = None, **options: Any) -> Any:
        self.encoded += texts
        for start in range(0, len(texts), 2):
            yield self.encode(texts[start : start + 2], instruction=instruction)


@pytest.fixture
def encoder(tmp_path: Path) -> Any:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    return FakeEncoder(tmp_path / "model")


TEXTS = ["abc", "aab", "ccb"]


def test_the_same_texts_are_encoded_once(encoder: Any, tmp_path: Path) -> None:
    first = KeptVectors(encoder, folder=tmp_path / "kept").of(TEXTS)
    again = KeptVectors(encoder, folder=tmp_path / "kept").of(TEXTS)
    np.testing.assert_array_equal(first, encoder.encode(TEXTS))
    np.testing.assert_array_equal(first, again)
    assert encoder.encoded == TEXTS


def test_other_texts_settings_instruction_or_weights_are_encoded_anew(encoder: Any, tmp_path: Path) -> None:
    kept = KeptVectors(encoder, folder=tmp_path / "kept")
    kept.of(TEXTS)
    assert kept.find([*TEXTS[:2], "ccc"]) is None
    assert kept.find(["abcaab", "ccb"]) is None
    assert kept.find(TEXTS, instruction="find") is None
    encoder.settings = replace(encoder.settings, max_length=3)
    assert kept.find(TEXTS) is None
    encoder.settings = Settings()
    assert kept.find(TEXTS) is not None
    (encoder.folder / "weights").write_bytes(b"22")
    assert kept.find(TEXTS) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "about"])
def test_damaged_vectors_are_never_used(encoder: Any, tmp_path: Path, damage: str) -> None:
    kept = KeptVectors(encoder, folder=tmp_path / "kept")
    kept.of(TEXTS)
    (place,) = (tmp_path / "kept").iterdir()
    file = place / "vectors.npy"
    data = file.read_bytes()
    if damage == "flip":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        file.write_bytes(data[:-4])
    elif damage == "gone":
        file.unlink()
    else:
        (place / "about.json").write_text("{")
    assert kept.find(TEXTS) is None
    np.testing.assert_array_equal(kept.of(TEXTS), encoder.encode(TEXTS))
    assert kept.find(TEXTS) is not None


def test_an_interrupted_run_keeps_nothing(encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **options: Any) -> Any:
        yield np.zeros((2, 5), dtype=np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "encode_stream", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        KeptVectors(encoder, folder=tmp_path / "kept").of(TEXTS)
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_query_gets_the_instruction_of_the_checkpoint(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path / "home"))
    assert TextSearch(encoder, TEXTS).instruction == search.QUERY_INSTRUCTION
    assert TextSearch(encoder, TEXTS, instruction="").find("aab")[0][1] == 1
    encoder.settings = Settings(query_instruction="Find it:")
    assert TextSearch(encoder, TEXTS).instruction == "Find it:"

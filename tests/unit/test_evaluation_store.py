"""Kept vectors: each distinct text is encoded once, whatever was killed or damaged on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation_fakes import DIMENSION, FakeSubject, text_vector
from unmask.errors import InputError
from unmask.evaluation import store as module
from unmask.evaluation.store import VectorStore
from unmask.progress import Progress
from unmask.text import Text


def texts(*contents: str, instruction: str = "") -> list[Text]:
    return [Text(instruction, content) for content in contents]


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_TEXTS", 3)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.npy"))


def test_each_distinct_text_is_encoded_once_and_comes_back_in_order(tmp_path: Path) -> None:
    subject = FakeSubject()
    store = VectorStore(subject, folder=tmp_path)
    asked = texts("oak", "elm", "oak", "ash", "fir", "elm")
    assert np.array_equal(store.vectors(asked), [text_vector(text) for text in asked])
    more = [*texts("fir", "yew"), *texts("oak", instruction="Which tree?")]
    assert np.array_equal(store.vectors(iter(more)), [text_vector(text) for text in more])
    assert subject.encoded == [*texts("oak", "elm", "ash", "fir", "yew"), *texts("oak", instruction="Which tree?")]
    assert store.texts == 6
    assert store.vectors([]).shape == (0, DIMENSION)


def test_instruction_and_content_are_not_run_together(tmp_path: Path) -> None:
    subject = FakeSubject()
    VectorStore(subject, folder=tmp_path).vectors([Text("a", "bc"), Text("ab", "c"), Text("", "abc")])
    assert len(subject.encoded) == 3


def test_another_run_finds_the_vectors_and_another_model_does_not(tmp_path: Path) -> None:
    VectorStore(FakeSubject(), folder=tmp_path).vectors(texts("oak", "elm", "ash", "fir"))
    again, other = FakeSubject(), FakeSubject(identity="2")
    found = VectorStore(again, folder=tmp_path).vectors(texts("fir", "oak"))
    assert np.array_equal(found, [text_vector(text) for text in texts("fir", "oak")])
    assert again.encoded == []
    VectorStore(other, folder=tmp_path).vectors(texts("oak"))
    assert len(other.encoded) == 1


def test_segments_land_on_disk_while_the_rest_is_encoded(tmp_path: Path) -> None:
    def vector(text: Text) -> object:
        if text.content == "seventh":
            raise KeyboardInterrupt
        return text_vector(text)

    with pytest.raises(KeyboardInterrupt):
        VectorStore(FakeSubject(vector=vector), folder=tmp_path).vectors(texts(*"abcdef", "seventh", "eighth"))
    assert len(segments(tmp_path)) == 2
    again = FakeSubject()
    VectorStore(again, folder=tmp_path).vectors(texts(*"abcdef", "seventh", "eighth"))
    assert again.encoded == texts("seventh", "eighth")


def test_long_texts_make_short_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_CHARACTERS", 8)
    VectorStore(FakeSubject(), folder=tmp_path).vectors(texts("oak tree", "elm", "ash", "fir"))
    assert sorted(len(np.load(file)) for file in segments(tmp_path)) == [1, 3]


@pytest.mark.parametrize("damage", ["cut short", "one byte", "empty"])
def test_a_damaged_segment_is_named_and_encoded_again(tmp_path: Path, damage: str) -> None:
    VectorStore(FakeSubject(), folder=tmp_path).vectors(texts("oak", "elm", "ash", "fir"))
    broken = next(file for file in segments(tmp_path) if len(np.load(file)) == 3)
    data = bytearray(broken.read_bytes())
    data[-5] ^= 1
    left = {"cut short": len(data) // 2, "one byte": len(data), "empty": 0}[damage]
    broken.write_bytes(data[:left])
    again, said = FakeSubject(), list[str]()
    store = VectorStore(again, folder=tmp_path, say=said.append)
    assert said == [f"{broken} is damaged; it is removed, and its texts are encoded again."]
    assert np.array_equal(store.vectors(texts("ash", "fir")), [text_vector(text) for text in texts("ash", "fir")])
    assert again.encoded == texts("ash")


def test_a_draft_of_a_killed_run_is_no_segment(tmp_path: Path) -> None:
    VectorStore(FakeSubject(), folder=tmp_path).vectors(texts("oak"))
    (file,) = segments(tmp_path)
    file.with_name(f".part-1-{file.name}").write_bytes(b"half")
    said: list[str] = []
    VectorStore(FakeSubject(), folder=tmp_path, say=said.append)
    assert said == []


def test_blank_texts_are_zero_and_not_encoded(tmp_path: Path) -> None:
    subject = FakeSubject()
    found = VectorStore(subject, folder=tmp_path).vectors(texts("oak", " ", ""))
    assert found.any(axis=1).tolist() == [True, False, False]
    assert subject.encoded == texts("oak")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_an_error_and_not_kept(tmp_path: Path, number: float) -> None:
    def vector(text: Text) -> object:
        return text_vector(text) * (number if text.content == "elm" else 1)

    with pytest.raises(InputError, match="fake gives 1 of 2 texts a vector with NaN or infinity, for instance 'elm'"):
        VectorStore(FakeSubject(vector=vector), folder=tmp_path).vectors(texts("oak", "elm"))
    assert segments(tmp_path) == []


def test_vectors_of_another_shape_are_an_error(tmp_path: Path) -> None:
    subject = FakeSubject(dimension=5)
    with pytest.raises(InputError, match=r"vectors of shape \(1, 16\) for 1 texts; expected \(1, 5\)"):
        VectorStore(subject, folder=tmp_path).vectors(texts("oak"))


@pytest.mark.parametrize("counts", [True, False])
def test_the_bar_counts_every_text_and_tokens_where_they_are_known(tmp_path: Path, counts: bool) -> None:
    bar = Progress("x", enabled=False, extra_unit="tokens")
    with bar:
        store = VectorStore(FakeSubject(counts=counts), folder=tmp_path, bar=bar)
        store.vectors(texts("an oak", "an elm tree", "an oak", " "))
    assert (bar.count, bar.extra, store.tokens) == (4, 5 * counts, 5 * counts)
    assert (store.tokens_per_second is not None) == counts
    again = VectorStore(FakeSubject(counts=counts), folder=tmp_path)
    again.vectors(texts("an oak"))
    assert again.tokens_per_second is None


def test_the_encoder_of_a_foreign_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fake gives vectors of texts only"):
        _ = VectorStore(FakeSubject(), folder=tmp_path).encoder


def test_the_default_place_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path / "home"))
    VectorStore(FakeSubject()).vectors(texts("oak"))
    assert len(list((tmp_path / "home/evaluation").glob("*/*.npy"))) == 1

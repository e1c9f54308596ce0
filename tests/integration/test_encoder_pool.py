"""Several devices, here processors: the encoder's vectors in order, workers kept, and no crash loses the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.integration.conftest import Unmask
from tests.integration.test_encoder_pool_faults import workers
from tests.tiny import write_base
from unmask import Encoder, EncoderPool, Text
from unmask.checkpoint import Settings
from unmask.engine import places
from unmask.engine.places import device_names
from unmask.engine.settings import EngineSettings
from unmask.errors import CheckpointError, InputError

TWO = ("cpu", "cpu")
WORDS = ["the", "library", "opens", "every", "morning", "and", "closes", "at", "night", "图书馆", "тихо", "🚲"]


def shuffled(number: int, longest: int = 60) -> list[str]:
    """Return texts whose lengths follow no order."""
    dice = random.Random(number)
    return [" ".join(dice.choices(WORDS, k=dice.randint(1, longest))) for _ in range(number)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("pool") / "base")


@pytest.fixture(scope="module")
def encoder(source: Path) -> Encoder:
    return Encoder.load(source, device="cpu")


@pytest.fixture(scope="module")
def pool(source: Path) -> Iterator[EncoderPool]:
    with EncoderPool.load(source, devices=TWO, threads=1) as made:
        yield made


def test_vectors_are_the_encoders_and_in_order(pool: EncoderPool, encoder: Encoder) -> None:
    texts: list[str | Text] = [*shuffled(400, longest=30), Text("Find it:", "a cat"), "  "]
    options: dict[str, Any] = {"instruction": "Given a question:", "empty": "zero"}
    got = pool.encode(texts, **options)
    assert (got.dtype, got.shape) == (np.float32, (402, encoder.dimension))
    np.testing.assert_allclose(got, encoder.encode(texts, **options), atol=1e-6)
    assert not got[-1].any()
    assert all(device.process.deaths == 0 for device in pool._engine._devices)


@pytest.mark.parametrize(
    "options",
    [{"normalize": True}, {"dimensions": 16}, {"output": "int8"}, {"output": "binary"}],
    ids=lambda options: str(*options),
)
def test_vectors_have_the_form_that_is_asked_for(pool: EncoderPool, encoder: Encoder, options: dict[str, Any]) -> None:
    for texts in (["a cat", "a longer text about dogs"], "one", []):
        got, expected = pool.encode(texts, **options), encoder.encode(texts, **options)
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(got, expected, atol=1 if got.dtype == np.int8 else 1e-6)


def test_workers_are_started_once_and_kept_and_both_work(pool: EncoderPool) -> None:
    before = workers()
    assert len(before) == 2
    done = [0, 0]
    for number, device in enumerate(pool._engine._devices):
        received = device.process._received

        def counting(answer: Any, number: int = number, received: Any = received) -> None:
            done[number] += type(answer).__name__ == "Computed"
            received(answer)

        device.process._received = counting
    for _ in range(3):
        pool.encode(shuffled(300))
    assert workers() == before
    assert min(done) >= 2


def test_bad_texts_are_named_by_their_index(pool: EncoderPool) -> None:
    with pytest.raises(InputError, match="Text 700 is empty"):
        pool.encode([*["a"] * 700, " ", "b"])
    with pytest.raises(InputError, match="Text 700 has .* tokens"):
        pool.encode([*["a"] * 700, "word " * 600, "b"], truncate=False)
    with pytest.raises(InputError, match="encode_stream"):
        pool.encode(iter(["a"]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dimensions is 65"):
        pool.encode(["a"], dimensions=65)
    assert pool.encode(["a"]).shape == (1, 64)


def test_what_cannot_be_loaded_is_one_error_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    before = workers()
    with pytest.raises(CheckpointError, match="no file or folder"):
        EncoderPool.load(str(tmp_path / "nothing"), devices=TWO)
    with pytest.raises(InputError, match="dtype 'float7' is unknown"):
        EncoderPool.load(source, devices=TWO, dtype="float7")
    assert workers() == before


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["cpu", "cuda:99"], "device 'cuda:99' is not available; expected 'auto' or one or more of .*cpu"),
        ("cpu,quantum", "device 'quantum' is not available"),
        ("cpu,", "device '' is not available"),
        ("meta", "device 'meta' is not available"),
        ([], "No device is given"),
    ],
)
def test_bad_device_names_are_one_clear_error(asked: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EncoderPool.load("never looked for", devices=asked)


def test_all_is_all_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(places._COUNTS, "cuda", lambda: 2)
    assert device_names("all") == ("cuda:0", "cuda:1")
    assert device_names(" cuda:1, cpu") == ("cuda:1", "cpu")
    monkeypatch.setitem(places._COUNTS, "cuda", lambda: 0)
    with pytest.raises(InputError, match="all CUDA devices, and torch finds none"):
        device_names("all")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[EngineSettings, dict[str, Any]]]:
    """Return what pools are made of, which are not made."""
    seen: list[tuple[EngineSettings, dict[str, Any]]] = []
    monkeypatch.setattr(EncoderPool, "__init__", lambda self, settings, **options: seen.append((settings, options)))
    return seen


def test_workers_on_the_processor_share_its_threads(
    source: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[EngineSettings, dict[str, Any]]]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for devices, threads in ((TWO, None), (TWO, 4), (("cpu",), None)):
        EncoderPool.load(source, devices=devices, threads=threads)
    assert [settings.threads for settings, _ in asked] == [2, 4, None]


def test_a_checkpoint_that_says_normalised_is_heeded(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[EngineSettings, dict[str, Any]]]
) -> None:
    encoder = Encoder.load(source, device="cpu")
    encoder.settings = Settings(normalize=True).over(encoder.settings)
    encoder.save(tmp_path / "normalised")
    monkeypatch.chdir(tmp_path)
    EncoderPool.load("normalised", devices="cpu", max_length=24)
    EncoderPool.load(source, devices="cpu")
    assert [options["normalize"] for _, options in asked] == [True, False]
    model = asked[0][0].models[0]
    assert (model.source, model.max_length) == (str(tmp_path / "normalised"), 24)


# --- the command -----------------------------------------------------------------------------------


def test_the_command_shares_its_work_out(
    unmask: Unmask, pool: EncoderPool, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []

    def load(model: str, **options: Any) -> Any:
        asked.append((model, options["devices"], options["max_length"]))
        return nullcontext(pool)

    monkeypatch.setattr(EncoderPool, "load", load)
    texts = shuffled(300, longest=20)
    Path("texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    line = ("encode", "texts.txt", "-o", "v.npy", "--max-length", "512", "--model", "tiny")
    status, _, err = unmask(*line, "--device", "cpu,cpu")
    assert status == 0, err
    assert asked == [("tiny", TWO, 512)]
    assert "Encoding: 300 texts" in err
    assert "Wrote v.npy: 300 vectors of 64 dimensions" in err
    np.testing.assert_allclose(np.load("v.npy"), encoder.encode(texts), atol=1e-6)


def test_the_documents_example_works(pool: EncoderPool, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")
    monkeypatch.setattr(EncoderPool, "load", lambda *_, devices: nullcontext(pool))
    kept: list[Any] = []
    names: dict[str, Any] = {"questions": ["why?"], "passages": iter(["so", "thus"]), "keep": kept.extend}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    np.testing.assert_allclose(
        names["queries"],
        encoder.encode(["why?"], instruction="Given a question, retrieve passages that answer it:"),
        atol=1e-6,
    )
    np.testing.assert_allclose(kept, encoder.encode(["so", "thus"]), atol=1e-6)


@pytest.mark.parametrize(
    ("device", "message"),
    [("cpu,cuda:99", "device 'cuda:99' is not available"), ("nonsense", "device 'nonsense' is not available")],
)
def test_the_command_says_what_device_is_not_there(
    unmask: Unmask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("one\n")
    status, _, err = unmask("encode", "texts.txt", "-o", "v.npy", "--device", device)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert not Path("v.npy").exists()

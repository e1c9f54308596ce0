"""The engine with real workers on tiny models: a vector equals itself, however it is asked for."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests.integration.test_engine import children
from tests.tiny import write_base, write_published
from unmask import Encoder, Text
from unmask import checkpoint as checkpoints
from unmask.backbone.backbone import Backbone
from unmask.backbone.layout import Layout
from unmask.engine.encoding import Encoders, LoadedEncoder
from unmask.engine.engine import Engine
from unmask.engine.settings import EngineSettings, ModelSettings
from unmask.engine.tokens import unpacked
from unmask.errors import BackboneError, CheckpointError, EncodingFailedError

Vectors = NDArray[np.float32]

TEXTS = [
    Text("", "A short text"),
    Text("", "the library opens every morning " * 9),
    Text("Retrieve what answers this:", "图书馆每天早上开门。"),
    Text("", "المكتبة تفتح كل صباح"),
    Text("query:", "🙂🚲🏔️"),
    Text("", "x"),
    Text("", "  spaces, <|eot_id|> and </s> stay text "),
    Text("", "tabs\tand\nnewlines\r\nstay"),
]
#: This token has no numbers in the model named broken.
BAD = 300
NAMES = ["base", "published", "saved", "inst", "eos", "short"]
QUERY = "Given a question, find notes:"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSettings]:
    """Return a model of each kind."""
    root = tmp_path_factory.mktemp("engine")
    base = write_base(root / "base")
    published = write_published(root / "published", name="meta-llama/Meta-Llama-3-8B-Instruct").simcse
    inst = write_base(root / "inst", tokenizer="llama2", name="meta-llama/Llama-2-7b-chat-hf")
    eos = write_base(root / "eos")
    (eos / "llm2vec_config.json").write_text('{"pooling_mode": "eos_token", "max_length": 40}')
    saved = Encoder.load(published).save(root / "saved")
    said = json.loads((saved / "unmask.json").read_text())
    said["settings"]["query_instruction"] = f" {QUERY} "
    (saved / "unmask.json").write_text(json.dumps(said))
    broken = write_base(root / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][BAD] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    sources = {"base": base, "published": published, "saved": saved, "inst": inst, "eos": eos, "broken": broken}
    found = {name: ModelSettings(name=name, source=str(source)) for name, source in sources.items()}
    return found | {"short": ModelSettings(name="short", source=str(base), max_length=24)}


@pytest.fixture(scope="module")
def encoders(models: dict[str, ModelSettings]) -> dict[str, Encoder]:
    """Return what the engine is held to."""
    return {name: Encoder.load(models[name].source, max_length=models[name].max_length, device="cpu") for name in NAMES}


# --- tokenizers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_read_without_weights_is_the_encoders(
    name: str, models: dict[str, ModelSettings], encoders: dict[str, Encoder]
) -> None:
    read = unpacked(Encoders("cpu", None).read(models[name])).tokenizer
    own = encoders[name].pipeline.tokenizer
    assert read.tokenize(TEXTS) == own.tokenize(TEXTS)
    assert (read.max_length, read.template, read.head, read.foot) == (
        *(own.max_length, own.template),
        *(own.head, own.foot),
    )


def test_that_of_a_model_to_be_converted_comes_with_the_conversion(
    models: dict[str, ModelSettings], encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = checkpoints.inspect(models["base"].source)
    monkeypatch.setattr(
        checkpoints, "inspect", lambda path, **_: replace(found, cache=_unless(tmp_path / "copy", path))
    )
    read = unpacked(Encoders("cpu", None).read(models["base"]))
    assert (tmp_path / "copy" / "unmask.json").is_file()
    assert read.tokenizer.tokenize(TEXTS) == encoders["base"].pipeline.tokenizer.tokenize(TEXTS)


def _unless(copy: Path, path: Any) -> Path | None:
    return None if copy.exists() or Path(path) == copy else copy


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no file or folder"):
        Encoders("cpu", None).read(ModelSettings(name="m", source=str(tmp_path / "nothing")))


# --- vectors ---------------------------------------------------------------------------------------


class Running:
    """An engine, and its event loop, which stands still between calls."""

    def __init__(self, runner: asyncio.Runner, engine: Engine) -> None:
        self.runner, self.engine = runner, engine

    def embed(self, name: str, *requests: Sequence[Text]) -> list[Vectors]:
        """Return the vectors of requests made at the same time."""
        return self.runner.run(self.ask(name, requests))

    async def ask(self, name: str, requests: Sequence[Sequence[Text]]) -> list[Vectors]:
        asked = (
            self.engine.embed(name, texts, caller=str(number % 3), wait=250) for number, texts in enumerate(requests)
        )
        return [answer.vectors for answer in await asyncio.gather(*asked)]


@pytest.fixture(scope="module")
def running(models: dict[str, ModelSettings]) -> Iterator[Running]:
    settings = EngineSettings(models=tuple(models.values()), devices=("cpu",), threads=1)
    with asyncio.Runner() as runner:

        async def make() -> Engine:
            engine = Engine(settings)
            await engine.start()
            return engine

        engine = runner.run(make())
        yield Running(runner, engine)
        runner.run(engine.stop(0))


def same(a: Vectors, b: Vectors) -> bool:
    cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return a.shape == b.shape and bool(cosines.min() >= 0.99999) and bool(np.abs(a - b).max() <= 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_equals_itself(name: str, encoders: dict[str, Encoder], running: Running) -> None:
    """Alone, in a request, in requests mixed at random, and by the encoder."""
    expected = encoders[name].encode(TEXTS, normalize=False)
    (together,) = running.embed(name, TEXTS)
    assert together.dtype == np.float32
    assert same(together, expected)
    alone = running.embed(name, *([text] for text in TEXTS))
    assert same(np.concatenate(alone), expected)
    dice = random.Random(name)
    picks = [dice.choices(range(len(TEXTS)), k=dice.randint(1, 12)) for _ in range(20)]
    mixed = running.embed(name, *([TEXTS[index] for index in pick] for pick in picks))
    assert same(np.concatenate(mixed), expected[np.concatenate(picks)])


def test_a_vector_equals_itself_by_way_of_token_arrays(running: Running) -> None:
    plain = [text for text in TEXTS if not text.instruction]
    for name in NAMES:
        tokens = running.runner.run(running.engine.tokenize(name, plain))
        texts = running.runner.run(running.engine.detokenize(name, [text.ids for text in tokens]))
        expected, got = running.embed(name, plain, [Text("", text) for text in texts])
        assert same(got, expected)


def test_what_is_served_is_told(running: Running, models: dict[str, ModelSettings]) -> None:
    running.embed("short", TEXTS)
    found = {each.name: each for each in running.engine.served()}
    assert list(found) == list(models)
    assert (found["short"].state, found["short"].dimension, found["short"].max_length) == ("ready", 64, 24)
    assert (found["short"].query_instruction, found["saved"].query_instruction) == (None, QUERY)
    assert (found["base"].state, found["base"].max_length) == ("ready", 512), "it is the same model in memory"


def test_a_text_without_a_vector_fails_alone(running: Running, encoders: dict[str, Encoder]) -> None:
    (bad,) = running.runner.run(running.engine.detokenize("broken", [[BAD]]))
    tokens = encoders["base"].pipeline.tokenizer.tokenize(TEXTS)
    good = [text for text, ids in zip(TEXTS, tokens, strict=True) if BAD not in ids.ids]
    assert len(good) > 5

    async def work() -> tuple[Any, list[Vectors]]:
        asked = asyncio.create_task(running.ask("broken", [[*good, Text("", bad)]]))
        others = await running.ask("broken", [[text] for text in good])
        (error,) = await asyncio.gather(asked, return_exceptions=True)
        return error, others

    error, others = running.runner.run(work())
    assert isinstance(error, EncodingFailedError)
    assert str(error).startswith(f"Text {len(good)} could not be encoded, alone and again: its vector holds numbers")
    assert same(np.concatenate(others), encoders["base"].encode(good, normalize=False))


def test_of_compiled_layers_every_size_is_run_before_the_first_request(
    models: dict[str, ModelSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Encoders("cpu", None).load(models["base"].weights)
    monkeypatch.setattr(Backbone, "form", property(lambda _: "compiled"))
    seen: list[int] = []
    own = Backbone.hidden

    def hidden(backbone: Backbone, ids_T: torch.Tensor, layout: Layout) -> torch.Tensor:
        seen.append(len(ids_T))
        return own(backbone, ids_T, layout)

    monkeypatch.setattr(Backbone, "hidden", hidden)
    monkeypatch.setattr("unmask.pipeline.LEAST", 10**9)  # else a pack is cut in a part for each core
    loaded.warm_up()
    assert seen == [256, 512, 1024, 2048]


def test_padding_behind_a_row_changes_no_vector(
    models: dict[str, ModelSettings], encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["one", "The cat sleeps in the house.", "A river runs through the valley. " * 7]
    expected = encoders["base"].encode(texts)
    monkeypatch.setattr(Backbone, "form", property(lambda _: "compiled"))
    padded = Encoder.load(models["base"].source, device="cpu")
    assert np.abs(padded.encode(texts) - expected).max() < 1e-5
    assert (
        padded.encode_tokens(texts[:1])[0].vectors.shape == encoders["base"].encode_tokens(texts[:1])[0].vectors.shape
    )


def test_a_model_without_any_numbers_is_not_ready(
    encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = LoadedEncoder(encoders["base"])
    loaded.warm_up()
    monkeypatch.setattr(loaded, "begin", lambda *_: lambda: np.full((3, 64), np.nan))
    with pytest.raises(BackboneError, match="not finite"):
        loaded.warm_up()


@pytest.mark.slow  # the light workers of test_engine_faults.py are killed in every run
def test_a_worker_killed_amid_a_batch_is_replaced(running: Running, encoders: dict[str, Encoder]) -> None:
    async def work() -> list[Vectors]:
        asked = asyncio.create_task(running.ask("base", [TEXTS * 40, *([text] for text in TEXTS)]))
        while not running.engine.load().running_tokens:
            await asyncio.sleep(0.001)
        os.kill(children()[0], signal.SIGKILL)
        return await asked

    expected = encoders["base"].encode(TEXTS, normalize=False)
    many, *alone = running.runner.run(work())
    assert running.engine.load().restarts == 1
    assert same(many, np.concatenate([expected] * 40))
    assert same(np.concatenate(alone), expected)

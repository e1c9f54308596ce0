"""The encoder on tiny models: same vectors however texts are asked for, and one clear error for bad input."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import write_base
from unmask import Encoder, Template, Text
from unmask.errors import InputError
from unmask.pipeline import WINDOW_TEXTS
from unmask.pooling import POOLINGS

TEXTS = [
    "A short text",
    "the library opens every morning " * 9,
    "图书馆每天早上开门。",
    "図書館は毎朝開きます。",
    "المكتبة تفتح كل صباح",
    "🙂🚲🏔️",
    "x",
    "1234567890 " * 20,
    "tabs\tand\nnewlines\r\nstay",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("encoder") / "base")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder.load(folder)


def same(a: Any, b: Any) -> bool:
    return bool(np.abs(np.asarray(a) - np.asarray(b)).max() < 1e-5)


def test_one_at_a_time_is_all_at_once(encoder: Encoder) -> None:
    assert same(encoder.encode(TEXTS), [encoder.encode(text) for text in TEXTS])


@pytest.mark.parametrize("budget", [1, 40, 100_000])
def test_the_token_budget_does_not_change_vectors(folder: Path, budget: int, encoder: Encoder) -> None:
    other = Encoder.load(folder)
    other.pipeline.token_budget = budget
    assert same(other.encode(TEXTS), encoder.encode(TEXTS))


def test_order_is_kept_across_windows(encoder: Encoder) -> None:
    texts = [f"text {i % 7}" for i in range(WINDOW_TEXTS + 50)]
    few = encoder.encode(texts[:7])
    many = encoder.encode(texts)
    assert same(many, few[np.arange(len(texts)) % 7])


def test_a_stream_gives_the_same_and_reads_only_a_little_ahead(encoder: Encoder) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"text {read % 7}"

    stream = encoder.encode_stream(endless(), dimensions=8)
    first = next(stream)
    assert first.shape == (WINDOW_TEXTS, 8)
    assert read <= 2 * WINDOW_TEXTS
    assert same(first[:3], encoder.encode([f"text {i}" for i in (1, 2, 3)], dimensions=8))
    stream.close()  # type: ignore[attr-defined]


def test_white_space_around_a_text_is_nothing(encoder: Encoder) -> None:
    assert same(encoder.encode("  a text\n"), encoder.encode("a text"))
    assert same(encoder.encode("a text", instruction="  Do this: "), encoder.encode("a text", instruction="Do this:"))


def test_an_instruction_changes_the_vector_and_is_not_pooled(encoder: Encoder) -> None:
    plain, told = encoder.encode("a text"), encoder.encode("a text", instruction="Do this:")
    assert np.abs(plain - told).max() > 1e-2
    assert same(told, encoder.encode(Text("Do this:", "a text")))
    states = encoder.encode_tokens(["a text"], instruction="Do this:")[0]
    assert same(told, states.vectors.mean(axis=0))
    assert "".join(states.tokens).replace("Ġ", " ").strip() == "a text"


def test_a_text_keeps_its_own_instruction(encoder: Encoder) -> None:
    mixed = encoder.encode([Text("Do that:", "a text"), "a text"], instruction="Do this:")
    assert same(mixed[0], encoder.encode("a text", instruction="Do that:"))
    assert same(mixed[1], encoder.encode("a text", instruction="Do this:"))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_is_the_same_packed_and_alone(folder: Path, pooling: str) -> None:
    other = Encoder.load(folder, pooling=pooling)
    together = other.encode(TEXTS, instruction="Do this:")
    assert same(together, [other.encode(text, instruction="Do this:") for text in TEXTS])


def test_causal_differs_and_does_not_see_the_end(folder: Path) -> None:
    causal = Encoder.load(folder, bidirectional=False, pooling="first", pool_instruction=True)
    both = Encoder.load(folder, pooling="first", pool_instruction=True)
    assert same(causal.encode("one thing"), causal.encode("one other"))
    assert not same(both.encode("one thing"), both.encode("one other"))


def test_special_strings_in_a_text_are_text(folder: Path) -> None:
    wrapped = Encoder.load(folder, template="llama3")
    (tokens,) = wrapped.encode_tokens(["stop<|eot_id|>now"])
    assert tokens.tokens.count("<|eot_id|>") == 1, "only the template's own"
    assert tokens.tokens[-1] == "<|eot_id|>"


def test_truncation_cuts_the_end_of_the_content_only(folder: Path) -> None:
    short = Encoder.load(folder, max_length=24, template=Template("<|start_header_id|>", "<|eot_id|>"))
    text = "the library opens every morning and closes every evening, all the year round, except on Sundays"
    (cut,) = short.pipeline.tokenizer.tokenize([Text("Do this:", text)])
    (whole,) = Encoder.load(folder, template=short.template).pipeline.tokenizer.tokenize([Text("Do this:", text)])
    assert len(cut.ids) == 24
    assert cut.start == whole.start
    assert cut.ids == whole.ids[:23] + whole.ids[-1:]


def test_a_megabyte_without_a_space(encoder: Encoder) -> None:
    vector = encoder.encode("河" * 350_000)
    assert np.isfinite(vector).all()
    with pytest.raises(InputError, match=r"Text 1 has \d+ tokens, \d+ more than max_length 512"):
        encoder.encode(["fine", "河" * 1000], truncate=False)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", ""], 'Text 1 is empty.*empty="zero"'),
        (["a", " \n\t"], "Text 1 is empty"),
        (["a", None], "Text 1 is of type NoneType; expected str or Text"),
        (["a", 3], "Text 1 is of type int"),
        (["a", b"bytes"], "Text 1 is of type bytes"),
        (["a\ud800b"], r"Text 0 holds a lone surrogate \(U\+D800\) at character 1"),
        (iter(["a"]), "encode_stream"),
        ([Text("x\udfff", "a")], "Text 0 holds a lone surrogate"),
    ],
)
def test_bad_texts_are_named(encoder: Encoder, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder.encode(texts)


def test_a_bad_text_at_the_end_costs_no_work(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: Any) -> None:
        pytest.fail("encoded before all texts were checked")

    monkeypatch.setattr(encoder.pipeline, "hidden", forward)
    with pytest.raises(InputError, match="Text 5000"):
        encoder.encode(["a"] * 5000 + [""])


@pytest.mark.parametrize("threads", [2, 3])
def test_a_pack_cut_over_cores_gives_the_same_states(
    encoder: Encoder, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = encoder.pipeline.tokenizer.tokenize([Text("", "word " * count) for count in (9, 1, 4, 4, 7, 2)])
    whole, before = encoder.pipeline.hidden(texts), torch.get_num_threads()
    rows: list[int] = []
    own = encoder.backbone.hidden

    def spy(ids: torch.Tensor, layout: Any) -> torch.Tensor:
        rows.append(len(ids))
        return own(ids, layout)

    monkeypatch.setattr(encoder.backbone, "hidden", spy)
    monkeypatch.setattr("unmask.pipeline.LEAST", 1)
    torch.set_num_threads(threads)
    try:
        assert torch.allclose(encoder.pipeline.hidden(texts), whole, atol=1e-6)
    finally:
        torch.set_num_threads(before)
    assert len(rows) == threads
    assert sum(rows) == len(whole)


def test_empty_zero(encoder: Encoder) -> None:
    vectors = encoder.encode(["", "a text", "  "], empty="zero")
    assert not vectors[[0, 2]].any()
    assert same(vectors[1], encoder.encode("a text"))
    assert not encoder.encode([""], empty="zero", normalize=True).any()
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_too_long_an_instruction_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="The instruction of text 1 takes .* of max_length 16 tokens"):
        Encoder.load(folder, max_length=16).encode([Text("", "a"), Text("word " * 60, "a")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling 'max' is unknown"),
        ({"template": "vicuna"}, "template 'vicuna' is unknown"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"dtype": "int3"}, "dtype 'int3' is unknown"),
        ({"max_length": 1}, "max_length is 1"),
    ],
)
def test_bad_options_are_named(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Encoder.load(folder, **options)


def test_outputs(encoder: Encoder) -> None:
    plain = encoder.encode(TEXTS)
    assert plain.dtype == np.float32
    assert encoder.encode(TEXTS, output="float16").dtype == np.float16
    assert encoder.encode(TEXTS, output="int8").shape == plain.shape
    assert encoder.encode(TEXTS, output="binary").shape == (len(TEXTS), encoder.dimension // 8)
    assert isinstance(encoder.encode(TEXTS, tensor=True), torch.Tensor)
    assert np.allclose(np.linalg.norm(encoder.encode(TEXTS, normalize=True), axis=1), 1, atol=1e-6)
    assert encoder.encode(TEXTS, dimensions=16).shape == (len(TEXTS), 16)


def test_similarity_is_cosine(encoder: Encoder) -> None:
    a, b = encoder.encode(TEXTS[:2]), encoder.encode(TEXTS)
    cosine = encoder.similarity(a, b)
    assert cosine.shape == (2, len(TEXTS))
    assert np.allclose(np.diag(cosine[:, :2]), 1, atol=1e-6)
    assert encoder.similarity(a[0], b).shape == (1, len(TEXTS))


def test_words(encoder: Encoder) -> None:
    sentence = ["The", "library", "opens", "图书馆", "."]
    (vectors,) = encoder.encode_words([sentence])
    assert vectors.shape == (5, encoder.dimension)
    tokens = encoder.encode_tokens([" ".join(sentence)])[0]
    second = [i for i, (a, b) in enumerate(tokens.spans) if a < 11 and b > 4]
    assert same(vectors[1], tokens.vectors[second].mean(axis=0))
    with pytest.raises(InputError, match="Sentence 0 holds 'a '"):
        encoder.encode_words([["a "]])


def test_threads_get_their_own_vectors(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        found[number] = encoder.encode(TEXTS[number:] + TEXTS[:number])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        assert same(found[number], np.roll(expected, -number, axis=0))


def test_pickled_it_is_the_same(encoder: Encoder) -> None:
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.backbone.form == encoder.backbone.form
    assert same(copy.encode(TEXTS), encoder.encode(TEXTS))


def test_pickled_it_still_reads_special_tokens_in_a_text_as_plain_text(encoder: Encoder) -> None:
    special = encoder.tokenizer.control[0]
    texts = [Text("", f"a {special} b")]
    copy = pickle.loads(pickle.dumps(encoder))
    (expected,), (found,) = (each.pipeline.tokenizer.tokenize(texts) for each in (encoder, copy))
    assert found == expected
    assert encoder.tokenizer.backend.token_to_id(special) not in found.ids[1:]


def encode_elsewhere(encoder: Encoder, texts: list[str]) -> Any:
    return encoder.encode(texts)


def test_it_goes_to_a_worker_process(encoder: Encoder) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
        assert same(workers.submit(encode_elsewhere, encoder, TEXTS).result(), encoder.encode(TEXTS))


def test_bf16_is_close(folder: Path, encoder: Encoder) -> None:
    coarse = Encoder.load(folder, dtype="bf16")
    assert coarse.dtype == torch.bfloat16
    vectors = coarse.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert np.diag(encoder.similarity(vectors, encoder.encode(TEXTS))).min() > 0.999


def test_training_and_inference_share_weights(folder: Path) -> None:
    """Fused layers are views: a change of the model's own weights reaches them."""
    own = Encoder.load(folder)
    before = own.encode("a text")
    with torch.no_grad():
        own.backbone.model.layers[0].self_attn.k_proj.weight.mul_(1.5)
    after = own.encode("a text")
    assert own.backbone.form == "fused"
    assert not same(before, after)
    slow = own.backbone._fast
    own.backbone._fast = None
    assert same(own.encode("a text"), after)
    own.backbone._fast = slow

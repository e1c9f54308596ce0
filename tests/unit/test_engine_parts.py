"""The engine's small parts: settings, memory, speed, messages, token arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_tokenizer import tiny_tokenizer
from unmask.backbone.families import TEMPLATES
from unmask.engine.messages import HEADER, Compute, frame, parse
from unmask.engine.meter import WINDOW, Meter
from unmask.engine.residency import Residency
from unmask.engine.settings import EngineSettings, ModelSettings, Weights
from unmask.engine.tokens import texts_of
from unmask.errors import InputError
from unmask.text import Template, Text, TextTokenizer

quick = settings(deadline=None, max_examples=50)
MODEL = ModelSettings(name="m", source="folder")


# --- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ()},
        {"models": (MODEL, MODEL)},
        {"devices": ()},
        {"threads": 0},
        {"memory": 0},
        {"batch_tokens": -1},
        {"queue_tokens": 0},
        {"batch_seconds": float("nan")},
        {"retry_seconds": -1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_where_they_are_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        EngineSettings(**({"models": (MODEL,)} | wrong))


@pytest.mark.parametrize("wrong", [{"name": " "}, {"source": ""}, {"max_length": 0}], ids=str)
def test_so_are_those_of_a_model(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        ModelSettings(**({"name": "m", "source": "folder"} | wrong))


def test_names_of_one_source_share_its_weights_whatever_their_length() -> None:
    short = ModelSettings(name="short", source="folder", max_length=64, preload=True)
    assert short.weights == MODEL.weights
    assert ModelSettings(name="x", source="folder", dtype="bfloat16").weights != MODEL.weights


# --- memory ----------------------------------------------------------------------------------------


def filled(limit: int | None, **sizes: int) -> Residency:
    residency = Residency(limit)
    for name, size in sizes.items():
        assert residency.admit(name) == []
        assert residency.measured(name, size) == []
    return residency


def used(residency: Residency, name: str) -> None:
    residency.use(name)
    assert residency.release(name) == []


def test_the_least_recently_used_makes_room() -> None:
    residency = filled(10, a=4, b=4)
    used(residency, "a")
    assert residency.admit("c") == []
    assert residency.measured("c", 4) == ["b"]
    assert residency.resident() == ["c", "a"]
    used(residency, "a")
    assert residency.admit("b") == ["c"], "its size is known by now"


def test_what_is_in_use_stays_and_the_newcomer_waits() -> None:
    residency = filled(10, a=4, b=6)
    residency.remove("b")
    residency.use("a")
    assert residency.admit("c") == []
    residency.use("c")
    assert residency.measured("c", 5) == []
    assert residency.admit("b") is None
    assert residency.resident() == ["c", "a"]
    assert residency.release("a") == [], "all that is there fits"
    assert residency.admit("b") is None
    residency.release("c")
    assert residency.admit("b") == ["a", "c"]


def test_what_was_let_in_unseen_and_is_too_much_is_made_good_at_the_next_release() -> None:
    residency = filled(10, a=6)
    residency.use("a")
    assert residency.admit("b") == []
    residency.use("b")
    assert residency.measured("b", 6) == []
    assert residency.release("a") == ["a"]


def test_weights_larger_than_the_memory_are_told() -> None:
    residency = Residency(10)
    residency.admit("a")
    residency.measured("a", 11)
    assert residency.too_large("a")
    assert not filled(None, a=11).too_large("a")


@quick
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=40))
def test_idle_weights_never_take_more_than_the_limit(steps: list[tuple[str, bool]]) -> None:
    sizes = {"a": 3, "b": 4, "c": 5, "d": 9}
    residency, users = Residency(10), dict.fromkeys(sizes, 0)
    for name, begin in steps:
        if begin:
            residency.use(name)
            users[name] += 1
            if name not in residency and residency.admit(name) is not None:
                residency.measured(name, sizes[name])
        elif users[name]:
            residency.release(name)
            users[name] -= 1
    for name, count in users.items():
        for _ in range(count):
            residency.release(name)
    assert sum(sizes[str(name)] for name in residency.resident()) <= 10
    assert not residency._users


# --- speed -----------------------------------------------------------------------------------------


def test_speed_is_that_of_a_busy_worker_over_the_last_half_minute() -> None:
    meter = Meter()
    assert meter.rate(0) is None
    meter.add(0, tokens=1000, busy=1.0)
    meter.add(100, tokens=100, busy=0.5)
    meter.add(101, tokens=300, busy=0.5)
    assert meter.rate(102) == 400
    assert meter.rate(100_000) == 600, "of the last second in which something was done"
    assert (meter.batches, meter.tokens) == (3, 1400)


def test_speed_is_kept_in_bounded_memory() -> None:
    meter = Meter()
    for step in range(10_000):
        meter.add(step / 10, tokens=1, busy=0.1)
    assert len(meter._seconds) <= WINDOW + 2


# --- messages --------------------------------------------------------------------------------------


def test_messages_cross_whole() -> None:
    order = Compute(7, Weights(source="x"), np.arange(5, dtype=np.int32), (2, 3), (0, 1))
    sent = frame(order)
    assert HEADER.unpack(sent[: HEADER.size]) == (len(sent) - HEADER.size,)
    got = parse(sent[HEADER.size :])
    assert isinstance(got, Compute)
    assert (got.number, got.weights, got.lengths, got.starts) == (7, order.weights, (2, 3), (0, 1))
    assert got.ids.tolist() == [0, 1, 2, 3, 4]


# --- token arrays ----------------------------------------------------------------------------------

AROUND = {
    "bare": Template(),
    "llama3": TEMPLATES["llama3"],
    "inst": TEMPLATES["inst"],
    "closing": Template("query: ", "<|eot_id|>"),
}
KINDS = [("llama3", "bare"), ("llama3", "llama3"), ("llama3", "closing"), ("llama2", "bare"), ("llama2", "inst")]
CONTENTS = ["a text", "Tabs\tand\nnew lines", "图书馆 🙂 étage", "x", "<|eot_id|> </s> [INST] stays text", "a  b"]


def text_tokenizer(kind: str, around: str, max_length: int = 512) -> TextTokenizer:
    fast = tiny_tokenizer(kind)
    return TextTokenizer(
        fast.backend_tokenizer, template=AROUND[around], control_tokens=fast.all_special_tokens, max_length=max_length
    )


@pytest.mark.parametrize(("kind", "around"), KINDS)
def test_token_arrays_of_texts_give_the_texts_back_and_the_same_tokens(kind: str, around: str) -> None:
    tokenizer = text_tokenizer(kind, around)
    tokens = tokenizer.tokenize([Text("", content) for content in CONTENTS])
    texts = texts_of(tokenizer, [text.ids for text in tokens])
    assert texts == CONTENTS
    assert tokenizer.tokenize([Text("", text) for text in texts]) == tokens


@pytest.mark.parametrize("kind", ["llama3", "llama2"])
@pytest.mark.parametrize("special", [True, False])
def test_so_do_those_of_the_plain_tokenizer(kind: str, special: bool) -> None:
    tokenizer = text_tokenizer(kind, "bare")
    plain = tiny_tokenizer(kind).backend_tokenizer
    arrays = [plain.encode(content, add_special_tokens=special).ids for content in CONTENTS[:4]]
    assert texts_of(tokenizer, arrays) == CONTENTS[:4]


def test_the_first_token_of_a_text_is_not_taken_for_the_templates() -> None:
    backend = tiny_tokenizer("llama3").backend_tokenizer
    tokenizer = TextTokenizer(backend, template=Template("query<|eot_id|>", ""))
    ids = tokenizer.literal.encode("query the library", add_special_tokens=False).ids
    bos = tokenizer.head[:1]
    assert tokenizer.head[1] == ids[0]
    assert texts_of(tokenizer, [ids, bos + ids]) == ["query the library"] * 2


def test_the_templates_plain_text_is_taken_off_only_with_its_special_tokens() -> None:
    tokenizer = text_tokenizer("llama3", "closing")
    ids = tokenizer.literal.encode("query: a text", add_special_tokens=False).ids
    assert texts_of(tokenizer, [ids, tokenizer.head + ids]) == ["query: a text", "a text"]


def test_a_cut_array_is_what_is_left_of_its_text() -> None:
    tokenizer = text_tokenizer("llama3", "llama3", max_length=12)
    (cut,) = tokenizer.tokenize([Text("", "the library opens every morning " * 9)])
    (text,) = texts_of(tokenizer, [cut.ids])
    assert "the library opens every morning ".startswith(text[:20])
    assert tokenizer.tokenize([Text("", text)]) == [cut]


@pytest.mark.parametrize("wrong", [-1, 600_000, 1 << 40])
def test_an_unknown_token_is_refused_by_its_arrays_index(wrong: int) -> None:
    tokenizer = text_tokenizer("llama3", "bare")
    with pytest.raises(InputError, match=rf"Token array 1 holds {wrong}, .*vocabulary"):
        texts_of(tokenizer, [[5, 6], [5, wrong]])

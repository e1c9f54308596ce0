"""Stores of tokenised rows, and the batches drawn from them."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.tiny_tokenizer import SENTENCES, tiny_tokenizer
from unmask.errors import InputError
from unmask.text import Template, Text, TextTokenizer, TokenizedText
from unmask.tokenizers import ModelTokenizer, from_transformers
from unmask.training.data import store
from unmask.training.data.batches import Batches
from unmask.training.data.report import Report, Tally
from unmask.training.data.rows import Rows, RowWriter
from unmask.training.data.sources import PairSource, Source
from unmask.training.data.store import blocks, pairs, sentences

MODEL = from_transformers(tiny_tokenizer("llama3"))
TOKENIZER = TextTokenizer(MODEL.backend, template=Template("<|start_header_id|>", "<|eot_id|>"), max_length=40)
#: Sentences without a line end in them.
ONE_LINE = [sentence for sentence in SENTENCES if "\n" not in sentence]
INSTRUCTION = "Given a question, find the passages that answer the question:"


def write(path: Path, *rows: object) -> Source:
    content = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    path.write_text(content, encoding="utf-8")
    return Source(path=str(path))


def write_pairs(path: Path, *rows: object, **options: Any) -> PairSource:
    return PairSource(path=write(path, *rows).path, **options)


def plain(text: str) -> list[int]:
    ids: list[int] = MODEL.backend.encode(text, add_special_tokens=False).ids
    return ids


def token_id(token: str) -> int:
    found = MODEL.backend.token_to_id(token)
    assert found is not None
    return found


def all_of(rows: Rows) -> list[tuple[TokenizedText, ...]]:
    return [rows[index] for index in range(len(rows))]


def one_of(text: Text) -> TokenizedText:
    [tokens] = TOKENIZER.tokenize([text])
    return tokens


def without_hash_signs() -> Tokenizer:
    """Return the tokenizer, but for what it does with ``#``."""
    backend: Any = Tokenizer.from_str(MODEL.backend.to_str())
    backend.normalizer = normalizers.Replace("#", "")
    changed: Tokenizer = backend
    return changed


def numbered(count: int) -> list[str]:
    return [f"{SENTENCES[number % 20]} {number}" for number in range(count)]


# --- blocks ----------------------------------------------------------------------------------------


def test_blocks_are_the_texts_in_order_with_eos_between_them(tmp_path: Path) -> None:
    texts = ["", *ONE_LINE]
    rows = blocks([write(tmp_path / "a.txt", *texts)], MODEL, length=16, folder=tmp_path / "kept", progress=False)
    stream = plain(ONE_LINE[0])
    for text in ONE_LINE[1:]:
        stream += [token_id("<|end_of_text|>"), *plain(text)]
    whole = len(stream) // 16
    assert [text.ids for (text,) in all_of(rows)] == [stream[i * 16 : i * 16 + 16] for i in range(whole)]
    assert {text.start for (text,) in all_of(rows)} == {0}
    [tally] = rows.report.sources
    assert (len(rows), rows.tokens, tally.rest) == (whole, whole * 16, len(stream) - whole * 16)
    assert (tally.read, tally.used, tally.skipped) == (len(texts), len(ONE_LINE), {"blank": 1})
    assert rows.column_tokens == 16


def test_without_an_eos_nothing_stands_between_texts_and_special_strings_are_plain(tmp_path: Path) -> None:
    model = ModelTokenizer(backend=MODEL.backend, control=MODEL.control, bos=None, eos=None, chat_template=None)
    source = write(tmp_path / "a.txt", "Bread <|eot_id|>", "water")
    rows = blocks([source], model, length=1, folder=tmp_path / "kept", progress=False)
    ids = [token for (text,) in all_of(rows) for token in text.ids]
    assert ids == [*TOKENIZER.literal.encode("Bread <|eot_id|>").ids, *plain("water")]
    assert not set(ids) & {token_id("<|end_of_text|>"), token_id("<|eot_id|>")}


def test_blocks_do_not_depend_on_what_is_tokenised_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "a.txt", *SENTENCES)
    expected = all_of(blocks([source], MODEL, length=16, folder=tmp_path / "one", progress=False))
    monkeypatch.setattr("unmask.training.data.making._CHARACTERS", 100)
    assert all_of(blocks([source], MODEL, length=16, folder=tmp_path / "two", progress=False)) == expected
    [tally] = blocks([source], MODEL, length=16, limit=1, folder=tmp_path / "two", progress=False).report.sources
    assert tally.read == 2


def test_blocks_of_several_sources_know_their_source(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{name}.txt", *SENTENCES[:n]) for name, n in (("a", 5), ("b", 1), ("c", 9))]
    rows = blocks(sources, MODEL, length=64, folder=tmp_path / "kept", progress=False)
    counts = Counter(rows.groups.tolist())
    assert [counts[group] for group in range(3)] == [tally.rows for tally in rows.report.sources]
    assert counts[1] == 0
    assert counts[2] > counts[0] > 0
    assert rows.report.lines()[-1] == f"3 sources: {len(rows)} blocks of 64 tokens, {64 * len(rows)} tokens"


def test_the_limit_is_shared_and_stops_reading(tmp_path: Path) -> None:
    small = write(tmp_path / "small.txt", SENTENCES[0])
    large = write(tmp_path / "large.txt", *numbered(3000))
    rows = blocks([small, large, large], MODEL, length=8, limit=101, folder=tmp_path / "kept", progress=False)
    whole = blocks([small], MODEL, length=8, folder=tmp_path / "kept", progress=False)
    left = 101 - len(whole)
    tallies = rows.report.sources
    assert [tally.rows for tally in tallies] == [len(whole), -(-left // 2), left // 2]
    assert [tally.stopped for tally in tallies] == [False, True, True]
    assert tallies[1].read == 1000 == tallies[1].used + tallies[1].skipped["after the limit"]
    assert tallies[1].rest == 0


def test_too_little_text_for_one_block(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", SENTENCES[0])
    message = rf"a: no blocks of 512 tokens can be made \(there are {len(plain(SENTENCES[0]))} tokens in all\)"
    with pytest.raises(InputError, match=message):
        blocks([source], MODEL, length=512, folder=tmp_path / "kept", progress=False)
    assert list((tmp_path / "kept").iterdir()) == []


# --- sentences -------------------------------------------------------------------------------------


def test_sentences_are_tokenised_as_the_encoder_does_and_come_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a.txt", SENTENCES[0], " " + SENTENCES[0], SENTENCES[1])
    second = write(tmp_path / "b.txt", SENTENCES[1], SENTENCES[2] * 3)
    rows = sentences([first, second], TOKENIZER, folder=tmp_path / "kept", progress=False)
    texts = (SENTENCES[0], SENTENCES[1], SENTENCES[2] * 3)
    assert all_of(rows) == [(one_of(Text("", text)),) for text in texts]
    assert len(rows[-1][0].ids) == TOKENIZER.max_length
    assert rows.groups.tolist() == [0, 0, 1]
    assert [tally.skipped for tally in rows.report.sources] == [{"seen before": 1}, {"seen before": 1}]
    assert rows.tokens == sum(len(row[0].ids) for row in all_of(rows))


def test_short_sentences_are_skipped_if_asked(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "a", SENTENCES[0])
    most = len(one_of(Text("", "a")).ids) - one_of(Text("", "a")).start
    options: dict[str, Any] = {"folder": tmp_path / "kept", "progress": False}
    assert len(sentences([source], TOKENIZER, min_tokens=most, **options)) == 2
    rows = sentences([source], TOKENIZER, min_tokens=most + 1, **options)
    assert rows.report.sources[0].skipped == {f"of fewer than {most + 1} tokens": 1}
    assert len(rows) == 1


def test_the_limit_of_sentences_reads_no_further(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", *numbered(30), *numbered(30), "more", "yet more")
    rows = sentences([source], TOKENIZER, limit=31, folder=tmp_path / "kept", progress=False)
    [tally] = rows.report.sources
    assert (len(rows), tally.read, tally.used, tally.skipped) == (31, 61, 31, {"seen before": 30})
    assert rows[30] == (one_of(Text("", "more")),)


def test_a_text_of_which_the_tokenizer_leaves_nothing_is_skipped(tmp_path: Path) -> None:
    backend = without_hash_signs()
    source = write(tmp_path / "a.txt", "one", "###", "two", "#")
    options: dict[str, Any] = {"folder": tmp_path / "kept", "progress": False}
    rows = sentences([source], TextTokenizer(backend), **options)
    assert [tally.skipped for tally in rows.report.sources] == [{"without a token": 2}]
    assert len(rows) == 2
    model = ModelTokenizer(backend=backend, control=(), bos=None, eos="<|end_of_text|>", chat_template=None)
    [tally] = blocks([source], model, length=1, **options).report.sources
    assert (tally.used, tally.skipped) == (2, {"without a token": 2})


def test_a_source_of_which_nothing_is_left(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "", "x")
    message = r"a: no sentences can be made \(skipped 1 blank, 1 of fewer than 30 tokens\); expected at least one"
    with pytest.raises(InputError, match=message):
        sentences([source], TOKENIZER, min_tokens=30, folder=tmp_path / "kept", progress=False)


# --- pairs -----------------------------------------------------------------------------------------


def test_pairs_pool_after_the_instruction_on_the_sides_that_have_it(tmp_path: Path) -> None:
    rows_of = {"query": "Which of these roads is shorter?", "positive": "The bridge.", "negative": "Bread."}
    plain_pair = {"query": "How?", "positive": "No."}
    sources = [
        write_pairs(tmp_path / "a.jsonl", rows_of, instruction=INSTRUCTION),
        write_pairs(tmp_path / "b.jsonl", rows_of, instruction=INSTRUCTION, symmetric=True),
        write_pairs(tmp_path / "c.jsonl", plain_pair),
    ]
    rows = pairs(sources, TOKENIZER, folder=tmp_path / "kept", progress=False)
    query, document, negative = rows[0]
    bare = one_of(Text("", "x")).start
    assert query == one_of(Text(INSTRUCTION, rows_of["query"]))
    assert query.start == bare + len(plain(INSTRUCTION)) > bare == document.start == negative.start
    assert [text.start for text in rows[1]] == [query.start] * 3
    assert rows[1][2] == one_of(Text(INSTRUCTION, "Bread."))
    assert rows[2] == (one_of(Text("", "How?")), one_of(Text("", "No.")))
    assert rows.groups.tolist() == [0, 1, 2]
    assert rows.column_tokens == rows.tokens / 3


def test_an_instruction_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "a.jsonl", {"query": "q", "positive": "p"}, instruction=INSTRUCTION * 4)
    with pytest.raises(InputError, match="a: the instruction leaves no room for a text within max_length 40"):
        pairs([source], TOKENIZER, folder=tmp_path / "kept", progress=False)


# --- stores ----------------------------------------------------------------------------------------


def test_a_store_is_found_again_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "a.txt", *SENTENCES)
    first = sentences([source], TOKENIZER, folder=tmp_path / "kept", progress=False)
    monkeypatch.setattr(store, "read_texts", None)
    again = sentences([source], TOKENIZER, folder=tmp_path / "kept", progress=False)
    assert all_of(again) == all_of(first)
    assert again.report == first.report
    assert again.groups.tolist() == first.groups.tolist()
    assert again.tokens == first.tokens


def test_whatever_changes_the_rows_makes_another_store(tmp_path: Path) -> None:
    texts = write(tmp_path / "a.jsonl", *[{"text": text, "other": text} for text in SENTENCES])
    few = write_pairs(tmp_path / "p.jsonl", {"query": "q", "positive": "p"})
    kept: dict[str, Any] = {"folder": tmp_path / "kept", "progress": False}
    other = TextTokenizer(MODEL.backend, max_length=40)
    no_eos = ModelTokenizer(backend=MODEL.backend, control=MODEL.control, bos=None, eos=None, chat_template=None)
    path = texts.path
    made: list[Callable[[], Rows]] = [
        lambda: sentences([texts], TOKENIZER, **kept),
        lambda: sentences([texts], TOKENIZER, limit=5, **kept),
        lambda: sentences([texts], TOKENIZER, min_tokens=2, **kept),
        lambda: sentences([texts], other, **kept),
        lambda: sentences([texts], TextTokenizer(MODEL.backend, max_length=41), **kept),
        lambda: sentences([texts], TextTokenizer(MODEL.backend, max_length=40, pool_instruction=True), **kept),
        lambda: sentences(
            [texts], TextTokenizer(without_hash_signs(), template=TOKENIZER.template, max_length=40), **kept
        ),
        lambda: sentences([Source(path=path, field="other")], TOKENIZER, **kept),
        lambda: blocks([texts], MODEL, length=8, **kept),
        lambda: blocks([texts], MODEL, length=9, **kept),
        lambda: blocks([texts], no_eos, length=8, **kept),
        lambda: pairs([few], TOKENIZER, **kept),
        lambda: pairs([PairSource(path=few.path, instruction="Find")], TOKENIZER, **kept),
        lambda: pairs([PairSource(path=few.path, instruction="Find", symmetric=True)], TOKENIZER, **kept),
    ]
    for _ in range(2):
        for make in made:
            make()
        assert len(list((tmp_path / "kept").iterdir())) == len(made)
    changed = Path(path).stat().st_mtime_ns + 1
    os.utime(path, ns=(changed, changed))
    made[0]()
    assert len(list((tmp_path / "kept").iterdir())) == len(made) + 1


def test_an_error_on_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", *[{"text": text} for text in numbered(1500)], {"body": "x"})
    with pytest.raises(InputError, match=r"line 1501: no field 'text'"):
        sentences([source], TOKENIZER, folder=tmp_path / "kept", progress=False)
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("damage", ["ids.bin", "groups.bin", "about.json"])
def test_a_damaged_store_is_made_anew(tmp_path: Path, damage: str) -> None:
    source = write(tmp_path / "a.txt", *SENTENCES)
    expected = all_of(sentences([source], TOKENIZER, folder=tmp_path / "kept", progress=False))
    [place] = (tmp_path / "kept").iterdir()
    content = (place / damage).read_bytes()
    (place / damage).write_bytes(content[:-2])
    assert all_of(sentences([source], TOKENIZER, folder=tmp_path / "kept", progress=False)) == expected
    assert (place / damage).read_bytes() == content


def word_level(size: int) -> ModelTokenizer:
    """Return a tokenizer of ``size`` words, the last one called ``last``."""
    words = {f"w{number}": number for number in range(size - 1)} | {"last": size - 1}
    backend: Any = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return ModelTokenizer(backend=backend, control=(), bos=None, eos=None, chat_template=None)


@pytest.mark.parametrize(("size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_take_two_bytes_where_the_vocabulary_fits(tmp_path: Path, size: int, dtype: type) -> None:
    source = write(tmp_path / "a.txt", "w1 last")
    rows = blocks([source], word_level(size), length=2, folder=tmp_path / "kept", progress=False)
    assert rows.dtype == dtype
    assert rows[0][0].ids == [1, size - 1]


def test_making_a_store_holds_no_more_than_a_batch(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", *(("Bread " * 200 + "\n") * 10_000).splitlines())
    model = word_level(10)
    tracemalloc.start()
    try:
        rows = blocks([source], model, length=100, folder=tmp_path / "kept", progress=False)
        # 2,000,000 tokens: 16 MB as one list of Python's integers, 4 MB on disk.
        assert len(rows) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_rows_are_indexed_like_a_sequence(tmp_path: Path) -> None:
    rows = sentences([write(tmp_path / "a.txt", "a", "b", "c")], TOKENIZER, folder=tmp_path / "kept", progress=False)
    assert rows[-1] == rows[2]
    assert len({rows[index][0].ids[-2] for index in range(3)}) == 3
    with pytest.raises(IndexError):
        rows[3]


def test_progress_counts_texts_and_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.txt", *SENTENCES)
    rows = sentences([source], TOKENIZER, folder=tmp_path / "kept")
    error = capsys.readouterr().err
    assert error.startswith(f"Tokenising: {len(rows)} texts in ")
    assert "tokens/s" in error
    sentences([source], TOKENIZER, folder=tmp_path / "kept")
    assert capsys.readouterr().err == ""


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "x")
    with pytest.raises(InputError, match="no sources; expected at least one"):
        sentences([], TOKENIZER, folder=tmp_path)
    with pytest.raises(InputError, match="limit is 0; expected 1 or more"):
        sentences([source], TOKENIZER, limit=0, folder=tmp_path)
    with pytest.raises(InputError, match="length is 0; expected 1 or more"):
        blocks([source], MODEL, length=0, folder=tmp_path)


# --- batches ---------------------------------------------------------------------------------------


def rows_of(folder: Path, *sizes: int) -> Rows:
    """Return rows of sources of these sizes, in order, one token each."""
    folder.mkdir(exist_ok=True)
    with RowWriter(folder, 10) as writer:
        for group, size in enumerate(sizes):
            writer.add(group, [(TokenizedText([1], 0),)] * size)
        writer.finish(Report(unit="rows", sources=tuple(Tally(name=str(size), rows=size) for size in sizes)))
    return Rows(folder)


@pytest.mark.parametrize("homogeneous", [False, True])
def test_an_epoch_takes_each_row_once_and_the_next_in_another_order(tmp_path: Path, homogeneous: bool) -> None:
    batches = Batches(rows_of(tmp_path, 103), batch=10, seed=1, homogeneous=homogeneous)
    assert (batches.per_epoch, batches.left_out) == (10, {})
    epochs = [np.concatenate([batches.indices(10 * epoch + step) for step in range(10)]) for epoch in range(3)]
    for rows in epochs:
        assert rows.dtype == np.int64
        assert len(set(rows.tolist())) == 100
        assert set(rows.tolist()) <= set(range(103))
    assert epochs[0].tolist() != sorted(epochs[0].tolist())
    assert len({tuple(rows.tolist()) for rows in epochs}) == 3
    # Rows that the first epoch leaves out have their turn later.
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())


@pytest.mark.parametrize("homogeneous", [False, True])
def test_a_step_gives_the_same_rows_whenever_it_is_asked_for(tmp_path: Path, homogeneous: bool) -> None:
    rows = rows_of(tmp_path, 40, 60)
    run = Batches(rows, batch=8, seed=7, homogeneous=homogeneous)
    steps = [run.indices(step).tolist() for step in range(60)]
    resumed = Batches(Rows(tmp_path), batch=8, seed=7, homogeneous=homogeneous)
    assert [resumed.indices(step).tolist() for step in range(37, 60)] == steps[37:]
    assert resumed.indices(3).tolist() == steps[3]
    assert Batches(rows, batch=8, seed=8, homogeneous=homogeneous).indices(0).tolist() != steps[0]


def test_homogeneous_batches_are_of_one_source_in_proportion_and_mixed(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 7, 200, 400, 3)
    batches = Batches(rows, batch=20, seed=0, homogeneous=True)
    assert (batches.per_epoch, batches.left_out) == (30, {0: 7, 3: 3})
    order = []
    for step in range(30):
        [group] = set(rows.groups[batches.indices(step)].tolist())
        order.append(group)
    assert Counter(order) == {1: 10, 2: 20}
    assert order != sorted(order)
    mixed = Batches(rows, batch=20, seed=0, homogeneous=False)
    assert mixed.left_out == {}
    assert len(set(rows.groups[mixed.indices(0)].tolist())) > 1


def test_a_late_step_costs_one_permutation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(rows_of(tmp_path, 50), batch=5, seed=0, homogeneous=False)
    made = []
    order = batches._order

    def counted(epoch: int) -> Any:
        made.append(epoch)
        return order(epoch)

    monkeypatch.setattr(batches, "_order", counted)
    for step in (10_000_003, 10_000_004, 10_000_009, 10_000_010):
        assert len(batches.indices(step)) == 5
    assert made == [1_000_000, 1_000_001]


def test_too_few_rows_for_a_batch_are_refused(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 30, 40)
    with pytest.raises(InputError, match="There are 70 rows and a batch takes 71; expected at least one whole batch"):
        Batches(rows, batch=71, seed=0, homogeneous=False)
    with pytest.raises(InputError, match="There are 70 rows, 40 at most of one source, and a batch takes 41"):
        Batches(rows, batch=41, seed=0, homogeneous=True)
    with pytest.raises(InputError, match="batch is 0 and seed is 0"):
        Batches(rows, batch=0, seed=0, homogeneous=False)
    with pytest.raises(InputError, match="step is -1; expected 0 or more"):
        Batches(rows, batch=5, seed=0, homogeneous=False).indices(-1)

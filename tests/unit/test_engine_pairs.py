"""Pairs are tokenised as the tokenizers library does, whatever they hold and however long they are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from unmask.engine.pairs import PairTokenizer
from unmask.errors import CheckpointError, InputError
from unmask.text import Text

WORDS = [f"w{number}" for number in range(20)]
TYPED = "[CLS] $A [SEP] $B:1 [SEP]:1"
PLAIN = "[CLS]:0 $A:0 [SEP]:0 [SEP]:0 $B:0 [SEP]:0"

sides = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)


def backend(pair: str | None) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "a", "b", *WORDS])}
    made: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[CLS]", "[SEP]"])
    if pair:
        special = [("[CLS]", 1), ("[SEP]", 2)]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=special)
    tokenizer: Tokenizer = made
    return tokenizer


@pytest.mark.parametrize("pair", [TYPED, PLAIN, None], ids=["types", "one type", "nothing around"])
@settings(max_examples=150)
@given(query=sides, document=sides, length=st.integers(6, 60))
def test_a_pair_is_read_and_cut_as_the_library_does(pair: str | None, query: str, document: str, length: int) -> None:
    library: Any = backend(pair)
    library.enable_truncation(length, strategy="longest_first")
    expected = library.encode(query, document)
    (found,) = PairTokenizer(backend(pair), max_length=length).tokenize([Text(query, document)])
    assert found.ids == expected.ids
    assert [int(place >= found.start) for place in range(len(found.ids))] == expected.type_ids


def test_pairs_of_one_request_keep_their_order() -> None:
    tokenizer = PairTokenizer(backend(TYPED), max_length=32)
    pairs = [Text("w1", "w2"), Text("w3 w4", "w5"), Text("w1", "w6"), Text("w3 w4", "w5")]
    together = tokenizer.tokenize(pairs)
    assert together == [tokenizer.tokenize([pair])[0] for pair in pairs]
    assert tokenizer.tokenize([]) == []


def test_special_tokens_of_a_caller_are_plain_text_even_in_another_process() -> None:
    sent = PairTokenizer(backend(TYPED), max_length=32)
    for tokenizer in (sent, pickle.loads(pickle.dumps(sent))):
        (found,) = tokenizer.tokenize([Text("w1 [SEP]", "[CLS] w2")])
        assert found.ids == [1, 6, 0, 0, 0, 2, 0, 0, 0, 7, 2]  # three unknown tokens each


def test_a_pair_that_is_too_long_is_named() -> None:
    tokenizer = PairTokenizer(backend(TYPED), max_length=8)
    pairs = [Text("w1 w2", "w1 w2 w3"), Text("w1 w2", "w1 w2 w3 w4")]
    assert len(tokenizer.tokenize(pairs[:1], truncate=False)[0].ids) == 8
    with pytest.raises(InputError, match=r"Document 71 .* have 9 tokens together, 1 more than max_length 8"):
        tokenizer.tokenize(pairs, indices=[70, 71], truncate=False)


def test_too_few_tokens_for_any_pair_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5"):
        PairTokenizer(backend(TYPED), max_length=4)
    PairTokenizer(backend(TYPED), max_length=5)


def test_a_tokenizer_that_puts_the_document_first_is_refused() -> None:
    with pytest.raises(CheckpointError, match="does not read a query and then a document"):
        PairTokenizer(backend("[CLS] $B [SEP] $A [SEP]"), max_length=32)

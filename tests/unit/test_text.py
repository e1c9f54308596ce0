"""Texts, templates and pooled spans, on tiny tokenizers of five kinds."""

from __future__ import annotations

import time
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers import processors as post_processors

from tests.tiny_tokenizer import tiny_tokenizer
from unmask.errors import CheckpointError, InputError
from unmask.text import BARE, Template, Text, TextTokenizer, TokenizedText, check_text

LLAMA3 = Template("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>")
INST = Template("[INST] ", " [/INST]")
CHATML = Template("<|im_start|>user\n", "<|im_end|>")
GEMMA = Template("<start_of_turn>user\n", "<end_of_turn>")
INSTRUCTION = "Given a question, retrieve passages:"


def qwen_like() -> Tokenizer:
    """Return a byte-level tokenizer without BOS, whose post-processor trims offsets."""
    tokenizer = Tokenizer.from_str(tiny_tokenizer("llama3").backend_tokenizer.to_str())
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = post_processors.ByteLevel(trim_offsets=True)
    return tokenizer


def gemma_like() -> Tokenizer:
    """Return a tokenizer that marks spaces but not the start, with line breaks as added tokens."""
    tokenizer = Tokenizer.from_str(tiny_tokenizer("llama2").backend_tokenizer.to_str())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    tokenizer.add_tokens([AddedToken("\n", normalized=False), AddedToken("\n\n", normalized=False)])
    return tokenizer


def metaspace() -> Tokenizer:
    """Return a tokenizer whose pre-tokenizer marks the start of a text."""
    tokenizer = Tokenizer.from_str(tiny_tokenizer("llama2").backend_tokenizer.to_str())
    plain: Any = tokenizer
    plain.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


BACKENDS = {
    "llama3": tiny_tokenizer("llama3").backend_tokenizer,
    "llama2": tiny_tokenizer("llama2").backend_tokenizer,
    "qwen": qwen_like(),
    "gemma": gemma_like(),
    "metaspace": metaspace(),
}
TEMPLATES = {"llama3": LLAMA3, "llama2": INST, "qwen": CHATML, "gemma": GEMMA, "metaspace": INST}
CASES = [(kind, template) for kind in BACKENDS for template in (BARE, TEMPLATES[kind])]
#: Made once: a TextTokenizer copies its backend.
MADE = {(kind, template): TextTokenizer(BACKENDS[kind], template=template) for kind, template in CASES}
SPECIAL_STRINGS = [
    "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_of_text|>", "</s>", "<s>", "<unk>", "<|im_start|>",
    "<|im_end|>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<0x0A>", "!@#$%^&*()",
]  # fmt: skip
each_case = pytest.mark.parametrize(("kind", "template"), CASES)


def one(tokenizer: TextTokenizer, text: Text | str, **options: Any) -> TokenizedText:
    [tokens] = tokenizer.tokenize([text if isinstance(text, Text) else Text("", text)], **options)
    return tokens


def expected_by_offsets(kind: str, template: Template, text: Text) -> tuple[list[int], int]:
    """Tokenise the parts that are special one by one, the rest in one go, and find the span by brute force."""
    backend: Any = Tokenizer.from_str(BACKENDS[kind].to_str())
    head: list[int] = [i for i in backend.encode("").ids if i in special_ids(kind)]
    specials = sorted((t.content for t in backend.get_added_tokens_decoder().values() if t.special), key=len)
    prefix, suffix, foot = template.prefix, template.suffix, list[int]()
    while found := [s for s in specials if s in prefix]:
        before, name, prefix = prefix.partition(min(found, key=prefix.find))
        head += backend.encode(before, add_special_tokens=False).ids if before else []
        head.append(backend.token_to_id(name))
    if suffix in specials:
        foot, suffix = [backend.token_to_id(suffix)], ""
    backend.encode_special_tokens = True
    backend.post_processor = None
    before = prefix + (f"{text.instruction.strip()} " if text.instruction.strip() else "")
    encoding = backend.encode(before + text.content.strip() + suffix, add_special_tokens=False)
    border = len(before.rstrip(" "))
    start = next(i for i, (_, end) in enumerate(encoding.offsets) if end > border)
    return head + encoding.ids + foot, len(head) + start if border or head else 0


def special_ids(kind: str) -> set[int]:
    return {i for i, token in BACKENDS[kind].get_added_tokens_decoder().items() if token.special}


# --- the span --------------------------------------------------------------------------------------

SURROGATES: tuple[Literal["Cs"]] = ("Cs",)
readable = st.text(st.characters(exclude_categories=SURROGATES), min_size=1, max_size=30)
pieces = st.one_of(readable, st.sampled_from([*SPECIAL_STRINGS, "the library", " ", "\n\n", "图书馆", "🌞", "3", "▁"]))
contents = st.lists(pieces, min_size=1, max_size=6).map("".join).filter(str.strip)
instructions = st.one_of(st.just(""), st.just(INSTRUCTION), contents)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(case=st.sampled_from(CASES), instruction=instructions, content=contents)
def test_span_is_what_brute_force_finds(case: tuple[str, Template], instruction: str, content: str) -> None:
    text = Text(instruction, content)
    tokens = one(MADE[case], text)
    ids, start = expected_by_offsets(*case, text)
    assert tokens.ids == ids
    assert tokens.start == start


@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=st.sampled_from(CASES), instruction=instructions, content=contents, room=st.integers(1, 40))
def test_truncation_cuts_the_content_s_end_and_nothing_else(
    case: tuple[str, Template], instruction: str, content: str, room: int
) -> None:
    whole = one(MADE[case], Text(instruction, content))
    tail = _closing(case)
    limit = whole.start + tail + room
    cut = _cut(case, Text(instruction, content), limit)
    if cut is None:
        # A space of its own, and the first token, may take two.
        assert room <= 2
        return
    assert len(cut.ids) == min(limit, len(whole.ids))
    assert cut.start == whole.start
    assert cut.ids[: cut.start + 1] == whole.ids[: cut.start + 1]
    if len(whole.ids) > limit:
        assert cut.ids[: limit - tail] == whole.ids[: limit - tail]
        assert cut.ids[limit - tail :] == whole.ids[len(whole.ids) - tail :]


def _cut(case: tuple[str, Template], text: Text, limit: int) -> TokenizedText | None:
    try:
        return one(TextTokenizer(BACKENDS[case[0]], template=case[1], max_length=limit), text)
    except InputError:
        return None


def _closing(case: tuple[str, Template]) -> int:
    """Return how many tokens the template's suffix has behind a word."""
    made = MADE[case]
    alone = len(one(TextTokenizer(BACKENDS[case[0]], template=Template(case[1].prefix)), "word").ids)
    return len(one(made, "word").ids) - alone


@pytest.mark.parametrize("kind", ["llama2", "metaspace"])
def test_space_of_its_own_before_the_content_is_pooled(kind: str) -> None:
    tokens = one(TextTokenizer(BACKENDS[kind]), Text("Topic:", "图"))
    assert BACKENDS[kind].id_to_token(tokens.ids[tokens.start]) == "▁"
    assert len(tokens.ids) - tokens.start == 4


def test_space_of_its_own_is_pooled_where_offsets_are_trimmed() -> None:
    tokens = one(TextTokenizer(BACKENDS["qwen"]), Text("Topic:", "3 lakes"))
    pooled = [BACKENDS["qwen"].id_to_token(i) for i in tokens.ids[tokens.start :]]
    assert pooled[:2] == ["Ġ", "3"]


def test_a_text_may_become_longer_when_it_stands_behind_an_instruction() -> None:
    """The reference tokenises the text alone and counts from the end: it is off by one here."""
    tokenizer = MADE["llama3", BARE]
    alone, behind = one(tokenizer, "the lake"), one(tokenizer, Text(INSTRUCTION, "the lake"))
    assert len(behind.ids) - behind.start != len(alone.ids) - alone.start


def test_metaspace_marks_no_start_behind_a_special_token() -> None:
    tokens = one(TextTokenizer(BACKENDS["metaspace"], template=CHATML), "lake")
    whole = BACKENDS["metaspace"].encode("<|im_start|>user\nlake<|im_end|>", add_special_tokens=False).ids
    assert tokens.ids[1:] == whole


@each_case
def test_whole_string_is_what_the_model_s_own_tokenizer_reads(kind: str, template: Template) -> None:
    text = Text(INSTRUCTION, "Which road is shorter?")
    string = f"{template.prefix}{text.instruction} {text.content}{template.suffix}"
    assert one(MADE[kind, template], text).ids == BACKENDS[kind].encode(string).ids


@each_case
def test_white_space_around_does_not_count(kind: str, template: Template) -> None:
    tokenizer = MADE[kind, template]
    assert one(tokenizer, Text(f" {INSTRUCTION}\n", "\t a lake \u3000\n")) == one(
        tokenizer, Text(INSTRUCTION, "a lake")
    )
    assert one(tokenizer, Text(" \n", "a lake")) == one(tokenizer, "a lake")


def test_pooling_the_instruction_pools_everything() -> None:
    tokenizer = TextTokenizer(BACKENDS["llama3"], template=LLAMA3, pool_instruction=True)
    tokens = one(tokenizer, Text(INSTRUCTION, "a lake"), spans=True)
    assert tokens.start == 0
    assert tokens.spans is not None
    assert len(tokens.spans) == len(tokens.ids)


@each_case
def test_token_spans_cover_the_content(kind: str, template: Template) -> None:
    content = "Le café, 图书馆 and 3 lakes"
    tokens = one(MADE[kind, template], Text(INSTRUCTION, f"  {content} "), spans=True)
    assert tokens.spans is not None
    assert len(tokens.spans) == len(tokens.ids) - tokens.start
    covered = {position for begin, end in tokens.spans for position in range(begin, end)}
    assert covered == set(range(len(content)))
    assert tokens.spans == sorted(tokens.spans)


# --- odd texts -------------------------------------------------------------------------------------

ODD = {
    "chinese": "图书馆在河的旁边。每天早上九点开门。",
    "japanese": "図書館は川のそばにあります。カタカナとひらがな。",
    "arabic": "المكتبة مفتوحة كل يوم من الصباح إلى المساء.",
    "emoji": "👩‍👩‍👧🌞🏳️‍🌈",
    "combining": "e\u0301\u0327 a\u030a",
    "controls": "a\x00b\x1d\x7fc",
    "private": "\ue000\uf8ff\U0010ffff",
    "directions": "\u202eabc\u202c\u200b\ufeff",
    "one character": "x",
    "line breaks": "a\n\n\nb\r\nc",
}


@each_case
@pytest.mark.parametrize("name", ODD)
def test_odd_texts_keep_all_their_bytes(kind: str, template: Template, name: str) -> None:
    tokens = one(MADE[kind, template], Text(INSTRUCTION, ODD[name]), spans=True)
    assert tokens.spans is not None
    covered = {position for begin, end in tokens.spans for position in range(begin, end)}
    assert covered == set(range(len(ODD[name])))


@each_case
@pytest.mark.parametrize("string", SPECIAL_STRINGS)
def test_special_strings_in_a_text_are_text(kind: str, template: Template, string: str) -> None:
    tokenizer = MADE[kind, template]
    for text in (Text("", string), Text(string, f"a{string}b"), Text("", f"{string} {string}")):
        ids = one(tokenizer, text).ids
        inner = ids[len(tokenizer.head) : len(ids) - len(tokenizer.foot)]
        assert not set(inner) & special_ids(kind)


def test_control_tokens_that_the_tokenizer_calls_ordinary_are_text() -> None:
    backend = Tokenizer.from_str(BACKENDS["llama3"].to_str())
    backend.add_tokens([AddedToken("<|pad|>", special=False)])
    pad = backend.token_to_id("<|pad|>")
    assert pad in one(TextTokenizer(backend), "a <|pad|> b").ids
    assert pad not in one(TextTokenizer(backend, control_tokens=["<|pad|>"]), "a <|pad|> b").ids


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_megabyte_without_a_space_is_cut_in_time(kind: str) -> None:
    started = time.monotonic()
    tokens = one(MADE[kind, TEMPLATES[kind]], Text(INSTRUCTION, "ab" * 500_000))
    assert len(tokens.ids) == 512
    assert time.monotonic() - started < 30


def test_text_whose_characters_all_vanish_is_named() -> None:
    backend = Tokenizer.from_str(BACKENDS["llama3"].to_str())
    backend.normalizer = normalizers.Replace(Regex("\u0301"), "")
    for template in (BARE, LLAMA3, INST):
        for instruction in ("", INSTRUCTION):
            tokenizer = TextTokenizer(backend, template=template)
            with pytest.raises(InputError, match="Text 7 has no token"):
                tokenizer.tokenize([Text("", "fine"), Text(instruction, "\u0301\u0301")], indices=[3, 7])


@pytest.mark.parametrize("text", [None, 7, b"bytes", ["a"], Text("a", 3), Text(None, "a")])  # type: ignore[arg-type]
def test_what_is_no_string_is_named(text: object) -> None:
    with pytest.raises(InputError, match=r"Text 5 is of type \w+; expected str or Text"):
        check_text(text, 5)


@pytest.mark.parametrize("text", ["ab\ud800", Text("ab\udfff", "x"), Text("é", "ab\udc00c")])
def test_lone_surrogate_is_named(text: object) -> None:
    with pytest.raises(InputError, match=r"Text 5 holds a lone surrogate \(U\+D[0-9A-F]{3}\) at character 2"):
        check_text(text, 5)


@pytest.mark.parametrize("text", ["", "plain", "\U0001f31e", Text("", "é")])
def test_strings_pass(text: str | Text) -> None:
    assert check_text(text, 0) == (text if isinstance(text, Text) else Text("", text))


# --- lengths ---------------------------------------------------------------------------------------


def test_too_long_a_text_is_an_error_on_request() -> None:
    tokenizer = TextTokenizer(BACKENDS["llama3"], max_length=8)
    total = len(one(TextTokenizer(BACKENDS["llama3"]), ODD["chinese"]).ids)
    with pytest.raises(InputError, match=f"Text 4 has {total} tokens, {total - 8} more than max_length 8"):
        one(tokenizer, ODD["chinese"], truncate=False, indices=[4])
    assert len(one(tokenizer, ODD["chinese"]).ids) == 8


@each_case
def test_too_long_an_instruction_is_an_error(kind: str, template: Template) -> None:
    tokenizer = TextTokenizer(BACKENDS[kind], template=template, max_length=24)
    with pytest.raises(InputError, match=r"instruction of text 1 takes \d+ of max_length 24 tokens"):
        tokenizer.tokenize([Text("", "fine"), Text(INSTRUCTION * 9, "a lake")])


@each_case
def test_max_length_must_hold_the_template(kind: str, template: Template) -> None:
    with pytest.raises(InputError, match=r"Use a max_length of at least (\d+)") as raised:
        TextTokenizer(BACKENDS[kind], template=template, max_length=0)
    least = int(str(raised.value).rsplit(" ", 1)[1].rstrip("."))
    assert one(TextTokenizer(BACKENDS[kind], template=template, max_length=least), "a long text of a lake").ids
    if least > 1:
        with pytest.raises(InputError, match="alone take"):
            TextTokenizer(BACKENDS[kind], template=template, max_length=least - 1)


def test_appended_token_stands_behind_the_template() -> None:
    tokens = one(TextTokenizer(BACKENDS["llama3"], template=LLAMA3, append="</s>"), "a lake")
    names = [BACKENDS["llama3"].id_to_token(i) for i in tokens.ids[-2:]]
    assert names == ["<|eot_id|>", "</s>"]
    cut = one(TextTokenizer(BACKENDS["llama3"], template=LLAMA3, append="</s>", max_length=12), "a lake " * 99)
    assert cut.ids[-2:] == tokens.ids[-2:]


def test_padding_and_truncation_of_the_backend_do_not_count() -> None:
    backend = Tokenizer.from_str(BACKENDS["llama3"].to_str())
    backend.enable_truncation(5)
    expected = one(MADE["llama3", BARE], ODD["chinese"])
    assert one(TextTokenizer(backend), ODD["chinese"]) == expected


def test_template_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="does not know"):
        TextTokenizer(BACKENDS["llama3"], template=CHATML, control_tokens=["<|im_start|>", "<|im_end|>"])


def test_post_processor_that_rewrites_texts_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "[X]": 1}, unk_token="a"))
    backend.post_processor = post_processors.TemplateProcessing(single="[X] [X]", special_tokens=[("[X]", 1)])
    with pytest.raises(CheckpointError, match="only adds tokens around"):
        TextTokenizer(backend)

"""Two tiny tokenizers, learnt from the sentences below in a way that leaves nothing to chance.

``llama3`` is a byte-level BPE behind a regular-expression split, ``llama2`` a BPE over ``▁``-marked
words with byte fallback. Both put their BOS first. The ids are the same under every release of the
tokenizers library, because the library only applies the merges: it does not learn them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_letters
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors as post_processors
from transformers import PreTrainedTokenizerFast

SENTENCES: tuple[str, ...] = (
    "The baker opens the shop before the sun is up, and the street smells of bread.",
    "A small boat crossed the harbour while the gulls argued over the fish.",
    "Nobody in the village could remember when the old bridge had been built.",
    "She packed three sandwiches, two apples and a map for the walk to the lake.",
    "The train to the north leaves at 7:45 and arrives at 12:30 on most days.",
    "Our garden gives more tomatoes than we can eat, so the neighbours take some.",
    "Water boils at 100 degrees at sea level, but sooner on a high mountain.",
    "The library keeps maps from 1852, 1901 and 1974 in a dry room downstairs.",
    "He repaired the radio with a spoon, some wire and a great deal of patience.",
    "Every winter the river freezes, and the children skate to school on it.",
    "Given a question, find the passages that answer the question:",
    "Given a search query, retrieve the documents that match the query:",
    "Identify the topic of the news article:",
    "Which of these two roads is shorter, and which of them is safer at night?",
    "How do I compress a folder without losing the dates of the files?",
    "What is the difference between a lake and a pond, if there is any?",
    "The answer was short: no. The question, however, had taken an hour!",
    "Prices rose by 3.5 percent in May, then fell by 1.2 percent in June.",
    "Doctors say that a short walk after a meal is good for the heart.",
    "The match ended without a goal, although both teams had many chances.",
    "A committee of 12 members will read the report and vote on Monday.",
    "Light from that star left it 4200 years ago; we see it only tonight.",
    "The recipe asks for flour, salt, warm water, yeast - and for time.",
    "Please send the form to the office (second floor, room 218) by Friday.",
    "An orchestra needs more than violins: it needs drums, horns and silence.",
    "They sold the farm, bought a van and drove along the coast for a year.",
    "The museum shows how people wrote before paper: on clay, bark and stone.",
    "If the lamp is red, wait; if the lamp is green, press the button twice.",
    "This computer has 16 cores, 64 gigabytes of memory and a very loud fan.",
    "The function returns a list of numbers and raises an error when it is empty.",
    "[INST] user: tell me what the text says [/INST]",
    "user\n\nWrite one sentence about the weather.\n",
    "Le café du coin est fermé le lundi, même en été.",
    "Die Brücke über den Fluss ist größer, als man glaubt.",
    "Mañana iremos a la montaña si no llueve por la mañana.",
    "Старый мост стоит над рекой уже двести лет.",
    "图书馆在河的旁边。每天早上九点开门。",
    "今天的天气很好。我们去公园散步。",
    "المكتبة مفتوحة كل يوم من الصباح إلى المساء.",
    "पुस्तकालय नदी के पास है और सुबह खुलता है।",
    "Good morning 🌞, good night 🌙, and thank you 🙏!",
)
"""What both tokenizers are learnt from."""

BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "</s>",
)
LLAMA2_SPECIALS = ("<unk>", "<s>", "</s>")
# In order: line ends; a word with the space before it; up to three digits; a run of
# punctuation with the space before it; any other white space, one character at a time.
LLAMA3_SPLIT = r"[\r\n]+| ?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s"
_MERGES = 338


def _learn_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """Return `count` merges: each time the most frequent pair, of equals the smallest."""
    pieces = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in zip(pieces[word], pieces[word][1:], strict=False):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in words:
            pieces[word] = list(_merged(pieces[word], best))
    return merges


def _merged(pieces: list[str], pair: tuple[str, str]) -> Iterator[str]:
    """Yield the pieces with each occurrence of `pair`, from the left, made one."""
    index = 0
    while index < len(pieces):
        joined = tuple(pieces[index : index + 2]) == pair
        yield "".join(pair) if joined else pieces[index]
        index += 2 if joined else 1


def _space_merges(merges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a last merge with the space before it for whatever can start a word in Latin letters.

    A large vocabulary has a token for nearly every such start; before digits, symbols and rare
    scripts the space stays a token of its own, there as here.
    """
    starts = dict.fromkeys([*ascii_letters, *("".join(pair) for pair in merges)])
    known = {"".join(pair) for pair in merges}
    return [("Ġ", start) for start in starts if set(start) <= set(ascii_letters) and f"Ġ{start}" not in known]


def _words(pre_tokenizer: Any, *, prefix: str = "") -> Counter[str]:
    """Count each pre-token of the sentences."""
    split = pre_tokenizer.pre_tokenize_str
    return Counter(word for text in SENTENCES for word, _ in split(prefix + text))


def _vocabulary(tokens: Iterable[str]) -> dict[str, int]:
    """Give each token an id, in the order of first appearance."""
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def _bos_first(bos: str, index: int) -> Any:
    """Return the post-processor that puts BOS in front."""
    return post_processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, index)]
    )


def _llama3() -> Tokenizer:
    """Build a byte-level BPE behind a split, as Llama 3 has it; no white space is added or lost."""
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    chain = pre_tokenizers.Sequence([split, byte_level])
    merges = _learn_merges(_words(chain), _MERGES)
    merges += _space_merges(merges)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = _vocabulary([*alphabet, *("".join(pair) for pair in merges), *LLAMA3_SPECIALS])
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = chain
    tokenizer.decoder = decoders.ByteLevel()
    bos = LLAMA3_SPECIALS[0]
    tokenizer.post_processor = post_processors.Sequence(
        [post_processors.ByteLevel(trim_offsets=False), _bos_first(bos, vocabulary[bos])]
    )
    return _with_specials(tokenizer, LLAMA3_SPECIALS)


def _llama2() -> Tokenizer:
    """Build a BPE with byte fallback, as Llama 2 has it: a ``▁`` starts every segment."""
    words = _words(pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never"), prefix=" ")
    merges = _learn_merges(words, _MERGES)
    # Scripts past Cyrillic stay out of the vocabulary, so that the byte fallback has work.
    letters = sorted({c for word in words for c in word if ord(c) < 0x500 or c == "▁"})
    merges = [pair for pair in merges if set("".join(pair)) <= set(letters)]
    tokens = [*LLAMA2_SPECIALS, *BYTE_TOKENS, *("".join(pair) for pair in merges), *letters]
    settings: dict[str, Any] = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(tokens), merges=merges, **settings))
    marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(marks)
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = _bos_first("<s>", LLAMA2_SPECIALS.index("<s>"))
    return _with_specials(tokenizer, LLAMA2_SPECIALS)


def _with_specials(tokenizer: Tokenizer, specials: Iterable[str]) -> Tokenizer:
    """Register tokens that are in the vocabulary already as special ones."""
    added = [AddedToken(token, normalized=False, special=True) for token in specials]
    tokenizer.add_special_tokens(added)
    return tokenizer


@dataclass(frozen=True)
class _Kind:
    """How a kind is built, and which of its tokens play a part."""

    build: Callable[[], Tokenizer]
    roles: dict[str, str]


_KINDS = {
    "llama3": _Kind(_llama3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}),
    "llama2": _Kind(_llama2, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
}
_SETTINGS: dict[str, Any] = {
    "clean_up_tokenization_spaces": False,
    "model_max_length": 1024,
    "model_input_names": ["input_ids", "attention_mask"],
}


@cache
def _serialised(kind: str) -> str:
    """Return the ``tokenizer.json`` of a kind, learnt once a process."""
    return str(_KINDS[kind].build().to_str(pretty=True))


def tiny_tokenizer(kind: str = "llama3") -> PreTrainedTokenizerFast:
    """Return a fresh tokenizer of kind ``llama3`` or ``llama2``; it has no pad token."""
    maker: Any = PreTrainedTokenizerFast
    content = Tokenizer.from_str(_serialised(kind))
    tokenizer: PreTrainedTokenizerFast = maker(tokenizer_object=content, **_KINDS[kind].roles, **_SETTINGS)
    return tokenizer


def write_tokenizer(folder: Path, kind: str = "llama3") -> Path:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    roles = _KINDS[kind].roles
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | _SETTINGS | roles
    contents = {
        "tokenizer.json": _serialised(kind),
        "tokenizer_config.json": json.dumps(settings, indent=2),
        "special_tokens_map.json": json.dumps(roles, indent=2),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder

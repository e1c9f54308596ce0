"""One source's texts → rows of tokens, a thousand texts at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Final, TypeVar

from tokenizers import Encoding, Tokenizer

from unmask.errors import InputError
from unmask.text import Text, TextTokenizer, TokenizedText
from unmask.training.data.report import Tally
from unmask.training.data.rows import Row
from unmask.training.data.sources import Source, read_texts

#: What is tokenised at a time. The characters bound the memory that long texts take.
_TEXTS: Final = 1000
_CHARACTERS: Final = 1_000_000

_Item = TypeVar("_Item", str, tuple[Text, ...])


def make_blocks(
    source: Source, tally: Tally, most: int | None, *, literal: Tokenizer, separator: list[int], length: int
) -> Generator[list[Row], None, None]:
    """Yield a source's texts in blocks; arguments as for :func:`unmask.training.data.store.blocks`.

    Args:
        source: where the texts come from.
        tally: counts them.
        most: number of blocks to stop at, None for all.
        literal: a tokenizer that reads nothing in a text as special.
        separator: token ids between two texts.
        length: tokens in each block.
    """
    pending: list[int] = []
    made = 0
    with closing(read_texts(source, tally)) as texts:
        while most is None or made < most:
            taken = list(_take(texts, _TEXTS))
            if not taken:
                tally.rest = len(pending)
                return
            wanted = None if most is None else (most - made) * length
            _append(pending, literal.encode_batch_fast(taken, add_special_tokens=False), separator, wanted, tally)
            whole = len(pending) // length if most is None else min(most - made, len(pending) // length)
            yield [(TokenizedText(pending[i * length : (i + 1) * length], 0),) for i in range(whole)]
            made += whole
            del pending[: whole * length]


def _append(
    pending: list[int], encodings: Sequence[Encoding], separator: list[int], wanted: int | None, tally: Tally
) -> None:
    """Put texts behind ``pending`` until it has the wanted number of tokens."""
    for number, encoding in enumerate(encodings):
        if wanted is not None and len(pending) >= wanted:
            tally.skip("after the limit", len(encodings) - number)
            return
        if not encoding.ids:
            tally.skip("without a token")
            continue
        pending += [*separator, *encoding.ids] if tally.used else encoding.ids
        tally.used += 1


def make_rows(
    rows: Iterator[tuple[Text, ...]], tally: Tally, most: int | None, *, tokenizer: TextTokenizer, min_tokens: int
) -> Generator[list[Row], None, None]:
    """Yield the rows whose texts all have tokens enough.

    Args:
        rows: one source's.
        tally: counts them.
        most: number of rows to stop at, None for all; no more are read than that takes.
        tokenizer: the template and longest length.
        min_tokens: fewest pooled tokens of each text.
    """
    made = 0
    while taken := list(_take(rows, _TEXTS if most is None else min(_TEXTS, most - made))):
        tokenized = iter(_tokenize(tokenizer, [text for row in taken for text in row]))
        whole = []
        for row in taken:
            texts = list(islice(tokenized, len(row)))
            known = tuple(text for text in texts if text is not None)
            if len(known) < len(row):
                tally.skip("without a token")
            elif min(len(text.ids) - text.start for text in known) < min_tokens:
                tally.skip(f"of fewer than {min_tokens} tokens")
            else:
                whole.append(known)
        tally.used += len(whole)
        made += len(whole)
        yield whole


def _tokenize(tokenizer: TextTokenizer, texts: Sequence[Text]) -> list[TokenizedText | None]:
    """Return the tokens of each text; None for a text of which the tokenizer leaves nothing."""
    try:
        return list(tokenizer.tokenize(texts))
    except InputError:
        if len(texts) == 1:
            return [None]
        middle = len(texts) // 2
        return _tokenize(tokenizer, texts[:middle]) + _tokenize(tokenizer, texts[middle:])


def _take(items: Iterator[_Item], most: int) -> Iterator[_Item]:
    """Yield the next items, at most ``most``, fewer if they are long."""
    characters = 0
    for item in islice(items, most):
        yield item
        texts = (item,) if isinstance(item, str) else (text.content for text in item)
        characters += sum(map(len, texts))
        if characters >= _CHARACTERS:
            return


def unseen(texts: Iterable[str], seen: set[bytes], tally: Tally) -> Iterator[str]:
    """Yield the texts that are not in ``seen``, which holds 8 bytes of each one's hash, and put them there."""
    for text in texts:
        digest = hashlib.blake2b(text.strip().encode("utf-8"), digest_size=8).digest()
        if digest in seen:
            tally.skip("seen before")
            continue
        seen.add(digest)
        yield text

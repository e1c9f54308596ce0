"""Texts, the template around them, and their tokens with the pooled span marked.

The string a model reads is

    [BOS] template.prefix  instruction + " "  content  template.suffix [EOS]

BOS and EOS stand where the model's own tokenizer puts them. Only the content and what follows it are
pooled. The space that separates the content from what stands before it belongs to the content: a
byte-level tokenizer makes it a part of the content's first token, and where it is a token of its own,
that token is pooled, too. The span is read off one tokenisation, by character offsets: nothing is
tokenised twice and no sentinel is put into the text. The template's special tokens are special; the
same strings inside a caller's text are plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Final

from tokenizers import Encoding, Tokenizer
from tokenizers.pre_tokenizers import Metaspace

from unmask.errors import CheckpointError, InputError

#: What stands between an instruction and its content (llm2vec 0.2.3, ``LLM2Vec._convert_to_str``).
SEPARATOR: Final = " "


@dataclass(frozen=True, slots=True)
class Text:
    """A text to encode, and the instruction that says what its vector is for (may be empty)."""

    instruction: str
    content: str


@dataclass(frozen=True, slots=True)
class Template:
    """The strings around a text that the base model was trained to see; special tokens allowed."""

    prefix: str = ""
    suffix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the template as plain data, the form in which a checkpoint keeps it."""
        return asdict(self)


BARE: Final = Template()


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Token ids of one text; ``ids[start:]`` is the pooled span, ``spans`` its characters if asked."""

    ids: list[int]
    start: int
    spans: list[tuple[int, int]] | None = None


def check_text(text: object, index: int) -> Text:
    """Return ``text`` as a :class:`Text`, or raise :class:`InputError` naming its index."""
    parts: tuple[object, object] = (text.instruction, text.content) if isinstance(text, Text) else ("", text)
    for part in parts:
        if not isinstance(part, str):
            raise InputError(f"Text {index} is of type {type(part).__name__}; expected str or Text.")
        if not part.isascii():
            _refuse_surrogates(part, index)
    return text if isinstance(text, Text) else Text(str(parts[0]), str(parts[1]))


def _refuse_surrogates(part: str, index: int) -> None:
    try:
        part.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"Text {index} holds a lone surrogate (U+{ord(part[error.start]):04X}) at character {error.start}, "
            'which is not Unicode text. Repair it, for example with text.encode("utf-8", "replace").decode().'
        ) from error


class TextTokenizer:
    """Turns texts into token ids under one template; safe to call from several threads.

    Args:
        backend: the model's fast tokenizer; copied, never changed.
        template: strings around each text.
        max_length: most tokens a text may have, template and special tokens included.
        control_tokens: strings that are special to the model even if its tokenizer does not say so
            (its BOS, EOS, padding); never read as such inside a caller's text.
        append: one more string after the template, such as the EOS that end-of-text pooling wants.
        pool_instruction: pool every token of the string, not only the content's.
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        template: Template = BARE,
        max_length: int = 512,
        control_tokens: Iterable[str] = (),
        append: str = "",
        pool_instruction: bool = False,
    ) -> None:
        self.template = template
        self.max_length = max_length
        self.pool_instruction = pool_instruction
        suffix = template.suffix + append
        special = _special_tokens(backend, control_tokens)
        cut, first = _last_end(template.prefix, special), _first_start(suffix, special)
        self._literal = _as_literal_tokenizer(backend, special, at_start=not cut)
        self._lead, self._tail = template.prefix[cut:], suffix[:first]
        leading, trailing = _added_by_post_processor(backend)
        self._head_ids = leading + _encode_special(backend, template.prefix[:cut], special)
        self._foot_ids = _encode_special(backend, suffix[first:], special) + trailing
        self._room = max_length - len(self._head_ids) - len(self._foot_ids)
        around = len(self._literal.encode(f"{self._lead}x{self._tail}", add_special_tokens=False).ids) - 1
        if self._room <= around:
            least = max_length - self._room + around
            raise InputError(
                f"max_length is {max_length}, but the template and special tokens alone take {least} tokens. "
                f"Use a max_length of at least {least + 1}."
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore attributes; a pickled tokenizer forgets that nothing in its input is special."""
        self.__dict__.update(state)
        literal: Any = self._literal
        literal.encode_special_tokens = True

    @property
    def head(self) -> list[int]:
        """Token ids in front of every text: BOS and the template's leading special tokens."""
        return list(self._head_ids)

    @property
    def foot(self) -> list[int]:
        """Token ids behind every text: the template's closing special tokens, EOS."""
        return list(self._foot_ids)

    @property
    def lead(self) -> str:
        """The template's plain text between :attr:`head` and the instruction or content."""
        return self._lead

    @property
    def tail(self) -> str:
        """The template's plain text between the content and :attr:`foot`."""
        return self._tail

    @property
    def literal(self) -> Tokenizer:
        """What tokenises lead, instruction, content and tail: nothing in its input is special. Do not change it."""
        return self._literal

    def tokenize(
        self, texts: Sequence[Text], *, indices: Sequence[int] | None = None, truncate: bool = True, spans: bool = False
    ) -> list[TokenizedText]:
        """Tokenise ``texts``.

        Args:
            texts: texts whose content is not blank.
            indices: the number by which an error names each text; its position if None.
            truncate: cut the end of a content that is too long; otherwise that is an error.
            spans: also give, for each pooled token, its ``(start, end)`` in the stripped content's
                characters; tokens of the template have an empty span at the content's end.

        Raises:
            InputError: an instruction leaves no room for its content, or a text is too long and
                ``truncate`` is false. The message names the text's index and length in tokens.
        """
        bodies, borders = [], []
        for text in texts:
            instruction, content = text.instruction.strip(), text.content.strip()
            before = self._lead + (instruction + SEPARATOR if instruction else "")
            bodies.append(before + content + self._tail)
            borders.append(_Borders(len(before.rstrip(" ")), len(before), len(before) + len(content)))
        need_offsets = spans or bool(self._tail) or any(border.pool for border in borders)
        encode = self._literal.encode_batch if need_offsets else self._literal.encode_batch_fast
        encodings = encode(bodies, add_special_tokens=False)
        numbers = range(len(texts)) if indices is None else indices
        return [
            self._finish(encoding, border, index, truncate, spans)
            for index, encoding, border in zip(numbers, encodings, borders, strict=True)
        ]

    def _finish(self, encoding: Encoding, border: _Borders, index: int, truncate: bool, spans: bool) -> TokenizedText:
        ids: list[int] = encoding.ids
        start = _first_token_at(encoding, border.pool, border.end) if border.pool else 0
        first = _first_token_at(encoding, border.begin, border.end) if border.pool or self._tail else 0
        if not ids or first == len(ids):
            raise InputError(
                f"Text {index} has no token: this model's tokenizer removes all of its characters. Remove the text."
            )
        stop = len(ids)
        if len(ids) > self._room:
            if not truncate:
                total = len(ids) + len(self._head_ids) + len(self._foot_ids)
                raise InputError(
                    f"Text {index} has {total} tokens, {total - self.max_length} more than max_length "
                    f"{self.max_length}. Shorten it, raise max_length, or pass truncate=True to cut its end."
                )
            tail = len(ids) - _first_token_at(encoding, border.end, border.end + len(self._tail)) if self._tail else 0
            stop = self._room - tail
            if stop <= first:
                raise InputError(
                    f"The instruction of text {index} takes {start + len(self._head_ids)} of max_length "
                    f"{self.max_length} tokens and leaves no room for the text. Shorten the instruction."
                )
            ids = ids[:stop] + ids[len(ids) - tail :]
        token_spans = None
        if spans:
            token_spans = [(0, 0)] * len(self._head_ids) + border.inside(encoding.offsets[:stop])
            token_spans += [(border.size, border.size)] * (len(ids) - stop + len(self._foot_ids))
        pooled = 0 if self.pool_instruction else len(self._head_ids) + start
        return TokenizedText(
            ids=self._head_ids + ids + self._foot_ids,
            start=pooled,
            spans=token_spans[pooled:] if token_spans else None,
        )


@dataclass(frozen=True, slots=True)
class _Borders:
    """Where the parts of a string meet, in characters: pooled span from ``pool``, content from ``begin`` to ``end``."""

    pool: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin

    def inside(self, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return offsets in the string as offsets in the content, empty where they lie outside."""
        ends = ((a - self.begin, b - self.begin) for a, b in offsets)
        return [(min(max(a, 0), self.size), min(max(b, 0), self.size)) for a, b in ends]


def _first_token_at(encoding: Encoding, begin: int, end: int) -> int:
    """Return the index of the first token that covers a character of ``[begin, end)``; their number if none does."""
    for position in range(begin, end):
        token = encoding.char_to_token(position)
        if token is not None:
            return int(token)
    return len(encoding.ids)


def _special_tokens(backend: Tokenizer, control_tokens: Iterable[str]) -> list[str]:
    known = backend.get_added_tokens_decoder().values()
    special = {token.content for token in known if token.special} | set(control_tokens)
    return sorted(special, key=len, reverse=True)


def _last_end(string: str, special: Sequence[str]) -> int:
    found = [string.rfind(token) + len(token) for token in special if token in string]
    return max(found, default=0)


def _first_start(string: str, special: Sequence[str]) -> int:
    found = [string.find(token) for token in special if token in string]
    return min(found, default=len(string))


def _as_literal_tokenizer(backend: Tokenizer, special: Sequence[str], *, at_start: bool) -> Tokenizer:
    """Return a copy of ``backend`` that reads its special tokens' strings as plain text.

    Args:
        backend: the model's tokenizer.
        special: strings to read so.
        at_start: whether the copy's input stands at the start of the whole string.
    """
    copy: Any = deepcopy(backend)
    copy.no_truncation()
    copy.no_padding()
    # It adds nothing here, but a byte-level one would cut leading spaces out of the offsets.
    copy.post_processor = None
    if not at_start and isinstance(copy.pre_tokenizer, Metaspace) and copy.pre_tokenizer.prepend_scheme == "first":
        copy.pre_tokenizer.prepend_scheme = "never"
    known = {token.content: token for token in copy.get_added_tokens_decoder().values()}
    for name in special:
        if name in known and not known[name].special:
            known[name].special = True
            copy.add_special_tokens([known[name]])
    copy.encode_special_tokens = True
    literal: Tokenizer = copy
    return literal


def _added_by_post_processor(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer itself puts before and after a text (BOS, EOS)."""
    plain = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    for begin in range(len(full) - len(plain) + 1 if plain else 0):
        if full[begin : begin + len(plain)] == plain:
            return full[:begin], full[begin + len(plain) :]
    raise CheckpointError(
        "The tokenizer's post-processor rewrites the text itself; expected one that only adds tokens around it."
    )


def _encode_special(backend: Tokenizer, string: str, special: Sequence[str]) -> list[int]:
    """Encode a part of the template, whose special tokens must be single known tokens."""
    missing = [token for token in special if token in string and backend.token_to_id(token) is None]
    if missing:
        raise CheckpointError(
            f"The template uses {missing}, which this tokenizer does not know. Choose another template."
        )
    ids: list[int] = backend.encode(string, add_special_tokens=False).ids if string else []
    return ids

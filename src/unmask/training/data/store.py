"""Sources → rows of tokens, made once and kept.

A store's folder is named by a hash of all that its content depends on: the sources and their files' sizes and
times of change, the tokenizer, template and lengths. The same call finds it again and reads no source. A data set
on the hub is known by its name alone: remove the folder to read it anew.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from unmask.errors import InputError
from unmask.hub.cache import atomic_folder
from unmask.progress import Progress
from unmask.text import Text, TextTokenizer
from unmask.tokenizers import ModelTokenizer
from unmask.training.data.making import make_blocks, make_rows, unseen
from unmask.training.data.report import Report, Tally
from unmask.training.data.rows import Row, Rows, RowWriter
from unmask.training.data.sources import PairSource, Source, read_pairs, read_texts

__all__ = ["PairSource", "Rows", "blocks", "pairs", "sentences"]

#: Part of every key: raise it when the rows change though nothing else did.
_FORMAT: Final = 1
#: Makes the rows of one source, at most so many (None: all), and counts them.
_Maker = Callable[[Any, Tally, int | None], Generator[list[Row], None, None]]


def blocks(
    sources: Sequence[Source],
    tokenizer: ModelTokenizer,
    *,
    length: int,
    limit: int | None = None,
    folder: Path,
    progress: bool = True,
) -> Rows:
    """Return running text cut into blocks of equal length, for MNTP.

    The texts of a source are tokenised without special tokens and put one after the other, with the EOS between
    two of them if the tokenizer has one. The result is cut every ``length`` tokens; what is left at the end of a
    source is dropped. Special tokens' strings inside a text are plain text. (llm2vec's ``run_mntp`` does the same
    but for what stands between two texts: there it is what the tokenizer puts around each, such as Llama's BOS.)

    Args:
        sources: where the texts come from.
        tokenizer: the model's.
        length: tokens in each block.
        limit: most blocks, shared equally between the sources; what one does not fill goes to those after
            it. None: all there are.
        folder: where stores are kept.
        progress: show how far the tokenising is.

    Returns:
        Rows of one text each, ``start`` 0.

    Raises:
        InputError: a source cannot be read, or there is not enough text for one block.
    """
    _check(sources, limit, length=length)
    # The tokenizer in it reads nothing in a text as special.
    literal = TextTokenizer(tokenizer.backend, control_tokens=tokenizer.control).literal
    eos = None if tokenizer.eos is None else literal.token_to_id(tokenizer.eos)
    separator = [] if eos is None else [eos]
    key = ("blocks", literal.to_str(), separator, length)
    make = partial(make_blocks, literal=literal, separator=separator, length=length)
    unit = f"blocks of {length} tokens"
    return _keep(make, sources, limit, key, unit=unit, vocabulary=literal, folder=folder, progress=progress)


def sentences(
    sources: Sequence[Source],
    tokenizer: TextTokenizer,
    *,
    limit: int | None = None,
    min_tokens: int = 1,
    folder: Path,
    progress: bool = True,
) -> Rows:
    """Return each text as a row of its own, for SimCSE.

    A text that was there before is skipped: in one batch the two would be each other's negatives. To know them
    takes about 75 bytes of memory a text.

    Args:
        sources: where the texts come from.
        tokenizer: with the template and longest length to train with.
        limit: most rows; shared between the sources as by :func:`blocks`.
        min_tokens: fewest pooled tokens; texts that have fewer are skipped.
        folder: where stores are kept.
        progress: show how far the tokenising is.

    Returns:
        Rows of one text each.

    Raises:
        InputError: a source cannot be read, or no text is left.
    """
    _check(sources, limit, min_tokens=min_tokens)
    seen: set[bytes] = set()

    def make(source: Source, tally: Tally, most: int | None) -> Generator[list[Row], None, None]:
        with closing(read_texts(source, tally)) as texts:
            rows = ((Text("", text),) for text in unseen(texts, seen, tally))
            yield from make_rows(rows, tally, most, tokenizer=tokenizer, min_tokens=min_tokens)

    key = ("sentences", *_identity(tokenizer), min_tokens)
    return _keep(
        make, sources, limit, key, unit="sentences", vocabulary=tokenizer.literal, folder=folder, progress=progress
    )


def pairs(
    sources: Sequence[PairSource],
    tokenizer: TextTokenizer,
    *,
    limit: int | None = None,
    folder: Path,
    progress: bool = True,
) -> Rows:
    """Return rows of a query, what answers it, and the source's number of negatives, for supervised training.

    Args:
        sources: where the pairs come from, and their instructions.
        tokenizer: with the template and longest length to train with.
        limit: most rows; shared between the sources as by :func:`blocks`.
        folder: where stores are kept.
        progress: show how far the tokenising is.

    Returns:
        Rows ``(query, positive, *negatives)``; those of one source are equally long.

    Raises:
        InputError: a source cannot be read, an instruction leaves no room for a text, or no pair is left.
    """
    _check(sources, limit)

    def make(source: PairSource, tally: Tally, most: int | None) -> Generator[list[Row], None, None]:
        _check_instruction(source, tokenizer)
        other = source.instruction if source.symmetric else ""
        with closing(read_pairs(source, tally)) as found:
            rows = ((Text(source.instruction, query), *(Text(other, text) for text in rest)) for query, *rest in found)
            yield from make_rows(rows, tally, most, tokenizer=tokenizer, min_tokens=1)

    key = ("pairs", *_identity(tokenizer))
    return _keep(
        make, sources, limit, key, unit="pairs", vocabulary=tokenizer.literal, folder=folder, progress=progress
    )


# --- keeping ---------------------------------------------------------------------------------------


def _keep(
    make: _Maker,
    sources: Sequence[Source],
    limit: int | None,
    key: tuple[Any, ...],
    *,
    unit: str,
    vocabulary: Tokenizer,
    folder: Path,
    progress: bool,
) -> Rows:
    """Return the rows that are kept under ``key``, or else make and keep them."""
    whole = repr((_FORMAT, key, limit, [_stamp(source) for source in sources]))
    place = folder / hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if (kept := _find(place)) is not None:
        return kept
    largest = max(vocabulary.get_vocab(with_added_tokens=True).values())
    with atomic_folder(place, replace=True) as draft, RowWriter(draft, largest + 1) as writer:
        with Progress("Tokenising", unit="texts", extra_unit="tokens", enabled=progress) as bar:
            tallies = list(_fill(writer, make, sources, limit, bar))
        report = Report(unit=unit, sources=tuple(tallies))
        _refuse_none(report)
        writer.finish(report)
    return Rows(place)


def _find(place: Path) -> Rows | None:
    """Return the rows kept at ``place``, None if they are not there, or not whole."""
    try:
        return Rows(place)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fill(
    writer: RowWriter, make: _Maker, sources: Sequence[Source], limit: int | None, bar: Progress
) -> Iterator[Tally]:
    """Write the rows of each source, and yield its counts."""
    for group, source in enumerate(sources):
        tally = Tally(name=source.name)
        # An equal share of what is left, rounded up.
        most = None if limit is None else -((writer.rows - limit) // (len(sources) - group))
        shown = 0
        with closing(make(source, tally, most)) as batches:
            for rows in batches:
                before = writer.tokens
                writer.add(group, rows)
                tally.rows += len(rows)
                tally.tokens += writer.tokens - before
                bar.advance(tally.used - shown, extra=writer.tokens - before)
                shown = tally.used
        tally.stopped = tally.rows == most
        yield tally


def _stamp(source: Source) -> tuple[Any, ...]:
    """Return what tells one state of a source from another; its files are not read for it."""
    stats = [(str(file.resolve()), file.stat()) for file in source.files()]
    return astuple(source), source.version, [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _identity(tokenizer: TextTokenizer) -> tuple[Any, ...]:
    """Return all that a text's tokens depend on besides the text."""
    around = (tokenizer.head, tokenizer.lead, tokenizer.tail, tokenizer.foot)
    return tokenizer.literal.to_str(), around, tokenizer.max_length, tokenizer.pool_instruction


# --- refusals --------------------------------------------------------------------------------------


def _check(sources: Sequence[Source], limit: int | None, **numbers: int) -> None:
    if not sources:
        raise InputError("There are no sources; expected at least one. Name a file, a folder or a data set.")
    for name, number in {"limit": 1 if limit is None else limit, **numbers}.items():
        if number < 1:
            raise InputError(f"{name} is {number}; expected 1 or more. Leave it out, or raise it.")


def _check_instruction(source: PairSource, tokenizer: TextTokenizer) -> None:
    """Refuse an instruction that leaves no room, before every single text is refused for it."""
    try:
        tokenizer.tokenize([Text(source.instruction, "x")])
    except InputError as error:
        raise InputError(
            f"{source.name}: the instruction leaves no room for a text within max_length {tokenizer.max_length}; "
            "expected one that does. Shorten it, or raise max_length."
        ) from error


def _refuse_none(report: Report) -> None:
    if report.rows:
        return
    names = ", ".join(tally.name for tally in report.sources)
    rest = sum(tally.rest for tally in report.sources)
    skipped = sum((Counter(tally.skipped) for tally in report.sources), Counter[str]())
    listed = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
    why = f"there are {rest:,} tokens in all" if rest else f"skipped {listed}"
    raise InputError(
        f"{names}: no {report.unit} can be made ({why}); expected at least one. Give more text, or a smaller length "
        "or least number of tokens."
    )

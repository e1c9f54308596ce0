"""Sentences to learn from and to test on: found, split, drawn; and the states of their words, kept for a while."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.kinds.cosines import refuse_constant
from unmask.evaluation.kinds.tables import draw, settings_of
from unmask.evaluation.outcome import Samples
from unmask.evaluation.tasks import Matrix, Options
from unmask.evaluation.words import probe
from unmask.evaluation.words.conll import SPANS, Sentence, column, read_sentences
from unmask.evaluation.words.scoring import Tags, span_counts, tag_counts
from unmask.evaluation.words.states import Position, position_for, word_states

#: Endings of the files.
ENDINGS: Final = (".conll", ".conllu")
#: Share of the sentences that are tested on, where a file is not one of two.
TEST_SHARE: Final = 0.2

_TRAIN, _TEST = ".train", ".test"

#: Told how many sentences and tokens were encoded.
Advance = Callable[[int, int], None]


@dataclass(kw_only=True)
class WordData:
    """Sentences with tags, and what a probe makes of them.

    The states of the words are kept from the first column that is measured to the last, so that an encoder reads each
    sentence once.

    Attributes:
        name: of the data.
        source: its files, for errors.
        train: sentences to learn from.
        test: sentences to test on, of the same columns.
        position: where a word is read; None: as the encoder's training asks for.
        settings: what the figures depend on besides the model.
    """

    name: str
    source: str
    train: list[Sentence]
    test: list[Sentence]
    position: Position | None
    settings: dict[str, Any]
    _kept: tuple[weakref.ref[Encoder], Position, Matrix, Matrix] | None = field(default=None, init=False)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the order in which the file has them."""
        return list(self.train[0].tags)

    def samples(self, encoder: Encoder, name: str, advance: Advance = lambda sentences, tokens: None) -> Samples:
        """Return what a probe gets right in a column: counts of each test sentence.

        Args:
            encoder: the frozen encoder.
            name: of the column.
            advance: told how far it is.

        Returns:
            As :mod:`unmask.evaluation.words.scoring` says; and ``before``, whether words were read so.

        Raises:
            InputError: the figures would be undefined, or the encoder cannot read a sentence.
        """
        taught, gold = column(self.train, name), column(self.test, name)
        self._refuse_undefined(name, taught, gold)
        position, known, asked = self._states(encoder, advance)
        if name == self.columns[-1]:
            self._kept = None
        tags = probe.predict(known, list(chain.from_iterable(taught)), asked)
        ends = np.cumsum([len(sentence) for sentence in gold])
        predicted = [part.tolist() for part in np.split(tags, ends[:-1])]
        counts = tag_counts(gold, predicted) | (span_counts(gold, predicted) if name in SPANS else {})
        return counts | {"before": np.full(len(gold), position == "before")}

    def _states(self, encoder: Encoder, advance: Advance) -> tuple[Position, Matrix, Matrix]:
        """Return where words were read, and the states of those to learn from and to test on."""
        if self._kept is None or self._kept[0]() is not encoder:
            self._kept = None  # not two at a time
            position = self.position or position_for(encoder)
            found = word_states(encoder, [*self.train, *self.test], position, advance=advance)
            known, asked = np.concatenate(found[: len(self.train)]), np.concatenate(found[len(self.train) :])
            refuse_constant(known)
            self._kept = (weakref.ref(encoder), position, known, asked)
        return self._kept[1:]

    def _refuse_undefined(self, name: str, taught: Tags, gold: Tags) -> None:
        tags = set(chain.from_iterable(taught))
        if len(tags) < 2:
            raise InputError(
                f"{self.source}: every word to learn from has the tag {tags.pop()!r} in the column of {name}; "
                "expected at least two tags. Add sentences, or raise --limit."
            )
        if name in SPANS and set(chain.from_iterable(gold)) == {"O"}:
            raise InputError(
                f"{self.source}: no word to test on is in a span of {name}; expected some. Add sentences, or raise "
                "--limit."
            )


def find(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by the data's name: those to learn from and to test on, or a single one."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in ENDINGS and not path.name.startswith(".")]
    found: dict[str, list[Path]] = {}
    for file in files:
        name = file.stem.removesuffix(_TRAIN).removesuffix(_TEST)
        paired = [file.with_name(f"{name}{part}{file.suffix}") for part in (_TRAIN, _TEST)]
        found[name] = paired if file in paired else [file]
    return found


def load(name: str, files: Sequence[Path], options: Options, position: Position | None) -> WordData:
    """Read files that :func:`find` found, and draw from them.

    Args:
        name: of the data.
        files: those to learn from and to test on, or a single one to be split.
        options: at most ``limit`` sentences are drawn to learn from, and as many to test on.
        position: where a word is read.

    Raises:
        InputError: one of two files is missing, they have other columns, or a file cannot be read.
    """
    for file in files:
        if not file.is_file():
            (other,) = (each for each in files if each != file)
            raise InputError(
                f"{file} is missing beside {other.name}; expected both. Add it, or leave {_TRAIN} or {_TEST} out of "
                "the other's name, to have that split."
            )
    sentences = [read_sentences(file) for file in files]
    if len(files) == 1:
        sentences = _split(files[0], sentences[0], options.seed)
    first, second = (list(part[0].tags) for part in sentences)
    if first != second:
        raise InputError(
            f"{files[-1]} has the columns {', '.join(second)}; expected {', '.join(first)}, as in {files[0].name}. "
            "Give both files the same columns."
        )
    train, test = (draw(part, options) for part in sentences)
    settings = settings_of(options, *files, train=(len(train), len(sentences[0])), test=(len(test), len(sentences[1])))
    settings |= {"words": position or "before after MNTP, else own"} | probe.settings()
    if len(files) == 1:
        settings |= {"split": f"{TEST_SHARE:.0%} drawn for the test", "split_seed": options.seed}
    source = " and ".join(map(str, files))
    return WordData(name=name, source=source, train=train, test=test, position=position, settings=settings)


def _split(file: Path, sentences: Sequence[Sentence], seed: int) -> list[list[Sentence]]:
    """Return the sentences to learn from and to test on, each in their order; the same for a seed."""
    if len(sentences) < 2:
        raise InputError(f"{file} holds 1 sentence; expected at least 2, to learn from and to test on. Add sentences.")
    count = max(1, round(TEST_SHARE * len(sentences)))
    tested = set(np.random.default_rng(seed).permutation(len(sentences))[:count].tolist())
    return [
        [sentence for number, sentence in enumerate(sentences) if (number in tested) == wanted]
        for wanted in (False, True)
    ]

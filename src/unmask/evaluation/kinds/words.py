"""Word level: what a linear probe reads off the states of words — parts of speech, chunks, named entities.

The tasks of LLM2Vec (arXiv 2404.05961, section 3), on any file in CoNLL's columns or CoNLL-U. Their folder holds

    NAME.train.conll, NAME.test.conll    (or .conllu) learnt from, and tested on
    NAME.conll                           (or .conllu) any other name: a fifth of its sentences is drawn for the test

and each column of a file is a task, called ``NAME POS``, ``NAME chunks``, ``NAME NER``. Files of other endings are left
alone.

The figures that LLM2Vec publishes for all three tasks are the share of words tagged right (its ``test_word_task.py``
computes micro-averaged precision over words): the ``accuracy`` here, not the ``f1`` of spans. They are on CoNLL-2003.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.bootstrap import intervals
from unmask.evaluation.kinds.word_data import WordData, find, load
from unmask.evaluation.outcome import Metric, Samples
from unmask.evaluation.tasks import Kind, Model, Options, Task
from unmask.evaluation.words.conll import SPANS
from unmask.evaluation.words.scoring import span_statistic, tag_statistic
from unmask.evaluation.words.states import Position

#: Columns of single words' tags: parts of speech.
TAGS: Final = Kind(name="tokens", main="accuracy", statistic=tag_statistic)
#: Columns of spans: chunks, named entities.
SPAN_TAGS: Final = Kind(name="spans", main="f1", statistic=span_statistic)
KINDS: Final = (TAGS, SPAN_TAGS)


def read(folder: Path, options: Options, *, words: Position | None = None) -> list[Task]:
    """Read the files of a folder; see above.

    What is wrong with a file costs its own tasks, no other: in their place stands one, of the file's name, that
    raises the error when it is run.

    Args:
        folder: of the files.
        options: of each data at most ``limit`` sentences are drawn to learn from, and as many to test on.
        words: where a word is read; None: as :func:`~unmask.evaluation.words.states.position_for` says of the model.

    Raises:
        InputError: the folder holds no such file.
    """
    found = find(folder)
    if not found:
        raise InputError(
            f"{folder} holds no sentences; expected NAME.train.conll and NAME.test.conll, or NAME.conllu. "
            "Add files, or remove the folder."
        )
    tasks: list[Task] = []
    for name, files in found.items():
        try:
            data = load(name, files, options, words)
        except InputError as error:
            tasks.append(_broken(name, error))
        else:
            tasks += [_task(data, column) for column in data.columns]
    return tasks


def measure(
    encoder: Encoder, train: Path, test: Path, *, options: Options | None = None, words: Position | None = None
) -> dict[str, dict[str, Metric]]:
    """Measure one encoder on one pair of files, with intervals.

    Args:
        encoder: the frozen encoder.
        train: what the probe learns from.
        test: what it is tested on.
        options: as for :func:`read`.
        words: as for :func:`read`.

    Returns:
        By column, ``POS``, ``chunks`` and ``NER`` as far as the files have them, each metric.

    Raises:
        InputError: a file is malformed, a figure would be undefined, or the encoder cannot read a sentence.
    """
    data = load(train.stem, [train, test], options or Options(), words)
    samples = {column: data.samples(encoder, column) for column in data.columns}
    return {
        column: intervals(_kind(column).statistic, found, bounds=_kind(column).bounds)
        for column, found in samples.items()
    }


def _kind(column: str) -> Kind:
    return SPAN_TAGS if column in SPANS else TAGS


def _task(data: WordData, column: str) -> Task:
    def run(model: Model) -> Samples:
        return data.samples(model.encoder, column, model.advance)

    size = len(data.train) + len(data.test)
    return Task(name=f"{data.name} {column}", kind=_kind(column), size=size, settings=data.settings, run=run)


def _broken(name: str, error: InputError) -> Task:
    def run(model: Model) -> Samples:
        raise error

    return Task(name=name, kind=TAGS, size=0, settings={}, run=run)

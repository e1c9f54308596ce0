"""Sentences with tags: both formats as they are read, and each row that is malformed."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.errors import InputError
from unmask.evaluation.words.conll import Sentence, column, read_sentences, spans_of

CONLL_U = """\
# sent_id = 1
# text = Don't wait
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\twait\twait\tVERB\tVB\t_\t0\troot\t_\t_
3.1\there\there\tADV\tRB\t_\t_\t_\t3:advmod\t_

# sent_id = 2
1\tat least\tat least\tADV\tRB\t_\t0\troot\t_\t_
"""
ROW = "1\tDo\tdo\tAUX\tVB\t_\t0\troot\t_\t_"


def written(folder: Path, content: str, name: str = "x.conll") -> Path:
    file = folder / name
    file.write_bytes(content.encode())
    return file


def test_conll_2000(tmp_path: Path) -> None:
    file = written(tmp_path, "He PRP B-NP\nsees VBZ B-VP\n\n\n# # B-NP\n5 CD I-NP\n")
    assert read_sentences(file) == [
        Sentence(
            place=f"{file}, line 1", words=("He", "sees"), tags={"POS": ("PRP", "VBZ"), "chunks": ("B-NP", "B-VP")}
        ),
        Sentence(place=f"{file}, line 5", words=("#", "5"), tags={"POS": ("#", "CD"), "chunks": ("B-NP", "I-NP")}),
    ]


def test_conll_2003_and_its_document_lines(tmp_path: Path) -> None:
    content = "-DOCSTART- -X- -X- O\n\nEU NNP I-NP I-ORG\r\nrejects\tVBZ  I-VP O\r\n\r\n-DOCSTART- -X- O O\n. . O O"
    first, second = read_sentences(written(tmp_path, "\ufeff" + content))
    assert first.words == ("EU", "rejects")
    assert first.tags == {"POS": ("NNP", "VBZ"), "chunks": ("I-NP", "I-VP"), "NER": ("I-ORG", "O")}
    assert second.words == (".",)
    assert second.place.endswith("line 7")


def test_two_columns_are_parts_of_speech(tmp_path: Path) -> None:
    (sentence,) = read_sentences(written(tmp_path, "a\u00a0b DT\n"))
    assert sentence.words == ("a\u00a0b",)
    assert sentence.tags == {"POS": ("DT",)}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("Oslo B-LOC\nsleeps O\n\nShe O\n", {"NER": ("B-LOC", "O")}),
        ("Oslo O\nsleeps O\n", {"POS": ("O", "O")}),
        ("Oslo B-LOC\nsleeps VBZ\n", {"POS": ("B-LOC", "VBZ")}),
    ],
)
def test_one_tag_that_marks_spans_throughout_is_the_entity(
    tmp_path: Path, rows: str, expected: dict[str, tuple[str, ...]]
) -> None:
    file = tmp_path / "x.conll"
    file.write_text(rows)
    assert read_sentences(file)[0].tags == expected


def test_conllu(tmp_path: Path) -> None:
    file = written(tmp_path, CONLL_U, "x.conllu")
    assert read_sentences(file) == [
        Sentence(place=f"{file}, line 4", words=("Do", "n't", "wait"), tags={"POS": ("AUX", "PART", "VERB")}),
        Sentence(place=f"{file}, line 10", words=("at least",), tags={"POS": ("ADV",)}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a DT\nb\n", "x.conll, line 2: got 'b'; expected 2 to 4 columns: word, part of speech, chunk, entity"),
        ("a DT O O extra\n", "line 1: got 'a DT O O extra'; expected 2 to 4 columns"),
        ("a DT B-NP\nb NN\n", "line 2: 2 columns; expected 3, as in the lines before"),
        ("a DT B-NP\n\nb NN B-NP O\n", "line 3: 4 columns; expected 3"),
        (
            "a DT B-NP\nb NN NP\n",
            "line 2: got 'b NN NP'; expected O, or B-, I-, E- or S- and a kind as the tag of chunks",
        ),
        ("a DT B-NP PER\n", "line 1: .* as the tag of NER"),
        ("a DT B-\n", "line 1"),
        ("\u2003a DT\n", "line 1: .*expected a word without white space at its ends"),
        ("", "x.conll holds no sentence"),
        ("\n-DOCSTART- -X- O O\n\n", "x.conll holds no sentence"),
    ],
)
def test_rows_that_are_no_conll(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sentences(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 Do do AUX VB _ 0 root _ _", "line 1: got '1 Do do .*'; expected the 10 columns of CoNLL-U, separated by"),
        (f"{ROW}\t_", "line 1: .*expected the 10 columns"),
        (f"{ROW}\n{ROW}", "line 2: .*expected word 2 of its sentence, or an empty line"),
        (ROW.replace("1", "2"), "line 1: .*expected word 1 of its sentence"),
        (ROW.replace("AUX", "_"), "line 1: .*expected a part of speech in the fourth column"),
        (ROW.replace("Do", ""), "line 1: .*expected a word without white space at its ends"),
        ("# only a comment\n", "x.conllu holds no sentence"),
    ],
)
def test_rows_that_are_no_conllu(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sentences(written(tmp_path, content, "x.conllu"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"y.conll cannot be read"):
        read_sentences(tmp_path / "y.conll")
    (tmp_path / "latin.conll").write_bytes(b"a DT\ncaf\xe9 NN\n")
    with pytest.raises(InputError, match=r"latin.conll, line 2: byte 4 is 0xe9, which is not UTF-8"):
        read_sentences(tmp_path / "latin.conll")


# The same two chunks of one kind next to each other, and a third, in each of the schemes.
@pytest.mark.parametrize(
    "tags",
    [
        ("I-NP", "I-NP", "B-NP", "O", "I-VP", "I-NP"),
        ("B-NP", "I-NP", "B-NP", "O", "B-VP", "B-NP"),
        ("B-NP", "E-NP", "S-NP", "O", "S-VP", "S-NP"),
    ],
)
def test_each_scheme_becomes_iob2(tags: tuple[str, ...]) -> None:
    sentence = Sentence(place="", words=tuple("abcdef"), tags={"POS": ("X",) * 6, "chunks": tags})
    assert column([sentence], "chunks") == [("B-NP", "I-NP", "B-NP", "O", "B-VP", "B-NP")]
    assert column([sentence], "POS") == [("X",) * 6]
    assert spans_of(tags) == {("NP", 0, 1), ("NP", 2, 2), ("VP", 4, 4), ("NP", 5, 5)}

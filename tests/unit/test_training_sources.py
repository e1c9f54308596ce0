"""Training texts and pairs from files, folders and Hugging Face data sets."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unmask.errors import InputError
from unmask.files import lines
from unmask.training.data.report import Report, Tally
from unmask.training.data.sources import PairSource, Source, read_pairs, read_texts

LINES = ["The train leaves at 7:45.", "Bread.", "Die Brücke über den Fluss 🌙"]


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
}


def write(path: Path, *rows: object, compress: Callable[[bytes], bytes] = bytes) -> Path:
    """Write strings as lines, anything else as a line of JSON."""
    content = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(content.encode("utf-8")))
    return path


def texts(path: Path | str, **options: Any) -> list[str]:
    return list(read_texts(Source(path=str(path), **options), Tally(name="x")))


def pairs(path: Path | str) -> tuple[list[tuple[str, ...]], Tally]:
    tally = Tally(name="x")
    return list(read_pairs(PairSource(path=str(path)), tally)), tally


# --- texts of files --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_a_file_gives_its_texts_compressed_or_not(tmp_path: Path, kind: str, ending: str) -> None:
    rows = LINES if kind == ".txt" else [{"id": 3, "text": line} for line in LINES]
    path = write(tmp_path / f"some.data{kind}{ending}", *rows, compress=COMPRESSIONS[ending])
    assert texts(path) == LINES
    assert Source(path=str(path)).name == "some.data"


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_archives_of_several_parts_are_read_to_the_end(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(COMPRESSIONS[ending](b"one\n") + COMPRESSIONS[ending](b"two\n"))
    assert texts(path) == ["one", "two"]


def test_blank_texts_are_skipped_and_counted(tmp_path: Path) -> None:
    tally = Tally(name="x")
    path = write(tmp_path / "a.txt", "\ufeffone", "", "  \t", "zwei Brücken\r")
    assert list(read_texts(Source(path=str(path)), tally)) == ["one", "zwei Brücken"]
    assert (tally.read, tally.skipped, tally.bytes) == (4, {"blank": 2}, 3 + 13)


def test_a_folder_gives_the_texts_of_all_files_below_it_in_order(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "3")
    write(tmp_path / "a" / "z.jsonl.gz", {"text": "2"}, compress=gzip.compress)
    write(tmp_path / "a" / "a.txt", "1")
    write(tmp_path / "README.md", "no")
    write(tmp_path / ".git" / "c.txt", "no")
    write(tmp_path / "empty.txt")
    assert texts(tmp_path) == ["1", "2", "3"]
    assert Source(path=f"{tmp_path}/").name == tmp_path.name


@pytest.mark.parametrize(
    ("row", "field", "expected"),
    [
        ({"title": "t", "text": "x"}, None, "x"),
        ({"id": 1, "body": "x"}, None, "x"),
        ({"title": "x", "text": "t"}, "title", "x"),
    ],
)
def test_the_field_is_text_or_the_only_one_of_strings_or_the_one_given(
    tmp_path: Path, row: dict[str, Any], field: str | None, expected: str
) -> None:
    assert texts(write(tmp_path / "a.jsonl", "", row), field=field) == [expected]


def test_reading_holds_no_more_than_a_few_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    with lzma.open(path, "wt", preset=0) as file:
        for number in range(20_000):
            print(json.dumps({"text": f"{number} " + "bread " * 200}), file=file)
    tracemalloc.start()
    try:
        assert sum(len(text) for text in read_texts(Source(path=str(path)), Tally(name="x"))) > 24_000_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


BAD = {
    "empty": (b"", ".txt", r"a\.txt is empty; expected at least one text"),
    "not UTF-8": (b"a\nb\xff\n", ".txt", r"a\.txt, line 2: byte 2 is 0xff, which is not UTF-8.*iconv"),
    "not JSON": (b'{"text": "a"}\n{"text": \n', ".jsonl", r"a\.jsonl, line 2: not JSON \(Expecting value at column 10"),
    "no object": (b'["a"]\n', ".jsonl", r"a\.jsonl, line 1: a JSON array; expected an object"),
    "no text field": (b'{"a": "1", "b": "2", "c": 3}\n', ".jsonl", r"line 1: 2 fields hold strings.*are: a, b, c\."),
    "missing later": (b'{"text": "a"}\n{"body": "b"}\n', ".jsonl", r"line 2: no field 'text'; its fields are: body\."),
    "not a string": (b'{"text": "a"}\n{"text": 5}\n', ".jsonl", r"line 2: field 'text' is number; expected a string"),
    "surrogate": (b'{"text": "a\\ud800"}\n', ".jsonl", r"line 1: a lone surrogate \(U\+D800\) at character 1"),
    "not gzip": (b"plain\n", ".txt.gz", r"a\.txt\.gz is damaged after line 0: Not a gzipped file"),
    "unknown": (b"a\n", ".csv", r"a\.csv ends in '\.csv'; expected \.txt or \.jsonl \(also with \.gz.*hf:FOLDER"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named_with_file_and_line(tmp_path: Path, name: str) -> None:
    content, ending, message = BAD[name]
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        texts(path)


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_a_truncated_archive_is_no_end_of_file(tmp_path: Path, ending: str) -> None:
    whole = COMPRESSIONS[ending](b"".join(b"%d line\n" % number for number in range(100_000)))
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"a\.txt\{ending} is damaged after line \d+: .*[Cc]ompress"):
        texts(path)


def test_a_line_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 10)
    with pytest.raises(InputError, match="line 2: longer than 10 bytes"):
        texts(write(tmp_path / "a.txt", "short", "x" * 11))


def test_paths_without_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; expected a file or folder"):
        texts(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"has no text file; expected at least one \.txt or \.jsonl"):
        texts(tmp_path)
    with pytest.raises(InputError, match=r"line 1: no fields, it is a text a line; got field='body'"):
        texts(write(tmp_path / "a.txt", "x"), field="body")
    with pytest.raises(InputError, match=r"line 1: no field 'body'; expected one of: id, text\."):
        texts(write(tmp_path / "a.jsonl", {"id": 1, "text": "x"}), field="body")


# --- pairs -----------------------------------------------------------------------------------------


def test_pairs_have_as_many_negatives_as_the_first(tmp_path: Path) -> None:
    base = {"query": "q", "positive": "p"}
    path = write(
        tmp_path / "a.jsonl",
        base | {"negative": ["1", "2"]},
        base | {"negative": "1"},
        base,
        "",
        base | {"negative": ["1", "2", "3", "4"]},
        base | {"negative": ["1", " "]},
    )
    rows, tally = pairs(path)
    assert rows == [("q", "p", "1", "2")] * 2
    assert tally.skipped == {"with fewer negatives than the first": 2, "blank": 1}
    assert (tally.read, tally.spare_negatives) == (5, 2)


def test_pairs_without_negatives(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", {"query": "q", "positive": "p", "negative": None}, {"query": "r", "positive": "s"}
    )
    assert pairs(path)[0] == [("q", "p"), ("r", "s")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "answer": "p"}, r"a\.jsonl, line 2: no field 'positive'; its fields are: query, answer\."),
        ({"query": "q", "positive": ["p"]}, "line 2: field 'positive' is array; expected a string"),
        ({"query": "q", "positive": "p", "negative": ["n", 3]}, "line 2: field 'negative' holds number"),
    ],
)
def test_a_pair_without_its_fields_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pairs(write(tmp_path / "a.jsonl", {"query": "q", "positive": "p"}, row))


def test_pairs_are_not_lines_of_text_and_have_no_single_field(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: a text without fields; expected pairs"):
        pairs(write(tmp_path / "a.txt", "q"))
    with pytest.raises(InputError, match="got field='text'; pairs always have the fields query, positive"):
        PairSource(path="a.jsonl", field="text")


# --- Hugging Face data sets ------------------------------------------------------------------------


def test_a_folder_of_parquet_is_read_by_the_datasets_library(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pq.write_table(pa.table({"id": [1, 2], "content": ["one", "two"]}), tmp_path / "train.parquet")
    assert texts(f"hf:{tmp_path}") == ["one", "two"]
    with pytest.raises(InputError, match=r"row 1: no field 'body'; expected one of: id, content\."):
        texts(f"hf:{tmp_path}", field="body")
    with pytest.raises(InputError, match=r"split 'test', 0 rows read\): .*test.*Check the path or name"):
        texts(f"hf:{tmp_path}", split="test")


class FakeHub:
    """Stands for the datasets library."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.calls = rows, list[tuple[Any, ...]]()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module: Any = ModuleType("datasets")
        module.exceptions = type("exceptions", (), {"DatasetsError": KeyError})
        module.load_dataset = self.load
        monkeypatch.setitem(sys.modules, "datasets", module)

    def load(self, name: str, config: str | None, *, split: str, streaming: bool) -> list[dict[str, Any]]:
        self.calls.append((name, config, split, streaming))
        if name == "me/missing":
            raise FileNotFoundError("Dataset 'me/missing' doesn't exist on the Hub\nor cannot be accessed.")
        return self.rows


@pytest.mark.parametrize("path", ["hf:me/data.v2", "me/data.v2"])
def test_other_names_are_streamed_from_the_hub(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    hub = FakeHub([{"n": 1, "sentence": "one"}, {"n": 2, "sentence": "two"}])
    hub.install(monkeypatch)
    assert texts(path, config="en", split="validation") == ["one", "two"]
    assert hub.calls == [("me/data.v2", "en", "validation", True)]
    assert Source(path=path).name == "me/data.v2"


def test_pairs_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHub([{"query": "q", "positive": "p", "negative": ["n"]}]).install(monkeypatch)
    assert pairs("me/pairs")[0] == [("q", "p", "n")]


def test_a_data_set_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHub([]).install(monkeypatch)
    message = (
        r"^me/missing is neither a file or folder here nor .*: Dataset 'me/missing' doesn't exist on the Hub\. Check"
    )
    with pytest.raises(InputError, match=message):
        texts("me/missing")


def test_without_the_datasets_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r'pip install "unmask\[train\]"'):
        texts("me/data")


# --- the report ------------------------------------------------------------------------------------


def test_the_report_says_what_became_of_each_source() -> None:
    first = Tally(name="a", read=1200, used=1100, bytes=2_340_000, rows=1100, tokens=50_000, spare_negatives=7)
    first.skip("blank", 60)
    first.skip("seen before", 39)
    first.skip("seen before")
    first.skip("never", 0)
    report = Report(
        unit="pairs", sources=(first, Tally(name="b", read=5, used=5, rows=5, tokens=80, rest=3, stopped=True))
    )
    assert report.lines() == [
        "a: 1,100 pairs, 50,000 tokens; read 1,200 (2.3 MB), used 1,100",
        "  skipped 60 blank, skipped 40 seen before, left out 7 negatives beyond the first row's number",
        "b: 5 pairs, 80 tokens; read 5 (0.0 MB), used 5, stopped at the limit",
        "  dropped the last 3 tokens, no whole row",
        "2 sources: 1,105 pairs, 50,080 tokens",
    ]
    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_a_query_may_be_called_anchor(tmp_path: Path) -> None:
    file = tmp_path / "triplets.jsonl"
    file.write_text('{"anchor": "a", "positive": "b", "negative": "c"}\n')
    assert list(read_pairs(PairSource(path=str(file)), Tally(name="triplets"))) == [("a", "b", "c")]
    file.write_text('{"anchor": "a", "query": "q", "positive": "b"}\n')
    assert list(read_pairs(PairSource(path=str(file)), Tally(name="triplets"))) == [("q", "b")]

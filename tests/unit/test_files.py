"""Texts come out of files as they stand there, vectors go into files whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unmask.bulk.files import Record, open_texts
from unmask.bulk.vectors import vector_file
from unmask.errors import InputError
from unmask.files import lines

TEXTS = ["Ein Text", "第二个文本 — “quoted”, with a comma", " spaces kept ", 'a "quote"', "\u2028 is no line end", ""]


def texts_of(*paths: Path | str, **fields: str) -> list[str]:
    return [record.text for record in open_texts(paths, **fields)]


def as_csv(delimiter: str) -> bytes:
    rows = [delimiter.join(['"' + text.replace('"', '""') + '"', str(i)]) for i, text in enumerate(TEXTS)]
    return ("\n".join([f"text{delimiter}n", *rows]) + "\n").encode()


def as_parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(TEXTS), "n": range(len(TEXTS))}), stream, row_group_size=2)
    return stream.getvalue()


def as_json(texts: list[object]) -> bytes:
    return "\n".join(json.dumps(text) for text in texts).encode()


CONTENTS: dict[str, bytes] = {
    "a.txt": "\r\n".join(TEXTS[:-1]).encode() + b"\n\n",
    "a.jsonl": as_json([{"text": text} for text in TEXTS]),
    "a.ndjson": as_json(list(TEXTS)) + b"\n\n",
    "a.csv": as_csv(","),
    "a.tsv": as_csv("\t"),
    "a.parquet": as_parquet(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[name])
    assert texts_of(path) == TEXTS


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize(
    ("ending", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".zst", zstd)]
)
def test_compressed_files_are_read_as_they_are(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(compress(b'{"text": "one"}\n{"text": "two"}\n'))
    assert texts_of(path, path) == ["one", "two", "one", "two"]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"a\.jsonl\.\w+ is damaged after line"):
        texts_of(path)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo")
    assert texts_of(tmp_path / "a.txt") == ["one", "two"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(b"one\ntwo\n", ["one", "two"]), (b'{"text": "one"}\n{"text": "two"}', ["one", "two"]), (b'{"a\n', ['{"a'])],
)
def test_standard_input_is_lines_or_json_lines(
    monkeypatch: pytest.MonkeyPatch, given: bytes, expected: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert texts_of("-") == expected


@pytest.mark.parametrize(
    ("first", "fields", "expected"),
    [
        ('{"text": "a", "title": "b"}', {}, "a"),
        ('{"id": 3, "sentence": "a"}', {}, "a"),
        ('{"id": "x", "sentence": "a"}', {"id_field": "id"}, "a"),
        ('{"text": "a", "title": "b"}', {"field": "title"}, "b"),
    ],
)
def test_the_field_is_found(tmp_path: Path, first: str, fields: dict[str, str], expected: str) -> None:
    (tmp_path / "a.jsonl").write_text(first)
    assert texts_of(tmp_path / "a.jsonl", **fields) == [expected]


def test_ids_are_carried_along(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 7}\n\n{"text": "b", "n": 8}')
    (tmp_path / "a.csv").write_text('n,text\nx,"two\nlines"\ny,b\n')
    found = list(open_texts([tmp_path / "a.jsonl", tmp_path / "a.csv"], id_field="n"))
    assert [(record.id, record.text) for record in found] == [(7, "a"), (8, "b"), ("x", "two\nlines"), ("y", "b")]
    assert [record.where.rpartition(", ")[2] for record in found] == ["line 1", "line 3", "line 2", "line 4"]


BAD: list[tuple[str, bytes | None, dict[str, str], str]] = [
    ("none.txt", None, {}, r"none\.txt does not exist"),
    ("a.pdf", b"x", {}, r"a\.pdf ends in '\.pdf'; expected \.txt, .*\.parquet"),
    ("a.parquet.gz", b"x", {}, "compresses inside"),
    ("a.txt", b"", {}, "no text in it"),
    ("a.txt", b"one\n\xff\n", {}, r"a\.txt, line 2: byte 1 is 0xff"),
    ("a.txt", b"one", {"field": "text"}, "has no fields"),
    ("a.jsonl", b'{"text": "a"}\n{"text": 3}', {}, r"a\.jsonl, line 2: field 'text' is number; expected a string"),
    ("a.jsonl", b'{"text": "a"}\n{}', {}, "line 2: field 'text' is null or missing"),
    ("a.jsonl", b'{"text": "a"}\n{"text', {}, "line 2: not JSON"),
    ("a.jsonl", b"[" * 100_000, {}, "line 1: not JSON"),
    ("a.jsonl", b"[1]", {}, "a JSON array; expected an object"),
    ("a.jsonl", b'{"a": "x", "b": "y"}', {}, "the fields are: a, b"),
    ("a.jsonl", b'{"a": 1}', {}, "no fields hold strings"),
    ("a.jsonl", b'{"a": "x"}', {"field": "c"}, "no field 'c'; expected one of: a. Name it with --field"),
    ("a.jsonl", b'{"a": "x"}', {"id_field": "c"}, "no field 'c'.*--id-field"),
    ("a.jsonl", b'{"a": "x", "b": 1.5}', {"id_field": "b"}, "expected a string or an integer"),
    ("a.csv", b"a,b\nx,y\n", {}, "the fields are: a, b"),
    ("a.csv", b"text,b\nx,y\nx\n", {}, r"a\.csv, line 3: 1 values; expected 2"),
    ("a.csv", b'text,b\nx,"y\n', {}, "line 2: not CSV"),
    ("a.csv", b"text,b\n", {}, "no text in it"),
    ("a.parquet", b"PAR1 not", {}, "cannot be read as Parquet"),
    ("a.txt.gz", b"no gzip", {}, "is damaged after line 0"),
]


@pytest.mark.parametrize(("name", "content", "fields", "message"), BAD)
def test_a_bad_file_is_named_with_line_and_remedy(
    tmp_path: Path, name: str, content: bytes | None, fields: dict[str, str], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        texts_of(tmp_path / name, **fields)


def test_parquet_without_strings_or_with_nulls_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(["a", None]), "n": [1, 2]}), path)
    with pytest.raises(InputError, match="row 2: field 'text' is null"):
        texts_of(path)
    with pytest.raises(InputError, match="field 'n' is int64; expected strings"):
        texts_of(path, field="n")


def test_an_endless_line_is_refused_before_it_fills_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 10)
    (tmp_path / "a.txt").write_text("short\n" + "x" * 100)
    with pytest.raises(InputError, match="line 2: longer than"):
        texts_of(tmp_path / "a.txt")


def test_a_folder_and_a_second_standard_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        texts_of(tmp_path)
    with pytest.raises(InputError, match="given twice"):
        texts_of("-", "-")


# --- vectors ---------------------------------------------------------------------------------------

RECORDS = [Record(f"text “{i}”", f"a.txt, line {i + 1}", i) for i in range(10)]


def batches(dtype: str) -> list[np.ndarray[tuple[int, int], np.dtype[np.generic]]]:
    whole = (np.random.default_rng(0).standard_normal((10, 6)) * 50).astype(dtype)
    return [whole[:7], whole[7:]]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
@pytest.mark.parametrize("ending", [".npy", ".parquet", ".jsonl"])
def test_vectors_are_read_back_bit_by_bit(tmp_path: Path, ending: str, dtype: str) -> None:
    path, parts = tmp_path / f"v{ending}", batches(dtype)
    with vector_file(path) as file:
        file.write(parts[0], RECORDS[:7])
        assert not path.exists()
        file.write(parts[1], RECORDS[7:])
    if ending == ".npy":
        found = np.load(path, mmap_mode="r")
        assert found.dtype == dtype
    elif ending == ".parquet":
        table = pq.read_table(path)
        assert table.column_names == ["id", "vector"]
        assert table.schema.field("vector").type.list_size == 6
        found = np.array(table["vector"].to_pylist(), dtype=dtype)
    else:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["id"] for line in lines] == list(range(10))
        found = np.array([line["vector"] for line in lines], dtype=dtype)
    np.testing.assert_array_equal(found, np.concatenate(parts))


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_texts_are_written_if_asked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"v{ending}"
    with vector_file(path, with_text=True) as file:
        file.write(batches("float32")[0], RECORDS[:7])
    rows = (
        pq.read_table(path).to_pylist()
        if ending == ".parquet"
        else [json.loads(line) for line in path.read_text().splitlines()]
    )
    assert [row["text"] for row in rows] == [record.text for record in RECORDS[:7]]


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".jsonl"])
def test_a_failure_leaves_nothing_and_an_old_file_as_it_was(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"v{ending}"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with vector_file(path, replace=True) as file:
            file.write(batches("float32")[0], RECORDS[:7])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_targets_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.npy").touch()
    (tmp_path / "d.npy").mkdir()
    for name, message in {
        "v.npy": "exists already.*--replace",
        "d.npy": "is a folder",
        "v.bin": "expected .npy",
    }.items():
        with pytest.raises(InputError, match=message), vector_file(tmp_path / name):
            pass
    with pytest.raises(InputError, match=r"\.npy holds only vectors"), vector_file(tmp_path / "w.npy", with_text=True):
        pass
    with pytest.raises(InputError, match="expected at least one"), vector_file(tmp_path / "w.npy"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"v.npy", "d.npy"}


def test_ids_of_two_types_are_refused(tmp_path: Path) -> None:
    mixed = [Record("a", "x, line 1", 1), Record("b", "x, line 2", "two")]
    with (
        pytest.raises(InputError, match="x, line 2: its id is 'two'; expected a int"),
        vector_file(tmp_path / "v.parquet") as file,
    ):
        file.write(np.zeros((2, 3), dtype=np.float32), mixed)

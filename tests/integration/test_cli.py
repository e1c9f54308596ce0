"""The command: what it makes, what it says, and that bad input is one line, status 2, and nothing written."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import unmask as unmask_package
from tests.integration.conftest import Unmask
from tests.tiny import write_home
from unmask.cli import app

TEXTS = ["a cat sleeps", "the dog barks at night", "stock prices fell", "it may rain tomorrow"]
DIMENSION = 256
SOURCE = str(Path(unmask_package.__file__).parents[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the default name is a tiny model."""
    folder = tmp_path_factory.mktemp("home")
    return write_home(folder, hidden_size=DIMENSION)


@pytest.fixture(autouse=True)
def _place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with texts in all formats."""
    monkeypatch.setenv("UNMASK_HOME", str(home))
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", home / "encoders")
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("\n".join(TEXTS) + "\n")
    Path("questions.txt").write_text("which animal?\nwhat weather?\n")
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    Path("pairs.jsonl").write_text("".join(json.dumps({"query": text, "positive": text}) + "\n" for text in TEXTS))
    pq.write_table(pa.table({"text": TEXTS}), "texts.parquet")
    with Path("reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "review"], *((f"r{i}", text) for i, text in enumerate(TEXTS))])


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Run a command line in another process, which heeds Ctrl-C whatever this one does."""
    code = (
        "import os, pathlib, signal, sys; import unmask.hub.locate as locate; "
        "locate.SHIPPED = pathlib.Path(os.environ['UNMASK_HOME'], 'encoders'); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from unmask.cli import main; main(sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=os.environ | {"PYTHONPATH": SOURCE}, **options
    )


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


# --- start-up --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["--version", "--help", "encode --help", "nonsense", "encode none.txt -o v.npy"])
def test_help_version_and_usage_need_no_torch(arguments: str) -> None:
    code = (
        "import sys; from unmask.cli import app, run; run(app, sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'pyarrow', 'huggingface_hub'} & set(sys.modules); assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, *arguments.split()]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": SOURCE}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_printed(unmask: Unmask) -> None:
    from unmask import __version__

    assert unmask("--version") == (0, f"unmask {__version__}\n", "")


# --- examples --------------------------------------------------------------------------------------


def examples() -> list[str]:
    documented = [inspect.getdoc(command.callback) or "" for command in app.registered_commands]
    return [line.strip() for text in documented for line in text.partition("Examples:")[2].splitlines() if line.strip()]


def test_every_command_has_examples() -> None:
    commands = {str(command.callback.__name__) for command in app.registered_commands if command.callback}
    assert {line.partition("unmask ")[2].split()[0] for line in examples()} == commands
    assert len(commands) == 9


def serves(line: str) -> bool:
    """Return whether an example goes on until it is stopped; test_api_* runs servers."""
    return " serve" in line and "--show-config" not in line


@pytest.mark.parametrize("line", [line for line in examples() if not serves(line)])
def test_the_examples_of_the_help_run(unmask: Unmask, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    piped, _, command = line.rpartition("| ")
    if piped:
        assert piped.split()[0] == "cat"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(piped.split()[1]).read_bytes())))
    status, _, err = unmask(*shlex.split(command)[1:])
    assert status == 0, err
    assert "Next: " in err or "--json" in command or "--show-config" in command


def test_help_shows_the_examples_as_they_are(unmask: Unmask) -> None:
    for line in examples():
        command = line.partition("unmask ")[2].split()[0]
        assert f"\n      {line}\n" in unmask(command, "--help")[1]


# --- what the commands do --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["texts.txt", "texts.jsonl", "texts.parquet", "reviews.csv"])
def test_encode_gives_what_the_library_gives(unmask: Unmask, home: Path, name: str) -> None:
    from unmask import Encoder

    extra = ("--field", "review") if name == "reviews.csv" else ()
    status, out, err = unmask("encode", name, "-o", "v.npy", "--instruction", "Find it:", *extra)
    assert (status, out) == (0, "")
    assert f"Wrote v.npy: 4 vectors of {DIMENSION} dimensions, float32." in err
    expected = Encoder.load().encode(TEXTS, instruction="Find it:")
    np.testing.assert_allclose(np.load("v.npy"), expected, atol=1e-5)


def test_encode_writes_ids_and_texts(unmask: Unmask) -> None:
    common = ("encode", "reviews.csv", "--field", "review", "--id-field", "id", "--with-text", "--normalize")
    assert unmask(*common, "-o", "v.parquet")[0] == unmask(*common, "-o", "v.jsonl")[0] == 0
    rows = pq.read_table("v.parquet").to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == [(f"r{i}", text) for i, text in enumerate(TEXTS)]
    lines = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    assert rows == [line | {"vector": pytest.approx(row["vector"])} for line, row in zip(lines, rows, strict=True)]
    assert np.linalg.norm([row["vector"] for row in rows], axis=1) == pytest.approx(np.ones(4))


@pytest.mark.parametrize(
    ("options", "shape", "dtype"),
    [
        ("--format binary", (4, 32), "uint8"),
        ("--format int8 --dimensions 16", (4, 16), "int8"),
        ("--format float16", (4, 256), "float16"),
    ],
)
def test_encode_in_other_formats(unmask: Unmask, options: str, shape: tuple[int, int], dtype: str) -> None:
    assert unmask("encode", "texts.txt", "-o", "v.npy", *options.split())[0] == 0
    found = np.load("v.npy")
    assert (found.shape, found.dtype) == (shape, dtype)


def test_blank_texts_are_zero_if_asked_and_replacing_is(unmask: Unmask) -> None:
    Path("texts.txt").write_text("one\n\ntwo\n")
    Path("v.npy").touch()
    assert unmask("encode", "texts.txt", "-o", "v.npy", "--empty", "zero", "--replace")[0] == 0
    assert np.load("v.npy").any(axis=1).tolist() == [True, False, True]


def test_similarity_is_the_cosine(unmask: Unmask, home: Path) -> None:
    from unmask import Encoder

    encoder = Encoder.load()
    expected = encoder.similarity(encoder.encode(["which animal?", "what weather?"]), encoder.encode(TEXTS))
    status, out, _ = unmask("similarity", "questions.txt", "texts.txt", "--json")
    assert status == 0
    np.testing.assert_allclose(json.loads(out)["cosine"], expected, atol=1e-5)
    status, out, _ = unmask("similarity", "questions.txt", "texts.txt")
    assert f"{expected[0, 0]:.3f}" in out
    status, out, _ = unmask("similarity", *TEXTS[:3])
    assert "the dog barks" in out


def test_search_finds_a_text_itself_and_keeps_the_vectors(unmask: Unmask, home: Path) -> None:
    with Path("reviews.csv").open("a") as file:
        file.write("r4,a text of its own\n")
    arguments = ("search", "reviews.csv", "--field", "review", TEXTS[2], "--instruction", "", "--json", "--top", "2")
    _, out, err = unmask(*arguments)
    (answer,) = json.loads(out)
    assert [answer["query"], answer["hits"][0]["text"], answer["hits"][0]["where"]] == [TEXTS[2], TEXTS[2], "line 4"]
    assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
    assert "Encoding" in err
    again = unmask(*arguments)
    assert again[1] == out
    assert "Encoding" not in again[2]


def test_search_asks_on_a_terminal(unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter(["animals", " "])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: next(asked))
    status, out, _ = unmask("search", "texts.txt", "--top", "1")
    assert status == 0
    assert out.count("animals") == 1


def test_info_says_what_the_model_is(unmask: Unmask) -> None:
    status, out, _ = unmask("info", "--json")
    facts = json.loads(out)
    assert status == 0
    assert (facts["family"], facts["layers"], facts["hidden_size"], facts["bidirectional"]) == (
        "llama",
        3,
        DIMENSION,
        True,
    )
    assert (facts["layers_run"], facts["attention"], facts["token_budget"]) == ("fused", ["runs"], 2048)
    assert facts["proof"]["layer_moved_least"] > 1e-6
    assert facts["memory_mb"]["float32"] == pytest.approx(facts["parameters"] * 4 / 1e6, abs=0.1)
    out = unmask("info")[1]
    assert "Another last token moves the state of the first" in out
    assert "on joined projections" in out
    assert "once for texts of one length" in out


def test_a_converted_folder_gives_the_same_vectors(unmask: Unmask) -> None:
    assert unmask("convert", "smollm2-135m-unsup", "mine")[0] == 0
    assert unmask("encode", "texts.txt", "-o", "a.npy")[0] == 0
    assert unmask("encode", "texts.txt", "-o", "b.npy", "--model", "mine")[0] == 0
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), atol=1e-5)


def test_the_catalogue_is_listed(unmask: Unmask) -> None:
    status, out, _ = unmask("pull", "--list")
    assert status == 0
    row = next(line for line in out.splitlines() if "smollm2-135m" in line)
    assert "Apache-2.0" in row
    assert "yes" in row
    assert "llm2vec-llama-3-8b-supervised" in out


# --- what goes wrong -------------------------------------------------------------------------------

BAD: dict[str, str] = {
    "nonsense": "No such command 'nonsense'",
    "encode": "Missing argument",
    "encode texts.txt": "Missing option '--output'",
    "encode texts.txt -o v.npy --dimensions 0": "Invalid value for '--dimensions'",
    "encode texts.txt -o v.npy --dimensions 257": "dimensions is 257",
    "encode texts.txt -o v.npy --format bits": "--format",
    "encode none.txt -o v.npy": "none.txt does not exist",
    "encode texts.txt -o new/v.bin": "expected .npy, .parquet, .jsonl",
    "encode texts.txt -o texts.jsonl": "exists already",
    "encode texts.txt -o v.npy --with-text": ".npy holds only vectors",
    "encode texts.txt -o v.npy --field text": "has no fields",
    "encode reviews.csv -o v.npy": "the fields are: id, review",
    "encode blank.txt -o new/v.npy": "blank.txt, line 2: the text is blank; expected some text",
    "encode long.txt -o new/v.npy --no-truncate": "long.txt, line 2: this text has",
    "encode broken.jsonl -o new/v.npy": "broken.jsonl, line 2: this text holds a lone surrogate",
    "encode texts.txt -o v.npy --max-length 1 --model nothing": "nothing",
    "encode texts.txt -o v.npy --max-length 1": "max_length",
    "encode - - -o v.npy": "given twice",
    "similarity one": "expected at least two",
    "similarity one two --field text": "--field is for files",
    "search texts.txt": "No query was given",
    "search none.txt query": "none.txt does not exist",
    "search texts.txt query --top 0": "--top",
    "info none": "none",
    "info empty": "empty is no checkpoint",
    "convert smollm2-135m empty": "exists already",
    "pull none": "none",
    "bench none": "none",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(unmask: Unmask, line: str) -> None:
    Path("blank.txt").write_text("one\n \n")
    Path("long.txt").write_text("one\n" + "word " * 2000)
    Path("broken.jsonl").write_text('{"text": "one"}\n{"text": "\\ud800"}\n')
    Path("empty").mkdir()
    before = files()
    status, out, err = unmask(*line.split())
    assert (status, out) == (2, "")
    assert err.startswith("unmask: ")
    assert err.count("\n") == 1
    assert BAD[line] in err
    assert files() == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "v.jsonl"])
def test_stopping_leaves_nothing_half_written(number: signal.Signals, status: int, name: str) -> None:
    before = files()
    with start(
        "encode", "-", "-o", name, "--max-length", "8", stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n" * 9000)  # enough for a first batch of vectors, and no end in sight
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not list(Path().glob(".part-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == status
        assert b"Traceback" not in process.stderr.read()
    assert files() == before


@pytest.mark.parametrize("arguments", ["pull --list", "info --json"])
def test_a_broken_pipe_is_quiet(arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with start(*arguments.split(), stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(60) != 0
    assert b"Traceback" not in said
    assert b"Exception" not in said


def test_a_full_disk_is_one_line(unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device", "v.npy")

    monkeypatch.setattr("unmask.bulk.vectors._NpyFile.write", full)
    before = files()
    assert unmask("encode", "texts.txt", "-o", "v.npy")[::2][0] == 1
    assert files() == before

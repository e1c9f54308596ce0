"""``unmask mine``: what it writes and says, what it refuses, and that a killed run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unmask as unmask_package
from tests.integration.conftest import Unmask
from tests.tiny import write_base, write_home
from unmask.cli.common import DEFAULT_MODEL

SOURCE = str(Path(unmask_package.__file__).parents[1])
INSTRUCTION = "Find what answers it:"
#: Positives that are near their queries even for a model that has learnt nothing.
ROWS = [
    {"query": f"{word} {word} {word}", "positive": f"{word} {word} {word}!", "id": number}
    for number, word in enumerate(["cat", "rain falls", "stock prices", "the old house", "seven", "why not"])
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the default name is a tiny model."""
    return write_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(home))
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", home / "encoders")
    monkeypatch.chdir(tmp_path)
    write("pairs.jsonl", ROWS)


def write(name: str, rows: list[Any]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


# --- what it writes and says -----------------------------------------------------------------------


def test_negatives_are_what_the_librarys_cosines_say(unmask: Unmask) -> None:
    from unmask import Encoder

    options = ("--instruction", INSTRUCTION, "--negatives", "2", "--margin", "0.99", "--as-is")
    status, out, err = unmask("mine", "pairs.jsonl", "-o", "mined.jsonl", *options)
    assert (status, out) == (0, ""), err
    encoder = Encoder.load(DEFAULT_MODEL)
    queries = encoder.encode([str(row["query"]) for row in ROWS], instruction=INSTRUCTION)
    cosines = encoder.similarity(queries, encoder.encode([str(row["positive"]) for row in ROWS]))
    expected, near = [], []
    for number, (row, scores) in enumerate(zip(ROWS, cosines, strict=True)):
        order = [at for at in np.argsort(-scores) if at != number and scores[at] <= 0.99 * scores[number]]
        if len(order) >= 2:
            expected.append(row | {"negative": [ROWS[at]["positive"] for at in order[:2]]})
            near.append((scores[number], scores[order[:2]].mean()))
    assert read("mined.jsonl") == expected
    assert len(expected) > 1
    positive, negative = np.mean(near, axis=0)
    skipped = len(ROWS) - len(expected)
    assert f"Wrote mined.jsonl: {len(expected)} of 6 rows, 2 negatives each." in err
    assert (f"Skipped {skipped} rows: {skipped} with too few that score at most 0.99" in err) == (skipped > 0)
    assert f"Mean cosine: {positive:.3f} with the positive, {negative:.3f} with the negatives." in err
    assert f"Next: unmask train supervised mined.jsonl -o run --instruction '{INSTRUCTION}'\n" in err
    assert [line.split(":")[0] for line in err.splitlines()[:3]] == ["Encoding queries", "Encoding documents", "Mining"]
    assert {path.name for path in Path().iterdir()} == {"pairs.jsonl", "mined.jsonl"}


def test_one_negative_is_a_string_from_the_corpus(unmask: Unmask) -> None:
    write("corpus.jsonl", [{"id": "a", "about": "nothing to see"}, {"id": "b", "about": "stock prices fell"}])
    Path("mined.jsonl").touch()
    options = ("--field", "about", "--instruction", "", "--margin", "1", "--replace")
    status, _, err = unmask(
        "mine", "pairs.jsonl", "pairs.jsonl", "--corpus", "corpus.jsonl", "-o", "mined.jsonl", *options
    )
    assert status == 0, err
    rows = read("mined.jsonl")
    assert rows
    assert {row["negative"] for row in rows} <= {"nothing to see", "stock prices fell"}
    assert f"{len(rows)} of 12 rows, 1 negative each" in err


def test_rows_whose_own_texts_fill_the_corpus_are_counted(unmask: Unmask) -> None:
    own = {"query": ROWS[0]["query"]}
    write("more.jsonl", [own | {"positive": row["positive"]} for row in ROWS[1:]])
    status, _, err = unmask("mine", "pairs.jsonl", "more.jsonl", "-o", "mined.jsonl", "--margin", "1")
    assert status == 0, err
    assert "6 with too few texts that are not the query's own" in err
    assert ROWS[0]["query"] not in {row["query"] for row in read("mined.jsonl")}


# --- what it refuses -------------------------------------------------------------------------------

BAD: dict[str, str] = {
    "mine": "Missing argument",
    "mine pairs.jsonl": "Missing option '--output'",
    "mine none.jsonl -o new/m.jsonl": "none.jsonl does not exist",
    "mine fields.jsonl -o new/m.jsonl": "fields.jsonl, line 2: no field 'positive'; its fields are: query, answer.",
    "mine broken.jsonl -o new/m.jsonl": "broken.jsonl, line 2: not JSON",
    "mine damaged.jsonl.gz -o new/m.jsonl": "damaged.jsonl.gz is damaged after line 0",
    "mine latin.jsonl -o new/m.jsonl": "which is not UTF-8",
    "mine empty.jsonl -o new/m.jsonl": "empty.jsonl: no row in it",
    "mine pairs.jsonl -o new/m.csv": "expected .jsonl as the output's ending",
    "mine pairs.jsonl -o pairs.jsonl": "exists already",
    "mine pairs.jsonl -o pairs.jsonl --model nothing": "exists already",
    "mine pairs.jsonl -o pairs.jsonl/m.jsonl": "pairs.jsonl/m.jsonl cannot be written",
    "mine pairs.jsonl -o new/m.jsonl --margin 0": "margin is 0.0",
    "mine pairs.jsonl -o new/m.jsonl --margin 1.5": "margin is 1.5",
    "mine pairs.jsonl -o new/m.jsonl --negatives 0": "Got 0 negatives",
    "mine pairs.jsonl -o new/m.jsonl --negatives 6": "6 distinct texts to choose from",
    "mine pairs.jsonl -o new/m.jsonl --skip-first 5": "6 distinct texts to choose from",
    "mine pairs.jsonl -o new/m.jsonl --top 3 --negatives 4": "top is 3; expected at least 4",
    "mine pairs.jsonl -o new/m.jsonl --corpus none.jsonl": "none.jsonl does not exist",
    "mine pairs.jsonl -o new/m.jsonl --corpus pairs.jsonl": "Name the text's with --field",
    "mine pairs.jsonl -o new/m.jsonl --model nothing": "nothing",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(unmask: Unmask, line: str) -> None:
    good = json.dumps(ROWS[0])
    Path("fields.jsonl").write_text(good + '\n{"query": "a", "answer": "b"}\n')
    Path("broken.jsonl").write_text(good + '\n{"query": "a"\n')
    Path("damaged.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    Path("latin.jsonl").write_bytes('{"query": "é", "positive": "b"}\n'.encode("latin-1"))
    Path("empty.jsonl").touch()
    before = set(Path().rglob("*"))
    status, out, err = unmask(*line.split())
    assert (status, out) == (2, "")
    assert err.startswith("unmask: ")
    assert err.count("\n") == 1
    assert BAD[line] in err
    assert set(Path().rglob("*")) == before


# --- killed, and started again ---------------------------------------------------------------------

#: Mines, notes each text that is encoded, and waits after each shard, to be killed there.
SLOWLY = """
import sys, time
from unmask.cli import main
from tests.integration.test_mine import note_encoded
note_encoded(lambda: time.sleep(60))
main(sys.argv[1:])
"""


def note_encoded(after: Callable[[], None] = lambda: None) -> Callable[..., Any]:
    """Have the encoder write each text it encodes to ``encoded.txt``; return what it did before."""
    from unmask import Encoder

    encode = Encoder.encode_stream

    def noting(self: Encoder, texts: list[str], **options: Any) -> Any:
        with Path("encoded.txt").open("a") as file:
            file.writelines(f"{text}\n" for text in texts)
        if len(Path("encoded.txt").read_text().splitlines()) > len(texts):
            after()
        yield from encode(self, texts, **options)

    Encoder.encode_stream = noting  # type: ignore[assignment, method-assign]
    return encode


def test_a_killed_run_goes_on_where_it_was(unmask: Unmask, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unmask import Encoder

    monkeypatch.setattr(Encoder, "encode_stream", Encoder.encode_stream)  # as it is, at the end
    rows = [{"query": f"what is {n}", "positive": f"{n} is {n * n} less {n}"} for n in range(300)]
    write("many.jsonl", rows)
    model = str(home / "models" / "smollm2-135m")  # as the other process finds it, too
    arguments = ("mine", "many.jsonl", "--model", model, "--margin", "1", "--as-is", "-o")
    command = [sys.executable, "-c", SLOWLY, *arguments, "mined.jsonl"]
    paths = os.pathsep.join((SOURCE, str(Path(__file__).parents[2])))
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}) as process:
        deadline = time.monotonic() + 120
        while not list(Path("mined.jsonl.work").glob("vectors/[!.]*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    assert not Path("mined.jsonl").exists()
    Path("encoded.txt").unlink(missing_ok=True)

    note_encoded()
    assert unmask(*arguments, "mined.jsonl")[0] == 0
    texts = [row["query"] for row in rows] + [row["positive"] for row in rows]
    assert Path("encoded.txt").read_text().splitlines() == texts[256:]
    Path("encoded.txt").unlink()
    assert unmask(*arguments, "unbroken.jsonl")[0] == 0
    assert Path("encoded.txt").read_text().splitlines() == texts
    assert Path("mined.jsonl").read_bytes() == Path("unbroken.jsonl").read_bytes()
    assert len(read("mined.jsonl")) > 100
    assert not list(Path().glob("*.work"))


def test_another_model_is_not_served_the_vectors_of_the_first(
    unmask: Unmask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    write_base(tmp_path / "other", seed=1)
    common = ("mine", "pairs.jsonl", "--margin", "1", "--as-is", "-o")
    assert unmask(*common, "first.jsonl")[0] == unmask(*common, "other.jsonl", "--model", "other")[0] == 0
    assert read("first.jsonl") != read("other.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr("unmask.bulk.mining._mine_block", stopped)
        assert unmask(*common, "mined.jsonl")[0] == 130
    assert list(Path("mined.jsonl.work/vectors").iterdir())
    assert unmask(*common, "mined.jsonl", "--model", "other")[0] == 0
    assert read("mined.jsonl") == read("other.jsonl")

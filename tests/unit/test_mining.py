"""Negatives are the nearest texts that are no answers; pairs are read as they stand, and refused by line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unmask.bulk import mining
from unmask.bulk.mining import mine, mine_to_file
from unmask.bulk.negatives import Mined, MiningSettings, choose_negatives
from unmask.bulk.pairs import Pair, read_corpus, read_pairs
from unmask.errors import InputError

# Four rows, the six documents nearest to each. Documents of the first row's own: 7, the best.
SCORES = np.array(
    [
        [0.90, 0.88, 0.86, 0.80, 0.70, 0.10],
        [0.90, 0.80, 0.76, 0.76, 0.50, 0.40],
        [0.30, 0.10, 0.00, -0.18, -0.22, -0.50],
        [0.99, 0.98, 0.97, 0.96, 0.95, 0.30],
    ],
    dtype=np.float32,
)
CANDIDATES = np.array([[7, 2, 5, 1, 0, 3], [1, 8, 4, 6, 2, 0], [0, 1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4]])
POSITIVES = np.array([0.90, 0.80, -0.20, 0.99], dtype=np.float32)
OWN: list[set[int]] = [{7}, {8, 4}, set(), {9}]


def choose(**settings: Any) -> Mined:
    return choose_negatives(SCORES, CANDIDATES, POSITIVES, own=OWN, settings=MiningSettings(**settings))


# --- choosing --------------------------------------------------------------------------------------


def test_the_best_that_is_neither_an_answer_nor_too_close_is_taken() -> None:
    # The limits are 0.855, 0.76, -0.21 and 0.9405.
    chosen = choose()
    assert chosen.positions.tolist() == [[1], [6], [4], [4]]
    assert chosen.scores[:, 0] == pytest.approx([0.80, 0.76, -0.22, 0.30])
    assert chosen.positive_scores.tolist() == POSITIVES.tolist()
    assert chosen.found.all()


def test_a_row_has_all_its_negatives_or_none() -> None:
    assert choose(negatives=2).positions.tolist() == [[1, 0], [6, 2], [4, 5], [-1, -1]]
    assert choose(negatives=2).found.tolist() == [True, True, True, False]
    assert choose(negatives=3).positions.tolist() == [[1, 0, 3], [6, 2, 0], [-1] * 3, [-1] * 3]
    assert choose(negatives=7).positions.tolist() == [[-1] * 7] * 4


@pytest.mark.parametrize(("margin", "expected"), [(1.0, 2), (0.96, 5), (0.9, 1), (0.8, 0), (0.5, 3)])
def test_the_margin_is_a_share_of_the_positives_score(margin: float, expected: int) -> None:
    assert choose(margin=margin).positions[0].tolist() == [expected]


def test_a_negative_never_scores_above_a_positive_that_scores_below_zero() -> None:
    scores = np.array([[0.3, 0.0, -0.1, -0.195, -0.2, -0.215, -0.305, -0.4]], dtype=np.float32)
    at = np.arange(8)[None]

    def first(positive: float, margin: float) -> int:
        settings = MiningSettings(margin=margin)
        positives = np.array([positive], dtype=np.float32)
        return int(choose_negatives(scores, at, positives, own=[set()], settings=settings).positions[0, 0])

    assert first(-0.2, 0.95) == 5  # margin times the positive would be -0.19
    assert first(-0.2, 1.0) == 4
    assert first(-0.2, 0.5) == 6
    assert first(0.0, 0.95) == first(0.0, 0.1) == 1


def test_ranks_are_counted_without_a_querys_own() -> None:
    # Others of the first row: 2, 5, 1, 0, 3; of the second: 1, 6, 2, 0.
    assert choose(skip_first=3).positions[:2].tolist() == [[0], [0]]
    assert choose(top=2).positions.tolist() == [[-1], [6], [-1], [-1]]
    assert choose(top=3).positions[0].tolist() == [1]
    assert choose(top=2).others.tolist() == [2, 2, 2, 2]
    assert choose().others.tolist() == [5, 4, 6, 5]
    assert choose(skip_first=4).others.tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 0.0}, "margin is 0.0; expected more than 0 and at most 1"),
        ({"margin": 1.01}, "margin is 1.01"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"negatives": 0}, "Got 0 negatives and 0 ranks to skip"),
        ({"skip_first": -1}, "Got 1 negatives and -1 ranks to skip"),
        ({"skip_first": 8, "negatives": 3, "top": 10}, "top is 10; expected at least 11"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MiningSettings(**settings)


# --- pairs and a corpus ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    query_instruction: str | None = None


@dataclass
class FakeEncoder:
    """A text is its vector, spelt out: ``"1 0 c"`` is [1, 0]. Keeps what it encoded."""

    folder: Path
    settings: Settings = Settings()
    dimension: int = 2
    dtype: str = "float32"
    encoded: list[str] = field(default_factory=list)
    pipeline: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(token_budget=16))

    @property
    def checkpoint(self) -> SimpleNamespace:
        return SimpleNamespace(base=self.folder, tokenizer=self.folder, adapters=())

    def encode_stream(self, texts: list[str], *, instruction: str | None = None, **options: Any) -> Any:
        self.encoded += [f"{instruction or ''}{text}" for text in texts]
        yield np.array([text.split()[:2] for text in texts], dtype=np.float32)


@pytest.fixture
def encoder(tmp_path: Path) -> Any:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    return FakeEncoder(tmp_path / "model")


def at(degrees: float, name: str = "") -> str:
    """A text whose vector points this way; the cosine of two is that of the angle between them."""
    return f"{np.cos(np.radians(degrees)):.6f} {np.sin(np.radians(degrees)):.6f} {name}".strip()


def pair(query: str, positive: str, **others: Any) -> Pair:
    return Pair(query, positive, {"query": query, "positive": positive, **others})


def test_no_positive_of_a_query_is_its_negative_and_texts_are_encoded_once(encoder: Any, tmp_path: Path) -> None:
    query, other = at(0, "Query"), at(90, "other")
    first, second, near = at(10, "a"), at(40, "b"), at(45, "c")
    pairs = [pair(query, first), pair(other, near), pair(query.upper(), second), pair(f" {query}", first.upper())]
    corpus = [at(50, "d"), first, f"{first} ", near, second, query]
    found = mine(encoder, pairs, corpus, MiningSettings(), folder=tmp_path)
    # cos 45° = 0.71 is under 0.95 of cos 10° = 0.98 and of cos 40° = 0.77; the other's limit, 0.95 of cos 45° = 0.67,
    # leaves cos 50° = 0.64.
    assert found.positions[:, 0].tolist() == [3, 4, 3, 3]
    assert found.positive_scores == pytest.approx(np.cos(np.radians([10, 45, 40, 10])), abs=1e-5)
    assert found.scores[:, 0] == pytest.approx(np.cos(np.radians([45, 50, 45, 45])), abs=1e-5)
    assert sorted(encoder.encoded) == sorted([query, other, at(50, "d"), first, near, second, query])


def test_positives_outside_the_corpus_set_the_limit_but_are_no_candidates(encoder: Any, tmp_path: Path) -> None:
    pairs = [pair(at(0, "q"), at(10, "p")), pair(at(45, "r"), at(40, "s"))]
    found = mine(encoder, pairs, [at(60, "x"), at(150, "y")], MiningSettings(), folder=tmp_path)
    assert found.positions.tolist() == [[0], [1]]  # neither of the other's positive
    assert found.positive_scores == pytest.approx(np.cos(np.radians([10, 5])), abs=1e-5)


def test_a_document_that_is_the_query_itself_is_no_negative(encoder: Any, tmp_path: Path) -> None:
    pairs, corpus = [pair(at(0, "q"), at(0, "p"))], [at(0, "Q"), at(30, "n")]
    assert mine(encoder, pairs, corpus, MiningSettings(margin=1), folder=tmp_path).positions.tolist() == [[1]]


@pytest.mark.parametrize(
    ("own", "asked", "expected"), [(None, None, ""), ("Own:", None, "Own:"), ("Own:", "", ""), (None, "Find:", "Find:")]
)
def test_the_instruction_goes_before_queries_only(
    encoder: Any, tmp_path: Path, own: str | None, asked: str | None, expected: str
) -> None:
    encoder.settings = Settings(own)
    mine(encoder, [pair(at(0, "q"), at(9, "p"))], [at(90, "n")], MiningSettings(instruction=asked), folder=tmp_path)
    assert encoder.encoded == [f"{expected}{at(0, 'q')}", at(90, "n"), at(9, "p")]


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_blocks_change_nothing(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, standardised: bool
) -> None:
    monkeypatch.setattr(mining, "_QUERIES", block)
    angles = np.random.default_rng(0).uniform(0, 90, (2, 40)).round(3)
    pairs = [pair(at(q, f"q{i % 30}"), at(p, f"p{i}")) for i, (q, p) in enumerate(zip(*angles, strict=True))]
    corpus = [pair.positive for pair in pairs]
    settings = MiningSettings(negatives=2, top=30, skip_first=1, standardised=standardised)
    found = mine(encoder, pairs, corpus, settings, folder=tmp_path)
    queries = np.array([pair.query.split()[:2] for pair in pairs], dtype=np.float64)
    documents = np.array([text.split()[:2] for text in corpus], dtype=np.float64)
    if standardised:
        queries = (queries - queries.mean(axis=0)) / documents.std(axis=0)
        documents = (documents - documents.mean(axis=0)) / documents.std(axis=0)
        queries, documents = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents))
    cosines = queries @ documents.T
    assert found.standardised == standardised
    for row, scores in enumerate(cosines):
        mine_ = {i for i in range(40) if pairs[i].query == pairs[row].query}
        ranked = [i for i in np.argsort(-scores, kind="stable") if i not in mine_][1:30]
        limit = scores[row] - 0.05 * abs(scores[row])
        fit = [i for i in ranked if scores[i] <= limit][:2]
        assert found.positions[row].tolist() == (fit if len(fit) == 2 else [-1, -1])
        assert found.positive_scores[row] == pytest.approx(scores[row], abs=1e-5)


def test_a_corpus_too_small_for_any_row_is_refused_before_the_work(encoder: Any, tmp_path: Path) -> None:
    pairs = [pair(at(0, "q"), at(10, "p")), pair(at(0, "r"), at(20, "s"))]
    corpus = [at(10, "p"), at(20, "s"), at(20, "S")]
    expected = (
        "2 distinct texts to choose from, at most 1 of them not a query's own; expected 2: 1 to skip and 1 to take"
    )
    with pytest.raises(InputError, match=expected):
        mine(encoder, pairs, corpus, MiningSettings(skip_first=1), folder=tmp_path / "work")
    with pytest.raises(InputError, match="no pairs"):
        mine(encoder, [], corpus, MiningSettings(), folder=tmp_path / "work")
    assert encoder.encoded == []
    assert not (tmp_path / "work").exists()


# --- what was finished -----------------------------------------------------------------------------

PAIRS = [pair(at(10 * i, f"q{i}"), at(10 * i + 5, f"p{i}")) for i in range(8)]


def stopped_run(encoder: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Mine and stop after two blocks of three rows each; return what was encoded."""
    monkeypatch.setattr(mining, "_QUERIES", 3)
    real, calls = mining._mine_block, iter([False, False, True])

    def fails(*arguments: Any, **options: Any) -> Any:
        if next(calls):
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mining, "_mine_block", fails)
        with pytest.raises(KeyboardInterrupt):
            mine_to_file(encoder, PAIRS, None, target, MiningSettings())
    done, encoder.encoded = encoder.encoded, []
    return list(done)


def count_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real, counted = mining._mine_block, []

    def counts(index: Any, plan: Any, rows: Any, **options: Any) -> Any:
        counted.append(len(rows))
        return real(index, plan, rows, **options)

    monkeypatch.setattr(mining, "_mine_block", counts)
    return counted


def test_a_stopped_run_goes_on_where_it_was(encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "mined.jsonl"
    assert len(stopped_run(encoder, target, monkeypatch)) == 16
    assert not target.exists()
    blocks = count_blocks(monkeypatch)
    mine_to_file(encoder, PAIRS, None, target, MiningSettings())
    assert (encoder.encoded, blocks) == ([], [2])
    assert not (tmp_path / "mined.jsonl.work").exists()
    mine_to_file(encoder, PAIRS, None, tmp_path / "unbroken.jsonl", MiningSettings())
    assert target.read_text() == (tmp_path / "unbroken.jsonl").read_text()


@pytest.mark.parametrize("change", ["model", "settings", "pairs", "pairing", "damage"])
def test_nothing_stale_or_damaged_is_used(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    target = tmp_path / "mined.jsonl"
    stopped_run(encoder, target, monkeypatch)
    blocks, pairs, settings = count_blocks(monkeypatch), list(PAIRS), MiningSettings()
    if change == "model":
        (encoder.folder / "weights").write_bytes(b"22")
    elif change == "settings":
        settings = MiningSettings(margin=0.9)
    elif change == "pairs":
        pairs[0] = pair(PAIRS[0].query, PAIRS[1].positive)
    elif change == "pairing":
        pairs.append(pair(PAIRS[0].query, PAIRS[1].positive))
    else:
        for file in (tmp_path / "mined.jsonl.work").rglob("*.npz"):
            file.write_bytes(file.read_bytes()[:-40])
    mine_to_file(encoder, pairs, None, target, settings)
    assert blocks == [3 + (change == "pairing"), 3, 2]
    assert len(encoder.encoded) == {"model": 16, "pairs": 7}.get(change, 0)
    mine_to_file(FakeEncoder(encoder.folder), pairs, None, tmp_path / "fresh.jsonl", settings)  # type: ignore[arg-type]
    assert target.read_text() == (tmp_path / "fresh.jsonl").read_text()


def test_rows_are_written_as_they_were_with_their_negatives(encoder: Any, tmp_path: Path) -> None:
    pairs = [
        pair(at(0, "ä"), at(10, "p"), negative="old", id=3),
        pair(at(0, "r"), at(80, "s")),  # 0.95 of cos 80° leaves nothing
        pair(at(5, "t"), at(10, "u")),
    ]
    mine_to_file(encoder, pairs, None, tmp_path / "one.jsonl", MiningSettings())
    rows = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert rows == [pairs[0].row | {"negative": at(80, "s")}, pairs[2].row | {"negative": at(80, "s")}]
    corpus = [at(80, "s"), at(85, "v")]
    mine_to_file(encoder, pairs[:1], corpus, tmp_path / "two.jsonl", MiningSettings(negatives=2))
    assert json.loads((tmp_path / "two.jsonl").read_text())["negative"] == corpus
    with pytest.raises(InputError, match="None of 1 rows has 1 negatives with at most 0.95"):
        mine_to_file(encoder, pairs[1:2], [at(70, "w")], tmp_path / "none.jsonl", MiningSettings())
    assert not (tmp_path / "none.jsonl").exists()


# --- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"query": "a", "answer": "b"}',
            "no field 'positive'; its fields are: query, answer",
        ),
        ("{}", "no field 'query'; its fields are: none"),
        ('{"query": "a", "positive": ["b"]}', "field 'positive' is array; expected a string"),
        ('{"query": "a", "positive": null}', "field 'positive' is null or missing; expected a string"),
        ('{"query": " ", "positive": "b"}', "the query is blank; expected some text"),
        ('{"query": "a", "positive": "\\ud800"}', "a lone surrogate (U+D800) at character 0"),
        ('["a", "b"]', "a JSON array; expected an object"),
        ('{"query": "a"', "not JSON"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(f'{{"query": "a", "positive": "b"}}\n\n{line}\n')
    with pytest.raises(InputError) as caught:
        read_pairs([file])
    assert str(caught.value).startswith(f"{file}, line 3: ")
    assert message in str(caught.value)


def test_files_are_read_one_after_the_other_and_none_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "a", "positive": "b", "more": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"positive": "d", "query": "c"}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "a.csv").write_text("query,positive\na,b\n")
    pairs = read_pairs([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert [(p.query, p.positive, p.row.get("more")) for p in pairs] == [("a", "b", 1), ("c", "d", None)]
    with pytest.raises(InputError, match="empty.jsonl: no row in it"):
        read_pairs([tmp_path / "a.jsonl", tmp_path / "empty.jsonl"])
    with pytest.raises(InputError, match=r"a.csv is not a file of JSON lines; expected .jsonl"):
        read_pairs([tmp_path / "a.csv"])


def test_a_query_may_be_called_anchor(tmp_path: Path) -> None:
    row = {"anchor": "a", "positive": "b", "negative": "c"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert read_pairs([tmp_path / "a.jsonl"]) == [Pair("a", "b", row)]


def test_blank_texts_of_a_corpus_are_left_out_and_broken_ones_named(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"text": "a"}\n{"text": " "}\n{"text": "b"}\n')
    assert read_corpus(file) == ["a", "b"]
    file.write_text('{"text": "a"}\n{"text": "\\ud800"}\n')
    with pytest.raises(InputError, match=r"corpus.jsonl, line 2: a lone surrogate"):
        read_corpus(file)

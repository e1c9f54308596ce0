"""Kinds of tasks: each metric against a second computation, and what the data must look like."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, v_measure_score

from tests.evaluation_fakes import FakeModel, text_vector
from unmask.errors import InputError
from unmask.evaluation.kinds import KINDS, classification, clustering, pairs, retrieval, sts
from unmask.evaluation.tasks import Options, Task
from unmask.text import Text

WORDS = ["oak", "elm", "ash", "fir", "yew", "fig", "bay", "box", "cat", "dog", "cow", "pig", "hen", "ewe", "ram", "owl"]
ALL = Options()


def sentences(count: int, *, seed: int = 0, words: Sequence[str] = WORDS) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(words, 4)) for _ in range(count)]


def write(file: Path, *rows: Sequence[object]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return file


def only(tasks: list[Task]) -> Task:
    (task,) = tasks
    return task


def figures(task: Task, model: FakeModel | None = None) -> dict[str, float]:
    return task.kind.statistic(task.run(model or FakeModel()))


def cosine(a: str, b: str, instruction: str = "") -> float:
    left, right = (text_vector(Text(instruction, text)).astype(float) for text in (a, b))
    return float(left @ right / math.sqrt(left @ left) / math.sqrt(right @ right))


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks, equal values sharing the mean of theirs."""
    return np.array([sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values])


# --- similarity ------------------------------------------------------------------------------------


@pytest.fixture
def scored(tmp_path: Path) -> list[tuple[float, str, str]]:
    gold = [0.5 * number for number in np.random.default_rng(1).integers(0, 9, 40)]
    return list(zip(gold, sentences(40, seed=2), sentences(40, seed=3), strict=True))


def test_correlations_are_those_of_cosines_and_scores(tmp_path: Path, scored: list[tuple[float, str, str]]) -> None:
    task = only(sts.read(write(tmp_path / "pets.tsv", *scored), ALL))
    gold, cosines = [row[0] for row in scored], [cosine(a, b) for _, a, b in scored]
    expected = {
        "spearman": np.corrcoef(ranks(gold), ranks(cosines))[0, 1],
        "pearson": np.corrcoef(gold, cosines)[0, 1],
    }
    assert figures(task) == pytest.approx(expected, abs=1e-6)
    assert (task.name, task.size, task.kind) == ("pets", 80, KINDS["sts"])


def test_an_instruction_goes_before_both_sentences(tmp_path: Path, scored: list[tuple[float, str, str]]) -> None:
    model = FakeModel()
    file = write(tmp_path / "pets.tsv", *scored)
    task = only(sts.read(file, Options(instructions={"pets": "Same animal?"})))
    task.run(model)
    assert {text.instruction for text in model.asked[0]} == {"Same animal?"}
    assert task.settings["instruction"] == "Same animal?"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(1, "a", "b"), ("two", "a", "b")], "pets.tsv, line 2"),
        ([(1, "a", "b"), (2, "a")], "pets.tsv, line 2"),
        ([(1, "a", "b"), (1, "a", "c")], "2 pairs; expected at least two, of different scores"),
        ([], "0 pairs"),
    ],
)
def test_scored_pairs_that_say_nothing_are_refused(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sts.read(write(tmp_path / "pets.tsv", *rows), ALL)


def test_a_constant_cosine_is_an_error(tmp_path: Path, scored: list[tuple[float, str, str]]) -> None:
    task = only(sts.read(write(tmp_path / "pets.tsv", *scored), ALL))
    with pytest.raises(InputError, match="the same cosine, 1.0000: the figures are undefined"):
        task.run(FakeModel(vector=lambda text: [1 + 1e-9 * len(text.content), 1]))


def test_a_resample_without_difference_is_undefined_and_says_nothing() -> None:
    constant = {"gold": np.ones(3), "cosine": np.array([0.1, 0.2, 0.3])}
    assert all(map(math.isnan, sts.statistic(constant).values()))
    assert math.isnan(pairs.statistic({"gold": np.ones(3, int), "cosine": np.arange(3.0)})["average_precision"])


# --- pairs -----------------------------------------------------------------------------------------


def test_average_precision_is_the_mean_precision_at_each_paraphrase(tmp_path: Path) -> None:
    rows = list(zip([1, 0, 0, 1, 0, 1] * 5, sentences(30, seed=4), sentences(30, seed=5), strict=True))
    task = only(pairs.read(write(tmp_path / "same.tsv", ("label", "one", "two"), *rows), ALL))
    order = sorted(rows, key=lambda row: -cosine(row[1], row[2]))
    found = [number for number, row in enumerate(order, start=1) if row[0] == 1]
    expected = np.mean([hits / rank for hits, rank in enumerate(found, start=1)])
    assert figures(task) == {"average_precision": pytest.approx(expected)}
    assert task.size == 60


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(1, "a", "b"), (2, "a", "b")], r"same.tsv, line 2: got '2\\ta\\tb'; expected 0/1<TAB>sentence<TAB>sentence"),
        ([(1, "a", "b"), (0, "a", " ")], "same.tsv, line 2"),
        ([(1, "a", "b"), (1, "a", "c")], "2 pairs, all of class 1"),
        ([], "holds no row"),
    ],
)
def test_pairs_that_say_nothing_are_refused(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        pairs.read(write(tmp_path / "same.tsv", *rows), ALL)


# --- classification --------------------------------------------------------------------------------


def labelled(count: int, *, seed: int) -> list[tuple[str, str]]:
    """Three classes, most of whose words are their own."""
    generator = np.random.default_rng(seed)
    labels = [("tree", "bird", "farm")[number] for number in generator.integers(0, 3, count)]
    own = {"tree": WORDS[:6], "bird": WORDS[6:11], "farm": WORDS[11:]}
    return [(label, " ".join([*generator.choice(own[label], 2), *generator.choice(WORDS, 3)])) for label in labels]


def macro_f1(gold: Sequence[int], found: Sequence[int]) -> float:
    each = []
    for label in {*gold, *found}:
        hits = sum(a == b == label for a, b in zip(gold, found, strict=True))
        each.append(2 * hits / (list(gold).count(label) + list(found).count(label)))
    return float(np.mean(each))


@pytest.fixture
def kinds_of(tmp_path: Path) -> Path:
    write(tmp_path / "kinds" / "train.tsv", *labelled(90, seed=6))
    write(tmp_path / "kinds" / "test.tsv", *labelled(40, seed=7), ("unseen", "oak"))
    return tmp_path / "kinds"


def test_accuracy_and_macro_f1_of_full_and_few(kinds_of: Path) -> None:
    task = only(classification.read(kinds_of, ALL))
    samples = task.run(FakeModel())
    gold, full, shots = samples["gold"], samples["full"], samples["shots"]
    expected = {
        "accuracy": np.mean([a == b for a, b in zip(gold, full, strict=True)]),
        "macro_f1": macro_f1(gold.tolist(), full.tolist()),
        "accuracy_8shot": np.mean([[a == b for a, b in zip(gold, few, strict=True)] for few in shots.T]),
        "macro_f1_8shot": np.mean([macro_f1(gold.tolist(), few.tolist()) for few in shots.T]),
    }
    found = classification.statistic(samples)
    assert found == pytest.approx(expected)
    assert found["macro_f1"] == pytest.approx(f1_score(gold, full, average="macro"))
    assert 0.5 < found["accuracy_8shot"] < found["accuracy"] < 1
    assert (gold[-1], task.size, task.name) == (3, 131, "kinds")  # "unseen" is the last of the names


def test_the_few_are_eight_a_class_and_differ_from_draw_to_draw() -> None:
    labels = np.array([0] * 50 + [1] * 20 + [2] * 3)
    draws = [classification._some_of_each(labels, seed) for seed in range(4)]
    assert [np.bincount(labels[rows]).tolist() for rows in draws] == [[8, 8, 3]] * 4
    assert len({tuple(rows) for rows in draws}) == 4


def test_the_regression_separates_what_can_be_separated() -> None:
    known = np.array([[0, 1], [0, 2], [5, 1], [5, 2]], dtype=np.float32)
    asked = np.array([[-1, 1], [6, 1]], dtype=np.float32)
    assert classification._predict(known, np.array([0, 0, 2, 2]), asked).tolist() == [0, 2]


def test_one_class_and_an_empty_split_are_refused(kinds_of: Path) -> None:
    write(kinds_of / "train.tsv", ("tree", "oak"), ("tree", "elm"))
    with pytest.raises(InputError, match="train.tsv: 2 rows, all of label 'tree'; expected at least two labels"):
        classification.read(kinds_of, ALL)
    write(kinds_of / "train.tsv", ("tree", "oak"), ("bird", "owl"))
    write(kinds_of / "test.tsv")
    with pytest.raises(InputError, match="test.tsv holds no row; expected lines of label<TAB>text"):
        classification.read(kinds_of, ALL)
    (kinds_of / "test.tsv").unlink()
    with pytest.raises(InputError, match="test.tsv cannot be read"):
        classification.read(kinds_of, ALL)


@pytest.mark.parametrize("kind", ["classification", "clustering"])
def test_vectors_that_are_all_the_same_are_an_error(kinds_of: Path, kind: str) -> None:
    reader = {"classification": classification.read, "clustering": clustering.read}[kind]
    path = kinds_of if kind == "classification" else kinds_of / "train.tsv"
    with pytest.raises(InputError, match="the same vector: the figures are undefined"):
        only(reader(path, ALL)).run(FakeModel(vector=lambda _: [2, 1]))


# --- clustering ------------------------------------------------------------------------------------


def test_v_measure_is_scikit_learns_and_the_mean_over_starts(kinds_of: Path) -> None:
    task = only(clustering.read(kinds_of / "train.tsv", ALL))
    samples = task.run(FakeModel())
    assert samples["clusters"].shape == (90, clustering.SEEDS)
    expected = np.mean([v_measure_score(samples["gold"], column) for column in samples["clusters"].T])
    assert clustering.statistic(samples) == {"v_measure": pytest.approx(expected)}
    assert 0.1 < expected < 1


def test_a_v_measure_that_is_not_scikit_learns_is_never_written(
    kinds_of: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustering, "_v_measure", lambda gold, found: 0.5)
    with pytest.raises(AssertionError, match=r"0\.5 is not scikit-learn's"):
        only(clustering.read(kinds_of / "train.tsv", ALL)).run(FakeModel())


def test_clusters_are_as_many_as_labels_and_found_where_they_are_apart(tmp_path: Path) -> None:
    rows = [(word, f"{word} " * 3) for word in WORDS[:4] for _ in range(5)]
    task = only(clustering.read(write(tmp_path / "trees.tsv", *rows), ALL))
    clusters = task.run(FakeModel())["clusters"]
    assert {len(set(column)) for column in clusters.T.tolist()} <= {3, 4}  # a poor start joins two
    assert figures(task)["v_measure"] > 0.9


def test_one_label_to_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 texts, all of label 'x'; expected at least two labels"):
        clustering.read(write(tmp_path / "one.tsv", ("x", "a"), ("x", "b")), ALL)


# --- retrieval -------------------------------------------------------------------------------------


def collection(folder: Path, documents: int = 60, queries: int = 8) -> dict[str, dict[str, int]]:
    """Write a collection; return its judgements."""
    generator = np.random.default_rng(8)
    texts, asked = sentences(documents, seed=9), sentences(queries, seed=10)
    qrels = {
        f"q{row}": {f"d{n}": int(generator.integers(0, 3)) for n in generator.choice(documents, 9, replace=False)}
        for row in range(queries)
    }
    corpus = [{"_id": f"d{n}", "title": text[:3], "text": text[4:]} for n, text in enumerate(texts)]
    lines(folder / "corpus.jsonl", corpus)
    lines(folder / "queries.jsonl", [{"_id": f"q{n}", "text": text} for n, text in enumerate([*asked, "no one asks"])])
    rows = [(query, document, grade) for query, grades in qrels.items() for document, grade in grades.items()]
    write(folder / "qrels.tsv", ("query-id", "corpus-id", "score"), *rows)
    return qrels


def lines(file: Path, objects: Sequence[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(each) + "\n" for each in objects))


def by_hand(ranked: list[str], grades: dict[str, int]) -> dict[str, float]:
    """The four metrics of one query, as their definitions have them."""
    gains = [grades.get(document, 0) for document in ranked]
    relevant = sum(grade > 0 for grade in grades.values())
    discounts = 1 / np.log2(np.arange(2, 12))
    best = sorted(grades.values(), reverse=True)[:10]
    hits = [rank for rank, gain in enumerate(gains, start=1) if gain > 0]
    return {
        "ndcg@10": float(gains[:10] @ discounts[: len(gains[:10])] / (best @ discounts[: len(best)])),
        "mrr@10": 1 / hits[0] if hits[0] <= 10 else 0.0,
        "recall@100": sum(rank <= 100 for rank in hits) / relevant,
        "map": sum(number / rank for number, rank in enumerate(hits, start=1)) / relevant,
    }


@pytest.mark.parametrize("block", [4096, 7])
def test_retrieval_metrics_follow_their_definitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    qrels = collection(tmp_path / "wood", documents=150)
    model = FakeModel()
    task = only(retrieval.read(tmp_path / "wood", Options(instructions={"wood": "Which?"})))
    samples = task.run(model)
    texts, asked = sentences(150, seed=9), sentences(8, seed=10)
    for row, (query, grades) in enumerate(qrels.items()):
        near = [text_vector(Text("Which?", asked[row])) for _ in texts]
        vectors = [text_vector(Text("", text)) for text in texts]
        scores = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(near, vectors, strict=True)]
        ranked = [f"d{n}" for n in sorted(range(150), key=lambda n: -scores[n])]
        expected = by_hand(ranked, grades)
        assert {name: samples[name][row] for name in samples} == pytest.approx(expected, abs=1e-6), query
    assert retrieval.statistic(samples)["map"] == pytest.approx(samples["map"].mean())
    assert task.size == 158
    assert [text.instruction for text in model.asked[0]] == ["Which?"] * 8
    assert {text.instruction for texts in model.asked[1:] for text in texts} == {""}
    assert max(len(texts) for texts in model.asked[1:]) == min(block, 150)


def test_a_corpus_is_streamed_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", 50)
    folder = tmp_path / "big"
    lines(folder / "corpus.jsonl", [{"_id": f"d{n}", "text": f"{n} " * 5_000} for n in range(800)])
    lines(folder / "queries.jsonl", [{"_id": "q", "text": "Which?"}])
    write(folder / "qrels.tsv", ("q", "d5", 1))

    class Lengths(FakeModel):
        def vectors(self, texts: Any) -> Any:
            return np.array([[len(text.content), 1] for text in texts], dtype=np.float32)

    size = (folder / "corpus.jsonl").stat().st_size
    tracemalloc.start()
    try:
        only(retrieval.read(folder, ALL)).run(Lengths())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 15_000_000
    assert most < size / 5


def test_only_the_best_documents_are_kept_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "KEPT", 5)
    texts = [(str(n), text) for n, text in enumerate(sentences(50, seed=11))]
    queries = np.stack([text_vector(Text("", text)) for text in sentences(3, seed=12)])
    found = []
    for block in (50, 8, 1):
        monkeypatch.setattr(retrieval, "BLOCK", block)
        found.append(retrieval._search(FakeModel(), queries, iter(texts)))
    unit = np.stack([text_vector(Text("", text)) for _, text in texts])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert found[0].tolist() == np.argsort(-(queries @ unit.T), axis=1, kind="stable")[:, :5].tolist()
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_of_equal_documents_the_earlier_comes_first(tmp_path: Path) -> None:
    texts = [("a", "oak"), ("b", "elm"), ("c", "oak"), ("d", "oak")]
    found = retrieval._search(FakeModel(), text_vector(Text("", "oak"))[None], iter(texts))
    assert found.tolist() == [[0, 2, 3, 1]]


def test_without_an_instruction_of_its_own_a_query_gets_the_default(tmp_path: Path) -> None:
    collection(tmp_path / "wood")
    assert only(retrieval.read(tmp_path / "wood", ALL)).settings["instruction"].startswith("Given a question")
    assert only(retrieval.read(tmp_path / "wood", Options(query="Q:"))).settings["instruction"] == "Q:"
    bare = Options(instructions={"wood": ""}, query="Q:")
    assert only(retrieval.read(tmp_path / "wood", bare)).settings["instruction"] == ""


def test_beirs_own_place_of_judgements_is_known(tmp_path: Path) -> None:
    collection(tmp_path / "wood")
    before = figures(only(retrieval.read(tmp_path / "wood", ALL)))
    (tmp_path / "wood/qrels").mkdir()
    (tmp_path / "wood/qrels.tsv").rename(tmp_path / "wood/qrels/test.tsv")
    assert figures(only(retrieval.read(tmp_path / "wood", ALL))) == before


BROKEN = {
    "a document that is not there": ("qrels.tsv", "q0\td999\t1\n", "line 74: the judgement points nowhere, corpus.js"),
    "a query that is not there": ("qrels.tsv", "q99\td1\t1\n", "line 74: the judgement points nowhere, queries.jsonl"),
    "a grade that is no number": ("qrels.tsv", "q0\td1\tmuch\n", r"line 74: got 'q0\\td1\\tmuch'; expected query-id"),
    "an id twice": ("corpus.jsonl", '{"_id": "d3", "text": "x"}\n', "line 61: the id 'd3' stands there a second time"),
    "no JSON": ("corpus.jsonl", "{oops\n", "corpus.jsonl, line 61: not JSON"),
    "no id": ("queries.jsonl", '{"text": "x"}\n', "queries.jsonl, line 10: no field '_id'"),
    "half a surrogate": ("corpus.jsonl", '{"_id": "x", "text": "\\ud800"}\n', "line 61: a lone surrogate"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_collection_names_file_and_line(tmp_path: Path, case: str) -> None:
    collection(tmp_path / "wood")
    name, line, said = BROKEN[case]
    with (tmp_path / "wood" / name).open("a") as file:
        file.write(line)
    with pytest.raises(InputError, match=said):
        retrieval.read(tmp_path / "wood", ALL)


def test_judgements_without_a_relevant_document_are_refused(tmp_path: Path) -> None:
    collection(tmp_path / "wood")
    write(tmp_path / "wood/qrels.tsv", ("q0", "d1", 0), ("q1", "d1", 0))
    with pytest.raises(InputError, match="no query has a relevant document"):
        retrieval.read(tmp_path / "wood", ALL)
    write(tmp_path / "wood/corpus.jsonl")
    with pytest.raises(InputError, match="corpus.jsonl holds nothing"):
        retrieval.read(tmp_path / "wood", ALL)


def test_cosines_that_order_nothing_are_an_error(tmp_path: Path) -> None:
    collection(tmp_path / "wood")
    with pytest.raises(InputError, match="each of the 60 documents the same cosine with a query"):
        only(retrieval.read(tmp_path / "wood", ALL)).run(FakeModel(vector=lambda _: [1, 2, 3]))


# --- samples ---------------------------------------------------------------------------------------


def test_a_limit_draws_the_same_items_for_a_seed_and_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "topics.tsv", *labelled(90, seed=13))
    models = [FakeModel() for _ in range(3)]
    tasks = [only(clustering.read(file, Options(limit=20, seed=seed))) for seed in (0, 0, 1)]
    for model, task in zip(models, tasks, strict=True):
        task.run(model)
    first, same, other = (model.asked[0] for model in models)
    everything = [Text("", text) for _, text in labelled(90, seed=13)]
    assert first == same != other
    assert len(first) == 20
    assert first == [text for text in everything if text in first][:20]  # in the order of the file
    assert (tasks[0].settings["sample"], tasks[0].size) == ({"texts": "20 of 90"}, 20)
    assert "sample" not in only(clustering.read(file, Options(limit=90))).settings


def test_a_limit_holds_for_train_and_test_rows(kinds_of: Path) -> None:
    task = only(classification.read(kinds_of, Options(limit=30)))
    assert (task.size, task.settings["sample"]) == (60, {"train": "30 of 90", "test": "30 of 41"})


def test_a_limited_collection_keeps_what_was_judged_first(tmp_path: Path) -> None:
    qrels = collection(tmp_path / "wood", documents=60)
    model = FakeModel()
    task = only(retrieval.read(tmp_path / "wood", Options(limit=40)))
    samples = task.run(model)
    judged = {document for grades in qrels.values() for document in grades}
    texts = {text: f"d{n}" for n, text in enumerate(sentences(60, seed=9))}
    kept = {texts[text.content] for text in model.asked[1]}
    assert len(kept) == max(40, len(judged))
    assert kept >= judged
    assert task.settings["sample"] == {"documents": f"{len(kept)} of 60"}
    assert len(samples["map"]) == 8

    few = only(retrieval.read(tmp_path / "wood", Options(limit=3)))
    assert few.settings["sample"]["queries"] == "3 of 8"
    assert len(few.run(FakeModel())["map"]) == 3


def test_the_settings_change_with_the_data(tmp_path: Path) -> None:
    collection(tmp_path / "wood")
    before = only(retrieval.read(tmp_path / "wood", ALL)).settings
    with (tmp_path / "wood/corpus.jsonl").open("a") as file:
        file.write('{"_id": "new", "text": "oak"}\n')
    after = only(retrieval.read(tmp_path / "wood", ALL)).settings
    assert before["data"] != after["data"]
    assert json.loads(json.dumps(after)) == after

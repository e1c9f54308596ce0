"""Real tasks of mteb, a kind each, over our own sentences: its scores are what our vectors give by another way."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, ndcg_score, v_measure_score

from tests import mteb_tasks as local
from tests.tiny import write_base
from unmask import Encoder
from unmask.evaluation.mteb.adapter import MtebEncoder, adapt

pytestmark = pytest.mark.usefixtures("socket_disabled")

#: What mteb's kinds of tasks fall back to, with the colon that ours end in (mteb 2.26, ``abstask_prompt``).
STS = "Retrieve semantically similar text:"
PAIRS = "Retrieve text that are semantically similar to the given text:"
RERANKING = "Rerank the notes:"
CLUSTERING = "Identify categories in user passages:"
SUMMARIES = "Given a news summary, retrieve other semantically similar summaries:"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_base(tmp_path_factory.mktemp("model") / "base"), device="cpu")


def score(encoder: Encoder, task: Any) -> float:
    """Return mteb's main score of a task."""
    result = mteb.evaluate(adapt(encoder, name="tests/tiny"), task, cache=None, show_progress_bar=False)
    return float(result.task_results[0].get_score())


def units(encoder: Encoder, texts: Iterable[str], instruction: str) -> np.ndarray[Any, Any]:
    """Return normalised vectors, each text encoded alone."""
    vectors = np.stack([encoder.encode(text, instruction=instruction, empty="zero") for text in texts])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def document(row: tuple[str, str]) -> str:
    """Return a document as mteb joins it."""
    title, text = row
    return f"{title} {text}" if title else text


def test_the_adapter_is_an_encoder_of_mteb(encoder: Encoder) -> None:
    from mteb.models import CrossEncoderProtocol, EncoderProtocol, SearchProtocol

    model = adapt(encoder, name="tests/tiny")
    assert isinstance(model, EncoderProtocol)
    assert not isinstance(model, CrossEncoderProtocol | SearchProtocol)


def test_sts(encoder: Encoder) -> None:
    left, right, gold = zip(*local.LocalSTS.rows, strict=True)
    cosines = (units(encoder, left, STS) * units(encoder, right, STS)).sum(axis=1)
    assert score(encoder, local.LocalSTS()) == pytest.approx(spearmanr(cosines, gold).statistic, abs=1e-6)


def test_pair_classification(encoder: Encoder) -> None:
    left, right, labels = zip(*local.LocalPairs.rows, strict=True)
    cosines = (units(encoder, left, PAIRS) * units(encoder, right, PAIRS)).sum(axis=1)
    assert score(encoder, local.LocalPairs()) == pytest.approx(average_precision_score(labels, cosines), abs=1e-6)


def test_retrieval(encoder: Encoder) -> None:
    task = local.LocalRetrieval
    instruction = "Given a question, retrieve the note that answers it:"
    queries = units(encoder, task.queries.values(), instruction)
    documents = units(encoder, map(document, task.documents.values()), "")
    relevant = [[task.relevant[query].get(key, 0) for key in task.documents] for query in task.queries]
    # Two documents are the same text: ties are averaged by scikit-learn, and both are relevant.
    assert score(encoder, task()) == pytest.approx(ndcg_score(relevant, queries @ documents.T, k=10), abs=1e-5)


def test_reranking(encoder: Encoder) -> None:
    task = local.LocalReranking
    expected = []
    for query, candidates in task.candidates.items():
        asked = units(encoder, [task.queries[query]], RERANKING)
        found = units(encoder, [document(task.documents[key]) for key in candidates], "")
        expected.append(
            average_precision_score([task.relevant[query].get(key, 0) for key in candidates], (asked @ found.T)[0])
        )
    assert score(encoder, task()) == pytest.approx(np.mean(expected), abs=1e-5)


def test_classification(encoder: Encoder) -> None:
    task, instruction = local.LocalClassification, "Say what the remark is about:"

    def rows(split: list[tuple[str, int]]) -> tuple[Any, list[int]]:
        return encoder.encode([text for text, _ in split], instruction=instruction), [label for _, label in split]

    expected = LogisticRegression(max_iter=100).fit(*rows(task.train)).score(*rows(task.test))
    assert score(encoder, task()) == pytest.approx(expected, abs=1e-6)


def test_clustering(encoder: Encoder) -> None:
    task = local.LocalClustering
    vectors = encoder.encode([text for text, _ in task.rows], instruction=CLUSTERING)
    labels = np.array([label for _, label in task.rows])
    draw = random.Random(42)
    expected = []
    for _ in range(task.n_clusters):
        drawn = draw.choices(range(len(labels)), k=task.max_documents_per_cluster)
        found = MiniBatchKMeans(n_clusters=3, batch_size=512, n_init=1, random_state=42).fit_predict(vectors[drawn])
        expected.append(v_measure_score(labels[drawn], found))
    assert score(encoder, task()) == pytest.approx(np.mean(expected), abs=1e-6)


def test_summarization(encoder: Encoder) -> None:
    expected = []
    for _, people, machines, relevance in local.LocalSummarization.rows:
        cosines = units(encoder, machines, SUMMARIES) @ units(encoder, people, SUMMARIES).T
        expected.append(spearmanr(cosines.max(axis=1), relevance).statistic)
    assert score(encoder, local.LocalSummarization()) == pytest.approx(np.mean(expected), abs=1e-6)


class Spy:
    """Notes what is encoded, with which instruction."""

    def __init__(self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[tuple[str, str]] = []
        stream = encoder.encode_stream

        def noted(texts: Any, **options: Any) -> Any:
            self.texts += [(text.instruction, text.content) for text in texts]
            return stream(texts, **options)

        monkeypatch.setattr(encoder, "encode_stream", noted)


def test_only_queries_carry_the_instruction(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    task, spy = local.LocalRetrieval, Spy(encoder, monkeypatch)
    score(encoder, task())
    with_instruction = {content for instruction, content in spy.texts if instruction}
    without = {content for instruction, content in spy.texts if not instruction}
    assert with_instruction == set(task.queries.values())
    assert without == {document(row) for row in task.documents.values()}


@pytest.mark.parametrize(
    "task",
    [local.LocalSTS, local.LocalPairs, local.LocalClassification, local.LocalClustering, local.LocalSummarization],
)
def test_both_sides_of_symmetric_tasks_carry_it(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, task: type[Any]
) -> None:
    spy = Spy(encoder, monkeypatch)
    score(encoder, task())
    assert spy.texts
    assert len({instruction for instruction, _ in spy.texts}) == 1
    assert all(instruction.endswith(":") for instruction, _ in spy.texts)


@pytest.mark.parametrize("task", [local.LocalSTS, local.LocalPairs, local.LocalRetrieval, local.LocalClassification])
def test_each_distinct_text_is_encoded_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch, task: type[Any]) -> None:
    spy = Spy(encoder, monkeypatch)
    score(encoder, task())
    assert len(spy.texts) == len(set(spy.texts))


def batches(*texts: str) -> list[dict[str, list[str]]]:
    return [{"text": [text]} for text in texts]


def asked(model: MtebEncoder, task: Any, *texts: str) -> Any:
    return model.encode(batches(*texts), task_metadata=task.metadata, hf_split="test", hf_subset="default")


def test_vectors_are_forgotten_when_the_next_task_begins(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    model = adapt(encoder, name="tests/tiny", encoded=counted.append)
    first = asked(model, local.LocalSTS, "one", "two", "one")
    assert counted == [2]
    np.testing.assert_array_equal(first[0], first[2])
    asked(model, local.LocalSTS, "two", "three")
    assert counted == [2, 1]
    asked(model, local.LocalConstant, "one")
    assert counted == [2, 1, 1]


def test_vectors_that_have_no_room_are_encoded_again_and_right(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.evaluation.mteb.adapter.REMEMBERED_BYTES", 2 * 4 * encoder.dimension)
    counted: list[int] = []
    model = adapt(encoder, name="tests/tiny", encoded=counted.append)
    asked(model, local.LocalSTS, "one", "two", "three")
    again = asked(model, local.LocalSTS, "three", "one", "four", "two")
    assert counted == [3, 2]  # "two" and "three" had room, "one" had not
    np.testing.assert_allclose(
        again, encoder.encode(["three", "one", "four", "two"], instruction=STS), rtol=1e-4, atol=1e-5
    )


def test_another_precision_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="precision 'int8'; expected float32"):
        mteb.evaluate(
            adapt(encoder, name="tests/tiny"), local.LocalSTS(), cache=None, encode_kwargs={"precision": "int8"}
        )


def test_metadata_tells_what_was_loaded(encoder: Encoder, tmp_path: Path) -> None:
    meta = adapt(encoder, name="tiny").mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.max_tokens) == ("unmask/tiny", encoder.dimension, encoder.max_length)
    assert meta.n_parameters == sum(each.numel() for each in encoder.backbone.model.parameters())
    assert meta.use_instructions
    assert meta.similarity_fn_name.value == "cosine"

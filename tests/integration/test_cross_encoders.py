"""What a worker does with cross-encoders: the scores of sentence-transformers, and nothing of a checkpoint is run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from tests.tiny_cross_encoder import write_cross_encoder
from tests.tiny_tokenizer import SENTENCES
from unmask.engine import cross_encoders
from unmask.engine.cross_encoders import CrossEncoders, LoadedCrossEncoder
from unmask.engine.pairs import PairTokenizer
from unmask.engine.settings import ModelSettings, Weights
from unmask.errors import BackboneError, CheckpointError, InputError
from unmask.text import Text

QUERIES = ["Who repaired the radio?", "bread", "[SEP] Where do they skate, and when? " * 9]
DOCUMENTS = [*SENTENCES[:20], "x", "  Prices\n rose.  ", " ".join(SENTENCES), "[CLS] [SEP] [MASK]"]
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross") / request.param, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross") / "refused")


@pytest.fixture
def models() -> CrossEncoders:
    return CrossEncoders("cpu", None)


def tokenizer_of(models: CrossEncoders, folder: Path, max_length: int | None = None) -> PairTokenizer:
    read = models.read(ModelSettings(name="r", source=str(folder), max_length=max_length))
    tokenizer: PairTokenizer = pickle.loads(read).tokenizer
    return tokenizer


def scores(loaded: LoadedCrossEncoder, tokenizer: PairTokenizer, pairs: Sequence[tuple[str, str]]) -> Any:
    read = tokenizer.tokenize([Text(query, document) for query, document in pairs])
    ids = np.concatenate([pair.ids for pair in read]).astype(np.int32)
    return loaded.vectors(ids, [len(pair.ids) for pair in read], [pair.start for pair in read])


def plain(text: str) -> str:
    """Return a text without what sentence-transformers would take for special tokens."""
    return text.replace("[", "").replace("]", "")


def test_scores_are_those_of_sentence_transformers(models: CrossEncoders, folder: Path) -> None:
    pairs = [(plain(query), plain(document)) for query, document in PAIRS]
    loaded = models.load(Weights(source=str(folder)))
    loaded.warm_up()
    assert (loaded.dimension, loaded.size) == (1, sum(4 * each.numel() for each in loaded._model.parameters()))
    expected = CrossEncoder(str(folder), device="cpu").predict(pairs, show_progress_bar=False)
    found = scores(loaded, tokenizer_of(models, folder), pairs)
    assert (found.shape, found.dtype) == ((len(pairs), 1), np.float32)
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-5)
    assert np.ptp(found) > 0.05  # they tell pairs apart
    alone = [scores(loaded, tokenizer_of(models, folder), [pair])[0, 0] for pair in pairs[::7]]
    np.testing.assert_allclose(alone, found[::7, 0], atol=2e-5)


def test_a_shorter_length_cuts_as_sentence_transformers_does(models: CrossEncoders, bert: Path) -> None:
    expected = CrossEncoder(str(bert), device="cpu", max_length=16).predict(PAIRS[:20], show_progress_bar=False)
    tokenizer = tokenizer_of(models, bert, 16)
    found = scores(models.load(Weights(source=str(bert))), tokenizer, PAIRS[:20])
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-5)
    assert tokenizer.max_length == 16


def test_special_tokens_of_a_caller_change_nothing(models: CrossEncoders, bert: Path) -> None:
    """To the library ``[SEP]`` inside a document ends it; here it is three unknown tokens."""
    tokenizer = tokenizer_of(models, bert)
    (found,) = tokenizer.tokenize([Text("bread", "fish [SEP] bread")])
    assert found.ids.count(3) == 2


def test_rows_of_one_pass_are_of_about_one_length() -> None:
    lengths = [5, 100, 80, 7, 74, 100, 6]
    groups = cross_encoders._alike(lengths)
    assert sorted(row for group in groups for row in group) == list(range(7))
    assert groups == [[1, 5, 2], [4], [3, 6], [0]]


def test_a_model_that_is_read_in_another_way_is_refused(
    models: CrossEncoders, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = models.load(Weights(source=str(bert)))
    backend, longest = cross_encoders._backend(bert)
    tokenizer = PairTokenizer(backend, max_length=longest)
    loaded.prove(tokenizer)
    monkeypatch.setattr(tokenizer, "_until_second", None)  # no types
    with pytest.raises(BackboneError, match="not those of sentence-transformers"):
        loaded.prove(tokenizer)


def test_a_model_without_numbers_is_not_ready(models: CrossEncoders, bert: Path) -> None:
    loaded = models.load(Weights(source=str(bert)))
    with torch.no_grad():
        next(loaded._model.parameters()).fill_(float("nan"))
    with pytest.raises(BackboneError, match="not finite"):
        loaded.warm_up()


def changed(bert: Path, folder: Path, **settings: Any) -> Path:
    """Copy a checkpoint with another configuration."""
    folder.mkdir()
    for file in bert.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((bert / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


def refused(models: CrossEncoders, folder: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        models.read(ModelSettings(name="r", source=str(folder)))
    with pytest.raises(CheckpointError, match=match):
        models.load(Weights(source=str(folder)))


def test_what_is_no_reranker_is_refused(models: CrossEncoders, bert: Path, tmp_path: Path) -> None:
    refused(models, changed(bert, tmp_path / "base", architectures=["BertModel"]), "its architecture is BertModel")
    labels = {"id2label": {"0": "no", "1": "yes", "2": "maybe"}}
    refused(models, changed(bert, tmp_path / "labels", **labels), "gives 3 labels; expected one")
    (tmp_path / "nothing").mkdir()
    refused(models, tmp_path / "nothing", "it holds nothing")
    refused(models, tmp_path / "none", "There is no file or folder")


def test_nothing_of_a_checkpoint_is_run(models: CrossEncoders, bert: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    code = f"open({str(mark)!r}, 'w').close()\nclass C: ...\nclass M: ...\n"
    remote = changed(
        bert, tmp_path / "remote", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModel": "own.M"}
    )
    (remote / "own.py").write_text(code)
    refused(models, remote, "trust_remote_code")
    module = changed(bert, tmp_path / "module")
    (module / "own.py").write_text(code)
    (module / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "own.M"}]))
    refused(models, module, "has the modules own.M; expected a transformer alone")
    pickled = changed(bert, tmp_path / "pickled")
    torch.save({}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    refused(models, pickled, "pickled weights are not read")
    assert not mark.exists()


def test_lengths_that_a_model_does_not_read_are_refused(models: CrossEncoders, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_length is 65; this model reads 64 tokens at most"):
        tokenizer_of(models, bert, 65)
    endless = changed(bert, tmp_path / "endless", max_position_embeddings=10**7)
    settings = json.loads((endless / "tokenizer_config.json").read_text())
    (endless / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 10**30}))
    with pytest.raises(InputError, match="Set its max_length"):
        tokenizer_of(models, endless)
    assert tokenizer_of(models, endless, 100).max_length == 100

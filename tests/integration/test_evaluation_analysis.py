"""The analysis on tiny models: what must be one, nil or refused is, and what is broken is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import write_base, write_home
from unmask import Encoder
from unmask.backbone.backbone import Backbone
from unmask.backbone.bidirectional import padded_states, set_direction
from unmask.backbone.layout import Layout
from unmask.corpora import Entry
from unmask.errors import InputError
from unmask.evaluation.analysis import Analysis, ScoredPairs, analyse, report, rows, verdict, write
from unmask.evaluation.analysis.base import causal_base
from unmask.evaluation.analysis.effects import cut_effect, instruction_effect, length_effect
from unmask.evaluation.analysis.forms import encode_pairs, in_form
from unmask.evaluation.analysis.invariance import invariance
from unmask.evaluation.analysis.layers import layer_states, movement
from unmask.evaluation.analysis.plots import PLOTS
from unmask.evaluation.analysis.sample import TEXTS, TOKENS, NotMeasuredError, Sample, draw, vectors_of

WORDS = [
    "the", "library", "opens", "every", "morning", "and", "people", "read", "old", "books", "about", "rain", "stones",
    "music", "or", "long", "winters",
]  # fmt: skip
#: From three words to a hundred.
TEXTS_GIVEN = [
    " ".join(WORDS[(start + step * i) % len(WORDS)] for i in range(length))
    for start, (step, length) in enumerate([(1, 3), (2, 7), (3, 12), (5, 4), (7, 30), (1, 16), (2, 100), (3, 5)] * 2)
]
PAIRS = ScoredPairs(
    name="dev.tsv",
    gold=(0.0, 1.0, 2.5, 4.5, 5.0, 3.0),
    left=tuple(TEXTS_GIVEN[:6]),
    right=tuple(TEXTS_GIVEN[6:12]),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(home))
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", home / "encoders")


@pytest.fixture(scope="module")
def base(home: Path) -> Path:
    return home / "models" / "smollm2-135m"


@pytest.fixture(scope="module")
def trained(home: Path) -> Encoder:
    """Base and two adapters, by their short name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNMASK_HOME", str(home))
        patch.setattr("unmask.hub.locate.SHIPPED", home / "encoders")
        return Encoder.load("smollm2-135m-unsup")


@pytest.fixture(scope="module")
def sample(trained: Encoder) -> Sample:
    return draw(trained, TEXTS_GIVEN)


@pytest.fixture(scope="module")
def whole(trained: Encoder) -> Analysis:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNMASK_HOME", str(trained.checkpoint.base.parents[1]))
        return analyse(trained, TEXTS_GIVEN, name="tiny", sts=PAIRS, instruction="Find it:")


@contextmanager
def leaking(share: float, *, only_unsorted: bool = False) -> Iterator[None]:
    """Let each text of a row see a little of its neighbours, after the proofs have been passed."""
    own = Backbone.hidden

    def hidden(self: Backbone, ids_T: Tensor, layout: Layout) -> Tensor:
        states = own(self, ids_T, layout)
        spared = only_unsorted and list(layout.lengths) == sorted(layout.lengths, reverse=True)
        return states + share * states.mean(dim=0) * (len(layout.lengths) > 1 and not spared)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "hidden", hidden)
        yield


# --- the whole -------------------------------------------------------------------------------------


def test_everything_is_measured(whole: Analysis) -> None:
    assert whole.passed
    assert whole.not_measured == {}
    assert (whole.source, whole.given, whole.texts) == ("given", len(TEXTS_GIVEN), len(TEXTS_GIVEN))
    assert whole.direction.both_ways
    assert len(whole.direction.layers) == 3
    assert min(whole.direction.layers) > 1e-6
    assert whole.layers is not None
    assert whole.layers.base == "smollm2-135m"
    assert [len(each.layers) for each in (whole.layers.base_both_ways, whole.layers.encoder)] == [4, 4]
    assert whole.layers.encoder.layers != whole.layers.base_both_ways.layers
    assert [cut.tokens for cut in whole.cuts] == [32, 64, 128, 256]
    assert whole.instruction.instruction == "Find it:"
    assert whole.forms.pairs == 6
    assert whole.geometry.positives == 2
    assert whole.geometry.positives_from == "dev.tsv, scores above 80% of the scale"


def test_the_same_again(trained: Encoder, whole: Analysis) -> None:
    again = analyse(trained, TEXTS_GIVEN, name="tiny", instruction="Find it:")
    assert replace(again, geometry=whole.geometry, forms=whole.forms, seconds=0) == replace(whole, seconds=0)


def test_it_is_written(whole: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PLOTS", {"movement.png": PLOTS["movement.png"]})
    files = write(tmp_path, whole)
    data = json.loads(files[0].read_text())
    assert whole.layers is not None
    assert data["layers"]["encoder"]["layers"] == pytest.approx(whole.layers.encoder.layers)
    assert files[1].stat().st_size > 10_000
    assert len(rows(whole)) > 30


def test_progress_is_shown(trained: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    analyse(trained, TEXTS_GIVEN[:11], progress=True)
    assert "Analysis: 9 steps in " in capsys.readouterr().err


# --- layers against the base -----------------------------------------------------------------------


def test_the_base_against_itself_did_not_move(base: Path, sample: Sample) -> None:
    causal = Encoder.load(base, bidirectional=False)
    found = movement(causal.backbone, causal_base(causal)[0], sample, name="itself")
    assert found.encoder.layers == pytest.approx([1] * 4, abs=1e-6)
    assert np.array(found.encoder.positions) == pytest.approx(1, abs=1e-6)
    assert found.base_both_ways.layers[0] == pytest.approx(1)
    assert max(found.base_both_ways.layers[1:]) < 0.9999


def test_the_base_made_bidirectional_moved_as_its_first_row_says(base: Path, sample: Sample) -> None:
    both_ways = Encoder.load(base)
    found = movement(both_ways.backbone, causal_base(both_ways)[0], sample, name="itself")
    assert found.encoder.layers == pytest.approx(found.base_both_ways.layers, abs=1e-6)
    assert found.anisotropy["base, both ways"] == pytest.approx(found.anisotropy["this encoder"], abs=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_states_are_those_of_transformers(base: Path, bidirectional: bool) -> None:
    backbone = Encoder.load(base, bidirectional=bidirectional).backbone
    ids = [[5, 6, 7, 8, 9], [10, 11], [12, 13]]
    states = layer_states(backbone, ids)
    assert states.shape == (4, 9, 64)
    row = torch.tensor([ids[0]])
    with torch.no_grad():
        assert (states[-1] - padded_states(backbone.model, ids, "eager")).abs().max() < 1e-4
        own = backbone.model(
            input_ids=row, layout=Layout((5,), causal=not bidirectional), output_hidden_states=True, use_cache=False
        ).hidden_states
    assert len(own) == 4
    for layer, expected in enumerate(own):
        assert (states[layer, :5] - expected[0]).abs().max() < 1e-4


def test_movement_by_a_second_computation(trained: Encoder, sample: Sample) -> None:
    causal, name = causal_base(trained)
    found = movement(trained.backbone, causal, sample, name=name)
    chosen = sample.longest(24)
    assert found.tokens == sum(min(64, len(sample.tokenized[i].ids)) for i in chosen)
    assert found.counts[0] == found.texts == len(chosen)
    assert sum(found.counts) == found.tokens
    by_position: list[list[float]] = [[] for _ in found.counts]
    for i in chosen:
        ids = [sample.tokenized[i].ids[:64]]
        a, b = (layer_states(each, ids)[2].double() for each in (trained.backbone, causal))
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            by_position[place].append(float(x @ y / (x.norm() * y.norm())))
    assert found.encoder.positions[2] == pytest.approx([float(np.mean(each)) for each in by_position], abs=1e-5)
    assert found.encoder.layers[2] == pytest.approx(float(np.mean(np.concatenate(by_position))), abs=1e-5)


def test_anisotropy_of_layers_by_a_second_computation(trained: Encoder) -> None:
    short = draw(trained, [f"{one} {two}" for one in WORDS[:4] for two in WORDS[4:7]])
    causal, name = causal_base(trained)
    found = movement(trained.backbone, causal, short, name=name)
    assert found.tokens <= 256  # so that all of them are drawn
    states = [layer_states(causal, [text.ids])[1].double() for text in short.tokenized]
    pairs = [
        float(torch.cosine_similarity(a, b, dim=0))
        for i, one in enumerate(states)
        for j, other in enumerate(states)
        if i != j
        for a in one
        for b in other
    ]
    assert found.anisotropy["base, causal"][1] == pytest.approx(np.mean(pairs), abs=1e-5)


def test_the_encoder_is_as_it_was_afterwards(trained: Encoder, sample: Sample) -> None:
    before = trained.encode(TEXTS_GIVEN[:4])
    causal, name = causal_base(trained)
    movement(trained.backbone, causal, sample, name=name)
    assert np.array_equal(trained.encode(TEXTS_GIVEN[:4]), before)
    assert not trained.backbone.config.is_causal
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trained.backbone.model.modules())


def test_direction_follows_the_backbone_not_the_last_one_used(base: Path) -> None:
    causal = Encoder.load(base, bidirectional=False).backbone
    ids = [[5, 6, 7]]
    before = layer_states(causal, ids)
    set_direction(causal.model.config, bidirectional=True)
    assert torch.equal(layer_states(causal, ids), before)
    assert causal.config.is_causal


def test_a_causal_encoder_is_told_apart(base: Path) -> None:
    found = analyse(Encoder.load(base, bidirectional=False), TEXTS_GIVEN[:12], name="old")
    assert not found.direction.both_ways
    assert list(found.direction.layers) == [0, 0, 0]
    assert found.passed
    assert "old is causal" in verdict(found)


# --- which base ------------------------------------------------------------------------------------


def test_merged_adapters_leave_the_name_of_the_base(trained: Encoder, tmp_path: Path, sample: Sample) -> None:
    merged = Encoder.load(trained.save(tmp_path / "merged"))
    causal, name = causal_base(merged)
    assert name == "smollm2-135m"
    assert not causal.bidirectional
    first = movement(trained.backbone, causal_base(trained)[0], sample, name="")
    assert movement(merged.backbone, causal, sample, name="").encoder.layers == pytest.approx(
        first.encoder.layers, abs=1e-5
    )


def test_a_base_that_would_have_to_be_fetched_is_not(trained: Encoder) -> None:
    settings = replace(trained.checkpoint, merged=("x",), base_name="meta-llama/Meta-Llama-3-8B-Instruct")
    other = Encoder(trained.backbone, trained.tokenizer, trained.settings, settings)
    found = analyse(other, TEXTS_GIVEN[:11])
    assert found.layers is None
    assert "meta-llama/Meta-Llama-3-8B-Instruct is not loaded unasked" in found.not_measured["layers"]
    other.checkpoint = replace(settings, base_name=None)
    with pytest.raises(NotMeasuredError, match="does not say what its base was; name the base"):
        causal_base(other)


def test_a_base_may_be_named(trained: Encoder, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "copy")
    assert causal_base(trained, tmp_path / "copy")[1] == str(tmp_path / "copy")


def test_another_model_is_no_base(trained: Encoder, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other", num_hidden_layers=2)
    with pytest.raises(InputError, match=r"other has 2 layers of 64 .*expected 3 layers of 64 .*trained from"):
        analyse(trained, TEXTS_GIVEN[:11], base=other)


# --- packing ---------------------------------------------------------------------------------------


def test_packing_changes_nothing(trained: Encoder, sample: Sample) -> None:
    found = invariance(trained, sample)
    assert found.passed
    assert found.required == 0.99999
    assert len(found.arrangements) == 6
    assert min(each.cosine for each in found.arrangements) > 0.999999
    assert max(each.relative for each in found.arrangements) < 1e-5


@pytest.mark.parametrize("share", [1.0, 0.02])
def test_texts_that_see_their_neighbours_are_found(trained: Encoder, sample: Sample, share: float) -> None:
    with leaking(share):
        found = invariance(trained, sample)
    assert not found.passed
    assert all(each.cosine < 0.99999 for each in found.arrangements if each.name.startswith("one row"))


def test_a_fault_of_one_arrangement_is_enough(trained: Encoder, sample: Sample) -> None:
    with leaking(1.0, only_unsorted=True):
        found = invariance(trained, sample)
    assert not found.passed
    broken = {each.name for each in found.arrangements if each.cosine < 0.99999}
    assert broken == {"one row, as given", "one row, shuffled"}


def test_the_whole_fails_with_it(trained: Encoder) -> None:
    with leaking(1.0):
        found = analyse(trained, TEXTS_GIVEN[:11])
    assert not found.passed
    assert verdict(found).startswith("FAILED: encoder looks both ways, but a text's vector depends on")


def test_vectors_that_are_no_numbers_do_not_pass(
    trained: Encoder, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Backbone.hidden

    def hidden(self: Backbone, ids_T: Tensor, layout: Layout) -> Tensor:
        return own(self, ids_T, layout) * float("nan")

    monkeypatch.setattr(Backbone, "hidden", hidden)
    assert not invariance(trained, sample).passed


def test_half_precision_is_held_to_its_own_rounding(base: Path, sample: Sample) -> None:
    half = Encoder.load(base, dtype="bfloat16")
    sample = replace(sample, texts=sample.texts[:6], tokenized=sample.tokenized[:6])
    found = invariance(half, sample)
    assert found.required == 0.999
    assert found.passed
    with leaking(0.3):
        assert not invariance(half, sample).passed


# --- instruction, length, cutting ------------------------------------------------------------------


def test_an_empty_instruction_changes_nothing(trained: Encoder, sample: Sample) -> None:
    vectors = vectors_of(trained, sample.texts)
    found = instruction_effect(trained, sample, vectors, "")
    assert found.cosine.value == pytest.approx(1)
    assert found.neighbours.value == 1


def test_an_instruction_by_a_second_computation(trained: Encoder, sample: Sample) -> None:
    vectors = vectors_of(trained, sample.texts)
    found = instruction_effect(trained, sample, vectors, "Find what it is about:")
    instructed = trained.encode(sample.texts, instruction="Find what it is about:")
    assert found.texts == len(sample.texts)
    assert found.cosine.value == pytest.approx(np.diag(trained.similarity(vectors, instructed)).mean(), abs=1e-5)
    assert found.cosine.value < 0.9999
    shares = []
    for i, (before, after) in enumerate(
        zip(trained.similarity(vectors, vectors), trained.similarity(instructed, vectors), strict=True)
    ):
        near = [set([j for j in np.argsort(-row) if j != i][:10]) for row in (before, after)]
        shares.append(len(near[0] & near[1]) / 10)
    assert found.neighbours.value == pytest.approx(np.mean(shares))


def test_lengths_by_a_second_computation(trained: Encoder, sample: Sample) -> None:
    vectors = vectors_of(trained, sample.texts)
    found = length_effect(sample, vectors)
    lengths = sample.lengths
    assert sum(bucket.texts for bucket in found) == len(lengths)
    for bucket in found:
        inside = (lengths >= bucket.least) & (lengths <= (bucket.most or 10**9))
        assert bucket.texts == inside.sum() > 0
        assert bucket.norm == pytest.approx(np.linalg.norm(vectors[inside], axis=1).mean(), rel=1e-5)
        assert bucket.others == pytest.approx(trained.similarity(vectors[inside], vectors[~inside]).mean(), abs=1e-5)
        similar = trained.similarity(vectors[inside], vectors[inside])
        pairs = similar[np.triu_indices(len(similar), 1)]
        assert bucket.within == (pytest.approx(pairs.mean(), abs=1e-5) if len(pairs) else None)


def test_texts_of_one_length_have_no_others(trained: Encoder) -> None:
    texts = [f"{word} and {word}" for word in WORDS[:12]]
    found = draw(trained, texts)
    (bucket, *more) = length_effect(replace(found, tokenized=found.tokenized[:1] * 12), vectors_of(trained, texts))
    assert more == []
    assert bucket.others is None


def test_cuts_by_a_second_computation(base: Path, trained: Encoder, sample: Sample) -> None:
    vectors = vectors_of(trained, sample.texts)
    found = cut_effect(trained, sample, vectors)
    for cut in found:
        chosen = [i for i in sample.longest(12) if sample.lengths[i] > cut.tokens]
        assert cut.texts == len(chosen)
        with torch.inference_mode():
            parts = [replace_ids(sample, i, cut.tokens) for i in chosen]
            beginnings = [trained.pipeline.hidden([part])[part.start :].mean(dim=0).numpy() for part in parts]
        similar = trained.similarity(np.stack(beginnings), vectors[chosen])
        assert cut.cosine.value == pytest.approx(np.diag(similar).mean(), abs=1e-5)
        assert cut.cosine.value < 0.9999


def replace_ids(sample: Sample, index: int, tokens: int) -> Any:
    """The text's first tokens, and the template's closing ones: the encoder of the test has none."""
    text = sample.tokenized[index]
    return replace(text, ids=text.ids[:tokens])


def test_short_texts_cannot_be_cut(trained: Encoder) -> None:
    short = draw(trained, [f"{word} {other}" for word in WORDS[:4] for other in WORDS[4:8]])
    with pytest.raises(NotMeasuredError, match="no text has more than 32 tokens"):
        cut_effect(trained, short, vectors_of(trained, short.texts))


# --- smaller vectors -------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["float32", "int8", "binary"])
def test_forms_are_those_of_encode(trained: Encoder, sample: Sample, output: Any) -> None:
    vectors = vectors_of(trained, sample.texts)
    units, width = in_form(vectors, 40, output)
    asked = trained.encode(sample.texts, dimensions=40, output=output)
    assert width == asked[0].nbytes
    numbers = np.unpackbits(asked, axis=1, count=40) * 2.0 - 1 if output == "binary" else asked.astype(np.float64)
    assert units == pytest.approx(numbers / np.linalg.norm(numbers, axis=1, keepdims=True), abs=1e-6)


def test_each_sentence_of_the_pairs_has_its_place(trained: Encoder) -> None:
    found = encode_pairs(trained, PAIRS)
    assert found.left == pytest.approx(trained.encode(list(PAIRS.left)), abs=1e-5)
    assert found.right == pytest.approx(trained.encode(list(PAIRS.right)), abs=1e-5)


def test_given_pairs_make_the_alignment(trained: Encoder) -> None:
    pairs = [(TEXTS_GIVEN[0], TEXTS_GIVEN[1]), (TEXTS_GIVEN[2], TEXTS_GIVEN[2])]
    found = analyse(trained, TEXTS_GIVEN[:11], pairs=pairs).geometry
    cosine = trained.similarity(*trained.encode([TEXTS_GIVEN[0], TEXTS_GIVEN[1]])).item()
    assert (found.positives, found.positives_from) == (2, "given pairs")
    assert found.alignment == pytest.approx((2 - 2 * cosine + 0) / 2, abs=1e-4)


# --- the sample ------------------------------------------------------------------------------------


def test_a_sample_is_bounded_and_the_same_each_time(trained: Encoder) -> None:
    many = [f"{one} {two} number {i}" for i in range(400) for one, two in [(WORDS[i % 17], WORDS[i % 13])]]
    found = draw(trained, [*many, *many[:50]])
    assert (len(found.texts), found.given) == (TEXTS, 400)
    assert found == draw(trained, [*many, *many[:50]])
    assert len(set(found.texts)) == TEXTS


def test_a_sample_of_long_texts_is_bounded_in_tokens(trained: Encoder) -> None:
    found = draw(trained, [f"{i} " + "winter " * 3000 for i in range(60)])
    assert 11 <= len(found.texts) < 60
    assert TOKENS <= found.lengths.sum() < TOKENS + trained.max_length


def test_without_texts_docstrings_are_taken(trained: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry(f"m{i}", f"Return {WORDS[i % 17]} {WORDS[i % 5]} {i}.") for i in range(600)]
    monkeypatch.setattr("unmask.corpora.demo_entries", lambda: entries)
    found = draw(trained, None)
    assert found.source.startswith("docstrings of the Python standard library")
    assert sum(text in {entry.text for entry in entries} for text in found.texts) >= 100
    assert sum(found.lengths > 256) >= 4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (TEXTS_GIVEN[:5] * 9, "got 5 distinct texts to analyse; expected at least 11"),
        ([*TEXTS_GIVEN, " "], f"Text {len(TEXTS_GIVEN)} is empty"),
    ],
)
def test_texts_that_cannot_be_analysed(trained: Encoder, texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        analyse(trained, texts)

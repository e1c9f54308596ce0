"""A step of each stage, seen from outside: its loss and gradients are those of transformers and peft, done plainly."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests.integration.test_families import CASES, build
from tests.tiny import write_base
from unmask import Encoder, Text
from unmask.backbone import attention
from unmask.backbone.backbone import Backbone
from unmask.errors import CheckpointError, InputError
from unmask.packing import plan
from unmask.pipeline import packed
from unmask.text import TokenizedText
from unmask.training import sharing, steps
from unmask.training.data.rows import Row
from unmask.training.data.sources import PairSource
from unmask.training.lora import Lora, adapters_of, save_adapter
from unmask.training.objectives import info_nce, matryoshka
from unmask.training.preparing import Options, prepare, read_rows
from unmask.training.recipe import Mntp, Recipe, SimCse, Stage, Supervised
from unmask.training.sharing import TOKENS_A_CORE, Run, seed_of
from unmask.training.steps import Outcome, Step
from unmask.training.trainee import Trainee, embed

SENTENCES = (
    "The baker opens the shop before the sun is up, and the street smells of bread.",
    "A small boat crossed the harbour.",
    "Nobody in the village could remember when the old bridge had been built.",
    "Water boils at 100 degrees at sea level, but sooner on a high mountain.",
    "She packed three sandwiches.",
    "The library keeps maps from 1852, 1901 and 1974 in a dry room downstairs.",
)
NONE = Lora(rank=3, alpha=6, dropout=0.0)
#: name → (model type, settings of the model, its exact attention)
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", {}, "sdpa"),
    "llama, tied": ("llama", {"tie_word_embeddings": True}, "sdpa"),
    "qwen3": ("qwen3", {}, "sdpa"),
    "mistral": ("mistral", {"sliding_window": 5}, "sdpa"),
    "gemma2": ("gemma2", {"sliding_window": 5, "final_logit_softcapping": 1.5, "query_pre_attn_scalar": 16}, "eager"),
    "gemma3_text": ("gemma3_text", {"sliding_window": 5, "query_pre_attn_scalar": 16}, "sdpa"),
    "phi3": ("phi3", {}, "sdpa"),
    "granite": ("granite", {"logits_scaling": 3.0, "attention_multiplier": 0.2}, "sdpa"),
}


@dataclass
class Bench:
    """A stage, ready to take steps."""

    encoder: Encoder
    run: Run
    step: Step

    def gradients(self, rows: Sequence[Row], number: int = 0) -> tuple[Outcome, list[Tensor]]:
        """What one step gives."""
        self.run.trainee.zero_grad()
        outcome = self.step(rows, number)
        return outcome, [taken(parameter) for parameter in self.run.trainee.parameters_trained]


def taken(parameter: torch.nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def bench(folder: Path, stage: Stage, **options: Any) -> Bench:
    """Prepare a stage as a run does; then give the LoRA a B that is not zero."""
    recipe = Recipe(name="test", base=str(folder), stages=(stage,), seed=5)
    encoder = Encoder.load(folder, max_length=stage.max_length)
    accelerator = Accelerator(cpu=True)
    run, step, _ = prepare(recipe, stage, encoder, accelerator, Options(device="cpu", **options))
    generator = torch.Generator().manual_seed(1)
    for _, layer in adapters_of(run.trainee.model):
        layer.lora_B.data.normal_(std=0.1, generator=generator)
    return Bench(encoder, run, step)


def rows_of(encoder: Encoder, texts: Sequence[str] = SENTENCES) -> list[Row]:
    return [(text,) for text in encoder.pipeline.tokenizer.tokenize([Text("", text) for text in texts])]


def close(got: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1e-5) -> None:
    """Each tensor is the other to within a share of its length."""
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected, strict=True):
        assert float((one - other).detach().norm()) <= tolerance * max(float(other.detach().norm()), 1e-6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every model's base, head and all."""
    root = tmp_path_factory.mktemp("bases")
    return {name: write_base(root / name, kind, **settings) for name, (kind, settings, _) in MODELS.items()}


@pytest.fixture
def llama(folders: dict[str, Path]) -> Path:
    return folders["llama"]


# --- MNTP ----------------------------------------------------------------------------------------


def mntp(**settings: Any) -> Mntp:
    return Mntp(**{"mask_rate": 0.4, "strategy": "all", "lora": NONE, **settings})


def masked_ids(given: Bench, rows: Sequence[Row]) -> list[list[int]]:
    """The masked rows, in their order, as the model gets them in step 0."""
    seen: list[Tensor] = []
    own = given.run.trainee.forward

    def spy(ids_T: Tensor, lengths: Sequence[int], pick: Any) -> Tensor:
        seen.extend(torch.split(ids_T, list(lengths)))
        return own(ids_T, lengths, pick)

    given.run.trainee.forward = spy  # type: ignore[method-assign]
    given.step(rows, 0)
    given.run.trainee.forward = own  # type: ignore[method-assign]
    # A pass has its longest row first; rows of one length keep their order.
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0].ids))
    return [seen[place].tolist() for place in np.argsort(order)]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, ``[N, L]``."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def reference(folder: Path, given: Bench, attention_name: str) -> Any:
    """transformers' causal LM of the same base, bidirectional, with peft's LoRA of the same A and B."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention_name)
    model.config.is_causal = False
    layers = dict(adapters_of(given.run.trainee.model))
    targets = sorted({name.rpartition(".")[2] for name in layers})
    with warnings.catch_warnings():
        # peft 0.21 on transformers 5.20 and newer.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        wrapped: Any = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, lora_dropout=0.0, target_modules=targets))
    for name, layer in layers.items():
        theirs = wrapped.get_submodule(f"base_model.model.model.{name}")
        theirs.lora_A["default"].weight.data.copy_(layer.lora_A)
        theirs.lora_B["default"].weight.data.copy_(layer.lora_B)
    return wrapped.eval()


@pytest.mark.parametrize("name", MODELS)
def test_mntp_is_transformers_and_pefts(folders: dict[str, Path], name: str) -> None:
    given = bench(folders[name], mntp())
    rows = rows_of(given.encoder)
    inputs = masked_ids(given, rows)
    mask_id = given.encoder.tokenizer.backend.token_to_id("_")
    wrapped = reference(folders[name], given, MODELS[name][2])
    ids, mask = padded(inputs)
    logits = wrapped(input_ids=ids, attention_mask=mask).logits
    losses = [
        cross_entropy(logits[number, place - 1], torch.tensor(row[0].ids[place]))
        for number, row in enumerate(rows)
        for place in range(1, len(row[0].ids))
        if inputs[number][place] == mask_id
    ]
    assert len(losses) > 20
    expected = torch.stack(losses).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    outcome, gradients = given.gradients(rows)
    assert outcome.loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert outcome.tokens == sum(len(row[0].ids) for row in rows)
    references = [
        taken(wrapped.get_submodule(f"base_model.model.model.{layer}.lora_{part}.default").weight)
        for layer, _ in adapters_of(given.run.trainee.model)
        for part in "AB"
    ]
    close(gradients, references, 2e-4)


def test_mntp_masks_as_it_is_told(llama: Path) -> None:
    given = bench(llama, mntp(mask_rate=0.3))
    rows = rows_of(given.encoder, SENTENCES * 20)
    mask_id = given.encoder.tokenizer.backend.token_to_id("_")
    inputs = masked_ids(given, rows)
    both = [pair for row, ids in zip(rows, inputs, strict=True) for pair in zip(ids, row[0].ids, strict=True)]
    assert not any(ids[0] != row[0].ids[0] for row, ids in zip(rows, inputs, strict=True)), "BOS is never masked"
    assert np.mean([new != old for new, old in both]) == pytest.approx(0.3, abs=0.03)
    assert {new for new, old in both if new != old} == {mask_id}


def test_special_tokens_are_never_masked(llama: Path) -> None:
    given = bench(llama, mntp(mask_rate=1.0))
    backend = given.encoder.tokenizer.backend
    eos = backend.token_to_id("<|end_of_text|>")
    assert eos is not None
    ids = [eos if place % 3 == 2 else 40 + place for place in range(30)]
    (inputs,) = masked_ids(given, [(TokenizedText(ids=ids, start=0),)])
    mask_id = backend.token_to_id("_")
    assert inputs == [own if place in (0,) or place % 3 == 2 else mask_id for place, own in enumerate(ids)]


@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_mntp_in_several_passes_is_one(llama: Path, tokens: int, checkpointing: bool) -> None:
    whole = bench(llama, mntp(), tokens=10_000)
    parts = bench(llama, mntp(), tokens=tokens, checkpointing=checkpointing)
    rows = rows_of(whole.encoder)
    expected, gradients = whole.gradients(rows)
    outcome, others = parts.gradients(rows)
    assert outcome.loss == pytest.approx(expected.loss, rel=1e-6)
    assert outcome.accuracy == expected.accuracy
    close(others, gradients)


def test_each_step_masks_anew_and_the_same_step_the_same(llama: Path) -> None:
    given = bench(llama, mntp())
    rows = rows_of(given.encoder)
    first, gradients = given.gradients(rows, 3)
    again, others = given.gradients(rows, 3)
    assert (first, again.loss) == (again, first.loss)
    close(others, gradients, 0.0)
    assert given.gradients(rows, 4)[0].loss != first.loss


def test_nothing_masked_is_a_loss_of_nothing(llama: Path) -> None:
    given = bench(llama, mntp(mask_rate=1e-12))
    outcome, gradients = given.gradients(rows_of(given.encoder))
    assert (outcome.loss, outcome.accuracy) == (0.0, 0.0)
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.parametrize("strategy", ["bert", "all"])
def test_mntp_learns(llama: Path, strategy: Any) -> None:
    given = bench(llama, mntp(strategy=strategy))
    rows = rows_of(given.encoder)
    optimizer = torch.optim.AdamW(given.run.trainee.parameters_trained, lr=2e-2)
    losses = []
    for _ in range(12):
        losses.append(given.gradients(rows)[0].loss)
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


# --- the mask token ------------------------------------------------------------------------------


def test_a_mask_token_of_the_vocabulary(llama: Path) -> None:
    given = bench(llama, mntp(mask_token="<|eot_id|>"))
    rows = rows_of(given.encoder)
    inputs = masked_ids(given, rows)
    token = given.encoder.tokenizer.backend.token_to_id("<|eot_id|>")
    assert any(token in ids for ids in inputs)
    assert not any(token in row[0].ids for row in rows)


def test_a_mask_token_that_is_none(llama: Path) -> None:
    with pytest.raises(InputError, match=r"mntp.mask_token is '\[MASK\]', which is no token of this model.*'new'"):
        bench(llama, mntp(mask_token="[MASK]"))


@pytest.mark.parametrize("name", ["llama", "llama, tied", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("strategy", ["bert", "all"])
def test_a_mask_token_that_is_learned(folders: dict[str, Path], name: str, strategy: Any, tmp_path: Path) -> None:
    given = bench(folders[name], mntp(mask_token="new", strategy=strategy))
    trainee = given.run.trainee
    assert trainee.mask_vector is not None
    trainable = sum(parameter.numel() for parameter in trainee.parameters_trained)
    assert trainable == trainee.trainable == given.encoder.dimension + trainable - trainee.mask_vector.numel()
    rows = rows_of(given.encoder)
    outcome, gradients = given.gradients(rows)
    assert np.isfinite(outcome.loss)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    # It begins as the mean of what the model's tokens are embedded as.
    every = torch.arange(trainee.backbone.config.vocab_size)
    close([trainee.mask_vector.detach()], [trainee.model.get_input_embeddings()(every).mean(dim=0)])
    trainee.mask_vector.data.add_(1)
    assert given.gradients(rows)[0].loss != outcome.loss
    save_adapter(trainee.model, tmp_path, NONE, base=str(folders[name]))
    assert all("lora_" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    trainee.eval()
    alone = Encoder.load(folders[name], adapters=[tmp_path])
    assert np.abs(alone.encode(SENTENCES) - given.encoder.encode(SENTENCES)).max() < 1e-4


def test_without_a_masked_token_the_learned_one_has_a_gradient_of_nothing(llama: Path) -> None:
    given = bench(llama, mntp(mask_token="new", mask_rate=1e-12))
    _, gradients = given.gradients(rows_of(given.encoder))
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


# --- the LM head ---------------------------------------------------------------------------------


def copied(folder: Path, target: Path, weights: dict[str, dict[str, Tensor]]) -> Path:
    """A copy of a base with other files of weights."""
    target.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".json":
            (target / file.name).write_bytes(file.read_bytes())
    for name, tensors in weights.items():
        save_file(tensors, target / name, metadata={"format": "pt"})
    return target


def test_a_head_in_one_of_several_files(llama: Path, tmp_path: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    shards = {"model-1.safetensors": dict(weights), "model-2.safetensors": {}}
    shards["model-2.safetensors"]["lm_head.weight"] = shards["model-1.safetensors"].pop("lm_head.weight")
    folder = copied(llama, tmp_path / "shards", shards)
    index = {"metadata": {}, "weight_map": {key: name for name, tensors in shards.items() for key in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    given, other = bench(folder, mntp()), bench(llama, mntp())
    rows = rows_of(other.encoder)
    assert given.gradients(rows)[0] == other.gradients(rows)[0]


def test_a_head_with_a_bias(llama: Path, tmp_path: Path) -> None:
    """Phi's; transformers' Llama would leave the bias out, so the loss is known without it."""
    weights = load_file(llama / "model.safetensors")
    bias = torch.zeros(len(weights["lm_head.weight"]))
    bias[7] = 1000.0
    folder = copied(llama, tmp_path / "bias", {"model.safetensors": weights | {"lm_head.bias": bias}})
    given = bench(folder, mntp())
    assert given.gradients(rows_of(given.encoder))[0].loss > 900


def test_a_head_that_is_not_there(llama: Path, tmp_path: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    del weights["lm_head.weight"]
    folder = copied(llama, tmp_path / "headless", {"model.safetensors": weights})
    with pytest.raises(CheckpointError, match=r"headless holds no lm_head.weight, which MNTP .* Give the base"):
        bench(folder, mntp())
    bench(folder, SimCse(lora=NONE))


# --- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_dropout_reaches_the_attention_of_every_layer(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone(build(case))
    trainee = Trainee(backbone, NONE, attention_dropout=0.3)
    seen: dict[int, float] = {}
    own = attention.packed_attention

    def spy(module: Any, *arguments: Any, dropout: float = 0.0, **others: Any) -> Any:
        seen[module.layer_idx] = dropout
        return own(module, *arguments, dropout=dropout, **others)

    monkeypatch.setattr(attention, "packed_attention", spy)
    attention.register()
    try:
        ids = torch.arange(20) + 3
        first = trainee.train()(ids, [8, 12], lambda states: states)
        assert seen == dict.fromkeys(range(4), 0.3)
        assert (first - trainee(ids, [8, 12], lambda states: states)).abs().max() > 1e-3
        trainee.eval()(ids, [8, 12], lambda states: states)
        assert seen == dict.fromkeys(range(4), 0.0)
    finally:
        monkeypatch.undo()
        attention.register()


@pytest.mark.parametrize("without", [[0, 1, 2, 3], [2]])
def test_a_model_that_would_ignore_dropout_is_refused(without: list[int]) -> None:
    backbone = Backbone(build("llama"))
    for layer in without:
        del backbone.model.layers[layer].self_attn.attention_dropout
    with pytest.raises(InputError, match=r"LlamaModel .* dropout .* lora.dropout"):
        Trainee(backbone, NONE, attention_dropout=0.1)


def test_the_bases_own_dropout_is_replaced(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", attention_dropout=0.5)
    given = bench(folder, Supervised(lora=NONE, warmup=0))
    rows = rows_of(given.encoder)
    texts = [row[0] for row in rows]
    vectors = [embed(given.run.model, texts, "mean", given.run.device) for _ in range(2)]
    assert torch.equal(*vectors)


# --- passes side by side -------------------------------------------------------------------------

SIDES: dict[str, Stage] = {
    "MNTP": Mntp(mask_rate=0.3, lora=Lora(rank=3, alpha=6, dropout=0.3)),
    "SimCSE": SimCse(attention_dropout=0.3, lora=Lora(rank=3, alpha=6, dropout=0.3)),
}


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("at_once", [10_000, 60])
def test_threads_change_nothing_but_the_time(
    llama: Path, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several passes, states kept or computed again: losses and gradients to the last bit, whoever ends first."""
    monkeypatch.setattr(sharing, "TOKENS_A_CORE", 40)
    monkeypatch.setitem(steps.TOKENS_AT_ONCE, "cpu", at_once)
    given = bench(llama, SIDES[name])
    rows = rows_of(given.encoder)
    running: list[int] = []
    own = given.run.trainee.forward

    def spy(ids_T: Tensor, lengths: Sequence[int], pick: Any) -> Tensor:
        running.append(threading.get_ident())
        return own(ids_T, lengths, pick)

    given.run.trainee.forward = spy  # type: ignore[method-assign]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            running.clear()
            found.append(given.gradients(rows, 2))
            assert (len(set(running)) > 1) == (count > 1)
    finally:
        torch.set_num_threads(threads)
    (outcome, gradients), *others = found
    for other_outcome, other_gradients in others:
        assert other_outcome == outcome
        assert all(torch.equal(one, other) for one, other in zip(gradients, other_gradients, strict=True))


# --- SimCSE --------------------------------------------------------------------------------------

DROPOUTS: dict[str, dict[str, Any]] = {
    "attention": {"attention_dropout": 0.3, "lora": NONE},
    "LoRA": {"attention_dropout": 0.0, "lora": Lora(rank=3, alpha=6, dropout=0.3)},
}


@pytest.mark.parametrize("name", DROPOUTS)
@pytest.mark.parametrize("tokens", [1, 10_000])
def test_the_two_views_of_a_text_differ_in_training_alone(llama: Path, name: str, tokens: int) -> None:
    given = bench(llama, SimCse(**DROPOUTS[name]), tokens=tokens)
    seen: list[Tensor] = []
    own = given.run.trainee.forward

    def spy(ids_T: Tensor, lengths: Sequence[int], pick: Any) -> Tensor:
        vectors = own(ids_T, lengths, pick)
        if vectors.requires_grad:
            seen.append(vectors.detach())
        return vectors

    given.run.trainee.forward = spy  # type: ignore[method-assign]
    rows = rows_of(given.encoder)
    outcome = given.step(rows, 0)
    # Longest first, and both views of a text next to each other, in one pass or in two.
    views = torch.cat(seen).view(len(rows), 2, -1)
    assert float((views[:, 0] - views[:, 1]).norm(dim=-1).min()) > 1e-3
    assert outcome.tokens == 2 * sum(len(row[0].ids) for row in rows)
    seen.clear()
    given.run.trainee.eval()
    given.step(rows, 0)
    views = torch.cat(seen).view(len(rows), 2, -1)
    assert float((views[:, 0] - views[:, 1]).norm(dim=-1).max()) < 1e-5


@pytest.mark.parametrize("name", DROPOUTS)
@pytest.mark.parametrize("tokens", [1, 60, 10_000])
def test_simcse_is_info_nce_of_two_draws(llama: Path, name: str, tokens: int) -> None:
    """The same passes, drawing the same, all of their activations kept: so nothing is cached or drawn twice."""
    given = bench(llama, SimCse(**DROPOUTS[name], temperature=0.1), tokens=tokens)
    rows = rows_of(given.encoder)
    outcome, gradients = given.gradients(rows, 2)
    texts = [row[0] for row in rows] * 2
    given.run.trainee.zero_grad()
    chunks = list(plan([len(text.ids) for text in texts], min(tokens, TOKENS_A_CORE)))
    parts = []
    for number, chunk in enumerate(chunks):
        torch.manual_seed(seed_of(5, 2, 0, number))
        parts.append(embed(given.run.model, [texts[i] for i in chunk], "mean", given.run.device))
    vectors = torch.cat(parts)[torch.tensor(np.argsort(np.concatenate(chunks)))]
    loss = info_nce(vectors[: len(rows)], vectors[len(rows) :], temperature=0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert outcome.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    close(gradients, [taken(parameter) for parameter in given.run.trainee.parameters_trained])


@pytest.mark.parametrize("name", DROPOUTS)
@pytest.mark.parametrize("tokens", [60, 10_000])
def test_gradient_checkpointing_changes_nothing(llama: Path, name: str, tokens: int) -> None:
    plain = bench(llama, SimCse(**DROPOUTS[name]), tokens=tokens)
    spared = bench(llama, SimCse(**DROPOUTS[name]), tokens=tokens, checkpointing=True)
    layers = [module for module in spared.run.trainee.modules() if getattr(module, "gradient_checkpointing", False)]
    assert len(layers) >= 3
    rows = rows_of(plain.encoder)
    expected, gradients = plain.gradients(rows)
    outcome, others = spared.gradients(rows)
    assert outcome.loss == pytest.approx(expected.loss, rel=1e-6)
    close(others, gradients)


def test_each_step_draws_anew_and_the_same_step_the_same(llama: Path) -> None:
    given = bench(llama, SimCse(lora=NONE))
    rows = rows_of(given.encoder)
    first, gradients = given.gradients(rows, 3)
    torch.rand(7)  # what was drawn in between does not matter
    again, others = given.gradients(rows, 3)
    assert again == first
    close(others, gradients, 0.0)
    assert given.gradients(rows, 4)[0].loss != first.loss


# --- supervised ----------------------------------------------------------------------------------

INSTRUCTION = "Find the answer:"
SUPERVISED: dict[str, tuple[int, bool, dict[str, Any]]] = {
    "pairs": (0, False, {}),
    "symmetric": (0, True, {}),
    "triples": (1, False, {}),
    "three negatives": (3, False, {}),
    "three negatives, symmetric": (3, True, {}),
    "Matryoshka": (1, False, {"dimensions": (8, 64)}),
    "bidirectional": (1, False, {"bidirectional_loss": True}),
    "false negatives": (1, False, {"false_negative_margin": 0.01}),
    "all": (3, True, {"dimensions": (8, 64), "bidirectional_loss": True, "false_negative_margin": 0.02}),
}


def pairs(negatives: int) -> list[tuple[str, ...]]:
    """A query, a positive and negatives, all different."""
    words = [word for sentence in SENTENCES for word in sentence.rstrip(".").split()]
    return [
        tuple(
            " ".join(words[(5 * row + 7 * place) % 40 :][: 2 + (row + 3 * place) % 6]) for place in range(2 + negatives)
        )
        for row in range(6)
    ]


def supervised(folder: Path, name: str, tmp_path: Path, tokens: int = 10_000) -> tuple[Bench, list[Row]]:
    """A supervised stage on pairs read from a file."""
    negatives, symmetric, settings = SUPERVISED[name]
    file = tmp_path / "pairs.jsonl"
    lines = [
        {"query": query, "positive": positive} | ({"negative": rest} if rest else {})
        for query, positive, *rest in pairs(negatives)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    source = PairSource(path=str(file), instruction=INSTRUCTION, symmetric=symmetric)
    stage = Supervised(data=(source,), lora=NONE, temperature=0.1, batch=6, warmup=0, **settings)
    given = bench(folder, stage, tokens=tokens)
    rows = read_rows(stage, given.encoder, tmp_path / "data", limit=None, progress=False)
    return given, [rows[index] for index in range(6)]


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_is_info_nce_of_what_the_encoder_gives(llama: Path, name: str, tmp_path: Path) -> None:
    given, rows = supervised(llama, name, tmp_path)
    negatives, symmetric, settings = SUPERVISED[name]
    outcome, _ = given.gradients(rows)
    given.run.trainee.eval()
    columns = list(zip(*pairs(negatives), strict=True))
    encode = partial(given.encoder.encode, tensor=True)
    vectors = [encode(columns[0], instruction=INSTRUCTION)]
    vectors += [encode(column, instruction=INSTRUCTION if symmetric else None) for column in columns[1:]]
    dimensions = settings.get("dimensions")
    expected = (matryoshka(info_nce, dimensions) if dimensions else info_nce)(
        vectors[0],
        vectors[1],
        torch.stack(vectors[2:], dim=1) if negatives else None,
        temperature=0.1,
        bidirectional=settings.get("bidirectional_loss", False),
        false_negative_margin=settings.get("false_negative_margin"),
    )
    assert outcome.loss == pytest.approx(float(expected), rel=1e-5)
    assert outcome.tokens == sum(len(text.ids) for row in rows for text in row)


def test_every_option_of_the_loss_matters(llama: Path, tmp_path: Path) -> None:
    """Else the test above could not tell them apart."""
    losses = {}
    for name in SUPERVISED:
        (tmp_path / name).mkdir()
        given, rows = supervised(llama, name, tmp_path / name)
        losses[name] = given.step(rows, 0).loss
    assert len({round(loss, 4) for loss in losses.values()}) == len(SUPERVISED), losses


@pytest.mark.parametrize("name", ["triples", "all"])
@pytest.mark.parametrize("tokens", [1, 30, 10_000])
def test_packed_or_cached_is_one_text_at_a_time(llama: Path, name: str, tokens: int, tmp_path: Path) -> None:
    given, rows = supervised(llama, name, tmp_path, tokens)
    outcome, gradients = given.gradients(rows)
    _, _, settings = SUPERVISED[name]
    given.run.trainee.zero_grad()
    columns = [
        torch.cat([embed(given.run.model, [text], "mean", given.run.device) for text in column])
        for column in zip(*rows, strict=True)
    ]
    packed_vectors = embed(given.run.model, [row[0] for row in rows], "mean", given.run.device)
    close([packed_vectors], [columns[0]])
    dimensions = settings.get("dimensions")
    loss = (matryoshka(info_nce, dimensions) if dimensions else info_nce)(
        columns[0],
        columns[1],
        torch.stack(columns[2:], dim=1),
        temperature=0.1,
        bidirectional=settings.get("bidirectional_loss", False),
        false_negative_margin=settings.get("false_negative_margin"),
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert outcome.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    close(gradients, [taken(parameter) for parameter in given.run.trainee.parameters_trained])


def test_a_causal_baseline_stays_causal(llama: Path) -> None:
    stage = SimCse(lora=NONE)
    encoder = Encoder.load(llama, bidirectional=False)
    trainee = Trainee(encoder.backbone, stage.lora).eval()
    ids, lengths = packed([row[0] for row in rows_of(encoder)], torch.device("cpu"))
    changed = ids.clone()
    changed[lengths[0] - 1] = 9
    states = [trainee(each, lengths, lambda hidden: hidden) for each in (ids, changed)]
    assert torch.equal(states[0][: lengths[0] - 1], states[1][: lengths[0] - 1])
    assert not torch.equal(states[0][lengths[0] - 1], states[1][lengths[0] - 1])


def test_targets_of_an_unknown_family_are_asked_for() -> None:
    backbone = Backbone(build("llama"))
    backbone.family = None
    with pytest.raises(InputError, match=r"type 'llama' are not known.*lora.targets"):
        Trainee(backbone, NONE)
    assert Trainee(backbone, Lora(rank=3, targets=("q_proj",))).trainable == 4 * 3 * (64 + 64)

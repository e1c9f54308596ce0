"""What needs a GPU to be seen: kernels, every family, memory that really runs out; all held against the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tests.integration.test_families import CASES, build
from tests.tiny import write_base
from unmask import Encoder
from unmask.backbone.attention import kernels_used
from unmask.backbone.backbone import Backbone
from unmask.backbone.bidirectional import padded_states
from unmask.backbone.kernels import KERNELS, offers, runs
from unmask.backbone.layout import Layout
from unmask.backbone.scoring import Scoring
from unmask.pooling import pool
from unmask.training.lora import Lora
from unmask.training.trainee import Trainee

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GPU = torch.device("cuda")
LENGTHS = (1, 2, 5, 5, 8, 9, 10, 40, 200, 133, 1)
TEXTS = ["one", "The cat sleeps in the house.", "A river runs through the valley. " * 9, "Trees grow slowly."] * 40


def ids_of(lengths: tuple[int, ...]) -> list[list[int]]:
    return [[(17 * i + 41 * n + 3) % 300 for i in range(length)] for n, length in enumerate(lengths)]


@torch.inference_mode()
def means(backbone: Backbone, texts: list[list[int]]) -> Tensor:
    """Return the mean state of each text, ``[N, D]``, of one packed row."""
    lengths = tuple(len(text) for text in texts)
    row = torch.tensor([token for text in texts for token in text], device=backbone.device)
    states = backbone.hidden(row, Layout(lengths, causal=not backbone.bidirectional))
    return pooled(states, lengths)


def pooled(states: Tensor, lengths: tuple[int, ...]) -> Tensor:
    sizes = torch.tensor(lengths, device=states.device)
    return pool(states, lengths=sizes, starts=torch.zeros_like(sizes), mode="mean").cpu()


def close(found: Tensor, expected: Tensor) -> bool:
    """Return whether vectors agree as the same computed in bfloat16 does."""
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    return bool(error.max() <= 1e-2 and cosine_similarity(found, expected).min() >= 0.9999)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_packed_is_alone_is_padded_is_the_processor(case: str, bidirectional: bool) -> None:
    exact = means(Backbone(build(case), bidirectional=bidirectional), ids_of(LENGTHS))
    backbone = Backbone(build(case).to(GPU, torch.bfloat16), bidirectional=bidirectional)
    packed = means(backbone, ids_of(LENGTHS))
    assert cosine_similarity(packed, exact).min() >= 0.999
    assert close(torch.cat([means(backbone, [text]) for text in ids_of(LENGTHS)]), packed)
    assert backbone.family is not None
    with torch.inference_mode():
        states = padded_states(backbone.model, ids_of(LENGTHS), backbone.family.exact_attention)
    assert close(pooled(states, LENGTHS), packed)


@pytest.mark.parametrize("case", CASES)
def test_layers_are_compiled(case: str) -> None:
    assert Backbone(build(case).to(GPU, torch.bfloat16)).form == "compiled"


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("name", "scoring"),
    [
        ("varlen", {}),
        ("flex", {}),
        ("flex", {"softcap": 5.0}),
        ("flex", {"sinks": torch.linspace(-1, 1, 4)}),
        ("padded", {}),
        pytest.param("flash", {"softcap": 5.0}, marks=pytest.mark.skipif(not offers().flash, reason="not installed")),
    ],
)
def test_a_kernel_and_its_gradient(name: str, scoring: dict[str, object], causal: bool, window: int | None) -> None:
    layout = Layout(LENGTHS, causal=causal)
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(n, sum(LENGTHS), 64, generator=generator).requires_grad_() for n in (4, 2, 2)]
    half = [state.detach().to(GPU, torch.bfloat16).requires_grad_() for state in exact]
    on_gpu = {key: value.to(GPU) if isinstance(value, Tensor) else value for key, value in scoring.items()}
    (query, key, value), (q, k, v) = exact, half
    expected = runs(query, key, value, layout, Scoring(window=window, **scoring))  # type: ignore[arg-type]
    found = KERNELS[name](q, k, v, layout, Scoring(window=window, **on_gpu))  # type: ignore[arg-type]
    assert (found.float().cpu() - expected).norm() <= 1e-2 * expected.norm()
    expected.square().sum().backward()  # type: ignore[no-untyped-call]
    found.float().square().sum().backward()  # type: ignore[no-untyped-call]
    for one, other in zip(half, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad.float().cpu() - other.grad).norm() <= 3e-2 * other.grad.norm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "model")


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    products: np.ndarray = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return products


def test_an_encoder_takes_the_gpu_and_computes_what_the_processor_does(folder: Path) -> None:
    encoder = Encoder.load(folder)
    assert (encoder.device.type, encoder.dtype) == ("cuda", torch.bfloat16)
    with kernels_used() as names:
        vectors = encoder.encode(TEXTS)
    assert names == {"flash" if offers().flash else "varlen"}
    assert cosines(vectors, Encoder.load(folder, device="cpu").encode(TEXTS)).min() >= 0.999
    # The same text in other packs.
    alone = np.stack([encoder.encode(text) for text in TEXTS[:4]])
    assert cosines(alone, vectors[:4]).min() >= 0.99999
    eight = Encoder.load(folder, dtype="fp8").encode(TEXTS)
    assert cosines(eight, vectors).min() >= 0.98


@pytest.fixture
def little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(GPU) + 300_000_000) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_that_runs_out_halves_the_budget(folder: Path, request: pytest.FixtureRequest) -> None:
    encoder = Encoder.load(folder)
    expected = encoder.encode(TEXTS)
    request.getfixturevalue("little_memory")
    encoder.pipeline.token_budget = 1 << 22
    texts = TEXTS * 200
    vectors = encoder.encode(texts)
    assert encoder.pipeline.token_budget < 1 << 22
    assert cosines(vectors[: len(TEXTS)], expected).min() >= 0.9999


@pytest.mark.parametrize("case", ["llama", "gemma2", "gpt_oss"])
def test_gradients_of_an_adapter_are_those_of_the_processor(case: str) -> None:
    found = []
    for device, dtype in [("cpu", torch.float32), ("cuda", torch.bfloat16)]:
        torch.manual_seed(0)
        trainee = Trainee(Backbone(build(case).to(device, dtype)), Lora(dropout=0.0, targets=("q_proj", "o_proj")))
        trainee.train()
        for number, parameter in enumerate(trainee.parameters_trained):
            generator = torch.Generator().manual_seed(number)
            parameter.data = (0.1 * torch.randn(parameter.shape, generator=generator)).to(parameter)
        row = torch.tensor([token for text in ids_of(LENGTHS) for token in text], device=device)
        trainee(row, LENGTHS, lambda states: states).float().square().mean().backward()
        gradients = [parameter.grad for parameter in trainee.parameters_trained]
        found.append(torch.cat([gradient.float().cpu().flatten() for gradient in gradients if gradient is not None]))
    assert cosine_similarity(found[0], found[1], dim=0) >= 0.99

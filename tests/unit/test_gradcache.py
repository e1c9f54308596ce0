from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from unmask.errors import InputError
from unmask.training.objectives import cached_backward, info_nce


class Toy(nn.Module):
    """Dropout between layers, and a layer that no text reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, 6))
        self.unused = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        vectors: Tensor = self.layers(rows)
        return vectors


def contrast(vectors: Tensor) -> Tensor:
    return info_nce(*vectors.chunk(2), temperature=0.1)


def toy() -> tuple[Toy, list[Tensor]]:
    torch.manual_seed(2)
    return Toy(), [torch.randn(size, 8) for size in (5, 1, 7, 3)]


def gradients(model: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    for name, parameter in model.named_parameters():
        yield name, parameter.grad
        parameter.grad = None


def plain(model: Toy, chunks: list[Tensor]) -> tuple[Tensor, dict[str, Tensor | None], Tensor]:
    """The step with all activations alive: loss, gradients, and the random state it leaves."""
    torch.manual_seed(3)
    loss = contrast(torch.cat([model(chunk) for chunk in chunks]))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), dict(gradients(model)), torch.get_rng_state()


def test_loss_gradients_and_random_state_are_those_of_the_plain_step() -> None:
    model, chunks = toy()
    loss, expected, state = plain(model, chunks)
    torch.manual_seed(3)
    cached = cached_backward(chunks, model, contrast)
    assert torch.equal(torch.get_rng_state(), state)
    assert not cached.requires_grad
    torch.testing.assert_close(cached, loss)
    for name, gradient in gradients(model):
        if name.startswith("unused"):
            assert gradient is None
            continue
        assert gradient is not None
        assert float(gradient.abs().max()) > 1e-3
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-5)


def test_dropout_is_at_work() -> None:
    """Else the test above would prove nothing about random states."""
    model, chunks = toy()
    one, _, state = plain(model, chunks)
    torch.set_rng_state(state)
    two = contrast(torch.cat([model(chunk) for chunk in chunks])).detach()
    assert float((two - one).abs()) > 1e-3


def test_gradients_add_to_those_there() -> None:
    model, chunks = toy()
    cached_backward(chunks, model.eval(), contrast)
    once = [gradient.clone() for _, gradient in gradients(model) if gradient is not None]
    for _ in range(2):
        cached_backward(chunks, model, contrast)
    twice = [gradient for _, gradient in gradients(model) if gradient is not None]
    for single, double in zip(once, twice, strict=True):
        torch.testing.assert_close(double, 2 * single)


def test_one_chunks_graph_at_a_time() -> None:
    """First pass without gradient; then each chunk is propagated before the next one is embedded."""
    model, chunks = toy()
    events: list[str] = []

    def embed(chunk: Tensor) -> Tensor:
        events.append(f"{len(chunk)} {'with' if torch.is_grad_enabled() else 'without'}")
        return model(chunk)  # type: ignore[no-any-return]

    def backward(share: Tensor) -> None:
        assert share.shape == ()
        events.append("back")
        share.backward()  # type: ignore[no-untyped-call]

    cached_backward(chunks, embed, contrast, backward=backward)
    first = [f"{size} without" for size in (5, 1, 7, 3)]
    assert events == [*first, "5 with", "back", "1 with", "back", "7 with", "back", "3 with", "back"]


def test_a_backward_that_scales_scales_once() -> None:
    model, chunks = toy()
    _, expected, _ = plain(model, chunks)
    torch.manual_seed(3)
    cached_backward(chunks, model, contrast, backward=lambda share: torch.autograd.backward(8 * share))
    for name, gradient in gradients(model):
        if gradient is not None and (wanted := expected[name]) is not None:
            torch.testing.assert_close(gradient, 8 * wanted, atol=1e-4, rtol=1e-5)


def test_a_loss_that_draws_leaves_the_random_state_of_the_plain_step() -> None:
    model, chunks = toy()

    def noisy(vectors: Tensor) -> Tensor:
        return contrast(vectors + 0.1 * torch.randn_like(vectors))

    torch.manual_seed(3)
    noisy(torch.cat([model(chunk) for chunk in chunks]))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    cached_backward(chunks, model, noisy)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_works_under_autocast() -> None:
    """The weights that autocast casts in the pass without gradient must not serve the pass with it."""
    model, chunks = toy()
    _, expected, _ = plain(model, chunks)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cached_backward(chunks, model, contrast)
    for name, gradient in gradients(model):
        if (wanted := expected[name]) is not None:
            assert gradient is not None
            assert float(torch.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0)) > 0.99


def test_another_devices_random_state_is_replayed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for CUDA, whose dropout draws from a generator of its own."""
    device = torch.Generator().manual_seed(4)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [device.get_state()])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: device.set_state(states[0]))
    model, chunks = toy()
    seen: list[Tensor] = []

    def embed(chunk: Tensor) -> Tensor:
        seen.append(torch.rand(3, generator=device))
        return model(chunk)  # type: ignore[no-any-return]

    cached_backward(chunks, embed, contrast)
    assert torch.equal(torch.stack(seen[:4]), torch.stack(seen[4:]))
    after_one_pass = torch.Generator().manual_seed(4)
    for _ in chunks:
        torch.rand(3, generator=after_one_pass)
    assert torch.equal(device.get_state(), after_one_pass.get_state())


def test_no_chunks_is_an_error() -> None:
    with pytest.raises(InputError, match="no chunks"):
        cached_backward([], lambda chunk: chunk, contrast)

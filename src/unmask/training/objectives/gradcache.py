"""Large contrastive batches in small memory: gradients are cached at the vectors (arXiv 2101.06983).

Shapes: n texts of a chunk, N texts of all chunks, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from unmask.errors import InputError

Chunk = TypeVar("Chunk")


def cached_backward(
    chunks: Sequence[Chunk],
    embed: Callable[[Chunk], Tensor],
    loss: Callable[[Tensor], Tensor],
    *,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Tensor:
    """Back-propagate one loss over all chunks while the activations of only one are alive.

    Each chunk is embedded without gradient; the loss gives the gradient of each vector; then each chunk is
    embedded again, with gradient, and its vectors' gradients are propagated into the model. The second pass
    runs under the random state of the first, so dropout drops the same. Gradients are those of
    ``backward(loss(torch.cat([embed(chunk) for chunk in chunks])))``, at the price of a second forward pass.

    Args:
        chunks: what ``embed`` takes, at least one.
        embed: a chunk → its vectors ``[n, D]``; the model is called here.
        loss: all vectors ``[N, D]`` in the order of the chunks → scalar. Only the vectors get gradients from
            it: parameters of its own, such as a learned temperature, do not.
        backward: called once a chunk with a scalar whose gradients are the chunk's share, for instance
            ``accelerator.backward``.

    Returns:
        The loss, detached. The random state is left where the plain step leaves it.

    Raises:
        InputError: there are no chunks.
    """
    if not chunks:
        raise InputError("cached_backward was given no chunks; expected at least one.")
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_states())
            parts.append(embed(chunk))
    vectors_ND = torch.cat(parts).requires_grad_()
    value = loss(vectors_ND)
    (gradient_ND,) = torch.autograd.grad(value, vectors_ND)
    end = _random_states()
    shares = torch.split(gradient_ND, [len(part) for part in parts])
    for chunk, state, gradient_nD in zip(chunks, states, shares, strict=True):
        _restore(state)
        backward((embed(chunk) * gradient_nD).sum())
    _restore(end)
    return value.detach()


def _random_states() -> list[Tensor]:
    """Return the random states of the CPU and, once CUDA is in use, of its devices: dropout draws where it runs."""
    on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if on_cuda else [])]


def _restore(states: list[Tensor]) -> None:
    """Set the random states to recorded ones."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])

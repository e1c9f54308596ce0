"""Has a provider embed the probe texts."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.engine.contract import EmbeddingEngine
from unmask.gateway.routing.agreement import PROBES
from unmask.gateway.routing.routes import LocalProvider, Route
from unmask.gateway.routing.states import ProviderState

#: As whom probes are embedded by the engine of this process.
_CALLER: Final = "unmask probes"


async def probe(
    state: ProviderState, route: Route, engine: EmbeddingEngine, seconds: float | None = None
) -> NDArray[np.float32]:
    """Return a provider's vectors of :data:`~unmask.gateway.routing.agreement.PROBES`.

    Args:
        state: of the provider.
        route: of the model.
        engine: of this process.
        seconds: that a provider elsewhere may take; None for as many as any attempt.

    Raises:
        ServingError: it cannot embed them now.
        InputError: it will not embed them.
    """
    remote = state.remote
    if remote is None:
        assert isinstance(state.provider, LocalProvider), "a provider is local or remote"
        return (await engine.embed(state.provider.model, PROBES, caller=_CALLER)).vectors
    vectors = await remote.embed(
        PROBES,
        truncate=True,
        wait=0.0,
        priority="realtime",
        dimension=route.dimension,
        seconds=remote.provider.timeouts.total if seconds is None else seconds,
    )
    return vectors.array

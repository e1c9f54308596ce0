"""The box on a model's page: a few short texts, free of charge, within limits."""

from __future__ import annotations

import time
from typing import Final

from unmask.engine.contract import EmbeddingEngine
from unmask.errors import InputError
from unmask.form import normalized
from unmask.gateway.api.limits import Allowances
from unmask.gateway.hosting.offer import Offer
from unmask.gateway.web.services import TryIt
from unmask.text import Text

#: Texts of one try, and tokens of all of them.
_TEXTS: Final = 8
_TOKENS: Final = 1024
#: Seconds that a visitor waits for a model that is being loaded.
_WAIT: Final = 20.0


class Trying:
    """Tries models; a :class:`unmask.gateway.web.services.Trying`.

    Args:
        engine: that computes.
        offer: knows the models' names.
        per_minute: tries of a user, and of all who are not signed in together.
    """

    def __init__(self, engine: EmbeddingEngine, offer: Offer, *, per_minute: int) -> None:
        self._engine = engine
        self._offer = offer
        self._allowances = Allowances(requests=per_minute)

    async def __call__(self, slug: str, texts: list[str], instruction: str | None, user_id: int | None) -> TryIt:
        """Return how alike texts are; see the protocol.

        Raises:
            InputError: there are too many texts, or too few.
            RateLimitError: too many tries in this minute.
            UnmaskError: as :meth:`unmask.engine.contract.EmbeddingEngine.embed`.
        """
        if not 2 <= len(texts) <= _TEXTS:
            raise InputError(f"{len(texts)} texts were given. Expected 2 to {_TEXTS}.")
        self._allowances.of(user_id).take("requests")
        model = self._offer.name(slug)
        # As a batch: who pays goes first.
        start = time.perf_counter()
        embedded = await self._engine.embed(
            model,
            [Text(instruction or "", texts[0]), *(Text("", text) for text in texts[1:])],
            caller="pages",
            priority="batch",
            wait=_WAIT,
            most_tokens=_TOKENS,
        )
        milliseconds = 1000 * (time.perf_counter() - start)
        units_ND = normalized(embedded.vectors)
        cosines = (units_ND @ units_ND.T).clip(-1, 1)
        return TryIt(
            similarities=tuple(tuple(float(each) for each in row) for row in cosines),
            tokens=embedded.tokens,
            milliseconds=milliseconds,
        )

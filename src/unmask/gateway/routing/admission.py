"""A request: what is asked for, how many tokens it has, and its caller's account, which is asked once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unmask.engine.contract import Admit, EmbeddingEngine, Priority, check_total
from unmask.errors import ModelColdError, ModelUnavailableError
from unmask.gateway.routing.counting import AROUND, most_tokens, split
from unmask.gateway.routing.errors import ProviderError
from unmask.gateway.routing.remote import Remote
from unmask.gateway.routing.routes import Route
from unmask.text import Text

_log: Final = logging.getLogger("unmask.routing")

#: Tokens from which an Unmask server is asked how many there are: of fewer it costs little to reserve too many.
_EXACT_FROM: Final = 8192


class Admission:
    """Admits a request once, however often it is tried.

    Args:
        admit: asks the caller's account; None for nobody.

    Attributes:
        tokens: that were admitted, None before.
        refused: why it was not, None if it was or has not been asked for.
    """

    def __init__(self, admit: Admit | None) -> None:
        self._admit = admit
        self.tokens: tuple[int, ...] | None = None
        self.refused: BaseException | None = None

    async def __call__(self, tokens: Sequence[int]) -> None:
        """Admit it, unless that is done; what the account raises ends the request."""
        if self.tokens is not None:
            return
        if self._admit is not None:
            try:
                await self._admit(tokens)
            except BaseException as error:
                self.refused = error
                raise
        self.tokens = tuple(tokens)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: the arguments of :meth:`unmask.engine.contract.EmbeddingEngine.embed`."""

    texts: Sequence[Text]
    caller: str
    priority: Priority
    truncate: bool
    wait: float
    most_tokens: int | None
    admission: Admission


@dataclass(frozen=True, kw_only=True)
class Count:
    """Tokens of a request's texts.

    Attributes:
        tokens: of each text.
        exact: whether it has them, or at most so many.
    """

    tokens: tuple[int, ...]
    exact: bool

    def used(self, sum_of_provider: int | None, name: str) -> tuple[int, ...]:
        """Return the tokens of each text as a provider read them: its sum, split as ours are.

        Args:
            sum_of_provider: None or 0 if it does not say.
            name: of the provider.

        Raises:
            ProviderError: nobody knows.
        """
        if sum_of_provider:
            return split(sum_of_provider, [max(1, each - (0 if self.exact else AROUND)) for each in self.tokens])
        if not self.exact:
            raise ProviderError(f"The answer of provider {name!r} has no usage.", kind="malformed")
        return self.tokens


class Entrance:
    """Lets one request in.

    Args:
        request: to be let in.
        route: of the model.
        engine: of this process.
    """

    def __init__(self, request: Request, route: Route, engine: EmbeddingEngine) -> None:
        self._request = request
        self._route = route
        self._engine = engine
        self._count: Count | None = None

    async def pass_to(self, remote: Remote, seconds: float) -> Count:
        """Have the request admitted, unless it is, and return its tokens.

        Args:
            remote: that is to answer.
            seconds: that it may take to count.

        Raises:
            TooManyTokensError: there are more than a request may have.
            UnmaskError: as the account, and as :meth:`Remote.tokenize`.
        """
        admission = self._request.admission
        if self._count is None and admission.tokens is not None:
            # By the engine of this process, which failed then.
            self._count = Count(tokens=admission.tokens, exact=True)
        if self._count is None:
            self._count = await self._counted(remote, seconds)
        if self._count.exact:
            check_total(sum(self._count.tokens), self._request.most_tokens)
        await admission(self._count.tokens)
        return self._count

    async def _counted(self, remote: Remote, seconds: float) -> Count:
        """Return the texts' tokens: from a tokenizer here, from a provider that has one, or at most."""
        texts, truncate, local = self._request.texts, self._request.truncate, self._route.local
        if local is not None:
            try:
                found = await self._engine.tokenize(local.model, texts, truncate=truncate, wait=0)
                return Count(tokens=tuple(len(each.ids) for each in found), exact=True)
            except (ModelColdError, ModelUnavailableError) as error:
                fields = {"model": local.model, "error": type(error).__name__}
                _log.info("no tokenizer here yet: tokens are reserved at most", extra={"fields": fields})
        bound = most_tokens(texts, self._route.max_length)
        if remote.provider.kind == "unmask" and sum(bound) >= _EXACT_FROM:
            found = await remote.tokenize(texts, truncate=truncate, seconds=seconds)
            return Count(tokens=tuple(len(each.ids) for each in found), exact=True)
        return Count(tokens=bound, exact=False)

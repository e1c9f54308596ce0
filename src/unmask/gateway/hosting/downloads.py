"""How often models are called and fetched here, and downloaded from their hub where the operator lets it be asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from unmask.gateway.accounts.pulls import Calls, Pulls
from unmask.gateway.catalogue import Catalogue

_log: Final = logging.getLogger("unmask.gateway")

_SECONDS: Final = 10.0


def hub() -> str:
    """Return where the weights of models with a repository are, without a slash at its end."""
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def of_hub(repository: str) -> int | None:
    """Return the downloads of a repository in the last 30 days, as its hub says; None if it does not say.

    Raises:
        OSError: the hub cannot be asked, or has no such repository.
    """
    from huggingface_hub import HfApi

    return HfApi().model_info(repository, expand=["downloads"], timeout=_SECONDS).downloads


class Downloads:
    """The hub's figures of the catalogue's models; none before the first :meth:`refresh`.

    Args:
        catalogue: of the models; those without a repository have no figure.
        ask: a repository → its downloads; may wait.
    """

    def __init__(self, catalogue: Catalogue, ask: Callable[[str], int | None] = of_hub) -> None:
        self._repositories = {entry.slug: entry.source for entry in catalogue if "/" in entry.source}
        self._ask = ask
        self._found: dict[str, int] = {}

    def __call__(self) -> Mapping[str, int]:
        """Return the figures by slug, as they were when last asked for."""
        return self._found

    async def refresh(self) -> None:
        """Ask for every figure, one after the other; one that cannot be had stays as it was."""
        failed: list[str] = []
        for slug, repository in self._repositories.items():
            try:
                count = await asyncio.to_thread(self._ask, repository)
            except (OSError, ValueError) as error:  # what the hub's client raises
                failed.append(f"{repository}: {type(error).__name__}")
                continue
            if count is not None:
                self._found[slug] = count
        if failed:
            _log.warning("the hub did not tell all downloads", extra={"fields": {"failed": failed}})


class Popularity:
    """What ``/v1/models`` says of how much models are used; nothing before the first :meth:`refresh`.

    Args:
        calls: that were answered.
        pulls: of weights.
        downloads: as hubs count them.
    """

    def __init__(self, calls: Calls, pulls: Pulls, downloads: Callable[[], Mapping[str, int]]) -> None:
        self._calls = calls
        self._pulls = pulls
        self._downloads = downloads
        self._called: Mapping[str, int] = {}
        self._pulled: Mapping[str, int] = {}

    def of(self, slug: str) -> dict[str, int | None]:
        """Return the figures of a model's last 30 days."""
        hub = self._downloads().get(slug)
        return {"calls": self._called.get(slug, 0), "pulls": self._pulled.get(slug, 0), "hub": hub}

    async def refresh(self) -> None:
        """Read the counts again.

        Raises:
            DatabaseUnavailableError: they cannot be read now; those before stay.
        """
        self._called, self._pulled = await self._calls.last_month(), await self._pulls.last_month()

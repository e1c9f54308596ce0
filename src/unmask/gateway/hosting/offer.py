"""What can be bought: the catalogue's models, as the engines that are there serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from unmask.engine.contract import EmbeddingEngine
from unmask.errors import InputError, UnknownModelError
from unmask.gateway.accounts.money import UNIT
from unmask.gateway.catalogue import Catalogue, Entry, Prices, status_of

#: The names of those who answer now, by the slugs of models that anybody answers for.
Providers = Callable[[], Mapping[str, Sequence[str]]]
#: How much a model is used, by its slug.
Used = Callable[[str], Mapping[str, int | None] | None]


def _unknown(slug: str) -> None:
    """Return nothing: nobody counts."""


class Offer:
    """The catalogue over engines.

    Args:
        catalogue: of all models.
        engines: that serve some of them, each by any of its names.
        currency: of the prices.
        providers: who answers now.
        used: how much each model is used in a month.

    Raises:
        InputError: an engine serves a model that the catalogue does not know, so it has no price; or one model twice.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        engines: Iterable[EmbeddingEngine],
        *,
        currency: str,
        providers: Providers = dict,
        used: Used = _unknown,
    ) -> None:
        self.catalogue = catalogue
        self._engines = tuple(engines)
        self._currency = currency
        self._providers = providers
        self._used = used
        self._served: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again at which models the engines serve.

        Raises:
            InputError: as for the arguments; the offer is as it was.
        """
        served: dict[str, str] = {}
        for name in self.states():
            slug = self._slug(name)
            other = served.setdefault(slug, name)
            if other != name:
                raise InputError(f"The models {other} and {name} are the same one, {slug}. Serve it once.")
        self._served = served

    def _slug(self, name: str) -> str:
        try:
            return self.catalogue.find(name).slug
        except UnknownModelError as error:
            raise InputError(
                f"The model {name} is served and has no entry in the catalogue, so it has no price. Write {name}.toml "
                "into a folder of the setting `catalogue` (docs/catalogue.md), or serve it under a name of an entry."
            ) from error

    def states(self) -> dict[str, str]:
        """Return the state of each model that an engine serves, by the name it serves it under."""
        return {model.name: model.state for engine in self._engines for model in engine.served()}

    def name(self, given: str) -> str:
        """Return the name a model is served under, by any of its names; as it was given if none serves it.

        Raises:
            UnknownModelError: the catalogue knows it, and nobody serves it.
        """
        try:
            slug = self.catalogue.find(given).slug
        except UnknownModelError:
            return given
        served = self._served.get(slug)
        if served is None:
            raise UnknownModelError(
                f"Model {slug!r} is not served yet. Say on its page that you want it; /v1/models lists those served."
            )
        return served

    def entry(self, name: str) -> Entry:
        """Return what the catalogue says of a model that is served."""
        return self.catalogue.find(name)

    def shown(self, served: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return every model as ``/v1/models`` shows it, by slug.

        Args:
            served: what the API says of those that are served, by the names they are served under.
        """
        states, providers = self.states(), self._providers()
        return {
            entry.slug: self._describe(entry, states, served.get(self._served.get(entry.slug, ""), {}))
            | {"providers": providers.get(entry.slug, ()), "downloads": self._used(entry.slug)}
            for entry in self.catalogue
        }

    def _describe(self, entry: Entry, states: Mapping[str, str], served: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": entry.slug,
            "object": "model",
            "created": _seconds(entry.published),
            "owned_by": entry.source.partition("/")[0],
            "status": status_of(entry, states),
            "endpoints": served.get("endpoints", ()),
            "dimensions": served.get("dimensions") or entry.dimensions,
            "max_length": served.get("max_length") or entry.max_length,
            "title": entry.title,
            "task": entry.task,
            "names": entry.accepted,
            "prices": _shown(entry.prices, self._currency),
        }


def _shown(prices: Prices, currency: str) -> dict[str, str]:
    return {
        "per": prices.per,
        "realtime": f"{Decimal(prices.realtime) / UNIT:f}",
        "batch": f"{Decimal(prices.batch) / UNIT:f}",
        "currency": currency,
    }


def _seconds(day: str | None) -> int:
    """Return when a day, or month, began, in seconds since 1970; 0 if it is not known."""
    if day is None:
        return 0
    whole = day if len(day) > len("2024-04") else f"{day}-01"
    return int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())

"""The routes of a gateway: from the catalogue's files, what the engine serves, and what admins added."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from unmask.errors import InputError
from unmask.gateway.catalogue.entry import Entry
from unmask.gateway.catalogue.fields import Provider as Named
from unmask.gateway.routing.routes import Choice, LocalProvider, Provider, ProviderKey, RemoteProvider, Route
from unmask.gateway.routing.store import StoredProvider

_log: Final = logging.getLogger("unmask.routing")

#: What a variable that holds a provider's key begins with.
PREFIX: Final = "UNMASK_PROVIDER_KEY_"
#: Tasks whose models give vectors of texts.
_EMBEDS: Final = ("sentence-similarity", "feature-extraction")


def variable_of(name: str) -> str:
    """Return the environment variable in which the key of a provider of the catalogue's files stands."""
    return PREFIX + re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")


def routes_of(
    entries: Iterable[Entry],
    served: Sequence[str],
    stored: Sequence[StoredProvider] = (),
    *,
    environment: Mapping[str, str],
    choice: Choice = "latency",
) -> dict[str, Route]:
    """Return the route of every model that has a provider elsewhere, by its slug; others need none.

    A model's order of providers is: the engine of this process, those of its file, those that were added.

    Args:
        entries: of the catalogue.
        served: what the engine of this process serves.
        stored: what admins added.
        environment: has the keys of the files' providers, see :func:`variable_of`.
        choice: how one of several is chosen.

    Raises:
        InputError: a key cannot be one, or two providers of a model have one name.
    """
    here = {name.casefold(): name for name in served}
    added: dict[str, list[RemoteProvider]] = {}
    for each in stored:
        if each.enabled:
            added.setdefault(each.slug, []).append(each.provider)
    routes: dict[str, Route] = {}
    for entry in entries:
        elsewhere = [*(_remote(each, environment) for each in entry.providers), *added.pop(entry.slug, ())]
        if not elsewhere or entry.retired or entry.task not in _EMBEDS:
            continue
        own = next((here[name.casefold()] for name in entry.accepted if name.casefold() in here), None)
        local: list[Provider] = [LocalProvider(model=own)] if own else []
        try:
            routes[entry.slug] = Route(
                providers=(*local, *elsewhere),
                choice=choice,
                dimension=entry.dimensions,
                max_length=entry.max_length,
                query_instruction=entry.query_instruction,
            )
        except InputError as error:
            raise InputError(f"The providers of {entry.slug} cannot be used: {error}") from error
    if added:
        _log.warning("providers of unknown models are not used", extra={"fields": {"models": sorted(added)}})
    return routes


def _remote(named: Named, environment: Mapping[str, str]) -> RemoteProvider:
    key = environment.get(variable_of(named.name))
    # The operator wrote the file, and may send requests anywhere.
    return RemoteProvider(
        name=named.name,
        url=named.url,
        model=named.model,
        kind=named.kind,
        key=ProviderKey(key.strip()) if key else None,
        private=True,
    )

"""Every model that a gateway knows, found by any of its names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from unmask.errors import InputError, UnknownModelError
from unmask.gateway.catalogue.entry import Entry
from unmask.gateway.catalogue.fields import Licence
from unmask.gateway.catalogue.reading import Origin, near, read_folders
from unmask.gateway.catalogue.status import Listing, status_of

#: The models that Unmask comes with.
SHIPPED: Final = Path(__file__).parent / "models"


class Catalogue:
    """Models by their names; nothing in it changes.

    Args:
        origins: the models, each with the files that say so.

    Raises:
        InputError: two models accept one name, or one names a model that is not there; names the file.
    """

    def __init__(self, origins: Iterable[Origin]) -> None:
        found = {origin.entry.slug: origin for origin in origins}
        self._entries: dict[str, Entry] = {slug: origin.entry for slug, origin in found.items()}
        self._slugs: dict[str, str] = {}
        for slug, origin in found.items():
            for name in origin.entry.accepted:
                other = self._slugs.setdefault(name.casefold(), slug)
                if other != slug:
                    raise InputError(
                        f"{origin.file}: the name {name} is also one of {other}, in {found[other].file}; expected a "
                        f"name for one model alone. Take it out of one of them."
                    )
            self._check_links(origin)

    @classmethod
    def load(cls, folders: Iterable[Path] = (), *, shipped: bool = True) -> Catalogue:
        """Return the models that Unmask comes with and those of an operator.

        Args:
            folders: of the operator, see :mod:`unmask.gateway.catalogue.reading`; a later one has the last word.
            shipped: begin with the models that Unmask comes with.

        Raises:
            InputError: a file is not right; names file, field, what was found and what was expected.
        """
        return cls(read_folders([*([SHIPPED] if shipped else []), *folders]))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> Entry:
        """Return a model by its slug, its repository or another of its names, in small or capital letters.

        Raises:
            UnknownModelError: there is none; names those that are called much alike.
        """
        slug = self._slugs.get(name.casefold())
        if slug is None:
            shown = name[:200]
            raise UnknownModelError(
                f"There is no model {shown!r}.{near(shown, self._slugs)} GET /v1/models lists all of them."
            )
        return self._entries[slug]

    def related(self, entry: Entry) -> tuple[Entry, ...]:
        """Return models to look at next: those the entry names, its base, what was made of the same base or of it."""
        bases = {entry.slug, entry.base} - {None}
        kin = [each.slug for each in self if each.slug in bases or each.base in bases]
        order = dict.fromkeys([*entry.related, *([entry.base] if entry.base else []), *kin])
        return tuple(self._entries[slug] for slug in order if slug != entry.slug)

    def licences(self, entry: Entry) -> tuple[Licence, ...]:
        """Return every licence that holds for a model: its own, then those of what it was made from, each once."""
        found: dict[str, Licence] = {}
        seen: set[str] = set()
        current: Entry | None = entry
        while current is not None and current.slug not in seen:
            seen.add(current.slug)
            found.setdefault(current.licence.label, current.licence)
            current = self._entries[current.base] if current.base else None
        return tuple(found.values())

    def listings(self, served: Mapping[str, str]) -> tuple[Listing, ...]:
        """Return every model with its status; see :func:`unmask.gateway.catalogue.status.status_of`."""
        return tuple(Listing(entry=entry, status=status_of(entry, served)) for entry in self)

    def _check_links(self, origin: Origin) -> None:
        """Refuse a name of another model that no model has."""
        entry = origin.entry
        for field, slugs in (("related", entry.related), ("base", (entry.base,) if entry.base else ())):
            for slug in slugs:
                if slug == entry.slug or slug not in self._entries:
                    what = "the model itself" if slug == entry.slug else "no model's slug"
                    raise InputError(
                        f"{origin.files[field]}: {field} names {slug}, which is {what}; expected another model's slug."
                        f"{near(slug, self._entries)} Correct it."
                    )

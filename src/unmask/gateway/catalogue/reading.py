"""Folders of TOML files → entries; later folders add models, or give other values to fields of earlier ones.

models/
  SLUG.toml            a model, or the fields of one that are to be different
  SLUG.measured.json   what `unmask eval` says of it
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from unmask.errors import InputError
from unmask.gateway.catalogue.entry import Entry

MEASURED: Final = ".measured.json"
#: Fields that are not a TOML file's to say, with where they come from.
_ELSEWHERE: Final = {"slug": "the file's name", "measured": f"the file SLUG{MEASURED}"}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An entry, and where it is from.

    Attributes:
        entry: the model.
        files: the file that gave each field; under ``slug``, the last one that said anything.
    """

    entry: Entry
    files: Mapping[str, Path]

    @property
    def file(self) -> Path:
        """The last file that said anything of it."""
        return self.files["slug"]


def read_folders(folders: Iterable[Path]) -> list[Origin]:
    """Return the models of some folders, in the order of their slugs.

    A field of a later folder stands for the whole field of an earlier one, tables and lists included.

    Raises:
        InputError: a folder or file cannot be read, or says what no model can have; names file, field, what was
            found and what was expected.
    """
    fields: dict[str, dict[str, Any]] = {}
    files: dict[str, dict[str, Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no folder of models {folder}. Make it, or name another one.")
        for file in sorted([*folder.glob("*.toml"), *folder.glob(f"*{MEASURED}")]):
            if file.name.startswith("."):  # an editor's, or a draft
                continue
            slug = file.name.removesuffix(MEASURED).removesuffix(".toml")
            given = {"measured": _json(file)} if file.name.endswith(MEASURED) else _toml(file)
            fields.setdefault(slug, {"slug": slug}).update(given)
            files.setdefault(slug, {}).update(dict.fromkeys(["slug", *given], file))
    return [Origin(entry=_entry(fields[slug], files[slug]), files=files[slug]) for slug in sorted(fields)]


def near(name: str, known: Iterable[str]) -> str:
    """Return what a message adds about names like the one that was given, empty if there are none."""
    close = get_close_matches(name.casefold(), sorted({each.casefold() for each in known}), n=3, cutoff=0.5)
    return f" Near it: {', '.join(close)}." if close else ""


def _toml(file: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as TOML: {error}. Correct it.") from error
    for field, source in _ELSEWHERE.items():
        if field in data:
            raise InputError(f"{file}: {field} is no field of this file; it is {source}. Take the line out.")
    return data


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as JSON: {error}. Write it again: python -m unmask.gateway.catalogue.measuring"
        ) from error


def _entry(fields: Mapping[str, Any], files: Mapping[str, Path]) -> Entry:
    try:
        return Entry.model_validate(fields)
    except ValidationError as error:
        raise InputError(_message(error.errors(include_url=False), files)) from error


def _message(errors: list[ErrorDetails], files: Mapping[str, Path]) -> str:
    """Return the first of a model's errors as a line, and how many more there are."""
    first = errors[0]
    where = [str(part) for part in first["loc"]]
    # What is missing, or wrong of several fields together, is the last file's to say.
    file = files.get(where[0] if where else "slug", files["slug"])
    path = ".".join(where)
    more = f" And {len(errors) - 1} more." if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = sorted(set(Entry.model_fields) - set(_ELSEWHERE)) if len(where) == 1 else ()
        said = f"there is no field {path}.{near(where[-1], known)} Expected only those of docs/catalogue.md."
    elif first["type"] == "missing":
        said = f"there is no {path}; expected it, as docs/catalogue.md says. Put it in."
    else:
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ").rstrip(".")
        said = f"{path} is {_shown(first['input'])}; expected {expected}." if path else f"expected {expected}."
        said += " Correct it."
    return f"{file}: {said}{more}"


def _shown(value: Any) -> str:
    text = re.sub(r"//[^/\s]*@", "//…@", repr(value))  # a password in an address is for no log
    return text if len(text) <= 80 else f"{text[:77]}…"

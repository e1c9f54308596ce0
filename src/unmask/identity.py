"""What makes an encoder's vectors what they are, so that vectors can be kept and found again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.encoder import Encoder


def identity(encoder: Encoder) -> str:
    """Return what a vector depends on besides its text: the model's files, how they are used, the settings.

    Files are told apart by place, size and time of change, not read: that would take seconds.
    """
    checkpoint = encoder.checkpoint
    folders = [checkpoint.base, checkpoint.tokenizer, *checkpoint.adapters]
    files = [(str(folder), _stamps(folder)) for folder in folders]
    return repr((files, encoder.settings, str(encoder.dtype)))


def _stamps(path: Path) -> list[tuple[Any, ...]]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]

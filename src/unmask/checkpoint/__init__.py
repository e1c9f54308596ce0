"""Checkpoint layouts on disk: read by looking at the files, written whole or not at all.

This package is the only place that knows which file means what. :func:`inspect` tells where a model's
weights, adapters and tokenizer lie and how its vectors are made; it loads no weights. :func:`write`
saves an encoder. Code found in a checkpoint is never run.
"""

from __future__ import annotations

from unmask.checkpoint.layouts import ADAPTER_FILE, LAYOUTS, LLM2VEC_FILE, SETTINGS_FILE, Layout, inspect
from unmask.checkpoint.saving import Saved, write
from unmask.checkpoint.settings import MAX_LENGTH, REFERENCE_POOLINGS, Checkpoint, Settings, reference_pooling

__all__ = [
    "ADAPTER_FILE",
    "LAYOUTS",
    "LLM2VEC_FILE",
    "MAX_LENGTH",
    "REFERENCE_POOLINGS",
    "SETTINGS_FILE",
    "Checkpoint",
    "Layout",
    "Saved",
    "Settings",
    "inspect",
    "reference_pooling",
    "write",
]

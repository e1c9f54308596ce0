"""What mteb's leaderboard wants to know about a model: mteb's ``ModelMeta``, as data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from unmask._version import __version__
from unmask.encoder import Encoder
from unmask.evaluation.mteb.instructions import Instructions
from unmask.hub.catalogue import find

#: What stands before a name that has no organisation; mteb demands one.
ORGANISATION: Final = "unmask"

#: Files that decide what vectors a model gives, by their endings.
_DECIDING: Final = (".safetensors", ".bin", ".gguf", ".json", ".model")
#: Our licences in mteb's spelling, where mteb has one.
_LICENCES: Final = {"Apache-2.0": "apache-2.0"}


def full_name(name: str) -> str:
    """Return ``name`` as mteb wants it: ``organisation/name``."""
    return name if "/" in name else f"{ORGANISATION}/{name}"


def known(name: str) -> dict[str, Any]:
    """Return the fields of mteb's metadata that are known before a model is loaded.

    Args:
        name: a name, with or without organisation; the catalogue's own says more.
    """
    entry = find(name.removeprefix(f"{ORGANISATION}/"))
    return {
        "name": full_name(name),
        "release_date": None,
        "languages": ["eng-Latn"] if entry else None,
        "license": _LICENCES.get(entry.licence) if entry else None,
        "open_weights": True if entry else None,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["PyTorch", "Transformers"],
        "similarity_fn_name": "cosine",
        "use_instructions": True,
        "training_datasets": None,
        "adapted_from": entry.base if entry and isinstance(entry.base, str) else None,
        "modalities": ["text"],
        "model_type": ["dense"],
    }


def measured(encoder: Encoder, instructions: Instructions) -> dict[str, Any]:
    """Return the fields that only a loaded model tells."""
    parameters = list(encoder.backbone.model.parameters())
    embeddings: Any = encoder.backbone.model.get_input_embeddings()
    return {
        "revision": revision(encoder, instructions),
        "n_parameters": sum(parameter.numel() for parameter in parameters),
        "n_embedding_parameters": embeddings.weight.numel(),
        "memory_usage_mb": round(sum(each.numel() * each.element_size() for each in parameters) / 2**20),
        "max_tokens": encoder.max_length,
        "embed_dim": encoder.dimension,
        "output_dtypes": [str(encoder.dtype).removeprefix("torch.")],
    }


def revision(encoder: Encoder, instructions: Instructions) -> str:
    """Return what figures depend on: this version, and a hash of weights, tokenizer, settings and instructions.

    The same on every machine: files count by their content. Figures under another revision are another model's for
    mteb, so that none is taken for one that was computed otherwise.
    """
    checkpoint = encoder.checkpoint
    places = dict.fromkeys([checkpoint.base, checkpoint.tokenizer, *checkpoint.adapters])
    files = [_contents(place) for place in places]
    decided = (files, asdict(encoder.settings), str(encoder.dtype), instructions.digest())
    return f"{__version__}-{hashlib.sha256(json.dumps(decided).encode()).hexdigest()[:12]}"


def _contents(place: Path) -> list[str]:
    """Return the hashes of a model's deciding files, whatever the folder is called."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    hashes = []
    for file in files:
        if file.suffix in _DECIDING:
            with file.open("rb") as stream:
                hashes.append(f"{file.name} {hashlib.file_digest(stream, hashlib.blake2b).hexdigest()}")
    return hashes

"""Our encoders in mteb's registry, so that mteb loads them by name.

mteb 2 has no entry points for models of other packages: its registry is a dictionary, filled when it is imported.
``python -m unmask.evaluation.mteb`` adds to it and hands over to mteb's own command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask.evaluation.mteb.extra import require_mteb
from unmask.evaluation.mteb.meta import known
from unmask.hub.catalogue import CATALOGUE


def register(source: str, *, name: str | None = None) -> str:
    """Let ``mteb.get_model`` load a model of ours, in this process.

    Args:
        source: what :meth:`unmask.Encoder.load` takes.
        name: what mteb calls it; ``unmask/`` and the last part of ``source`` if None.

    Returns:
        The name, with its organisation.

    Raises:
        InputError: mteb is not installed.
    """
    require_mteb()
    from mteb.models.model_implementations import MODEL_REGISTRY
    from mteb.models.model_meta import ModelMeta

    facts = known(name or Path(source).name)
    MODEL_REGISTRY[facts["name"]] = ModelMeta(
        loader=load_unmask,
        loader_kwargs={"source": source},
        # Known once it is loaded.
        revision=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=None,
        **facts,
    )
    return str(facts["name"])


def register_catalogue() -> list[str]:
    """Register every model that has a short name, as ``unmask/SHORT-NAME``; return the names."""
    return [register(entry.name) for entry in CATALOGUE]


def load_unmask(
    model_name: str, revision: str | None = None, *, source: str, device: str | int | None = None, **options: Any
) -> Any:
    """Load a registered model; mteb calls this.

    Args:
        model_name: what mteb calls it.
        revision: none is registered; what was loaded says its own.
        source: what :meth:`unmask.Encoder.load` takes.
        device: as mteb names it: ``cpu``, ``cuda``, or a GPU's number.
        options: more arguments for :meth:`unmask.Encoder.load`, from ``mteb.get_model``.
    """
    from unmask.encoder import Encoder
    from unmask.evaluation.mteb.adapter import adapt

    place = f"cuda:{device}" if isinstance(device, int) else device or "auto"
    return adapt(Encoder.load(source, device=place, **options), name=model_name)

"""Files of a checkpoint: small readers whose errors name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from unmask.errors import CheckpointError

CONFIG_FILE: Final = "config.json"
INDEX_FILE: Final = "model.safetensors.index.json"
_WEIGHTS: Final = ("model*.safetensors", "pytorch_model*.bin")


def read_json(file: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the object in ``file``, or ``default`` if there is no such file and a default.

    Raises:
        CheckpointError: the file is missing, unreadable or holds no JSON object.
    """
    data = _parse(file, default)
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds {type(data).__name__}; expected a JSON object. Fetch it again.")
    return data


def read_json_list(file: Path) -> list[Any]:
    """Return the list in ``file``; raises like :func:`read_json`."""
    data = _parse(file, None)
    if not isinstance(data, list):
        raise CheckpointError(f"{file} holds {type(data).__name__}; expected a JSON list. Fetch it again.")
    return data


def _parse(file: Path, default: Any) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise CheckpointError(f"{file} is missing. Fetch the checkpoint again.") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}. Fetch it again.") from error


def has_weights(folder: Path) -> bool:
    """Whether a file of ``folder`` is named like a model's weights."""
    return (folder / INDEX_FILE).is_file() or any(True for name in _WEIGHTS for _ in folder.glob(name))


def check_shards(folder: Path) -> None:
    """Refuse a folder whose index names weights that are not there.

    Raises:
        CheckpointError: a file of the index is missing, or the index is damaged.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        return
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} has no weight_map. Fetch it again.")
    shards = sorted({str(name) for name in names.values()})
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing[:3])}: {len(missing)} of the {len(shards)} files that its index names. "
            "Fetch it again."
        )


def shown(folder: Path) -> str:
    """Return the names of a few files of ``folder``, for a message."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ["a file"]
    return (", ".join(names[:8]) + (" …" if len(names) > 8 else "")) or "nothing"

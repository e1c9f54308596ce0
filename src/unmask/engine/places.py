"""Names of devices, checked before anything is started on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from unmask.backbone.loading import resolve_device
from unmask.errors import InputError

#: Stands for all CUDA devices of the machine.
ALL: Final = "all"
#: How many devices of a kind there are. None of these takes memory of a device.
_COUNTS: Final[dict[str, Callable[[], int]]] = {
    "cuda": torch.cuda.device_count,
    "mps": lambda: int(torch.backends.mps.is_available()),
    "cpu": lambda: 1,
}


def device_names(asked: str | Sequence[str]) -> tuple[str, ...]:
    """Return torch's names of devices.

    Args:
        asked: names, one string with commas or several: ``cuda:1``, ``mps``, ``cpu``; ``auto`` for the best device at
            hand, ``all`` for all CUDA devices. A device that is named twice is there twice.

    Raises:
        InputError: there is no such device, or none at all.
    """
    names = [name.strip() for name in (asked.split(",") if isinstance(asked, str) else asked)]
    if not names:
        raise InputError("No device is given; expected at least one, such as 'auto', 'cpu' or 'all'.")
    return tuple(found for name in names for found in (_all() if name == ALL else [_checked(name)]))


def _all() -> list[str]:
    count = _COUNTS["cuda"]()
    if not count:
        raise InputError(
            "device 'all' means all CUDA devices, and torch finds none on this machine. Name devices, such as 'cpu', "
            "or install torch for CUDA."
        )
    return [f"cuda:{number}" for number in range(count)]


def _checked(name: str) -> str:
    if name == "auto":
        return str(resolve_device(name))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _unavailable(name) from None
    if (device.index or 0) >= _COUNTS.get(device.type, int)():
        raise _unavailable(name)
    return name


def _unavailable(name: str) -> InputError:
    counts = {kind: count() for kind, count in _COUNTS.items()}
    here = [f"cuda:{number}" for number in range(counts["cuda"])] + [kind for kind in ("mps", "cpu") if counts[kind]]
    return InputError(f"device {name!r} is not available; expected 'auto' or one or more of {', '.join(here)}.")

"""What training needs beyond Unmask's own dependencies: asked for at the start, not after hours."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from unmask.errors import InputError

#: What every run needs.
ALWAYS: Final = ("accelerate", "tensorboard", "matplotlib")
#: What scores need.
SCORES: Final = ("scipy",)


def require_extras(*packages: str) -> None:
    """Raise :class:`InputError` unless the packages are installed; none of them is imported."""
    missing = [name for name in packages if not _is_installed(name)]
    if missing:
        raise InputError(
            f"Training needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed. "
            'Install it with: pip install "unmask[train]"'
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # it stands in sys.modules as something that was never imported
        return False

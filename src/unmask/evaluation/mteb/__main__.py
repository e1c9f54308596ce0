"""mteb's own command, with our encoders among its models: ``python -m unmask.evaluation.mteb run -m unmask/…``."""

from __future__ import annotations

import sys

from unmask.errors import UnmaskError
from unmask.evaluation.mteb.registry import register_catalogue


def main() -> None:
    """Register the catalogue and hand over to mteb's command."""
    try:
        register_catalogue()
        from mteb.cli import main as command

        command()
    except UnmaskError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()

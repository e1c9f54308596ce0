"""The API as `unmask serve` sets it up, over an engine that computes nothing: what is left is the API itself.

python benchmarks/serve_fake.py PORT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from unmask.engine.fake import FakeEngine
from unmask.gateway.api.server import run_server
from unmask.gateway.api.settings import ModelSettings, Settings


def main(port: str, data: str) -> None:
    """Serve until told to stop."""
    run_server(Settings(port=int(port), data=Path(data), models={"fake": ModelSettings()}), FakeEngine())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The API as `unmask serve` sets it up, over an engine that computes nothing: what is left is the API itself.

python benchmarks/serve_fake.py PORT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from unmask.engine.fake import FakeEngine
from unmask.gateway.api.server import run_server
from unmask.gateway.api.settings import ModelSettings, Settings

#: What it is called: the gateway's catalogue has to know it.
MODEL = "smollm2-135m-unsup"


def main(port: str, data: str) -> None:
    """Serve until told to stop."""
    settings = Settings(port=int(port), data=Path(data), models={MODEL: ModelSettings()}, mteb_instructions=False)
    run_server(settings, FakeEngine(models=(MODEL,)))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The gateway over an engine that computes nothing: what is added is keys and credit, on SQLite.

python benchmarks/serve_gateway.py PORT FOLDER

The key of its one customer is written to FOLDER/key.
"""

from __future__ import annotations

import sys
from pathlib import Path

from serve_fake import MODEL

from unmask.engine.fake import FakeEngine
from unmask.gateway.api.logs import configure_logs
from unmask.gateway.api.server import run_app
from unmask.gateway.api.settings import ModelSettings
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.hosting.gateway import Gateway
from unmask.gateway.hosting.settings import GatewaySettings


def main(port: str, data: str) -> None:
    """Serve until told to stop."""
    folder = Path(data)

    async def begun(gateway: Gateway) -> None:
        user = await gateway.users.add("load@example.org")
        await gateway.ledger.credit(user.id, 10**12, "top_up", reference="load")
        _, key = await gateway.keyring.issue(user.id, "load")
        (folder / "key").write_text(key.reveal())

    settings = GatewaySettings(port=int(port), data=folder, models={MODEL: ModelSettings()}, mteb_instructions=False)
    configure_logs(settings.log_level)
    run_app(settings, Gateway(settings, Catalogue.load(), FakeEngine(models=(MODEL,)), begun=begun))


if __name__ == "__main__":
    main(*sys.argv[1:])

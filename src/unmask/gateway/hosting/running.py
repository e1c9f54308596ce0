"""A gateway's process, from its settings to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from unmask.engine.engine import Engine
from unmask.engine.pairs import RERANKER
from unmask.gateway.api.logs import configure_logs
from unmask.gateway.api.server import run_app
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.hosting.demo import open_demo
from unmask.gateway.hosting.gateway import Gateway, named_by_slug
from unmask.gateway.hosting.settings import GatewaySettings


def run_gateway(settings: GatewaySettings, *, say: Callable[[str], None]) -> None:
    """Serve until told to stop, by SIGTERM or Ctrl-C.

    Args:
        settings: of the gateway.
        say: takes the lines for whoever started a demo.

    Raises:
        InputError: a setting cannot be used, or the port is taken.
        DatabaseError: the database cannot be used.
    """
    configure_logs(settings.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it writes a line for each request to a provider
    catalogue = Catalogue.load(settings.catalogue)
    settings = named_by_slug(settings, catalogue)
    pairs = settings.reranker_engine()

    async def begun(gateway: Gateway) -> None:
        if settings.has_demo:
            await open_demo(gateway, say)

    run_app(
        settings,
        Gateway(
            settings,
            catalogue,
            Engine(settings.engine()),
            Engine(pairs, worker=RERANKER) if pairs else None,
            begun=begun,
        ),
    )

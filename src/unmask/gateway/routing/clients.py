"""An HTTP client for each provider: connections of its own, which one that hangs cannot take from the others."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Final

import httpx

from unmask.gateway.routing.addresses import GuardedTransport
from unmask.gateway.routing.routes import RemoteProvider

#: Connections to one provider, of them open without a request, and seconds for which they stay so.
_CONNECTIONS: Final = 200
_IDLE: Final = 50
_IDLE_SECONDS: Final = 20.0


def connect(provider: RemoteProvider) -> httpx.AsyncClient:
    """Return a client for a provider: HTTP/1.1, no redirects, no proxies, nothing taken from the environment."""
    transport = httpx.AsyncHTTPTransport(
        verify=_certificates(),
        trust_env=False,
        limits=httpx.Limits(
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_IDLE,
            # Servers close connections that idle; a request that meets that fails.
            keepalive_expiry=_IDLE_SECONDS,
        ),
    )
    return httpx.AsyncClient(
        transport=GuardedTransport(transport, private=provider.private), trust_env=False, follow_redirects=False
    )


@cache
def _certificates() -> ssl.SSLContext:
    """Return whom to trust; reading it takes tens of milliseconds."""
    return httpx.create_ssl_context(trust_env=False)

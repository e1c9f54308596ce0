"""The headers that every answer of the site has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send


def policy(*forms: str) -> str:
    """Return what a browser may do with a page.

    Everything is from here, and nothing is inline: what an attacker may write into a page is text and no more.

    Args:
        forms: origins to which a form of the page may be sent on, besides this site.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            " ".join(("form-action 'self'", *forms)),
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


#: Of a page whose forms all end here.
POLICY: Final = policy()
_FEATURES: Final = (
    "accelerometer",
    "camera",
    "display-capture",
    "geolocation",
    "gyroscope",
    "microphone",
    "payment",
    "usb",
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Forms need a browser that says where they come from, so the origin is not hidden from our own pages.
    "referrer-policy": "same-origin",
    "permissions-policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
#: Of answers that are no pages: nothing is to be made of them, and nobody keeps them.
API_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}
_TWO_YEARS: Final = "max-age=63072000; includeSubDomains"


class SecurityHeaders:
    """Adds the headers to whatever an application answers.

    Args:
        app: the application.
        secure: browsers reach it over TLS, and are told to do so from now on.
        headers: which; those of pages by default.
    """

    def __init__(self, app: ASGIApp, *, secure: bool, headers: Mapping[str, str] = _HEADERS) -> None:
        self._app = app
        headers = dict(headers) | ({"strict-transport-security": _TWO_YEARS} if secure else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                added = [each for each in self._headers if each[0] not in given]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_with)

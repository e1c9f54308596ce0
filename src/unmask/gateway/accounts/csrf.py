"""Forms that only our own pages can send.

A page holds a token that is derived from the cookie of the browser it is sent to: from the session's, or, before
somebody has signed in, from a visitor's. Another site can have the browser send the cookie, but can neither read nor
make the token. Besides, browsers say where a request comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.errors import CsrfError
from unmask.gateway.accounts.tokens import Keyed, new_token

#: Seconds for which a page for visitors may stay open.
VISITOR_SECONDS: Final = 86_400
#: What ``Sec-Fetch-Site`` says of our own pages, and of what somebody typed.
_OWN: Final = ("same-origin", "none")


class FormTokens:
    """Tokens for the forms that go with cookies of one kind.

    Args:
        secret: the server's.
        purpose: the kind of cookie.
    """

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._keyed = Keyed(secret, f"forms of {purpose}")

    def of(self, cookie: str) -> str:
        """Return the token of the pages that go with a cookie."""
        return self._keyed.tag(cookie)

    def check(self, cookie: str | None, token: str | None) -> None:
        """Refuse a token that does not go with the cookie.

        Raises:
            CsrfError: it does not, or one of them is missing.
        """
        if not cookie or not token or not self._keyed.fits(cookie, token):
            raise CsrfError(
                "This page was open for too long, or cookies are off. Load it again, and send the form again."
            )


class Visitors:
    """Browsers that nobody has signed in with: a signed cookie each, nothing in the database.

    Args:
        secret: the server's.
        clock: the time.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(self, secret: bytes, *, clock: Clock = microseconds) -> None:
        self._signed = Keyed(secret, "visitors")
        self._forms = FormTokens(secret, "visitors")
        self._clock = clock

    def begin(self) -> str:
        """Return the value of a new visitor's cookie."""
        return self._signed.sign({"visitor": new_token()}, until=self._clock() + VISITOR_SECONDS * SECOND)

    def knows(self, cookie: str | None) -> bool:
        """Return whether a cookie is a visitor's; one that is not is to be replaced by a new one."""
        return cookie is not None and self._signed.read(cookie, now=self._clock()) is not None

    def csrf_token(self, cookie: str) -> str:
        """Return what the forms for a visitor hold."""
        return self._forms.of(cookie)

    def check_csrf(self, cookie: str | None, token: str | None) -> None:
        """Refuse a form that was not made for the visitor it comes from.

        Raises:
            CsrfError: it was not, or the visitor's cookie is none of ours or too old.
        """
        self._forms.check(cookie if self.knows(cookie) else None, token)


def check_origin(headers: Mapping[str, str], own_origin: str) -> None:
    """Refuse a request that changes something and that another site had the browser send.

    Args:
        headers: of the request, their names in small letters.
        own_origin: scheme, host and port of this site as browsers write them: ``https://example.org``. The operator's
            setting, never the request's ``Host``.

    Raises:
        CsrfError: it comes from elsewhere, or says nothing of where it comes from, which every browser does.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    # A page that hides its address from the next one sends `Origin: null`: Sec-Fetch-Site still tells.
    named = origin not in (None, "null")
    if (named and origin != own_origin) or (site is not None and site not in _OWN) or (site is None and not named):
        raise CsrfError("The request did not come from a page of this site. Open the page here, and send it again.")

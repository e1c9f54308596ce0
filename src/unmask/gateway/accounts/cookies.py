"""The cookies of the site, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from unmask.gateway.accounts.addresses import parse_site_url
from unmask.gateway.accounts.csrf import VISITOR_SECONDS
from unmask.gateway.accounts.openid import ATTEMPT_SECONDS
from unmask.gateway.accounts.sessions import LONGEST_SECONDS

#: Browsers take such a cookie over ``https`` only, from the host itself, for all of its paths.
_HOST_ONLY: Final = "__Host-"


@dataclass(frozen=True, kw_only=True)
class Cookie:
    """A cookie: all of it but the value.

    Attributes:
        name: of it.
        max_age: seconds that a browser keeps it.
        secure: whether it is sent over ``https`` only.
        http_only: no script can read it.
        same_site: ``lax``: another site's forms do not send it, its links do.
        path: of the pages it is sent to.
    """

    name: str
    max_age: int
    secure: bool
    http_only: bool = True
    same_site: str = "lax"
    path: str = "/"

    def header(self, value: str) -> str:
        """Return the value of the ``Set-Cookie`` header that sets it."""
        return self._header(value, self.max_age)

    def clearing(self) -> str:
        """Return the value of the ``Set-Cookie`` header that makes a browser forget it."""
        return self._header("", 0)

    def _header(self, value: str, max_age: int) -> str:
        flags = [name for name, is_set in (("HttpOnly", self.http_only), ("Secure", self.secure)) if is_set]
        fields = [f"{self.name}={value}", f"Max-Age={max_age}", f"Path={self.path}", f"SameSite={self.same_site}"]
        return "; ".join([*fields, *flags])


@dataclass(frozen=True, kw_only=True)
class Cookies:
    """The cookies of a site.

    Attributes:
        session: of somebody who is signed in.
        visitor: of somebody who is not.
        openid: of an attempt to sign in at a provider.
    """

    session: Cookie
    visitor: Cookie
    openid: Cookie

    @classmethod
    def of(cls, base_url: str) -> Self:
        """Return the cookies of a site at a URL.

        Raises:
            InputError: it is neither ``https`` nor on this machine.
        """
        secure = parse_site_url(base_url, "site's URL").scheme == "https"

        def cookie(name: str, seconds: int) -> Cookie:
            return Cookie(name=f"{_HOST_ONLY if secure else ''}unmask-{name}", max_age=seconds, secure=secure)

        return cls(
            session=cookie("session", LONGEST_SECONDS),
            visitor=cookie("visitor", VISITOR_SECONDS),
            openid=cookie("openid", ATTEMPT_SECONDS),
        )

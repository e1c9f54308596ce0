"""Signing in at a provider of OpenID Connect: authorization code with PKCE, state and nonce.

What an attempt needs to remember is in a signed cookie: a random state, and where to go then. Nonce and PKCE verifier
are derived from the state with the server's secret, so that neither the cookie nor the URL tells them.

- The state ties the provider's answer to the browser that began; it works once.
- The nonce ties the ID token to the attempt: one that was stolen elsewhere is of no use.
- The PKCE verifier ties the code to this server: nor is a code.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx

from unmask.errors import InputError
from unmask.gateway.accounts.addresses import parse_address, parse_local_path
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.errors import OpenIdError, ThrottledError
from unmask.gateway.accounts.identities import Identity
from unmask.gateway.accounts.openid_provider import OpenIdSettings, Provider
from unmask.gateway.accounts.throttle import Limit, Throttle
from unmask.gateway.accounts.tokens import Keyed, new_token

#: Seconds in which somebody must have signed in at the provider.
ATTEMPT_SECONDS: Final = 600
#: A state works once: it is forgotten when its cookie is too old.
_ONCE: Final = Limit(name="answers to a state", count=1, seconds=ATTEMPT_SECONDS)
#: Characters of a provider's number for somebody: OpenID Connect Core, 2.
_LONGEST_SUBJECT: Final = 255


class Arrived(NamedTuple):
    """Somebody who comes back from a provider.

    Attributes:
        identity: who.
        next_path: of this site, where they wanted to go.
    """

    identity: Identity
    next_path: str


class OpenId:
    """The way in by a provider.

    Args:
        settings: which one.
        secret: the server's.
        throttle: that sees to it that a state works once.
        http: to ask the provider with.
        clock: the time.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(
        self,
        settings: OpenIdSettings,
        secret: bytes,
        throttle: Throttle,
        http: httpx.AsyncClient,
        *,
        clock: Clock = microseconds,
    ) -> None:
        self._settings = settings
        self._provider = Provider(settings, http, clock=clock)
        self._throttle = throttle
        self._clock = clock
        # An attempt at one provider is none at another.
        self._signed, self._nonces, self._verifiers = (
            Keyed(secret, f"{purpose} at {settings.issuer}") for purpose in ("attempts", "nonces", "verifiers")
        )

    @property
    def name(self) -> str:
        """The provider's, for people."""
        return self._settings.name

    async def begin(self, next_path: str = "/") -> tuple[str, str]:
        """Begin an attempt.

        Args:
            next_path: of this site, where to go then.

        Returns:
            The provider's URL to send the browser to, and the value of the cookie to give it.

        Raises:
            InputError: the path may lead elsewhere.
            ProviderDownError: the provider does not answer.
        """
        state = new_token()
        cookie = self._signed.sign(
            {"state": state, "next": parse_local_path(next_path)}, until=self._clock() + ATTEMPT_SECONDS * SECOND
        )
        challenge = hashlib.sha256(self._verifiers.tag(state).encode()).digest()
        url = await self._provider.sign_in_url(
            state=state,
            nonce=self._nonces.tag(state),
            code_challenge=base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            code_challenge_method="S256",
        )
        return url, cookie

    async def finish(self, cookie: str | None, params: Mapping[str, str]) -> Arrived:
        """End an attempt: find out who came back. Clear the cookie, whatever comes of it.

        Args:
            cookie: the value that :meth:`begin` gave.
            params: of the URL that the provider sent the browser to.

        Raises:
            OpenIdError: the answer is not to be trusted, or is a no.
            ProviderDownError: the provider does not answer.
            DatabaseUnavailableError: the database cannot be written now; nobody is let in.
        """
        attempt = None if cookie is None else self._signed.read(cookie, now=self._clock())
        state = params.get("state", "")
        if attempt is None or not self._same(attempt["state"], state):
            raise OpenIdError("The sign-in took too long, or was begun in another browser. Start it again.")
        try:
            await self._throttle.take((_ONCE, state))
        except ThrottledError:
            raise OpenIdError("This answer was used already. Start the sign-in again.") from None
        tokens = await self._provider.redeem(self._code(params), self._verifiers.tag(state))
        claims = await self._provider.claims(tokens.id_token, nonce=self._nonces.tag(state))
        subject = claims["sub"]
        if len(subject) > _LONGEST_SUBJECT:
            raise self._provider.refused("it names nobody")
        told = claims if "email" in claims else await self._provider.more(tokens.access_token)
        if told.get("sub") != subject and told:
            raise self._provider.refused("it speaks of two people")
        return Arrived(
            Identity(issuer=self._settings.issuer, subject=subject, email=self._address(told)), attempt["next"]
        )

    def _same(self, expected: str, given: str) -> bool:
        # By their digests, so that the time it takes tells nothing of either.
        return self._signed.fits(expected, self._signed.tag(given))

    def _code(self, params: Mapping[str, str]) -> str:
        """Return the code in an answer; another server's answer, and one without, are refused."""
        if params.get("iss", self._settings.issuer) != self._settings.issuer:
            raise self._provider.refused("somebody else gave it")
        if "error" in params:
            # Its words come from whoever made the URL: they are not shown.
            raise OpenIdError(f"{self._settings.name} did not sign you in. Start again, or ask for an e-mailed link.")
        if not params.get("code"):
            raise self._provider.refused("there is no code in it")
        return params["code"]

    def _address(self, told: Mapping[str, Any]) -> str:
        # Some providers write the word.
        if told.get("email_verified") is not True and told.get("email_verified") != "true":
            raise OpenIdError(
                f"{self._settings.name} has not verified your e-mail address. Verify it there, then start again."
            )
        try:
            return parse_address(str(told.get("email", "")))
        except InputError as error:
            raise OpenIdError(f"{self._settings.name} names no e-mail address of yours that mail can go to.") from error

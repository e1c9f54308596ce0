"""A provider of OpenID Connect: what it says of itself, the code exchanged, its signature checked.

OpenID Connect Core 1.0 and Discovery 1.0; what an ID token must say is checked in :meth:`Provider.claims`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from unmask.errors import InputError
from unmask.gateway.accounts.addresses import parse_site_url
from unmask.gateway.accounts.clock import MINUTE, SECOND, Clock
from unmask.gateway.accounts.errors import OpenIdError, ProviderDownError

#: Signatures that are taken. Those by a shared secret (HS256) are not: a provider's public key would do as one.
ALGORITHMS: Final = frozenset({"RS256", "ES256", "EdDSA"})
#: Seconds that a provider's clock may differ from ours.
LEEWAY: Final = 60
#: Seconds for which a provider may be silent.
_TIMEOUT: Final = 10.0
#: Microseconds for which what a provider says of itself is taken to be so.
_CURRENT: Final = 60 * MINUTE
_DISCOVERY: Final = "/.well-known/openid-configuration"
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


@dataclass(frozen=True, kw_only=True)
class OpenIdSettings:
    """A provider, and what we are to it.

    Attributes:
        name: of the provider, for people.
        issuer: its URL, as it writes it itself.
        client_id: that it gave us.
        client_secret: likewise.
        redirect_url: of our page that it sends people back to, as it was told.
        scope: what we ask for.

    Raises:
        InputError: a URL is none, or not encrypted.
    """

    name: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_url: str
    scope: str = "openid email"

    def __post_init__(self) -> None:
        if parse_site_url(self.issuer, "provider's URL").query:
            raise InputError("The provider's URL has a query. Leave it out.")
        parse_site_url(self.redirect_url, "URL to come back to")
        if not self.name or not self.client_id or not self.client_secret:
            raise InputError("The provider needs a name, a client_id and a client_secret. Give all three.")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a provider gives for a code.

    Attributes:
        id_token: who somebody is, signed.
        access_token: to ask for more.
    """

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _About:
    """What a provider says of itself.

    Attributes:
        authorize: where people sign in.
        redeem: where codes are exchanged.
        keys: where its public keys are.
        who: where more is said of somebody, None if nowhere.
        basic: whether we sign in by a header rather than in the form.
        at: when it said so.
    """

    authorize: str
    redeem: str
    keys: str
    who: str | None
    basic: bool
    at: int


class _Allowed(JWSRegistry):
    """Takes the algorithms above, and no other; ``EdDSA`` without the warning that it has a newer name (RFC 9864)."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


class Provider:
    """A provider.

    Args:
        settings: which one.
        http: to ask it with.
        clock: the time.
    """

    def __init__(self, settings: OpenIdSettings, http: httpx.AsyncClient, *, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        self._about: _About | None = None
        self._keys: tuple[int, KeySet] | None = None

    async def sign_in_url(self, **query: str) -> str:
        """Return where people sign in.

        Raises:
            ProviderDownError: it does not say.
        """
        settings, about = self._settings, await self._told()
        ours = {"client_id": settings.client_id, "redirect_uri": settings.redirect_url, "scope": settings.scope}
        return str(httpx.URL(about.authorize).copy_merge_params({"response_type": "code", **ours, **query}))

    async def redeem(self, code: str, verifier: str) -> Tokens:
        """Exchange a code for what it stands for.

        Raises:
            OpenIdError: the provider does not take it.
            ProviderDownError: it does not answer.
        """
        settings, about = self._settings, await self._told()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": settings.redirect_url,
            "code_verifier": verifier,
        }
        headers = {}
        if about.basic:
            # RFC 6749, 2.3.1: each is encoded as a form's field is.
            pair = ":".join(quote(each, safe="") for each in (settings.client_id, settings.client_secret))
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        answer = await self._ask("POST", about.redeem, data=form, headers=headers)
        id_token, access_token = answer.get("id_token"), answer.get("access_token", "")
        if not isinstance(id_token, str) or not isinstance(access_token, str):
            raise self.refused("it names nobody")
        return Tokens(id_token=id_token, access_token=access_token)

    async def claims(self, id_token: str, *, nonce: str) -> dict[str, Any]:
        """Return what an ID token says, once it is sure that the provider says so, now, to us, and for this attempt.

        Raises:
            OpenIdError: it is not.
            ProviderDownError: the provider does not say what its keys are.
        """
        registry = JWTClaimsRegistry(
            now=self._clock() // SECOND,
            leeway=LEEWAY,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": self._settings.client_id},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            claims = self._read(id_token, await self._published())
        except InvalidKeyIdError:  # the provider may have a new key
            claims = self._read(id_token, await self._published(again=True), last=True)
        try:
            registry.validate(claims)
        except JoseError as error:
            raise self.refused(str(error.description or error.error)) from error
        if claims.get("azp", self._settings.client_id) != self._settings.client_id:
            raise self.refused("it is for somebody else")
        return claims

    async def more(self, access_token: str) -> Mapping[str, Any]:
        """Return what else the provider says of somebody: nothing if it has no place for that.

        Raises:
            ProviderDownError: it does not answer.
        """
        about = await self._told()
        if about.who is None:
            return {}
        return await self._ask("GET", about.who, headers={"authorization": f"Bearer {access_token}"})

    def refused(self, why: str) -> OpenIdError:
        """Return the error for an answer that is not to be trusted."""
        return OpenIdError(f"The answer of {self._settings.name} was refused: {why}. Start the sign-in again.")

    def _read(self, id_token: str, keys: KeySet, *, last: bool = False) -> dict[str, Any]:
        try:
            return jwt.decode(id_token, keys, registry=_Allowed(strict_check_header=False)).claims
        except InvalidKeyIdError as error:
            if last:
                raise self.refused("it is signed with an unknown key") from error
            raise
        except (JoseError, ValueError) as error:
            raise self.refused("its signature is not right") from error

    async def _told(self) -> _About:
        now = self._clock()
        if self._about is None or not 0 <= now - self._about.at < _CURRENT:
            found = await self._ask("GET", self._settings.issuer.rstrip("/") + _DISCOVERY)
            if found.get("issuer") != self._settings.issuer:
                raise self._down("it calls itself by another URL than the one that is set")
            ways = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            self._about = _About(
                authorize=self._place(found, "authorization_endpoint"),
                redeem=self._place(found, "token_endpoint"),
                keys=self._place(found, "jwks_uri"),
                who=self._place(found, "userinfo_endpoint") if "userinfo_endpoint" in found else None,
                basic=not isinstance(ways, list) or "client_secret_basic" in ways,
                at=now,
            )
        return self._about

    async def _published(self, *, again: bool = False) -> KeySet:
        about, now = await self._told(), self._clock()
        if again or self._keys is None or not 0 <= now - self._keys[0] < _CURRENT:
            found: Any = await self._ask("GET", about.keys)
            try:
                self._keys = now, KeySet.import_key_set(found)
            except (JoseError, ValueError, TypeError, KeyError) as error:
                raise self._down("its keys cannot be read") from error
        return self._keys[1]

    def _place(self, found: Mapping[str, Any], name: str) -> str:
        url = found.get(name)
        try:
            parse_site_url(url if isinstance(url, str) else "", name)
        except InputError as error:
            raise self._down(f"its {name} cannot be used") from error
        return str(url)

    async def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        headers = {"accept": "application/json", **options.pop("headers", {})}
        try:
            answer = await self._http.request(
                method, url, headers=headers, timeout=_TIMEOUT, follow_redirects=False, **options
            )
        except httpx.HTTPError as error:
            # Without its words and its request, which holds the code.
            raise self._down(type(error).__name__) from None
        if answer.is_client_error and answer.status_code != _TOO_MANY and method == "POST":
            raise self.refused(f"it does not take the code ({answer.status_code})")
        try:
            found = answer.json() if answer.is_success else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._down(f"it answered {answer.status_code}, not with what was asked for")
        return found

    def _down(self, why: str) -> ProviderDownError:
        return ProviderDownError(
            f"{self._settings.name} cannot be asked now: {why}. Try again later, or sign in by an e-mailed link."
        )

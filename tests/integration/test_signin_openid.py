"""Signing in at a provider, against one on loopback that really signs."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import shutil
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("joserfc")

from tests.bank import SECRET, START, Bank, bank
from tests.identity_provider import (
    CLIENT,
    PASSWORD,
    REDIRECT,
    IdentityProvider,
    identity_provider,
    signed,
    signing_key,
)
from unmask.errors import InputError
from unmask.gateway.accounts.errors import OpenIdError, ProviderDownError
from unmask.gateway.accounts.openid import ATTEMPT_SECONDS, OpenId
from unmask.gateway.accounts.openid_provider import OpenIdSettings
from unmask.gateway.accounts.throttle import Throttle

pytest_plugins = ("tests.databases",)

NOW = START // 1_000_000
#: Made once: reading whom this machine trusts takes longer than a test.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider(NOW) as provider:
        yield provider


@pytest.fixture
def quick(sqlite_template: Path, tmp_path: Path) -> str:
    """A database for what is not about the database."""
    shutil.copyfile(sqlite_template, tmp_path / "quick.db")
    return f"sqlite:///{tmp_path}/quick.db"


@dataclass
class Desk:
    """The way in, and its provider."""

    openid: OpenId
    provider: IdentityProvider
    bank: Bank

    async def come(self) -> tuple[str, dict[str, str]]:
        """Sign in at the provider; return the cookie and what the browser comes back with."""
        url, cookie = await self.openid.begin("/account")
        return cookie, await asyncio.to_thread(self.provider.visit, url)

    async def refused(self, match: str, error: type[Exception] = OpenIdError) -> None:
        """Sign in, and be refused."""
        with pytest.raises(error, match=match):
            await self.openid.finish(*await self.come())


def settings_of(provider: IdentityProvider, **options: str) -> OpenIdSettings:
    values = {"name": "Loopback", "issuer": provider.url, "client_id": CLIENT, "client_secret": PASSWORD}
    return OpenIdSettings(**values | {"redirect_url": REDIRECT} | options)


@asynccontextmanager
async def desk(url: str, provider: IdentityProvider) -> AsyncIterator[Desk]:
    async with bank(url) as b, httpx.AsyncClient(verify=_NO_TLS) as http:
        throttle = Throttle(b.database, SECRET, clock=b.clock)
        yield Desk(OpenId(settings_of(provider), SECRET, throttle, http, clock=b.clock), provider, b)


def signing_in(url: str, provider: IdentityProvider, scenario: Callable[[Desk], Awaitable[None]]) -> None:
    """Run a scenario."""

    async def run() -> None:
        async with desk(url, provider) as d:
            await scenario(d)

    asyncio.run(run())


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_somebody_signs_in(quick: str, provider: IdentityProvider, alg: str) -> None:
    async def scenario(d: Desk) -> None:
        provider.alg = alg
        cookie, back = await d.come()
        identity, next_path = await d.openid.finish(cookie, back)
        assert (identity.issuer, identity.subject, identity.email) == (provider.url, "ada", "ada@example.org")
        assert next_path == "/account"
        assert d.openid.name == "Loopback"
        assert PASSWORD not in repr(provider.forms)  # it went in the header
        # Once more: what the provider says of itself is known by now.
        provider.asked.clear()
        await d.openid.finish(*await d.come())
        assert provider.asked == ["/authorize", "/token"]
        d.bank.clock.skip(3600)
        provider.now += 3600
        await d.openid.finish(*await d.come())
        assert provider.asked[2:] == ["/.well-known/openid-configuration", "/authorize", "/token", "/keys"]

    signing_in(quick, provider, scenario)


def test_what_the_browser_carries_tells_nothing(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        url, cookie = await d.openid.begin()
        other, _ = await d.openid.begin()
        query, others = (parse_qs(urlsplit(each).query) for each in (url, other))
        for name in ("state", "nonce", "code_challenge"):
            assert len(query[name][0]) == 43
            assert query[name] != others[name]
        await asyncio.to_thread(provider.visit, url)
        assert query["redirect_uri"] == [REDIRECT]
        back = {"state": query["state"][0], "code": next(iter(provider.codes))}
        await d.openid.finish(cookie, back)
        verifier = provider.forms[0]["code_verifier"]
        assert len(verifier) == 43
        for place in range(0, 40, 8):
            assert verifier[place : place + 8] not in url + cookie
        assert query["nonce"][0] not in cookie

    signing_in(quick, provider, scenario)


def test_the_other_way_to_name_ourselves(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        provider.about["token_endpoint_auth_methods_supported"] = ["client_secret_post", "private_key_jwt"]
        await d.openid.finish(*await d.come())
        assert provider.forms[0]["client_secret"] == PASSWORD

    signing_in(quick, provider, scenario)


def test_an_address_that_only_the_other_place_names(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        provider.claims = {"email": None, "email_verified": None}
        await d.refused("has not verified your e-mail address")
        provider.info = {"sub": "ada", "email": "Ada@Example.org", "email_verified": "true"}
        d.bank.clock.skip(3600)
        provider.now += 3600
        identity, _ = await d.openid.finish(*await d.come())
        assert identity.email == "ada@example.org"
        for info, why in (
            ({"sub": "eve"}, "speaks of two people"),
            ({"sub": None}, "speaks of two people"),
            ({"email_verified": False}, "has not verified"),
        ):
            provider.info = {"sub": "ada", "email": "ada@example.org", "email_verified": True, **info}
            await d.refused(why)

    signing_in(quick, provider, scenario)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"aud": "somebody else"}, "aud"),
        ({"aud": ["somebody", "else"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": [CLIENT, "else"], "azp": "else"}, "for somebody else"),
        ({"iss": "https://evil.org"}, "iss"),
        ({"iss": None}, "iss"),
        ({"exp": NOW - 60}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"iat": NOW + 61}, "future"),
        ({"iat": None}, "iat"),
        ({"nbf": NOW + 61}, "not yet"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "a" * 256}, "names nobody"),
        ({"email_verified": False}, "has not verified your e-mail address"),
        ({"email_verified": None}, "has not verified your e-mail address"),
        ({"email_verified": "false"}, "has not verified your e-mail address"),
        ({"email_verified": 1}, "has not verified your e-mail address"),
        ({"email": "no address"}, "names no e-mail address"),
        ({"email": ["ada@example.org"]}, "names no e-mail address"),
    ],
)
def test_claims_that_are_not_right_are_refused(
    quick: str, provider: IdentityProvider, claims: dict[str, Any], why: str
) -> None:
    async def scenario(d: Desk) -> None:
        provider.claims = claims
        await d.refused(f"(?i){why}")

    signing_in(quick, provider, scenario)


@pytest.mark.parametrize("claims", [{"exp": NOW - 59}, {"iat": NOW + 60}, {"aud": [CLIENT]}, {"azp": CLIENT}])
def test_clocks_may_differ_a_little(quick: str, provider: IdentityProvider, claims: dict[str, Any]) -> None:
    async def scenario(d: Desk) -> None:
        provider.claims = claims
        await d.openid.finish(*await d.come())

    signing_in(quick, provider, scenario)


def _unsigned(claims: dict[str, Any]) -> str:
    return signed(claims, "none", None, "first")


def _by_a_shared_secret(claims: dict[str, Any], secret: bytes) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "first"}, claims)]
    body = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    tag = base64.urlsafe_b64encode(hmac.digest(secret, body, "sha256")).rstrip(b"=")
    return (body + b"." + tag).decode()


def _by_the_public_key(claims: dict[str, Any]) -> str:
    """The oldest trick: the provider's public key as a shared secret."""
    return _by_a_shared_secret(claims, signing_key("RS256").as_pem(private=False))


def _by_our_password(claims: dict[str, Any]) -> str:
    return _by_a_shared_secret(claims, PASSWORD.encode())


def _by_somebody_else(claims: dict[str, Any]) -> str:
    return signed(claims, "RS256", signing_key("RS256", "somebody else's"), "first")


def _by_another_algorithm(claims: dict[str, Any]) -> str:
    return signed(claims, "RS512", signing_key("RS256"), "first")


def _changed(claims: dict[str, Any]) -> str:
    token, other = (signed({**claims, "sub": sub}, "RS256", signing_key("RS256"), "first") for sub in ("ada", "eve"))
    (head, _, tag), (_, body, _) = token.split("."), other.split(".")
    return f"{head}.{body}.{tag}"


def _without_a_tag(claims: dict[str, Any]) -> str:
    return signed(claims, "RS256", signing_key("RS256"), "first").rpartition(".")[0] + "."


def _nonsense(_: dict[str, Any]) -> str:
    return "a.b.c"


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # of what is forged here
@pytest.mark.parametrize(
    "forge",
    [
        _unsigned,
        _by_the_public_key,
        _by_our_password,
        _by_somebody_else,
        _by_another_algorithm,
        _changed,
        _without_a_tag,
        _nonsense,
    ],
)
def test_forged_tokens_are_refused(
    quick: str, provider: IdentityProvider, forge: Callable[[dict[str, Any]], str]
) -> None:
    async def scenario(d: Desk) -> None:
        provider.forge = forge
        await d.refused("its signature is not right")

    signing_in(quick, provider, scenario)


def test_a_new_key_of_the_provider_is_fetched_once(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        await d.openid.finish(*await d.come())
        provider.kid, provider.published = "second", ("first", "second")
        provider.asked.clear()
        await d.openid.finish(*await d.come())
        assert provider.asked == ["/authorize", "/token", "/keys"]
        provider.kid = "unpublished"
        provider.asked.clear()
        await d.refused("signed with an unknown key")
        assert provider.asked == ["/authorize", "/token", "/keys"]
        # Without a name for its key, the provider must have one only.
        provider.kid, provider.forge = None, lambda claims: signed(claims, "RS256", signing_key("RS256"), None)
        await d.refused("signed with an unknown key")
        provider.published = ("first",)
        d.bank.clock.skip(3600)
        provider.now += 3600
        await d.openid.finish(*await d.come())

    signing_in(quick, provider, scenario)


def test_an_answer_works_once_in_all_processes(url: str, provider: IdentityProvider) -> None:
    async def scenario() -> None:
        async with desk(url, provider) as d, desk(url, provider) as elsewhere:
            cookie, back = await d.come()
            codes = dict(provider.codes)
            await d.openid.finish(cookie, back)
            for each in (d, elsewhere):
                provider.codes.update(codes)  # though the provider would take the code again
                with pytest.raises(OpenIdError, match="used already"):
                    await each.openid.finish(cookie, back)

    asyncio.run(scenario())


def test_an_answer_is_for_the_browser_that_began(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        cookie, back = await d.come()
        another, others = await d.come()
        wrong = [(None, back), ("", back), (another, back), (cookie, others), (cookie, {}), (cookie, {"code": "x"})]
        wrong += [(cookie, {**back, "state": "é"}), (cookie[:-2] + "AA", back), ("A" + cookie[1:], back)]
        # Rightly signed, for another provider.
        elsewhere = OpenId(
            settings_of(provider, issuer="http://localhost"), SECRET, d.openid._throttle, _Gone(verify=_NO_TLS)
        )
        signed_there = elsewhere._signed.sign(
            {"state": back["state"], "next": "/"}, until=d.bank.clock.now + ATTEMPT_SECONDS * 1_000_000
        )
        wrong += [(signed_there, back)]
        for each, params in wrong:
            with pytest.raises(OpenIdError, match="too long, or was begun in another browser"):
                await d.openid.finish(each, params)
        d.bank.clock.skip(ATTEMPT_SECONDS - 1)
        provider.now += ATTEMPT_SECONDS
        await d.openid.finish(cookie, back)
        d.bank.clock.skip(1)
        with pytest.raises(OpenIdError, match="too long"):
            await d.openid.finish(another, others)

    signing_in(quick, provider, scenario)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"error": "access_denied", "error_description": "<b>evil words</b>"}, "did not sign you in"),
        ({"iss": "https://evil.org"}, "somebody else gave it"),
        ({"code": ""}, "no code"),
        ({"code": "guessed"}, "does not take the code"),
    ],
)
def test_answers_that_are_a_no(quick: str, provider: IdentityProvider, change: dict[str, str], why: str) -> None:
    async def scenario(d: Desk) -> None:
        cookie, back = await d.come()
        with pytest.raises(OpenIdError, match=why) as refusal:
            await d.openid.finish(cookie, {**back, **change})
        assert "evil" not in str(refusal.value)

    signing_in(quick, provider, scenario)


def test_a_code_of_another_attempt_is_of_no_use(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        (cookie, back), (_, others) = await d.come(), await d.come()
        with pytest.raises(OpenIdError, match="does not take the code"):
            await d.openid.finish(cookie, {**back, "code": others["code"]})

    signing_in(quick, provider, scenario)


@pytest.mark.parametrize(
    ("about", "answers"),
    [
        ({"issuer": "https://evil.org"}, {}),
        ({"token_endpoint": "http://evil.org/token"}, {}),
        ({"authorization_endpoint": "javascript:alert(1)"}, {}),
        ({"jwks_uri": None}, {}),
        ({}, {"/.well-known/openid-configuration": (500, {})}),
        ({}, {"/.well-known/openid-configuration": (302, {"location": "https://evil.org"})}),
        ({}, {"/.well-known/openid-configuration": (200, ["a"])}),
        ({}, {"/token": (503, {})}),
        ({}, {"/token": (429, {})}),
        ({}, {"/keys": (404, {})}),
        ({}, {"/keys": (200, {"keys": []})}),
        ({}, {"/keys": (200, {"keys": [{"kty": "RSA", "n": "?"}]})}),
        ({}, {"/keys": (200, {"keys": "none"})}),
        ({}, {"/keys": (200, {})}),
    ],
)
def test_a_provider_that_does_not_work_is_told(
    quick: str, provider: IdentityProvider, about: dict[str, Any], answers: dict[str, Any]
) -> None:
    async def scenario(d: Desk) -> None:
        provider.about, provider.answers = about, answers
        await d.refused("Loopback cannot be asked now: .* or sign in by an e-mailed link", ProviderDownError)

    signing_in(quick, provider, scenario)


def test_nobody_sends_our_requests_elsewhere(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        provider.answers["/token"] = 302, {"location": f"{provider.url}/elsewhere"}
        provider.answers["/elsewhere"] = 200, {}
        await d.refused("it answered 302", ProviderDownError)
        assert "/elsewhere" not in provider.asked

    signing_in(quick, provider, scenario)


def test_a_provider_that_gives_no_token_is_refused(quick: str, provider: IdentityProvider) -> None:
    async def scenario(d: Desk) -> None:
        for answer in ({}, {"id_token": 7}, {"id_token": "a.b.c", "access_token": 7}):
            provider.answers["/token"] = 200, answer
            await d.refused("names nobody")

    signing_in(quick, provider, scenario)


def test_a_provider_that_is_gone_is_told_without_secrets(
    quick: str, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    async def scenario(d: Desk) -> None:
        cookie, back = await d.come()
        provider.answers["/token"] = 400, {"error": "invalid_grant"}
        try:
            await d.openid.finish(cookie, back)
        except OpenIdError as error:
            told.append("".join(traceback.format_exception(error)))
        cookie, later = await d.come()
        d.openid._provider._http = _Gone(verify=_NO_TLS)
        try:
            await d.openid.finish(cookie, later)
        except ProviderDownError as error:
            told.append("".join(traceback.format_exception(error)))
        told.append(repr([d.openid, settings_of(provider), later["state"] in cookie]))
        for secret in (PASSWORD, back["code"], later["code"], cookie):
            assert secret not in "".join(told) + caplog.text

    with caplog.at_level(logging.DEBUG):
        signing_in(quick, provider, scenario)
    assert len(told) == 3
    assert "ConnectError" in told[1]


class _Gone(httpx.AsyncClient):
    async def request(self, method: Any, url: Any, **options: Any) -> Any:
        raise httpx.ConnectError(f"{method} {url} {options}")


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": "http://provider.org"},
        {"issuer": "provider.org"},
        {"issuer": "https://provider.org?a=b"},
        {"redirect_url": "http://example.org/back"},
        {"client_id": ""},
        {"client_secret": ""},
    ],
)
def test_settings_that_cannot_be(options: dict[str, str]) -> None:
    with pytest.raises(InputError):
        settings_of(IdentityProvider(url="https://provider.org"), **options)


@pytest.mark.parametrize("path", ["//evil.org", "https://evil.org", "/\\evil.org"])
def test_nobody_is_sent_elsewhere_afterwards(quick: str, provider: IdentityProvider, path: str) -> None:
    async def scenario(d: Desk) -> None:
        with pytest.raises(InputError):
            await d.openid.begin(path)

    signing_in(quick, provider, scenario)

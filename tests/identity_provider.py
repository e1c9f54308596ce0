"""A provider of OpenID Connect on loopback, for tests: it really signs, and really checks codes, PKCE and passwords."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

CLIENT, PASSWORD = "unmask", "a secret: of ours/10%"
REDIRECT = "http://localhost:8000/sign-in/openid"

Answer = tuple[int, dict[str, Any]]


def signing_key(alg: str, kid: str = "first") -> Any:
    """Return a private key for an algorithm; the same for the same name."""
    return _signing_key(alg, kid)


@cache
def _signing_key(alg: str, kid: str) -> Any:
    if alg == "RS256":
        return RSAKey.generate_key(2048, {"kid": kid})
    return ECKey.generate_key("P-256", {"kid": kid}) if alg == "ES256" else OKPKey.generate_key("Ed25519", {"kid": kid})


def signed(claims: dict[str, Any], alg: str, key: Any, kid: str | None) -> str:
    """Return a token, whatever its algorithm and key."""
    header = {"alg": alg} | ({"kid": kid} if kid else {})
    registry = jws.JWSRegistry(algorithms=[alg])
    registry.get_alg = lambda name: registry.algorithms[name]  # type: ignore[method-assign]
    return jws.serialize_compact(header, json.dumps(claims), key, registry=registry)


@dataclass
class IdentityProvider:
    """What a provider does next, and what was asked of it.

    Attributes:
        url: of it, which is its issuer.
        now: seconds since 1970.
        alg: it signs with.
        kid: of the key it signs with.
        published: names of the keys it shows.
        claims: what it says of somebody besides, or instead.
        info: what it says when it is asked for more.
        about: what it says of itself besides, or instead.
        forge: makes the ID token in its own way.
        answers: by path, instead of what is right.
        asked: the paths of the requests.
        forms: that came with a code.
    """

    url: str = ""
    now: int = 0
    alg: str = "RS256"
    kid: str | None = "first"
    published: tuple[str, ...] = ("first",)
    claims: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    forge: Callable[[dict[str, Any]], str] | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def visit(self, url: str) -> dict[str, str]:
        """Do what a browser does that is sent to the provider: return the query it comes back with."""
        parts = urlsplit(url)
        with closing(HTTPConnection(str(parts.hostname), parts.port, timeout=10)) as connection:
            connection.request("GET", f"{parts.path}?{parts.query}")
            back = connection.getresponse().headers["location"]
        assert back.startswith(REDIRECT + "?")
        return dict(parse_qsl(urlsplit(back).query))

    def get(self, path: str, query: dict[str, str], headers: Any) -> Answer:
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            info = {} if self.info is None else {"userinfo_endpoint": f"{self.url}/info"}
            ends = {name: f"{self.url}/{end}" for name, end in names.items()}
            return 200, {"issuer": self.url, **ends, **info, **self.about}
        if path == "/keys":
            keys = KeySet([signing_key(self.alg, kid) for kid in self.published])
            return 200, {"keys": [{"kty": "of another time"}, *keys.as_dict(private=False)["keys"]]}
        if path == "/authorize":
            assert query["response_type"] == "code"
            assert query["scope"] == "openid email"
            assert query["code_challenge_method"] == "S256"
            code = secrets.token_hex(8)
            self.codes[code] = query
            query = {"code": code, "state": query["state"], "iss": self.url}
            return 302, {"location": f"{REDIRECT}?{urlencode(query)}"}
        assert path == "/info"
        assert self.info is not None
        return (200, self.info) if headers["authorization"] == "Bearer opens" else (401, {})

    def post(self, path: str, form: dict[str, str], headers: Any) -> Answer:
        assert path == "/token"
        self.forms.append(form)
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or form["grant_type"] != "authorization_code":
            return 400, {"error": "invalid_grant"}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if challenge.decode() != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if self._who(form, headers) != (CLIENT, PASSWORD):
            return 401, {"error": "invalid_client"}
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "ada",
            "nonce": asked["nonce"],
            "iat": self.now,
            "exp": self.now + 300,
            "email": "Ada@Example.org",
            "email_verified": True,
        }
        claims = {name: value for name, value in (claims | self.claims).items() if value is not None}
        make = self.forge or (lambda claims: signed(claims, self.alg, signing_key(self.alg, str(self.kid)), self.kid))
        return 200, {"id_token": make(claims), "access_token": "opens", "token_type": "Bearer"}

    def _who(self, form: dict[str, str], headers: Any) -> tuple[str, ...]:
        kind, _, encoded = headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            return tuple(unquote(each) for each in base64.b64decode(encoded).decode().split(":"))
        return form["client_id"], form["client_secret"]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(self.server.provider.get, urlsplit(self.path).query)

    def do_POST(self) -> None:
        self._answer(self.server.provider.post, self.rfile.read(int(self.headers["content-length"])).decode())

    def _answer(self, answer: Callable[..., Answer], query: str) -> None:
        provider, path = self.server.provider, urlsplit(self.path).path
        provider.asked.append(path)
        try:
            status, body = provider.answers.get(path) or answer(path, dict(parse_qsl(query)), self.headers)
        except AssertionError as error:
            status, body = 418, {"failed": repr(error)}
        data = b"" if status == 302 else json.dumps(body).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("location", body["location"])
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    provider: IdentityProvider


@contextmanager
def identity_provider(now: int) -> Iterator[IdentityProvider]:
    """Run a provider while the block runs; ``now`` is its time in seconds since 1970."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.provider = IdentityProvider(url=f"http://127.0.0.1:{server.server_address[1]}", now=now)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.provider
        finally:
            server.shutdown()
            thread.join()

"""What the tests of security share: the whole gateway, browsers with sessions, a reader of pages that trusts none."""

from __future__ import annotations

import http.client
import re
import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tests.integration.test_hosting_support import Customer, Hosted, hosted
from tests.integration.test_web_support import Mailbox
from unmask.gateway.accounts.cookies import Cookies
from unmask.gateway.routing.routes import ProviderKey, RemoteProvider
from unmask.gateway.web.app import PAGES

SOON: Final = "llm2vec-meta-llama-3-8b-instruct-unsup-simcse"
BOSS: Final = "boss@example.org"
PROVIDER_KEY: Final = "sk-the-providers-own-key-0123456789"
#: What is written into every field and parameter: it must come back as text, or not at all.
EVIL: Final = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(1)>'",
    "'; DROP TABLE users; -- 1' OR '1'='1",
    "{{7*7}}${7*7}{%raw%}#{7*7}",
    "../../../../etc/passwd",
    "a\r\nSet-Cookie: evil=1\r\n\r\n<b>",
    "javascript:alert(1)//",
    "`id`;$(id)|id %s%n%x{0.__class__}",
    "\u202e\ufffd\u0663\u00b2",
)
#: Made once: a client that makes its own spends most of a test on it.
_TRUST: Final = ssl.create_default_context()
_VARYING: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_COUNTED: Final = re.compile(r'INSERT INTO "(traffic|calls)"')
_TOKEN: Final = re.compile(r'name="csrf" value="([^"]+)"')


@dataclass
class Sheet(HTMLParser):
    """A page, read; what a browser would run in it is noted."""

    text: str = ""
    runs: list[str] = field(default_factory=list)
    _inside: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._inside = tag
        if tag == "script" and not re.fullmatch(r"/static/site\.[0-9a-f]{12}\.js", given.get("src", "")):
            self.runs.append(f"script {given}")
        if tag in ("style", "iframe", "object", "embed", "base", "img", "template") or "srcdoc" in given:
            self.runs.append(f"{tag} {given}")
        self.runs += [f"{tag} {name}" for name in given if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action", "formaction", "xlink:href", "data"):
            scheme = urlsplit(given.get(name, "")).scheme
            if scheme not in ("", "https", "mailto") or given.get(name, "").startswith("//"):
                self.runs.append(f"{tag} {name}={given[name]}")
        # What somebody typed may stand in these.
        self.text += "".join(f" {given[name]}" for name in ("value", "data-confirm") if name in given)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style") and data.strip():
            self.runs.append(f"{self._inside}: {data[:80]}")
        self.text += data


def read(page: httpx.Response | str) -> Sheet:
    """Return a page, and fail if it would run anything but the site's own script."""
    sheet = Sheet()
    sheet.feed(page if isinstance(page, str) else page.text)
    assert sheet.runs == [], page if isinstance(page, str) else page.url
    return sheet


class Browser(httpx.Client):
    """A browser at the gateway: says where its forms come from, and knows its session."""

    def __init__(self, running: Hosted, user_id: int | None = None, **headers: str) -> None:
        self.origin = running.gateway.settings.url
        super().__init__(base_url=running.url, timeout=20, headers=headers, verify=_TRUST)
        self.session = self._token = ""
        if user_id is not None:
            self.session = running.do(running.gateway.sessions.begin(user_id))
            self.cookies.set(Cookies.of(self.origin).session.name, self.session, domain="127.0.0.1", path="/")

    def token(self) -> str:
        """Return what the forms of this browser hold."""
        if not self._token:
            found = _TOKEN.search(self.get("/account" if self.session else "/sign-in").text)
            assert found
            self._token = found[1]
        return self._token

    def send_form(self, path: str, form: Mapping[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Send a form from a page of the site, with its token unless it brings one."""
        data = {"csrf": self.token()} | dict(form or {})
        return self.post(path, data=data, headers={"origin": self.origin, "sec-fetch-site": "same-origin"} | headers)


@dataclass
class Place:
    """A gateway with two customers, an admin, and something of everything that has an id."""

    running: Hosted
    folder: Path
    mailbox: Mailbox
    alice: Customer
    bob: Customer
    boss: int
    provider: int
    session: int

    def browser(self, user_id: int | None = None, *, client: str | None = None) -> Browser:
        """Return a browser; a proxy says that it is at the address ``client``."""
        return Browser(self.running, user_id, **({"x-forwarded-for": client} if client else {}))

    def path(self, template: str, **other: object) -> str:
        """Return a path with what is Alice's, or the operator's, in it."""
        values: dict[str, object] = {
            "slug": SOON, "name": SOON, "key_id": self.alice.key.id, "user_id": self.alice.id,
            "provider_id": self.provider, "session_id": self.session,
        }  # fmt: skip
        return _VARYING.sub(lambda found: str((values | other)[found[1]]), template)

    def kept(self) -> str:
        """Return all that the database holds, but for what the gateway counts by itself."""
        with closing(sqlite3.connect(self.folder / "gateway.db")) as connection:
            return "\n".join(line for line in connection.iterdump() if not _COUNTED.match(line))

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
        """Send a request just as it is; return status, headers and body."""
        given = {"host": urlsplit(self.running.url).netloc} | {
            name.replace("_", "-"): headers[name] for name in headers
        }
        with closing(http.client.HTTPConnection(urlsplit(self.running.url).netloc, timeout=10)) as line:
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                line.putheader(name, value)
            if body is not None and "transfer-encoding" not in given:
                line.putheader("content-length", str(len(body)))
            line.endheaders(body, encode_chunked="transfer-encoding" in given)
            answer = line.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()


@contextmanager
def secured(folder: Path, **settings: Any) -> Iterator[Place]:
    """Run a gateway, and put customers and a provider into it; mail goes into a box."""
    with hosted(folder, admins=(BOSS,), **settings) as running:
        gateway, mailbox = running.gateway, Mailbox()
        running.url = f"http://127.0.0.1:{gateway.settings.port}"  # whatever the site is called outside
        gateway.links._mailer = mailbox
        boss = running.do(gateway.users.find(BOSS)).id
        key = ProviderKey(PROVIDER_KEY)
        provider = RemoteProvider(
            name="elsewhere", url="https://93.184.216.34/v1", model="theirs", kind="openai", key=key
        )
        kept = running.do(gateway.providers.add(SOON, provider, enabled=False))
        running.do(gateway.providers.pins.claim(SOON, provider.name, None))
        alice, bob = running.customer(), running.customer()
        running.do(gateway.sessions.begin(alice.id))
        (session,) = running.do(gateway.sessions.of(alice.id))
        yield Place(running, folder, mailbox, alice, bob, boss, kept.id, session.id)


def pages(method: str, access: tuple[str, ...] = ("anybody", "user", "admin")) -> list[str]:
    """Return every path of the site that takes a method."""
    return [path for verb, path, _, who in PAGES if verb == method and who in access]

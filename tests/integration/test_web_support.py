"""What the tests of the site share: a site on SQLite with a fake engine, and a browser's manners without a browser."""

from __future__ import annotations

import functools
import math
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.in_thread import served
from unmask.engine.fake import FakeEngine
from unmask.gateway.accounts.clock import MINUTE
from unmask.gateway.accounts.csrf import Visitors
from unmask.gateway.accounts.disabling import Disabling
from unmask.gateway.accounts.joining import Joining
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.links import Links
from unmask.gateway.accounts.mail import Mail
from unmask.gateway.accounts.money import Hold, Order
from unmask.gateway.accounts.pulls import Calls, Pulls
from unmask.gateway.accounts.sessions import Sessions
from unmask.gateway.accounts.throttle import Throttle
from unmask.gateway.accounts.usage import Usage
from unmask.gateway.accounts.users import User, Users
from unmask.gateway.accounts.wishes import Wishes
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.db.database import Database
from unmask.gateway.db.migrating import prepare
from unmask.gateway.routing.histograms import bucket_of
from unmask.gateway.routing.history import History
from unmask.gateway.routing.meters import Speed
from unmask.gateway.routing.reports import ModelReport, ProviderReport
from unmask.gateway.routing.store import ProviderStore
from unmask.gateway.routing.tallies import Cell
from unmask.gateway.web import Check, RequestRow, Services, SiteSettings, TryIt, site
from unmask.text import Text

SECRET = b"a secret for tests, 32 bytes long"
BASE = "http://127.0.0.1:8000"
LIVE = "smollm2-135m-sup"
SOON = "llm2vec-meta-llama-3-8b-instruct-unsup-simcse"
FREE = 2_000_000
#: Where weights are.
HUB = "https://hub.example"


@dataclass
class Mailbox:
    """Keeps mail instead of sending it."""

    mails: list[Mail] = field(default_factory=list)

    async def send(self, mail: Mail) -> None:
        self.mails.append(mail)

    def link(self) -> str:
        """Return the path of the latest mail's link."""
        found = re.search(r"https?://[^/\s]+(/\S+)", self.mails[-1].text)
        assert found
        return found[1]


@dataclass
class Website:
    """A site, and what stands behind it."""

    app: ASGIApp
    database: Database
    services: Services
    mailbox: Mailbox
    requests: list[RequestRow] = field(default_factory=list)

    def client(self) -> Client:
        """Return a browser that nobody has used."""
        return Client(self)

    async def spend(self, user: User, key_id: int, model: str, units: int, amount: int) -> None:
        """Have a user's request answered and charged."""
        ledger = self.services.ledger
        order = Order(user_id=user.id, key_id=key_id, amount=amount, model=model, units=units, tokens=units)
        hold = await ledger.reserve(order)
        assert isinstance(hold, Hold)
        await ledger.settle(hold)


class Client(httpx.AsyncClient):
    """A browser's manners: cookies, where a form comes from, the token that the form holds."""

    def __init__(self, website: Website, **options: Any) -> None:
        self.website = website
        base = website.services.site.base_url
        super().__init__(
            transport=httpx.ASGITransport(website.app, raise_app_exceptions=True), base_url=base, **options
        )

    async def submit(
        self, page: str, action: str, data: dict[str, Any] | None = None, **options: Any
    ) -> httpx.Response:
        """Send a form of a page, with the token that it has there."""
        shown = (await self.get(page)).text
        start = shown.index(f'action="{action}"')
        token = re.search(r'name="csrf" value="([^"]+)"', shown[start:])
        assert token, f"{page} has no form {action}"
        return await self.send_form(action, {"csrf": token[1], **(data or {})}, **options)

    async def send_form(self, action: str, data: dict[str, Any], **options: Any) -> httpx.Response:
        """Send a form as a browser does from a page of the site."""
        origin = self.website.services.site.base_url
        return await self.post(
            action, data=data, headers={"origin": origin, "sec-fetch-site": "same-origin"}, **options
        )

    async def sign_in(self, email: str) -> User:
        """Sign in by a link."""
        sent = await self.submit("/sign-in", "/sign-in", {"email": email})
        assert sent.status_code == 200, sent.text
        link = self.website.mailbox.link()
        page = (await self.get(link)).text
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token
        done = await self.submit(link, "/sign-in/link", {"token": token[1]})
        assert done.status_code == 303, done.text
        return await self.website.services.users.find(email)


def _try_it(engine: FakeEngine) -> Any:
    async def try_it(slug: str, texts: list[str], instruction: str | None, user_id: int | None) -> TryIt:
        first, *others = texts
        read = [
            Text(instruction=instruction or "", content=first),
            *(Text(instruction="", content=text) for text in others),
        ]
        done = await engine.embed(slug, read, caller="visitor")
        unit = done.vectors / np.linalg.norm(done.vectors, axis=1, keepdims=True)
        cosines = tuple(tuple(float(value) for value in row) for row in unit @ unit.T)
        return TryIt(similarities=cosines, tokens=done.tokens, milliseconds=12.3)

    return try_it


def report(slug: str = LIVE) -> ModelReport:
    """Return how the two providers of a model do: one fast, one down."""
    speed = Speed(answers=812, p50=0.0184, p90=0.0313, p99=0.0872, tokens_per_second=4312.0)
    both: dict[str, Any] = {"checked_at": 0.0, "weight": 1}
    local = ProviderReport(
        name="local", kind="local", status="up", answers=True, problem=None, cosine=None, speed=speed, successes=812,
        failures=1, openings=0, price=0, **both,
    )  # fmt: skip
    remote = ProviderReport(
        name="second", kind="openai", status="down", answers=False, problem="It refuses the key. Enter another.",
        cosine=0.99998, speed=None, successes=0, failures=9, openings=1, price=12_000, **both,
    )  # fmt: skip
    return ModelReport(
        model=slug, choice="latency", agreement="agreed", pinned_to="local", speed=speed, retries_left=9.0,
        providers=(local, remote),
    )  # fmt: skip


@functools.cache
def empty() -> bytes:
    """Return a database with tables and nothing in them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        prepare(f"sqlite:///{file}")
        return file.read_bytes()


@functools.cache
def catalogue() -> Catalogue:
    """Return the models that Unmask comes with; read once, for nobody changes them."""
    return Catalogue.load()


@asynccontextmanager
async def website(
    folder: Path, base_url: str = BASE, *, development: bool = True, hub: str = HUB
) -> AsyncIterator[Website]:
    """Open a site on a new database."""
    settings = SiteSettings(
        name="Unmask", base_url=base_url, currency="EUR", free_credit=FREE, contact="help@example.org",
        development=development,
    )  # fmt: skip
    mailbox, engine = Mailbox(), FakeEngine(["smollm2-135m-sup", "smollm2-135m-unsup"], dimension=64)
    file = folder / "gateway.db"
    if not file.exists():
        file.write_bytes(empty())
    async with Database(f"sqlite:///{file}") as database:
        users, ledger, keyring = Users(database), Ledger(database), Keyring(database, SECRET)
        sessions = Sessions(database, SECRET)
        rows: list[RequestRow] = []

        async def health() -> Sequence[Check]:
            return [
                Check(name="Database", well=True, text="answers in 0.4 ms"),
                Check(name="Mail", well=False, text="refused"),
            ]

        services = Services(
            site=settings,
            catalogue=catalogue(),
            served=lambda: {model.name: model.state for model in engine.served()},
            report=lambda: (report(),),
            users=users,
            keyring=keyring,
            ledger=ledger,
            usage=Usage(database),
            wishes=Wishes(database),
            calls=Calls(database),
            pulls=Pulls(database, SECRET),
            history=History(database),
            hub=hub,
            sessions=sessions,
            visitors=Visitors(SECRET),
            links=Links(database, SECRET, mailbox, Throttle(database, SECRET)),
            openid=None,
            joining=Joining(database, users, ledger, free_credit=FREE, secret=SECRET),
            disabling=Disabling(database, keyring, sessions),
            providers=ProviderStore(database, SECRET, private=True),
            try_it=_try_it(engine),
            requests=lambda: rows,
            health=health,
        )
        yield Website(app=site(services), database=database, services=services, mailbox=mailbox, requests=rows)


def past(hour: int) -> dict[Cell, int]:
    """Return what a week's traffic of the two providers of a model comes to, until an hour since 1970."""
    found: dict[Cell, int] = {}
    for back in range(7 * 24):
        at, load = hour - back, 1 + math.sin(back / 24 * math.tau) / 2
        if 30 <= back < 36:  # nobody asked
            continue
        for step in range(-8, 12):  # of buckets, from the middle
            count = round(400 * load * math.exp(-(step**2) / 18) + 3)
            found[Cell(LIVE, "local", "latency", at, bucket_of(0.018 * (0.5 + load)) + step)] = count
            found[Cell(LIVE, "local", "throughput", at, bucket_of(4300 / (0.5 + load)) - step)] = count
        found[Cell(LIVE, "local", "answered", at, 0)] = round(800 * load)
        found[Cell(LIVE, "local", "up", at, 0)] = 240
        up = 0 if back < 3 else 150 if back % 17 == 0 else 240
        found |= {Cell(LIVE, "second", "up", at, 0): up, Cell(LIVE, "second", "down", at, 0): 240 - up}
        found[Cell(LIVE, "second", "failed", at, 0)] = 3
    return found


async def fill(made: Website) -> None:
    """Give a site a past: users, keys, charges, votes, calls, requests, a provider."""
    services = made.services
    ada, _ = await services.joining.enter("ada@example.org")
    await services.users.set_admin(ada.id, True)
    key, _ = await services.keyring.issue(ada.id, "my laptop")
    await services.ledger.credit(ada.id, 25_000_000, "top_up", reference="INV-0042", note="Invoice 42")
    for number in range(30):
        await made.spend(
            ada, key.id, LIVE if number % 3 else "smollm2-135m-unsup", 12_000 + 900 * number, 120 + 9 * number
        )
    for name in ("bob", "cy", "dee"):
        user, _ = await services.joining.enter(f"{name}@example.org")
        await services.wishes.wish(user.id, SOON)
    await services.calls.add(LIVE, datetime.now(UTC).date() - timedelta(days=1), 4711)
    await services.pulls.add(SOON, user_id=ada.id, client="")
    await services.history.add(past(int(datetime.now(UTC).timestamp()) // 3600))
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    for number in range(12):
        made.requests.append(
            RequestRow(
                at=now - number * MINUTE,
                id=f"req-{number:04d}",
                path="/v1/embeddings",
                status=429 if number == 3 else 200,
                milliseconds=18.4 + number,
                model=LIVE,
                provider="local",
                tokens=120 + number,
                user_id=ada.id,
            )
        )


@contextmanager
def serving(folder: Path, *, filled: bool = True, hub: str = HUB) -> Iterator[Website]:
    """Serve a site on a free port of this machine; ``services.site.base_url`` says where."""
    opened: list[Website] = []

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        async with website(folder, app.state.url, hub=hub) as made:
            if filled:
                await fill(made)
            opened.append(made)
            yield

    async def pages(scope: Scope, receive: Receive, send: Send) -> None:
        await opened[0].app(scope, receive, send)

    def configure(port: int) -> uvicorn.Config:
        app = Starlette(routes=[Mount("/", pages)], lifespan=life)
        app.state.url = f"http://127.0.0.1:{port}"
        return uvicorn.Config(app, log_level="error", lifespan="on")

    with served(configure):
        yield opened[0]

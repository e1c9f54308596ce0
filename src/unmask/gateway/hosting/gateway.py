"""The gateway: one application of the API, accounts, catalogue, routing and pages.

request ──► /v1/…, /health, /ready, /metrics, /docs/api ──► Application ──► Prepaid (accounts) ──► Router ──► engine
       └──► everything else ──► site (pages)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import Any, Final, cast

import httpx
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from unmask.engine.contract import EmbeddingEngine
from unmask.errors import InputError, UnknownModelError
from unmask.gateway.accounts.csrf import Visitors
from unmask.gateway.accounts.disabling import Disabling
from unmask.gateway.accounts.errors import UnknownUserError
from unmask.gateway.accounts.joining import Joining
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.links import Links
from unmask.gateway.accounts.openid import OpenId
from unmask.gateway.accounts.pulls import Calls, Pulls
from unmask.gateway.accounts.sessions import Sessions
from unmask.gateway.accounts.throttle import Throttle
from unmask.gateway.accounts.usage import Usage
from unmask.gateway.accounts.users import Users
from unmask.gateway.accounts.wishes import Wishes
from unmask.gateway.api.app import Application
from unmask.gateway.api.http import Send
from unmask.gateway.api.limits import Receive
from unmask.gateway.api.logs import request_id
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.db.database import Database
from unmask.gateway.hosting.downloads import Downloads, Popularity, hub
from unmask.gateway.hosting.health import Health
from unmask.gateway.hosting.housework import Chore, Housework
from unmask.gateway.hosting.offer import Offer
from unmask.gateway.hosting.prepaid import Prepaid
from unmask.gateway.hosting.settings import GatewaySettings
from unmask.gateway.hosting.traffic import Traffic
from unmask.gateway.hosting.trying import Trying
from unmask.gateway.routing.assembling import routes_of
from unmask.gateway.routing.history import History
from unmask.gateway.routing.remote import REQUEST_ID
from unmask.gateway.routing.router import Router
from unmask.gateway.routing.store import ProviderStore
from unmask.gateway.web.app import site
from unmask.gateway.web.headers import API_HEADERS, SecurityHeaders
from unmask.gateway.web.services import Services

_log: Final = logging.getLogger("unmask.gateway")

_API: Final = ("/v1/", "/health", "/ready", "/metrics")
#: Where the API's own page is: the site has one of this name, too.
REFERENCE: Final = "/docs/api"
#: Seconds after which changes that another process made to the providers, or to a model's pin, are used here.
_PROVIDERS: Final = 5.0
#: Seconds after which others know what this process counted.
_COUNTS: Final = 5.0
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0


def named_by_slug(settings: GatewaySettings, catalogue: Catalogue) -> GatewaySettings:
    """Return settings that serve each model under its slug, whichever of its names they say.

    Raises:
        InputError: the catalogue does not know a model, so it has no price; or one is served twice.
    """
    changed: dict[str, Any] = {}
    for kind in ("models", "rerankers"):
        found: dict[str, Any] = {}
        for name, model in getattr(settings, kind).items():
            try:
                slug = catalogue.find(name).slug
            except UnknownModelError as error:
                raise InputError(
                    f"The model {name} is to be served and has no entry in the catalogue, so it has no price. Write "
                    "SLUG.toml into a folder of the setting `catalogue`, with this name among its names "
                    "(docs/catalogue.md)."
                ) from error
            if slug in found:
                raise InputError(f"The model {slug} is to be served twice, once as {name}. Name it once.")
            found[slug] = model.model_copy(update={"source": model.source or name})
        changed[kind] = found
    return settings.model_copy(update=changed)


class Gateway:
    """An ASGI application: the whole hosted API.

    Args:
        settings: as :func:`named_by_slug` returns them.
        catalogue: of all models.
        engine: of this process.
        rerankers: its engine of cross-encoders, None where none is served.
        begun: told once it has started.

    Raises:
        InputError: a setting cannot be used.
        DatabaseError: the database cannot be used.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        catalogue: Catalogue,
        engine: EmbeddingEngine,
        rerankers: EmbeddingEngine | None = None,
        *,
        begun: Callable[[Gateway], Awaitable[None]] | None = None,
    ) -> None:
        settings.check()
        self.settings = settings
        self._begun = begun
        self.catalogue = catalogue
        settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # accounts and files of users are in it
        secret = settings.read_secret()
        self.database = database = Database(settings.database_url, always_durable=settings.always_durable)
        self.users, self.ledger = Users(database), Ledger(database)
        self.keyring = Keyring(database, secret, most_keys=settings.keys_per_user)
        self.joining = Joining(database, self.users, self.ledger, free_credit=settings.free_credit, secret=secret)
        self.providers = ProviderStore(database, secret, private=settings.private_providers)
        self._engine = engine
        self.router = Router(engine, self._routes(()), pins=self.providers.pins)
        self._stamp: tuple[int, ...] = ()
        calls, pulls, downloads = Calls(database), Pulls(database, secret), Downloads(catalogue)
        history = History(database)
        self._popularity = Popularity(calls, pulls, downloads)
        self.offer = Offer(
            catalogue,
            [self.router, *([rerankers] if rerankers else [])],
            currency=settings.currency,
            providers=self._answering,
            used=self._popularity.of,
        )
        self._open = AsyncExitStack()
        throttle = Throttle(database, secret)
        self.sessions = Sessions(database, secret)
        self.links = Links(database, secret, settings.mailer(), throttle, site=settings.site_name)
        self._traffic = Traffic(calls, self.router.tallies, history, self.offer.entry)
        self.services = Services(
            site=settings.site(),
            catalogue=catalogue,
            served=self.offer.states,
            report=self.router.report,
            users=self.users,
            keyring=self.keyring,
            ledger=self.ledger,
            usage=Usage(database),
            wishes=Wishes(database),
            calls=calls,
            pulls=pulls,
            history=history,
            hub=hub(),
            sessions=self.sessions,
            visitors=Visitors(secret),
            links=self.links,
            openid=self._openid(secret, throttle),
            joining=self.joining,
            disabling=Disabling(database, self.keyring, self.sessions),
            providers=self.providers,
            try_it=Trying(self.router, self.offer, per_minute=settings.tries_per_minute),
            requests=self._traffic.latest,
            downloads=downloads,
            health=Health(self.users, self.router, self.router, settings.folder, mails=settings.smtp_host is not None),
        )
        desk = Prepaid(self.keyring, self.ledger, self.offer.entry, requests=settings.requests_per_minute)
        self.api = Application(
            settings,
            self.router,
            rerankers,
            access=desk,
            names=self.offer.name,
            shown=self.offer.shown,
            observe=self._traffic.observe,
        )
        secure = self.services.site.secure
        self._api: Any = SecurityHeaders(cast("Any", self.api), secure=secure, headers=API_HEADERS)
        self._site: Any = ProxyHeadersMiddleware(cast("Any", site(self.services)), list(settings.proxies))
        asking = Chore(name="downloads", seconds=_DAY, work=downloads.refresh, at_once=True)
        self._housework = Housework(
            Chore(name="holds under way", seconds=_MINUTE, work=desk.renew),
            Chore(name="lapsed holds", seconds=_MINUTE, work=self.ledger.sweep),
            Chore(name="old links", seconds=_MINUTE, work=self.links.sweep),
            Chore(name="old sessions", seconds=_MINUTE, work=self.sessions.sweep),
            Chore(name="old counts", seconds=_MINUTE, work=throttle.sweep),
            Chore(name="counts", seconds=_COUNTS, work=self._traffic.flush),
            Chore(name="downloads here", seconds=_MINUTE, work=self._popularity.refresh, at_once=True),
            Chore(name="who was counted", seconds=_HOUR, work=pulls.sweep),
            Chore(name="old traffic", seconds=_HOUR, work=history.sweep),
            Chore(name="providers", seconds=_PROVIDERS, work=self.refresh_providers),
            *([asking] if settings.hub_downloads else []),
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or the server's word that it starts or stops."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        path = scope["path"]
        if path == REFERENCE:
            scope = {**scope, "path": "/docs"}
        elif not path.startswith(_API):
            await self._site(scope, receive, send)
            return
        elif path == "/metrics" and _is_forwarded(scope):
            scope = {**scope, "path": "/v1/metrics"}  # of the operator's own network alone: there is no such path
        await self._api(_numbered(scope), receive, send)

    async def refresh_providers(self) -> None:
        """Use the providers and pins as the database has them now; requests under way finish on what they began with.

        Raises:
            InputError: they cannot be used; those before stay.
            DatabaseUnavailableError: the database cannot be read now.
        """
        stamp = await self.providers.stamp()
        if stamp != self._stamp:
            self.router.update(self._routes(await self.providers.list()))
            self.offer.refresh()
            self._stamp = stamp
        await self.router.refresh_pins()

    def _routes(self, stored: Any) -> Mapping[str, Any]:
        served = [model.name for model in self._engine.served()]
        return routes_of(self.catalogue, served, stored, environment=os.environ)

    def _answering(self) -> dict[str, list[str]]:
        """Return who answers now, by model."""
        here = {name: ["local"] for name, state in self.offer.states().items() if state in ("ready", "cold")}
        return here | {
            report.model: [provider.name for provider in report.providers if provider.answers]
            for report in self.router.report()
        }

    def _openid(self, secret: bytes, throttle: Throttle) -> OpenId | None:
        asked = self.settings.openid()
        if asked is None:
            return None
        http = httpx.AsyncClient(timeout=10, follow_redirects=False)
        self._open.push_async_callback(http.aclose)
        return OpenId(asked, secret, throttle, http)

    async def _live(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        async def said(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._begin()
            elif message["type"] == "lifespan.shutdown.complete":
                await self._end()
            await send(message)

        await self.api(scope, receive, said)

    async def _begin(self) -> None:
        await self.refresh_providers()
        await self.joining.catch_up()
        await self._appoint()
        self._housework.start()
        if self._begun is not None:
            await self._begun(self)

    async def _appoint(self) -> None:
        """Make admins of those whom the settings name, and of nobody else."""
        former, named = await self.users.admins(), {await self._make_admin(each) for each in self.settings.admins}
        for user in former:
            if user.id not in named:
                await self.users.set_admin(user.id, admin=False)

    async def _make_admin(self, address: str) -> int:
        try:
            user = await self.users.find(address)
        except UnknownUserError:
            user = await self.users.add(address)  # nobody has it until its owner has signed in
        if not user.admin:
            await self.users.set_admin(user.id, admin=True)
        return user.id

    async def _end(self) -> None:
        await self._housework.stop()
        await self._traffic.flush()
        await self._open.aclose()
        await self.database.close()


def _numbered(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Give a request its number now, so that a provider elsewhere is told the same one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
    number = request_id(given)
    REQUEST_ID.set(number)
    others = [(name, value) for name, value in scope["headers"] if name != b"x-request-id"]
    return {**scope, "headers": [*others, (b"x-request-id", number.encode())]}


def _is_forwarded(scope: Mapping[str, Any]) -> bool:
    return any(name in (b"x-forwarded-for", b"forwarded") for name, _ in scope["headers"])

"""What the pages need, given to them from outside: they make nothing of it themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmask.errors import InputError
from unmask.gateway.accounts.addresses import parse_site_url
from unmask.gateway.accounts.csrf import Visitors
from unmask.gateway.accounts.disabling import Disabling
from unmask.gateway.accounts.joining import Joining
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.links import Links
from unmask.gateway.accounts.openid import OpenId
from unmask.gateway.accounts.pulls import Calls, Pulls
from unmask.gateway.accounts.sessions import Sessions
from unmask.gateway.accounts.usage import Usage
from unmask.gateway.accounts.users import Users
from unmask.gateway.accounts.wishes import Wishes
from unmask.gateway.catalogue import Catalogue, Listing
from unmask.gateway.routing.history import History
from unmask.gateway.routing.reports import ModelReport
from unmask.gateway.routing.store import ProviderStore


@dataclass(frozen=True, kw_only=True)
class SiteSettings:
    """What the operator says of the site.

    Attributes:
        name: of it.
        base_url: under which browsers reach it, without a slash at its end.
        currency: of all amounts, as ``EUR``.
        free_credit: micro-units that a new account is given.
        contact: an e-mail address, empty for none.
        development: sign-in links are printed to the log instead of mailed.

    Raises:
        InputError: the base URL is none, or not encrypted and not on this machine.
    """

    name: str
    base_url: str
    currency: str
    free_credit: int
    contact: str = ""
    development: bool = False

    def __post_init__(self) -> None:
        parts = parse_site_url(self.base_url, "site's URL")
        if parts.path or parts.query:
            raise InputError(
                f"The site's URL is {self.base_url!r}; expected https://HOST, without a path or a slash. Correct it."
            )

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS."""
        return self.base_url.startswith("https:")


@dataclass(frozen=True, kw_only=True)
class TryIt:
    """What came out when a visitor tried a model.

    Attributes:
        similarities: cosine of every text with every other, ``[n, n]``.
        tokens: of each text as the model read it.
        milliseconds: that it took.
    """

    similarities: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]
    milliseconds: float


class Trying(Protocol):
    """Tries a model for a visitor, free of charge."""

    def __call__(self, slug: str, texts: list[str], instruction: str | None, user_id: int | None) -> Awaitable[TryIt]:
        """Return how alike texts are to a model.

        Args:
            slug: of the model.
            texts: two or more, none of them blank.
            instruction: stands before the first text, which is the query; None for before none.
            user_id: who asks, None for somebody who is not signed in.

        Raises:
            UnmaskError: it cannot be done now; its message is shown to the visitor.
        """


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """A request to the API, as the admin sees it.

    Attributes:
        at: microseconds since 1970.
        id: of the request, as its answer's ``x-request-id`` has it.
        path: that was asked for.
        status: of the answer.
        milliseconds: that it took.
        model: that was asked, None for none.
        provider: that answered, None for none.
        tokens: it took.
        user_id: who asked, None for nobody known.
    """

    at: int
    id: str
    path: str
    status: int
    milliseconds: float
    model: str | None = None
    provider: str | None = None
    tokens: int = 0
    user_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that has to be well.

    Attributes:
        name: of it.
        well: whether it is.
        text: a line more.
    """

    name: str
    well: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that the pages need.

    Attributes:
        site: what the operator says of it.
        catalogue: of all models.
        served: state of each model that is served, by any of its names.
        report: how the providers of each routed model do; the model's name is any that the catalogue accepts.
        users: of the database.
        keyring: their keys.
        ledger: their credit.
        usage: what they used.
        wishes: which models they want.
        calls: how often models were called.
        pulls: how often their weights were fetched.
        history: what was seen of their providers.
        hub: where the weights of models with a repository are, without a slash at its end.
        sessions: who is signed in.
        visitors: who is not.
        links: that sign in.
        openid: a provider to sign in at, None for none.
        joining: lets people in.
        disabling: keeps people out.
        providers: that admins added.
        try_it: tries a model for a visitor.
        requests: the latest to the API, the newest first.
        health: looks after everything that has to be well.
        downloads: a month, of the models that a hub counts, by slug.
    """

    site: SiteSettings
    catalogue: Catalogue
    served: Callable[[], Mapping[str, str]]
    report: Callable[[], Sequence[ModelReport]]
    users: Users
    keyring: Keyring
    ledger: Ledger
    usage: Usage
    wishes: Wishes
    calls: Calls
    pulls: Pulls
    history: History
    hub: str
    sessions: Sessions
    visitors: Visitors
    links: Links
    openid: OpenId | None
    joining: Joining
    disabling: Disabling
    providers: ProviderStore
    try_it: Trying
    requests: Callable[[], Sequence[RequestRow]]
    health: Callable[[], Awaitable[Sequence[Check]]]
    downloads: Callable[[], Mapping[str, int]] = dict

    def listings(self) -> tuple[Listing, ...]:
        """Return every model with its status."""
        return self.catalogue.listings(self.served())

    def report_on(self, slug: str) -> ModelReport | None:
        """Return how a model's providers do, None if none answers for it."""
        reports = {self.catalogue.find(each.model).slug: each for each in self.report()}
        return reports.get(slug)

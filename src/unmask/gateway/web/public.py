"""The pages that say what this is: start, docs, pricing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from unmask.gateway.accounts.remembered import CACHE_SECONDS
from unmask.gateway.catalogue import Query, select
from unmask.gateway.web.listing import TASKS
from unmask.gateway.web.snippets import NO_KEY, snippets, three_lines
from unmask.gateway.web.visit import Visit

_FEATURED: Final = 6


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row of the table of errors.

    Attributes:
        status: of the response.
        code: of the error.
        means: what happened.
        remedy: what to do.
    """

    status: int
    code: str
    means: str
    remedy: str


ERRORS: Final = (
    Refused(
        status=400,
        code="–",
        means="The body or a header is not as the API wants it.",
        remedy="The message names the field.",
    ),
    Refused(
        status=400,
        code="max_tokens_per_request",
        means="More than 300,000 tokens in one request.",
        remedy="Send fewer texts at a time, or a batch.",
    ),
    Refused(
        status=401,
        code="invalid_api_key",
        means="No key, or one that opens nothing.",
        remedy="Send a key of yours that is valid.",
    ),
    Refused(
        status=402,
        code="insufficient_credit",
        means="The balance does not cover the request.",
        remedy="Top up. Trying again does not help: x-should-retry is false.",
    ),
    Refused(status=403, code="model_not_allowed", means="The key is not for this model.", remedy="Use another key."),
    Refused(
        status=404,
        code="model_not_found",
        means="No such model, or not served yet.",
        remedy="GET /v1/models lists all.",
    ),
    Refused(
        status=409,
        code="idempotency_in_progress",
        means="The first request with this Idempotency-Key is still under way.",
        remedy="Wait as Retry-After says, then send the same again.",
    ),
    Refused(
        status=422,
        code="idempotency_mismatch",
        means="This Idempotency-Key came with another request before.",
        remedy="Take a new key for a new request.",
    ),
    Refused(
        status=429,
        code="rate_limit_exceeded",
        means="A limit of the key is reached, or the queue is full.",
        remedy="Wait as Retry-After says.",
    ),
    Refused(
        status=503,
        code="model_cold",
        means="The model is being loaded.",
        remedy="Wait as Retry-After says, or send Prefer: wait=30.",
    ),
    Refused(
        status=503,
        code="accounts_unavailable",
        means="The database is away: nothing was computed or charged.",
        remedy="Try again soon.",
    ),
)


async def home(visit: Visit) -> Response:
    """Answer with the start page."""
    listings = visit.services.listings()
    featured = select(listings, Query(tasks=("sentence-similarity", "text-ranking")))[:_FEATURED]
    live = next((each.entry.slug for each in featured if each.status == "live"), featured[0].entry.slug)
    return visit.page(
        "home.html",
        featured=featured,
        total=len(listings),
        tasks=TASKS,
        call=three_lines(live, visit.services.site.base_url),
    )


async def docs(visit: Visit) -> Response:
    """Answer with how to use the API."""
    listings = select(visit.services.listings(), Query(tasks=("sentence-similarity",)))
    base_url = visit.services.site.base_url
    return visit.page(
        "docs.html",
        codes=snippets(listings[0].entry, base_url, NO_KEY),
        slug=listings[0].entry.slug,
        url=f"{base_url}/v1",
        errors=ERRORS,
        cached=CACHE_SECONDS,
    )


async def pricing(visit: Visit) -> Response:
    """Answer with what everything costs."""
    return visit.page("pricing.html", listings=select(visit.services.listings(), Query(order="cheapest")), tasks=TASKS)

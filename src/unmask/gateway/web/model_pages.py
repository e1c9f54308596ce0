"""A model's page: what it is, how good, how fast, what it costs, how to call it; to try it, and to ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from unmask.errors import UnmaskError
from unmask.gateway.accounts.clock import microseconds
from unmask.gateway.catalogue import Entry, Listing, Row, compare
from unmask.gateway.db.errors import DatabaseError
from unmask.gateway.web.forms import Form
from unmask.gateway.web.headers import policy
from unmask.gateway.web.listing import TASKS, address_of
from unmask.gateway.web.plots import measured, published, side_by_side
from unmask.gateway.web.refusals import refusal_of
from unmask.gateway.web.snippets import NO_KEY, shown_key, snippets
from unmask.gateway.web.speeds import SPANS, speeds_of
from unmask.gateway.web.visit import Visit

#: Texts that can be tried at once, and their characters.
_MOST_TEXTS: Final = 8
_LONGEST: Final = 2000
_EXAMPLE: Final = "how do I compress a file\nCompress bytes with gzip.\nSort a list in place.\nMake an archive smaller."
#: Shades of the table of likeness, from 0 to 1.
_SHADES: Final = 5
#: What a provider's status is called on pages; what is wrong with it is the operator's business.
STATES: Final = {"up": "up", "cold": "up, loads on demand", "resting": "busy", "down": "down", "misconfigured": "down"}


async def show(visit: Visit) -> Response:
    """Answer with a model's page; under another of its names, with where that is."""
    entry = visit.services.catalogue.find(visit.request.path_params["name"])
    if visit.request.path_params["name"] != entry.slug:
        return visit.go(f"/models/{entry.slug}")
    return await _page(visit, entry, _example(entry))


async def try_it(visit: Visit) -> Response:
    """Answer with how alike the texts of a form are to a model."""
    entry = visit.services.catalogue.find(visit.request.path_params["slug"])
    form = visit.form
    texts = [line.strip() for line in form.get("texts").splitlines() if line.strip()]
    if not 2 <= len(texts) <= _MOST_TEXTS:
        form.fail("texts", f"Expected 2 to {_MOST_TEXTS} texts, one a line; there are {len(texts)}.")
    elif any(len(text) > _LONGEST for text in texts):
        form.fail("texts", f"A text has more than {_LONGEST:,} characters. Shorten it; the API takes longer ones.")
    if len(form.get("instruction")) > _LONGEST:
        form.fail("instruction", f"The instruction has more than {_LONGEST:,} characters. Shorten it.")
    if form.wrong:
        return await _page(visit, entry, form, status=422)
    user = visit.user.id if visit.user else None
    try:
        result = await visit.services.try_it(entry.slug, texts, form.get("instruction") or None, user)
    except DatabaseError:
        raise
    except UnmaskError as error:
        form.fail("texts", str(error))
        # Whatever says when to come again was too much at a time, not wrong.
        later = refusal_of(error).retry_after
        if later is not None:
            visit.headers["retry-after"] = str(later)
        return await _page(visit, entry, form, status=422 if later is None else 429)
    return await _page(visit, entry, form, result=result, texts=texts)


async def wish(visit: Visit) -> Response:
    """Count that a user wants a model, or does not any more."""
    entry = visit.services.catalogue.find(visit.request.path_params["slug"])
    wishes, user = visit.services.wishes, visit.require_user
    if visit.form.get("wanted") == "no":
        await wishes.unwish(user.id, entry.slug)
    else:
        await wishes.wish(user.id, entry.slug)
    return visit.go(f"/models/{entry.slug}")


async def fetch(visit: Visit) -> Response:
    """Send somebody on to a model's weights, at the hub where the catalogue says they are, and count it."""
    entry = visit.services.catalogue.find(visit.request.path_params["slug"])
    address = _weights_of(visit, entry)
    if address is None:
        raise HTTPException(404)
    client, user = visit.request.client, visit.user
    await visit.services.pulls.add(
        entry.slug, user_id=user.id if user else None, client=client.host if client else "unknown"
    )
    return RedirectResponse(address, 303)


async def compare_models(visit: Visit) -> Response:
    """Answer with some models side by side; repeated and unknown names are left out and said."""
    services = visit.services
    listings = {each.entry.slug: each for each in services.listings()}
    chosen: dict[str, Listing] = {}
    unknown = []
    for name in visit.request.query_params.getlist("model"):
        try:
            slug = services.catalogue.find(name).slug
        except UnmaskError:
            unknown.append(name[:100])
        else:
            chosen[slug] = listings[slug]
    shown = list(chosen.values())
    rows = compare(services.catalogue, shown) if shown else ()
    return visit.page(
        "compare.html",
        shown=shown,
        listings=sorted(listings.values(), key=lambda each: each.entry.title.casefold()),
        unknown=unknown,
        groups=_groups(rows),
        charts=side_by_side(rows, shown),
        without={slug: address_of([each for each in chosen if each != slug]) for slug in chosen},
    )


async def _page(visit: Visit, entry: Entry, form: Form, *, status: int = 200, **values: Any) -> Response:
    services, user = visit.services, visit.user
    listing = next(each for each in services.listings() if each.entry.slug == entry.slug)
    counts, calls, pulls = (
        await services.wishes.counts(),
        await services.calls.last_month(),
        await services.pulls.last_month(),
    )
    asked = visit.query.get("span", "")
    chosen = asked if asked in SPANS else next(iter(SPANS))
    span = SPANS[chosen]
    traffic = await services.history.of(entry.slug, hours=span.hours, step=span.step)
    weights = _weights_of(visit, entry)
    if weights is not None:
        # The form that goes there is ours; browsers ask for where it is sent on to as well.
        visit.headers["content-security-policy"] = policy(_origin(weights))
    keys = await services.keyring.of(user.id) if user else []
    related = services.catalogue.related(entry)
    key = shown_key(keys, microseconds())
    return visit.page(
        "model.html",
        status=status,
        entry=entry,
        state=listing.status,
        form=form,
        task=TASKS[entry.task],
        base=services.catalogue.find(entry.base) if entry.base else None,
        licences=services.catalogue.licences(entry),
        related=related,
        compared=address_of([entry.slug, *(each.slug for each in related)]),
        charts=[chart for chart in (measured(entry), published(entry)) if chart],
        codes=snippets(entry, services.site.base_url, key),
        own_key=key != NO_KEY,
        speeds=speeds_of(services.report_on(entry.slug), traffic, span),
        spans=SPANS,
        span=chosen,
        states=STATES,
        weights=weights,
        calls=calls.get(entry.slug, 0),
        pulls=pulls.get(entry.slug, 0),
        downloads=services.downloads().get(entry.slug),
        votes=counts.get(entry.slug, 0),
        voted=user is not None and entry.slug in await services.wishes.of_user(user.id),
        **({"result": None, "texts": [], "shade": _shade} | values),
    )


def _weights_of(visit: Visit, entry: Entry) -> str | None:
    """Return where a model's weights are; None of one that comes with Unmask itself."""
    owner, _, name = entry.source.partition("/")
    return f"{visit.services.hub}/{quote(owner, safe='')}/{quote(name, safe='')}" if name else None


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[tuple[Row, str]]]]:
    """Return rows by where they are from, each with what is left to say of it."""
    found: dict[str, list[tuple[Row, str]]] = {}
    for row in rows:
        origin, _, rest = row.about.partition(": ")
        found.setdefault(origin.capitalize(), []).append((row, rest))
    return list(found.items())


def _example(entry: Entry) -> Form:
    return Form.of(texts=_EXAMPLE, instruction=entry.query_instruction or "")


def _shade(value: float) -> str:
    """Return the class of a cosine's shade; what is below 0 has none."""
    return f"h{min(_SHADES - 1, max(0, int(value * _SHADES)))}"

"""What an operator sees: users and their credit, models and who wants them, providers, requests, health."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from unmask.errors import InputError
from unmask.gateway.accounts.disabling import Kind
from unmask.gateway.accounts.errors import AccountError
from unmask.gateway.accounts.money import CreditKind
from unmask.gateway.accounts.usage import DayUsage
from unmask.gateway.web.account import KINDS, ledger_page
from unmask.gateway.web.forms import Form
from unmask.gateway.web.plots import requests_by_day, usage_by_day
from unmask.gateway.web.visit import Visit

_PAGE: Final = 50
_TOP: Final = 5
_LATEST: Final = 8
#: Why credit is entered by hand.
CREDITS: Final[dict[str, CreditKind]] = {"top_up": "top_up", "grant": "grant", "correction": "correction"}
_CREDIT_WORDS: Final = (("top_up", "Top-up"), ("grant", "Free credit"), ("correction", "Correction, may take away"))


async def overview(visit: Visit) -> Response:
    """Answer with health, the last days, and the latest requests."""
    services = visit.services
    today, totals = datetime.now(UTC).date(), await services.usage.totals()
    return visit.page(
        "admin.html",
        checks=await services.health(),
        today=_sums([each for each in totals if each.day == today]),
        month=_sums(totals),
        charts=[
            chart
            for chart in (usage_by_day(totals, today, services.site.currency), requests_by_day(totals, today))
            if chart
        ]
        if totals
        else [],
        top=await services.usage.top_users(count=_TOP),
        latest=services.requests()[:_LATEST],
    )


async def users(visit: Visit) -> Response:
    """Answer with users, searched by address, a page at a time."""
    before, query = visit.query.get("before"), visit.query.get("q", "")[:254].replace("\0", "")
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise HTTPException(404)
    found = await visit.services.users.list(query, before=int(before) if before else None, count=_PAGE + 1)
    return visit.page(
        "admin_users.html",
        users=found[:_PAGE],
        query=query,
        older=found[_PAGE - 1].id if len(found) > _PAGE else None,
    )


async def user(visit: Visit) -> Response:
    """Answer with a user: balance, keys, ledger, and a form for credit."""
    return await _user(visit, Form.of(kind="top_up"))


async def credit(visit: Visit) -> Response:
    """Enter credit for a user; with a reference that is there already, nothing is entered twice."""
    form, services = visit.form, visit.services
    account = await services.users.get(visit.number_in_path("user_id"))
    kind = CREDITS.get(form.get("kind"))
    if kind is None:
        form.fail("kind", "Choose one of the list.")
    amount = form.amount("amount", negative=True)
    if amount is None:
        form.fail("amount", "Type how much, such as 25.")
    reference = form.require("reference", "Type the payment's number: it keeps it from being entered twice.")
    if kind is not None and amount is not None and not form.wrong:
        try:
            await services.ledger.credit(account.id, amount, kind, reference=reference, note=form.get("note")[:500])
        except InputError as error:
            form.fail("amount", str(error))
        except AccountError as error:
            form.fail("reference", str(error))
    if form.wrong:
        return await _user(visit, form, status=422)
    return visit.go(f"/admin/users/{account.id}", done="credit")


async def disable(visit: Visit) -> Response:
    """Keep a user out."""
    return await _act(visit, "disable")


async def enable(visit: Visit) -> Response:
    """Let a user in again."""
    return await _act(visit, "enable")


async def models(visit: Visit) -> Response:
    """Answer with every model, the most wanted first."""
    services = visit.services
    counts, calls = await services.wishes.counts(), await services.calls.last_month()
    listings = sorted(
        services.listings(), key=lambda each: (-counts.get(each.entry.slug, 0), each.entry.title.casefold())
    )
    reports = {services.catalogue.find(each.model).slug: each for each in services.report()}
    return visit.page("admin_models.html", listings=listings, counts=counts, calls=calls, reports=reports)


async def requests(visit: Visit) -> Response:
    """Answer with the latest requests to the API."""
    return visit.page("admin_requests.html", requests=visit.services.requests())


def _sums(usage: list[DayUsage]) -> dict[str, int]:
    return {name: sum(getattr(each, name) for each in usage) for name in ("requests", "units", "amount")}


async def _act(visit: Visit, kind: Kind) -> Response:
    form, disabling, user_id = visit.form, visit.services.disabling, visit.number_in_path("user_id")
    account = await visit.services.users.get(user_id)
    reason = form.require("reason", "Type why: other admins see it later.")
    if not form.wrong:
        change = disabling.disable if kind == "disable" else disabling.enable
        try:
            await change(account.id, by=visit.require_user.id, reason=reason)
        except InputError as error:
            form.fail("reason", str(error))
    if form.wrong:
        return await _user(visit, Form.of(kind="top_up"), access=form, status=422)
    return visit.go(f"/admin/users/{account.id}", done=kind)


async def _user(visit: Visit, form: Form, *, access: Form | None = None, status: int = 200) -> Response:
    services = visit.services
    account = await services.users.get(visit.number_in_path("user_id"))
    entries, older = await ledger_page(visit, account.id)
    values: dict[str, Any] = {
        "account": account,
        "balance": await services.ledger.balance(account.id),
        "keys": await services.keyring.of(account.id),
        "access": access or Form(),
        "acts": await services.disabling.acts(account.id),
        "entries": entries,
        "older": older,
    }
    done = visit.query.get("done", "")
    return visit.page(
        "admin_user.html", status=status, form=form, kinds=KINDS, credits=_CREDIT_WORDS, done=done, **values
    )

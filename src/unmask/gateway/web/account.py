"""What a user sees of their own: balance, ledger, usage, keys, sessions. Nothing here takes a user's id from a form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from unmask.errors import InputError
from unmask.gateway.accounts.clock import DAY, microseconds
from unmask.gateway.accounts.errors import TooManyKeysError
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.accounts.keys import Key, KeyLimits
from unmask.gateway.accounts.money import Entry
from unmask.gateway.web.forms import Form
from unmask.gateway.web.plots import usage_by_day
from unmask.gateway.web.visit import Visit

_PAGE: Final = 25
_HOUR: Final = 3600
#: Days after which a key can be made to end, and hours that an old key can go on beside its successor.
ENDS: Final = (("", "Never"), ("30", "In 30 days"), ("90", "In 90 days"), ("365", "In a year"))
OVERLAPS: Final = (("0", "at once"), ("1", "in an hour"), ("24", "in a day"), ("168", "in a week"))
#: What an entry of the ledger is called.
KINDS: Final = {"grant": "Free credit", "top_up": "Top-up", "correction": "Correction", "charge": "Requests"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A key that was just made: shown in the answer to that form, and never again.

    Attributes:
        key: what is kept of it.
        secret: the key itself.
        replaces: the one that it was made in the place of, None for none.
    """

    key: Key
    secret: ApiKey
    replaces: Key | None = None


async def overview(visit: Visit) -> Response:
    """Answer with balance, usage and ledger."""
    services, user = visit.services, visit.require_user
    entries, older = await ledger_page(visit, user.id)
    today = datetime.now(UTC).date()
    usage = await services.usage.by_day(user.id)
    keys = {key.id: key for key in await services.keyring.of(user.id)}
    return visit.page(
        "account.html",
        balance=await services.ledger.balance(user.id),
        spent=sum(each.amount for each in usage),
        spent_today=sum(each.amount for each in usage if each.day == today),
        requests=sum(each.requests for each in usage),
        chart=usage_by_day(usage, today, services.site.currency),
        entries=entries,
        older=older,
        kinds=KINDS,
        keys=keys,
        welcome=visit.query.get("welcome") == "1",
        unwelcome=bool(services.site.free_credit)
        and not any(each.kind == "grant" for each in entries)
        and await services.joining.had_free_credit_before(user),
    )


async def ledger_page(visit: Visit, user_id: int) -> tuple[list[Entry], int | None]:
    """Return a page of a ledger, and the id behind which the next begins; None if there is none.

    Raises:
        HTTPException: 404, the query names no place in a ledger.
    """
    before = visit.query.get("before")
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise HTTPException(404)
    found = await visit.services.ledger.entries(user_id, before=int(before) if before else None, count=_PAGE + 1)
    return found[:_PAGE], found[_PAGE - 1].id if len(found) > _PAGE else None


async def keys(visit: Visit) -> Response:
    """Answer with the user's keys."""
    return await _keys(visit, Form.of(ends="90"))


async def make_key(visit: Visit) -> Response:
    """Make a key and show it, this once."""
    form, user, now = visit.form, visit.require_user, microseconds()
    name = form.require("name", "Give the key a name, so that you know it again.")
    ends = form.get("ends")
    if ends not in dict(ENDS):
        form.fail("ends", "Choose one of the list.")
    models = form.all("models")
    known = {each.slug for each in visit.services.catalogue}
    if not set(models) <= known:
        form.fail("models", "One of the models is not in the catalogue. Choose from the list.")
    limits = _limits(form)
    if limits is None or form.wrong:
        return await _keys(visit, form, status=422)
    try:
        key, secret = await visit.services.keyring.issue(
            user.id,
            name,
            expires_at=now + int(ends) * DAY if ends else None,
            models=frozenset(models) or None,
            limits=limits,
        )
    except (InputError, TooManyKeysError) as error:
        form.fail("name", str(error))
        return await _keys(visit, form, status=422)
    return await _keys(visit, Form.of(ends="90"), made=Made(key=key, secret=secret))


async def rotate_key(visit: Visit) -> Response:
    """Make a key in the place of another and show it, this once."""
    user, key_id = visit.require_user, visit.number_in_path("key_id")
    overlap = visit.form.get("overlap", "24")
    if overlap not in dict(OVERLAPS):
        raise InputError("The old key cannot go on for so long. Choose one of the list.")
    before = {key.id: key for key in await visit.services.keyring.of(user.id)}
    key, secret = await visit.services.keyring.rotate(user.id, key_id, overlap_seconds=int(overlap) * _HOUR)
    return await _keys(visit, Form.of(ends="90"), made=Made(key=key, secret=secret, replaces=before[key_id]))


async def revoke_key(visit: Visit) -> Response:
    """Withdraw a key."""
    await visit.services.keyring.revoke(visit.require_user.id, visit.number_in_path("key_id"))
    return visit.go("/account/keys", done="revoked")


async def sessions(visit: Visit) -> Response:
    """Answer with the user's sessions, this one first."""
    ended, session = visit.query.get("ended", ""), visit.session
    assert session is not None, "the page is for users"
    found = await visit.services.sessions.of(visit.require_user.id)
    return visit.page(
        "sessions.html",
        session=session,
        others=[each for each in found if each.id != session.id],
        ended=int(ended) if re.fullmatch("[0-9]{1,9}", ended) else None,
    )


async def end_session(visit: Visit) -> Response:
    """End one of the user's sessions; with this one, sign out."""
    number = visit.number_in_path("session_id")
    await visit.services.sessions.end_one(visit.require_user.id, number)
    if visit.session is not None and number == visit.session.id:
        visit.set_cookie(visit.cookies.session.clearing())
        return visit.go("/")
    return visit.go("/account/sessions", ended="1")


async def end_others(visit: Visit) -> Response:
    """End all other sessions of the user."""
    ended = await visit.services.sessions.end_all(visit.require_user.id, but=visit.session)
    return visit.go("/account/sessions", ended=str(ended))


async def _keys(visit: Visit, form: Form, *, status: int = 200, made: Made | None = None) -> Response:
    now = microseconds()
    found = await visit.services.keyring.of(visit.require_user.id)
    return visit.page(
        "keys.html",
        status=status,
        form=form,
        made=made,
        live=[key for key in reversed(found) if key.is_live(now)],
        gone=[key for key in reversed(found) if not key.is_live(now)],
        entries=sorted(visit.services.catalogue, key=lambda each: each.title.casefold()),
        ends=ENDS,
        overlaps=OVERLAPS,
        done=visit.query.get("done", ""),
    )


def _limits(form: Form) -> KeyLimits | None:
    values: dict[str, Any] = {
        "requests_per_minute": form.number("requests_per_minute"),
        "tokens_per_minute": form.number("tokens_per_minute"),
        "spend_per_day": form.amount("spend_per_day"),
    }
    try:
        return KeyLimits(**values)
    except InputError as error:
        form.fail(next(name for name in values if name in str(error)), str(error))
        return None

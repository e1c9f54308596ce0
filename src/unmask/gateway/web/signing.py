"""Signing in and out: by a link that is mailed, or at a provider of OpenID Connect."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from unmask.errors import InputError
from unmask.gateway.accounts.addresses import parse_local_path
from unmask.gateway.accounts.errors import AddressRefusedError
from unmask.gateway.accounts.links import LINK_PATH
from unmask.gateway.accounts.openid import OpenId
from unmask.gateway.accounts.users import User
from unmask.gateway.web.agents import agent_of
from unmask.gateway.web.forms import Form
from unmask.gateway.web.visit import Visit

#: Where somebody goes who has signed in and wanted to go nowhere else.
_HOME: Final = "/account"


async def ask(visit: Visit) -> Response:
    """Answer with the form; to who is signed in, with where they wanted to go."""
    next_path = _next(visit.query.get("next", ""))
    if visit.user is not None:
        return visit.go(next_path)
    return _form(visit, Form.of(next=next_path))


async def send(visit: Visit) -> Response:
    """Send a link, and say so, whether the address has an account or not."""
    form, services = visit.form, visit.services
    next_path = _next(form.get("next"))
    email = form.require("email", "Type the address that the link is to be sent to.")
    if not form.wrong:
        client = visit.request.client
        try:
            await services.links.send(
                email, services.site.base_url, next_path, client=client.host if client else "unknown"
            )
        except (InputError, AddressRefusedError) as error:
            form.fail("email", str(error))
    if form.wrong:
        return _form(visit, form, status=422)
    return visit.page("sign_in_sent.html", email=email)


async def confirm(visit: Visit) -> Response:
    """Answer with a button: mail scanners open links, but press none."""
    token = visit.query.get("token", "")
    email = await visit.services.links.look(token)
    return visit.page("sign_in_confirm.html", email=email, token=token, action=LINK_PATH)


async def accept(visit: Visit) -> Response:
    """Use a link up and sign in who has it."""
    services = visit.services
    arrival = await services.links.accept(visit.form.get("token"))
    user, first = await services.joining.enter(arrival.email)
    return await _let_in(visit, user, arrival.next_path, first=first)


async def go_to_provider(visit: Visit) -> Response:
    """Send the browser to the provider."""
    url, cookie = await _openid(visit).begin(_next(visit.query.get("next", "")))
    visit.set_cookie(visit.cookies.openid.header(cookie))
    return RedirectResponse(url, 303)


async def come_back(visit: Visit) -> Response:
    """Sign in whom the provider vouches for."""
    openid = _openid(visit)
    visit.set_cookie(visit.cookies.openid.clearing())
    cookie = visit.request.cookies.get(visit.cookies.openid.name)
    arrived = await openid.finish(cookie, visit.query)
    user, first = await visit.services.joining.enter_with(arrived.identity)
    return await _let_in(visit, user, arrived.next_path, first=first)


async def leave(visit: Visit) -> Response:
    """End the session."""
    if visit.session is not None:
        await visit.services.sessions.end(visit.session)
    visit.set_cookie(visit.cookies.session.clearing())
    return visit.go("/")


async def _let_in(visit: Visit, user: User, next_path: str, *, first: bool) -> Response:
    agent = agent_of(visit.request.headers.get("user-agent", ""))
    cookie = await visit.services.sessions.begin(user.id, instead_of=visit.session_cookie, agent=agent)
    visit.set_cookie(visit.cookies.session.header(cookie))
    visit.set_cookie(visit.cookies.visitor.clearing())
    path = _next(next_path)
    return visit.go(path, welcome="1") if first and path == _HOME else visit.go(path)


def _form(visit: Visit, form: Form, *, status: int = 200) -> Response:
    return visit.page("sign_in.html", status=status, form=form, openid=visit.services.openid)


def _openid(visit: Visit) -> OpenId:
    if visit.services.openid is None:
        raise HTTPException(404)
    return visit.services.openid


def _next(path: str) -> str:
    """Return where to go: a page of this site that whoever signs in can see, else the account."""
    try:
        found = parse_local_path(path)
    except InputError:
        return _HOME
    return _HOME if found == "/" or found.startswith("/sign-") else found

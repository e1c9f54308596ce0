"""A visitor's request while it is answered: who it is, what they sent, and the page that goes back."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from unmask.gateway.accounts.cookies import Cookies
from unmask.gateway.accounts.csrf import check_origin
from unmask.gateway.accounts.errors import UnknownUserError, UserDisabledError
from unmask.gateway.accounts.sessions import Session
from unmask.gateway.accounts.users import User
from unmask.gateway.web.forms import Form, read_form
from unmask.gateway.web.refusals import refusal_of
from unmask.gateway.web.rendering import Templates
from unmask.gateway.web.services import Services

_log: Final = logging.getLogger("unmask.site")

#: Who may see a page. To others a page for admins is not there at all.
Access = Literal["anybody", "user", "admin"]
_THEMES: Final = ("light", "dark")


class Visit:
    """A request, and what is known of who sent it.

    Attributes:
        services: of the site.
        request: as it came.
        form: what was sent with it; of a GET, the query.
        session: of who is signed in, None of a visitor.
        user: who is signed in, None if nobody is.
        headers: of the answer, besides those that all have.
    """

    def __init__(self, services: Services, templates: Templates, cookies: Cookies, request: Request) -> None:
        self.services = services
        self.request = request
        self.form = Form()
        self.session: Session | None = None
        self.user: User | None = None
        self.headers: dict[str, str] = {}
        self._templates = templates
        self.cookies = cookies
        self._set: list[str] = []
        self._visitor: str | None = None

    @property
    def path(self) -> str:
        """What was asked for, without its query."""
        return self.request.url.path

    @property
    def query(self) -> Mapping[str, str]:
        """What stands behind the path's question mark; of several values of a name, the last."""
        return self.request.query_params

    @property
    def theme(self) -> str:
        """The colours that the visitor chose; empty for those of their system."""
        found = self.request.cookies.get("__Host-theme" if self.services.site.secure else "theme", "")
        return found if found in _THEMES else ""

    @property
    def session_cookie(self) -> str | None:
        """The value of the session's cookie, whether it is good or not."""
        return self.request.cookies.get(self.cookies.session.name)

    @property
    def csrf(self) -> str:
        """What the forms of the page hold; who is not signed in gets a cookie for it."""
        if self.session is not None and self.session_cookie is not None:
            return self.services.sessions.csrf_token(self.session_cookie)
        visitors = self.services.visitors
        if self._visitor is None:
            self._visitor = self.request.cookies.get(self.cookies.visitor.name)
            if self._visitor is None or not visitors.knows(self._visitor):
                self._visitor = visitors.begin()
                self._set.append(self.cookies.visitor.header(self._visitor))
        return visitors.csrf_token(self._visitor)

    @property
    def require_user(self) -> User:
        """Who is signed in, on a page that only such people see."""
        assert self.user is not None, "the page is for users"
        return self.user

    def number_in_path(self, name: str) -> int:
        """Return a number that stands in the path.

        Raises:
            HTTPException: 404, it is none that a row can have.
        """
        text = str(self.request.path_params[name])
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise HTTPException(404)
        return int(text)

    async def recognise(self) -> None:
        """Find out who it is.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        self.session = await self.services.sessions.find(self.session_cookie)
        if self.session is not None:
            try:
                user = await self.services.users.get(self.session.user_id)
                user.require_enabled()
            except (UnknownUserError, UserDisabledError):
                self.session = None
            else:
                self.user = user

    async def receive(self) -> None:
        """Read what was posted, after it is certain that a page of ours sent it.

        Raises:
            CsrfError: it is not.
            HTTPException: the body is no form, or too large.
        """
        check_origin(self.request.headers, self.services.site.base_url)
        self.form = await read_form(self.request)
        token = self.form.get("csrf")
        if self.session is not None:
            self.services.sessions.check_csrf(self.session_cookie, token)
        else:
            self.services.visitors.check_csrf(self.request.cookies.get(self.cookies.visitor.name), token)

    def set_cookie(self, header: str) -> None:
        """Send a cookie with the answer."""
        self._set.append(header)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        body = self._templates.render(template, visit=self, **values)
        return Response(body, status, media_type="text/html")

    def go(self, path: str, **query: str) -> Response:
        """Return a word to the browser to go on, with a GET, to a page of this site."""
        return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)

    def refuse(self, error: BaseException) -> Response:
        """Return the page of an exception."""
        refusal, number = refusal_of(error), ""
        if refusal.rule.status == 500:
            number = secrets.token_hex(6)
            # Neither its message nor its values: they may hold what nobody should read.
            trace = "".join(traceback.format_tb(error.__traceback__))
            _log.error("page %s failed (%s): %s\n%s", self.path, number, type(error).__name__, trace)
        if refusal.retry_after is not None:
            self.headers["retry-after"] = str(refusal.retry_after)
        return self.page("error.html", status=refusal.rule.status, refusal=refusal, number=number)

    def finish(self, response: Response) -> Response:
        """Return an answer with the headers and cookies that go with the visitor."""
        for name, value in self.headers.items():
            response.headers[name] = value
        for each in self._set:
            response.headers.append("set-cookie", each)
        private = self.session is not None or self._visitor is not None or self._set
        response.headers.setdefault("cache-control", "no-store" if private else "no-cache")
        response.headers["vary"] = "cookie"
        return response


Action = Callable[[Visit], Awaitable[Response]]


class Door:
    """Makes endpoints of actions: everybody comes in here, and every page, good or bad, leaves here.

    Args:
        services: of the site.
        templates: of its pages.
    """

    def __init__(self, services: Services, templates: Templates) -> None:
        self._services = services
        self._templates = templates
        self._cookies = Cookies.of(services.site.base_url)

    def endpoint(self, action: Action, access: Access = "anybody") -> Callable[[Request], Awaitable[Response]]:
        """Return what answers requests with an action, for those who may see it."""

        async def answer(request: Request) -> Response:
            visit = Visit(self._services, self._templates, self._cookies, request)
            try:
                await visit.recognise()
                response = await _admitted(visit, access) or await _done(visit, action)
            except Exception as error:  # noqa: BLE001 - the table has a row for everything
                response = visit.refuse(error)
            return visit.finish(response)

        return answer

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer what no page takes, as Starlette's handler of exceptions."""
        # Nothing is done, so nothing that was sent is read.
        visit = Visit(self._services, self._templates, self._cookies, request)
        try:
            await visit.recognise()
        except Exception as failure:  # noqa: BLE001 - as above
            error = failure
        return visit.finish(visit.refuse(error))


async def _admitted(visit: Visit, access: Access) -> Response | None:
    """Return where somebody is sent who may not see a page, None if they may.

    Raises:
        HTTPException: 404, to whoever is no admin a page for admins is not there.
    """
    if access == "admin" and not (visit.user and visit.user.admin):
        raise HTTPException(404)
    if access == "user" and visit.user is None:
        url = visit.request.url
        here = f"{url.path}?{url.query}" if url.query else url.path
        return visit.go("/sign-in", next="/account" if visit.request.method == "POST" else here)
    return None


async def _done(visit: Visit, action: Action) -> Response:
    if visit.request.method == "POST":
        await visit.receive()
    return await action(visit)

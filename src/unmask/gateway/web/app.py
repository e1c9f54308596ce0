"""The site: every page by its path."""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from unmask.gateway.accounts.links import LINK_PATH
from unmask.gateway.web import account, admin, admin_providers, listing, model_pages, public, signing
from unmask.gateway.web.assets import Assets
from unmask.gateway.web.headers import SecurityHeaders
from unmask.gateway.web.rendering import Templates
from unmask.gateway.web.services import Services
from unmask.gateway.web.visit import Access, Action, Door

#: What answers a method and a path, and who may ask. An earlier row is tried first.
PAGES: Final[tuple[tuple[str, str, Action, Access], ...]] = (
    ("GET", "/", public.home, "anybody"),
    ("GET", "/docs", public.docs, "anybody"),
    ("GET", "/pricing", public.pricing, "anybody"),
    ("GET", "/models", listing.show, "anybody"),
    ("POST", "/models/{slug}/try", model_pages.try_it, "anybody"),
    ("POST", "/models/{slug}/wish", model_pages.wish, "user"),
    ("POST", "/models/{slug}/weights", model_pages.fetch, "anybody"),
    ("GET", "/models/{name:path}", model_pages.show, "anybody"),
    ("GET", "/compare", model_pages.compare_models, "anybody"),
    ("GET", "/sign-in", signing.ask, "anybody"),
    ("POST", "/sign-in", signing.send, "anybody"),
    ("GET", LINK_PATH, signing.confirm, "anybody"),
    ("POST", LINK_PATH, signing.accept, "anybody"),
    ("GET", "/sign-in/openid", signing.go_to_provider, "anybody"),
    ("GET", "/sign-in/openid/back", signing.come_back, "anybody"),
    ("POST", "/sign-out", signing.leave, "anybody"),
    ("GET", "/account", account.overview, "user"),
    ("GET", "/account/keys", account.keys, "user"),
    ("POST", "/account/keys", account.make_key, "user"),
    ("POST", "/account/keys/{key_id}/rotate", account.rotate_key, "user"),
    ("POST", "/account/keys/{key_id}/revoke", account.revoke_key, "user"),
    ("GET", "/account/sessions", account.sessions, "user"),
    ("POST", "/account/sessions/end", account.end_others, "user"),
    ("POST", "/account/sessions/{session_id}/end", account.end_session, "user"),
    ("GET", "/admin", admin.overview, "admin"),
    ("GET", "/admin/users", admin.users, "admin"),
    ("GET", "/admin/users/{user_id}", admin.user, "admin"),
    ("POST", "/admin/users/{user_id}/credit", admin.credit, "admin"),
    ("POST", "/admin/users/{user_id}/disable", admin.disable, "admin"),
    ("POST", "/admin/users/{user_id}/enable", admin.enable, "admin"),
    ("GET", "/admin/models", admin.models, "admin"),
    ("GET", "/admin/providers", admin_providers.show, "admin"),
    ("POST", "/admin/providers", admin_providers.add, "admin"),
    ("POST", "/admin/providers/{provider_id}", admin_providers.change, "admin"),
    ("POST", "/admin/providers/{provider_id}/remove", admin_providers.remove, "admin"),
    ("POST", "/admin/pins/{slug}/forget", admin_providers.forget_pin, "admin"),
    ("GET", "/admin/requests", admin.requests, "admin"),
)


def site(services: Services) -> ASGIApp:
    """Return the site as an application.

    It answers whatever it is given; paths that are none of its own with a page that says so. It needs no lifespan.

    Args:
        services: all that its pages need.

    Raises:
        InputError: the site's URL cannot be used.
    """
    assets = Assets()
    door = Door(services, Templates(services.site, assets))
    routes = [Route("/static/{name}", assets.serve)]
    routes += [Route(path, door.endpoint(action, access), methods=[method]) for method, path, action, access in PAGES]
    app = Starlette(routes=routes, exception_handlers={HTTPException: door.refuse})
    app.router.redirect_slashes = False
    return SecurityHeaders(app, secure=services.site.secure)

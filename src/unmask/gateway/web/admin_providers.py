"""Providers: who answers for a model besides this process; added, changed, switched off and removed by an operator.

And which of them a model is pinned to; the operator has the pin forgotten to move the model to other weights.
"""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from unmask.errors import InputError, UnmaskError
from unmask.gateway.db.errors import DatabaseError
from unmask.gateway.routing.routes import ProviderKey, RemoteKind, RemoteProvider
from unmask.gateway.routing.store import StoredProvider
from unmask.gateway.web.forms import Form
from unmask.gateway.web.visit import Visit

_KINDS: Final[dict[str, RemoteKind]] = {"openai": "openai", "unmask": "unmask"}
KINDS: Final = (("openai", "OpenAI's contract"), ("unmask", "Another Unmask server"))
_UNIT: Final = 1_000_000


async def show(visit: Visit) -> Response:
    """Answer with all providers and a form for a new one."""
    return await _page(visit, _new())


async def add(visit: Visit) -> Response:
    """Add a provider."""
    form, slug = visit.form, visit.form.get("slug")
    if slug not in {each.slug for each in visit.services.catalogue}:
        form.fail("slug", "Choose a model of the catalogue.")
    provider = _provider(form, form.require("name", "Give the provider a name; answers and pages show it."))
    if provider is not None and not form.wrong:
        try:
            await visit.services.providers.add(slug, provider)
        except DatabaseError:
            raise
        except UnmaskError as error:
            form.fail("name" if "provider" in str(error) and "Choose another name" in str(error) else "url", str(error))
    if form.wrong:
        return await _page(visit, form, status=422)
    return visit.go("/admin/providers", done="added")


async def change(visit: Visit) -> Response:
    """Change a provider, or switch it on or off."""
    form, stored = visit.form, await _stored(visit)
    provider = _provider(form, stored.provider.name)
    if provider is not None and not form.wrong:
        try:
            await visit.services.providers.change(stored.id, provider, enabled=form.get("enabled") == "yes")
        except DatabaseError:
            raise
        except UnmaskError as error:
            form.fail("url", str(error))
    if form.wrong:
        return await _page(visit, _new(), status=422, changed=(stored.id, form))
    return visit.go("/admin/providers", done="changed")


async def remove(visit: Visit) -> Response:
    """Remove a provider and its key."""
    await visit.services.providers.remove(visit.number_in_path("provider_id"))
    return visit.go("/admin/providers", done="removed")


async def forget_pin(visit: Visit) -> Response:
    """Forget which provider a model is pinned to, if it is still the pin that the operator was shown."""
    pins, slug, form = visit.services.providers.pins, visit.request.path_params["slug"], visit.form
    if slug not in {pin.model for pin in await pins.list()}:
        raise HTTPException(404)
    if form.get("sure") != "yes":
        form.fail("sure", "Tick the box if this is what you want.")
    elif await pins.forget(slug, form.get("mark")) is not None:
        form.fail("sure", "The model was pinned anew since you loaded the page. Look again.")
    if form.wrong:
        return await _page(visit, _new(), status=422, unsure=(slug, form))
    return visit.go("/admin/providers", done="forgotten")


async def _stored(visit: Visit) -> StoredProvider:
    number = visit.number_in_path("provider_id")
    found = next((each for each in await visit.services.providers.list(with_lost_keys=True) if each.id == number), None)
    if found is None:
        raise InputError("There is no such provider any more. Load the page again.")
    return found


def _provider(form: Form, name: str) -> RemoteProvider | None:
    """Return the provider that a form describes, None where something is wrong with it, which is noted."""
    url = form.require("url", "Type the address of its API, /v1 included.")
    model = form.require("model", "Type what the provider calls the model.")
    kind = _KINDS.get(form.get("kind"))
    if kind is None:
        form.fail("kind", "Choose one of the list.")
    weight, price, key = form.number("weight", least=0), form.amount("price"), None
    try:
        key = ProviderKey(form.get("key")) if form.get("key") else None
    except InputError as error:
        form.fail("key", str(error))
    if form.wrong or kind is None:
        return None
    try:
        return RemoteProvider(
            name=name, url=url, model=model, kind=kind, key=key, weight=1 if weight is None else weight, price=price
        )
    except InputError as error:
        form.fail("url", str(error))
        return None


def _new() -> Form:
    return Form.of(kind="openai", weight="1")


async def _page(
    visit: Visit,
    form: Form,
    *,
    status: int = 200,
    changed: tuple[int, Form] | None = None,
    unsure: tuple[str, Form] | None = None,
) -> Response:
    stored = await visit.services.providers.list(with_lost_keys=True)
    reports = {
        (visit.services.catalogue.find(model.model).slug, each.name): each
        for model in visit.services.report()
        for each in model.providers
    }
    forms = {each.id: changed[1] if changed and changed[0] == each.id else _filled(each) for each in stored}
    return visit.page(
        "admin_providers.html",
        status=status,
        form=form,
        stored=stored,
        forms=forms,
        reports=reports,
        uptimes=await visit.services.history.uptimes(),
        kinds=KINDS,
        models=[("", "Choose a model"), *((each.slug, each.title) for each in visit.services.catalogue)],
        pins=await visit.services.providers.pins.list(),
        unsure=dict([unsure] if unsure else []),
        done=visit.query.get("done", ""),
    )


def _filled(stored: StoredProvider) -> Form:
    provider = stored.provider
    return Form.of(
        url=provider.url,
        model=provider.model,
        kind=provider.kind,
        weight=str(provider.weight),
        price="" if provider.price is None else f"{provider.price / _UNIT:f}".rstrip("0").rstrip("."),
        enabled="yes" if stored.enabled else "no",
    )

"""The statements on providers."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BindParameter, LargeBinary, bindparam, delete, func, insert, select, update

from unmask.gateway.accounts.binds import number, words
from unmask.gateway.db.statements import Statement
from unmask.gateway.db.tables import providers

#: What the columns of a row are.
NAMES: Final = tuple(column.name for column in providers.columns)

_sealed: Final[BindParameter[bytes]] = bindparam("sealed", type_=LargeBinary)
#: What can be changed of a row.
_changed: Final[dict[str, Any]] = {
    "url": words("address"),
    "model": words("called"),
    "kind": words("sort"),
    "sealed": _sealed,
    "weight": number("share"),
    "price": number("cost"),
    "enabled": number("on"),
    "changed_at": number("now"),
}

ALL: Final = Statement(select(*providers.columns).order_by(providers.c.id))
ONE: Final = Statement(select(*providers.columns).where(providers.c.id == number("provider")))
NAMED: Final = Statement(
    select(providers.c.id).where(providers.c.slug == words("entry"), providers.c.name == words("title"))
)
ADD: Final = Statement(
    insert(providers)
    .values(slug=words("entry"), name=words("title"), created_at=number("now"), **_changed)
    .returning(*providers.columns)
)
CHANGE: Final = Statement(
    update(providers).where(providers.c.id == number("provider")).values(**_changed).returning(*providers.columns)
)
REMOVE: Final = Statement(delete(providers).where(providers.c.id == number("provider")))
STAMP: Final = Statement(
    select(
        func.count(providers.c.id),
        func.coalesce(func.max(providers.c.changed_at), 0),
        func.coalesce(func.sum(providers.c.id), 0),
    )
)

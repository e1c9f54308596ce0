"""The statements on keys."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import LargeBinary, bindparam, func, insert, or_, select, update

from unmask.gateway.accounts.binds import number, words
from unmask.gateway.db.statements import Statement
from unmask.gateway.db.tables import key_usage, keys, users

#: The columns of a key's limits.
LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "spend_per_day")
_COLUMNS: Final = {
    **{name: keys.c[name] for name in ("id", "user_id", "name", "digest", "created_at", "expires_at", "revoked_at")},
    **{name: keys.c[name] for name in ("models", *LIMITS)},
    "shown": keys.c.prefix,
    "last_used_at": key_usage.c.last_used_at,
    "disabled_at": users.c.disabled_at,
}
#: What the columns of a row are.
NAMES: Final = tuple(_COLUMNS)


_print: Final = bindparam("print", type_=LargeBinary)
_rows: Final = select(*_COLUMNS.values()).select_from(
    keys.join(key_usage, key_usage.c.key_id == keys.c.id).join(users, users.c.id == keys.c.user_id)
)
_shared: Final = ("name", "expires_at", "models", *LIMITS)
_live: Final = keys.alias("live")
#: The user has room for a key besides those that work, one of which may be about to end.
_has_room: Final = (
    select(func.count())
    .where(
        _live.c.user_id == number("user"),
        _live.c.id != number("ending"),
        _live.c.revoked_at.is_(None),
        or_(_live.c.expires_at.is_(None), _live.c.expires_at > number("now")),
    )
    .scalar_subquery()
) < number("most")

BY_DIGEST: Final = Statement(_rows.where(keys.c.digest == _print))
OF_USER: Final = Statement(_rows.where(keys.c.user_id == number("user")).order_by(keys.c.id))
OWNED: Final = Statement(_rows.where(keys.c.id == number("key"), keys.c.user_id == number("user")))
STATE_OF_USER: Final = Statement(select(users.c.disabled_at).where(users.c.id == number("user")))
ADD: Final = Statement(
    insert(keys).from_select(
        ["user_id", "name", "digest", "prefix", "created_at", "expires_at", "models", *LIMITS],
        select(
            users.c.id,
            words("title"),
            _print,
            words("shown"),
            number("now"),
            number("expires"),
            words("allowed"),
            number("requests"),
            number("tokens"),
            number("spend"),
        ).where(users.c.id == number("user"), users.c.disabled_at.is_(None), _has_room),
        include_defaults=False,
    )
)
COPY: Final = Statement(
    insert(keys).from_select(
        ["user_id", "digest", "prefix", "created_at", *_shared],
        select(keys.c.user_id, _print, words("shown"), number("now"), *(keys.c[name] for name in _shared)).where(
            keys.c.id == number("key"), keys.c.user_id == number("user"), _has_room
        ),
        include_defaults=False,
    )
)
_old: Final = key_usage.alias("old")


def _of_old(name: str) -> Any:
    return select(_old.c[name]).where(_old.c.key_id == number("old")).scalar_subquery()


COPY_USAGE: Final = Statement(
    update(key_usage)
    .where(key_usage.c.key_id == number("new"))
    .values({name: _of_old(name) for name in ("requests_until", "tokens_until", "day", "spent")})
)
END: Final = Statement(
    update(keys)
    .where(keys.c.id == number("key"), or_(keys.c.expires_at.is_(None), keys.c.expires_at > number("at")))
    .values(expires_at=number("at"))
)
REVOKE: Final = Statement(
    update(keys).where(keys.c.id == number("key"), keys.c.revoked_at.is_(None)).values(revoked_at=number("now"))
)

"""What is known of a key: a row of the database, never the key."""

from __future__ import annotations

from dataclasses import dataclass, field

from unmask.errors import InputError
from unmask.gateway.accounts.errors import KeyModelError
from unmask.gateway.db.tables import MOST_AMOUNT


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """What a key may do; None: as much as its user.

    Attributes:
        requests_per_minute: it may make.
        tokens_per_minute: it may use.
        spend_per_day: micro-units it may spend, days ending at midnight UTC.

    Raises:
        InputError: a limit is out of range.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    spend_per_day: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("requests_per_minute", 1), ("tokens_per_minute", 1), ("spend_per_day", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST_AMOUNT:
                raise InputError(f"The key's {name} is {value}; expected {least} to {MOST_AMOUNT:,}, or none.")


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is known of a key; not the key.

    Attributes:
        id: of it.
        user_id: whose.
        name: that its owner gave it.
        shown: its beginning.
        created_at: microseconds since 1970, like all times here.
        expires_at: None if never.
        revoked_at: None if it was not.
        models: that it is for, None for all.
        limits: of its own.
        last_used_at: when it last reserved something, None if never.
        disabled_at: since when an operator keeps its user out, None if none does.
        digest: what is stored of it.
    """

    id: int
    user_id: int
    name: str
    shown: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    models: frozenset[str] | None
    limits: KeyLimits
    last_used_at: int | None
    disabled_at: int | None
    digest: bytes = field(repr=False)

    def is_live(self, now: int) -> bool:
        """Return whether it opens anything at a time."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def require_model(self, model: str) -> None:
        """Refuse a model that the key is not for.

        Raises:
            KeyModelError: it is not.
        """
        if self.models is not None and model not in self.models:
            raise KeyModelError(f"The API key {self.shown} is not for the model {model[:100]!r}. Use another key.")

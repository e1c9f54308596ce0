"""Keys: made, looked up, rotated, revoked.

**How long a revoked key works.** Not at all for what is paid: reserving reads the key's row in the very statement that
sets the credit aside. Elsewhere (lists of models, say) the process that revoked it refuses it at once, others go by
what they looked up at most :data:`~unmask.gateway.accounts.remembered.CACHE_SECONDS` ago.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from typing import Any, Final

from unmask.errors import InputError
from unmask.gateway.accounts import keyrows
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.errors import (
    AccountError,
    KeyExpiredError,
    KeyRevokedError,
    TooManyKeysError,
    UnknownKeyError,
    UnknownKeyIdError,
    UnknownUserError,
    UserDisabledError,
)
from unmask.gateway.accounts.keyform import ApiKey, check_secret
from unmask.gateway.accounts.keys import Key, KeyLimits
from unmask.gateway.accounts.remembered import Remembered
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Transaction

_LONGEST_NAME: Final = 100
_MOST_MODELS: Final = 1000
#: The id of no key.
_NONE: Final = 0
#: Keys of a user that work at the same time.
MOST_KEYS: Final = 50


class Keyring:
    """The keys of a database's users.

    Args:
        database: where they are.
        secret: the server's, in no database; 32 random bytes or more. With another one no key is known.
        most_keys: of a user that work at the same time.
        clock: the time.
        monotonic: seconds, for what is remembered.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(
        self,
        database: Database,
        secret: bytes,
        *,
        most_keys: int = MOST_KEYS,
        clock: Clock = microseconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._most_keys = most_keys
        self._secret = check_secret(secret)
        self._clock = clock
        self._remembered = Remembered(self._fetch, monotonic)

    async def issue(
        self,
        user_id: int,
        name: str,
        *,
        expires_at: int | None = None,
        models: frozenset[str] | None = None,
        limits: KeyLimits | None = None,
    ) -> tuple[Key, ApiKey]:
        """Make a key.

        Args:
            user_id: for whom.
            name: for its owner.
            expires_at: when it opens nothing any more, microseconds since 1970; None for never.
            models: that it is for, None for all.
            limits: of its own.

        Returns:
            What is kept, and the key itself: show it to its owner now, nobody will see it again.

        Raises:
            InputError: the name, the time or the models cannot be.
            UnknownUserError: there is no such user.
            UserDisabledError: an operator keeps the user out.
            TooManyKeysError: the user has as many keys that work as one may have.
            DatabaseUnavailableError: the database cannot be written now; there is no new key.
        """
        now = self._clock()
        _check(name, expires_at, models, now)
        secret = ApiKey.new()
        given = limits or KeyLimits()
        values: dict[str, Any] = {
            "user": user_id,
            "title": name,
            "print": secret.digest(self._secret),
            "shown": secret.shown,
            "now": now,
            "expires": expires_at,
            "allowed": None if models is None else json.dumps(sorted(models)),
            "requests": given.requests_per_minute,
            "tokens": given.tokens_per_minute,
            "spend": given.spend_per_day,
        }

        def operation(transaction: Transaction) -> Key:
            if not transaction.run(keyrows.ADD, ending=_NONE, most=self._most_keys, **values):
                raise self._not_issued(transaction, user_id)
            return _key(transaction.rows(keyrows.BY_DIGEST, print=values["print"])[0])

        return await self._database.write(operation, user=user_id, durable=True), secret

    async def rotate(self, user_id: int, key_id: int, *, overlap_seconds: float) -> tuple[Key, ApiKey]:
        """Make a key in the place of another, which goes on for a while; what it used today counts for the new one.

        Args:
            user_id: whose key it is.
            key_id: of the key to be replaced.
            overlap_seconds: for which both work.

        Returns:
            As :meth:`issue`.

        Raises:
            InputError: the overlap is negative.
            UnknownKeyIdError: the user has no such key.
            KeyRevokedError, KeyExpiredError: it works no more; make a new one.
            UserDisabledError: an operator keeps the user out.
            TooManyKeysError: with both, the user has more keys than one may have.
            DatabaseUnavailableError: the database cannot be written now; all is as it was.
        """
        if overlap_seconds < 0:
            raise InputError(f"An overlap of {overlap_seconds} s cannot be. Expected 0 or more.")
        now, secret = self._clock(), ApiKey.new()
        digest = secret.digest(self._secret)

        def operation(transaction: Transaction) -> tuple[Key, Key]:
            old = _owned(transaction, user_id, key_id)
            _require_valid(old, now)
            ending = _NONE if overlap_seconds else key_id
            values: dict[str, Any] = {"user": user_id, "key": key_id, "ending": ending, "most": self._most_keys}
            if not transaction.run(keyrows.COPY, print=digest, shown=secret.shown, now=now, **values):
                raise self._too_many()
            new = _key(transaction.rows(keyrows.BY_DIGEST, print=digest)[0])
            transaction.run(keyrows.COPY_USAGE, old=key_id, new=new.id)
            transaction.run(keyrows.END, key=key_id, at=now + int(overlap_seconds * SECOND))
            return old, new

        old, new = await self._database.write(operation, user=user_id, durable=True)
        self._remembered.forget(old.digest)
        return new, secret

    async def revoke(self, user_id: int, key_id: int) -> Key:
        """Withdraw a key, for good; one that was is left as it is.

        Raises:
            UnknownKeyIdError: the user has no such key.
            DatabaseUnavailableError: the database cannot be written now; revoke it again.
        """
        now = self._clock()

        def operation(transaction: Transaction) -> Key:
            _owned(transaction, user_id, key_id)
            transaction.run(keyrows.REVOKE, key=key_id, now=now)
            return _owned(transaction, user_id, key_id)

        key = await self._database.write(operation, user=user_id, durable=True)
        self._remembered.forget(key.digest)
        return key

    async def of(self, user_id: int) -> list[Key]:
        """Return a user's keys, the oldest first.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        return [_key(row) for row in await self._database.read(lambda each: each.rows(keyrows.OF_USER, user=user_id))]

    async def authenticate(self, text: str) -> Key:
        """Return what is known of the key that somebody sent.

        Raises:
            KeyRefusedError: it opens nothing; which of its kinds says why.
            UserDisabledError: an operator keeps its user out.
            DatabaseUnavailableError: it would have to be looked up, and cannot now.
        """
        digest = ApiKey.parse(text).digest(self._secret)
        key = await self._remembered.get(digest)
        # The database's comparison stops at the first byte that differs; this one does not.
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise UnknownKeyError("The API key is not known here. Check that it is one of this server's.")
        _require_valid(key, self._clock())
        return key

    def forget(self, user_id: int) -> None:
        """Look a user's keys up anew: something of the user has changed."""
        self._remembered.forget(*self._remembered.digests(lambda key: key.user_id == user_id))

    def _not_issued(self, transaction: Transaction, user_id: int) -> AccountError:
        rows = transaction.rows(keyrows.STATE_OF_USER, user=user_id)
        if not rows:
            return UnknownUserError("There is no such user.")
        return self._too_many() if rows[0][0] is None else UserDisabledError()

    def _too_many(self) -> TooManyKeysError:
        return TooManyKeysError(
            f"You have {self._most_keys} keys that work, as many as one may have. Revoke one that you do not need."
        )

    async def _fetch(self, digest: bytes) -> Key | None:
        rows = await self._database.read(lambda transaction: transaction.rows(keyrows.BY_DIGEST, print=digest))
        return _key(rows[0]) if rows else None


def _check(name: str, expires_at: int | None, models: frozenset[str] | None, now: int) -> None:
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or not name.strip():
        raise InputError(f"The key's name has {len(name)} characters; expected 1 to {_LONGEST_NAME} printable ones.")
    if expires_at is not None and expires_at <= now:
        raise InputError("The key would have expired before it is made. Choose a later time, or none.")
    if models is not None and not 1 <= len(models) <= _MOST_MODELS:
        raise InputError(f"The key is for {len(models)} models; expected 1 to {_MOST_MODELS}, or None for all.")


def _require_valid(key: Key, now: int) -> None:
    if key.disabled_at is not None:
        raise UserDisabledError
    if key.revoked_at is not None:
        raise KeyRevokedError(f"The API key {key.shown} was revoked. Use another.")
    if key.expires_at is not None and key.expires_at <= now:
        raise KeyExpiredError(f"The API key {key.shown} has expired. Use another.")


def _owned(transaction: Transaction, user_id: int, key_id: int) -> Key:
    rows = transaction.rows(keyrows.OWNED, user=user_id, key=key_id)
    if not rows:
        raise UnknownKeyIdError("The user has no such key.")
    return _key(rows[0])


def _key(row: Row) -> Key:
    values = dict(zip(keyrows.NAMES, row, strict=True))
    models = values.pop("models")
    limits = KeyLimits(**{name: values.pop(name) for name in keyrows.LIMITS})
    return Key(models=None if models is None else frozenset(json.loads(models)), limits=limits, **values)

"""What a request costs, and what is said about it: values without a database."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final, Literal

from unmask.errors import InputError
from unmask.gateway.db.tables import MOST_AMOUNT

#: Micro-units of one unit of the currency.
UNIT: Final = 1_000_000
#: Bytes of an answer that is kept for a retry; of a larger one only that it was paid.
MOST_OUTCOME: Final = 1_000_000
_LONGEST_KEY: Final = 255
_ID_TIME_DIGITS: Final = 12
_ID_RANDOM_BYTES: Final = 10

#: Why credit comes in: given free, paid for, or put right by an operator.
CreditKind = Literal["grant", "top_up", "correction"]
Kind = Literal["grant", "top_up", "correction", "charge"]


def price(units: int, *, rate: int, per: int) -> int:
    """Return what units cost, in micro-units, rounded up: no request is free by being small.

    Args:
        units: tokens or documents.
        rate: micro-units that ``per`` units cost.
        per: 1,000,000 for tokens, say.
    """
    return -(-units * rate // per)


def fingerprint(*parts: bytes) -> str:
    """Return what tells one request from another: SHA-256 over its parts and their lengths."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.hexdigest()


def new_hold_id(now: int) -> str:
    """Return an id that nobody else has, larger than those of earlier milliseconds: neighbours in the index."""
    return f"{now // 1000:0{_ID_TIME_DIGITS}x}{secrets.token_hex(_ID_RANDOM_BYTES)}"


@dataclass(frozen=True, kw_only=True)
class Order:
    """A request whose price is known.

    Attributes:
        user_id: who pays.
        key_id: with which key.
        amount: micro-units, at most what it can cost.
        model: that is asked.
        units: that are paid for: tokens or documents.
        tokens: that count against the key's tokens a minute.

    Raises:
        InputError: a number is negative or too large.
    """

    user_id: int
    key_id: int
    amount: int
    model: str
    units: int
    tokens: int

    def __post_init__(self) -> None:
        numbers = {"amount": self.amount, "units": self.units, "tokens": self.tokens}
        for name, number in numbers.items():
            if not 0 <= number <= MOST_AMOUNT:
                raise InputError(f"The order's {name} is {number}; expected 0 to {MOST_AMOUNT:,}.")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """What tells a retry of a request.

    Attributes:
        key: the client's ``Idempotency-Key``, one a user.
        fingerprint: of the request; see :func:`fingerprint`.

    Raises:
        InputError: the key is empty, too long or not printable ASCII.
    """

    key: str
    fingerprint: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.key) <= _LONGEST_KEY or not self.key.isascii() or not self.key.isprintable():
            raise InputError(
                f"The Idempotency-Key has {len(self.key)} characters; "
                f"expected 1 to {_LONGEST_KEY}, printable ASCII ones."
            )


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Credit set aside for a request that is being answered.

    Attributes:
        id: of it.
        user_id: whose credit.
        amount: micro-units.
        expires_at: when it lapses unless it is settled or released; microseconds since 1970.
        retried: whether the request came with an Idempotency-Key.
    """

    id: str
    user_id: int
    amount: int
    expires_at: int
    retried: bool


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A request that was answered and paid before: its retry is free.

    Attributes:
        charged: micro-units, at the time.
        outcome: the answer that was kept; None if it was too large. Then answer the request again: it is paid.
    """

    charged: int
    outcome: bytes | None


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What a user has, in micro-units.

    Attributes:
        balance: the sum of the ledger.
        held: of it, for requests that are being answered.
    """

    balance: int
    held: int

    @property
    def available(self) -> int:
        """What another request may cost."""
        return self.balance - self.held


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the ledger.

    Attributes:
        id: larger than those of the user's earlier entries.
        kind: why.
        amount: micro-units, negative for a charge.
        at: microseconds since 1970.
        key_id: with which it was spent, None for credit that came in.
        model: that was asked, None likewise.
        units: that were paid for, None likewise.
        reference: of a payment, None for a charge.
        note: of an operator.
    """

    id: int
    kind: Kind
    amount: int
    at: int
    key_id: int | None
    model: str | None
    units: int | None
    reference: str | None
    note: str | None

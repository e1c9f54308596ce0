"""What a key looks like: ``gr-``, 32 random characters, six that check them.

The random characters are digits of base 62: 32 × log2(62) = 190.5 bits, more than anybody can guess. The last six are
the CRC-32 of all before them, so a typing error is told from an unknown key without a look into the database.

**At rest** there is only ``HMAC-SHA-256(secret, key)``. A slow hash (bcrypt, Argon2) makes guessing dear where people
choose passwords; 190 random bits cannot be guessed at any speed, and 50 ms of processor time a request would be a gift
to whoever wants to stop the server. The secret, which is not in the database, makes a stolen copy of it useless: no key
can be tried against it, and none can be planted in it.
"""

from __future__ import annotations

import hmac
import secrets
import string
import zlib
from typing import Final, NoReturn

from unmask.errors import InputError
from unmask.gateway.accounts.errors import MalformedKeyError

START: Final = "gr-"
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM: Final = 32
_CHECK: Final = 6
_LENGTH: Final = len(START) + _RANDOM + _CHECK
#: Characters that are shown of a key; 166 random bits stay hidden.
_SHOWN: Final = len(START) + 4
#: Bytes that the server's secret must have.
SECRET_BYTES: Final = 32


class ApiKey:
    """A key in full, as its owner sees it once. Printed, logged or formatted it shows its beginning only."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    @classmethod
    def new(cls) -> ApiKey:
        """Return a new key."""
        body = START + "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM))
        return cls(body + _check(body))

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """Return the key that somebody sent.

        Raises:
            MalformedKeyError: it is none; says nothing of what it is.
        """
        if len(text) != _LENGTH or not text.startswith(START) or not text.isascii() or not text[3:].isalnum():
            raise MalformedKeyError(
                f"The API key has another form than ours: {START} and {_RANDOM + _CHECK} letters and digits. "
                "Check that all of it was copied."
            )
        if not hmac.compare_digest(_check(text[:-_CHECK]), text[-_CHECK:]):
            raise MalformedKeyError("The API key has a typing error in it: its last characters do not fit the others.")
        return cls(text)

    @property
    def shown(self) -> str:
        """Its beginning, by which its owner knows it again."""
        return f"{self.__text[:_SHOWN]}…"

    def reveal(self) -> str:
        """Return all of it."""
        return self.__text

    def digest(self, secret: bytes) -> bytes:
        """Return what is stored of it."""
        return hmac.digest(secret, self.__text.encode(), "sha256")

    def __repr__(self) -> str:
        return f"<ApiKey {self.shown}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: bytes in a file or a message would show it."""
        raise TypeError("an API key cannot be pickled")


def check_secret(secret: bytes) -> bytes:
    """Return the server's secret.

    Raises:
        InputError: it is too short.
    """
    if len(secret) < SECRET_BYTES:
        raise InputError(f"The server's secret has {len(secret)} bytes; expected {SECRET_BYTES} random ones or more.")
    return secret


def _check(body: str) -> str:
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        rest, digit = divmod(rest, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits

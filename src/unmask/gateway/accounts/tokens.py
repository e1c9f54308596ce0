"""Random tokens, and what the server's secret makes of them.

One secret, and from it a key for each purpose (HKDF, RFC 5869): what is signed for one purpose is nothing for another,
and what is stored for one cannot be looked up for another.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from typing import Final, NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from unmask.gateway.accounts.keyform import check_secret

_BYTES: Final = 32
#: Characters of a token: 256 bits, six a character.
TOKEN_LENGTH: Final = 43


def new_token() -> str:
    """Return 256 random bits as text that a cookie, a URL and a form can hold."""
    return secrets.token_urlsafe(_BYTES)


class Keyed:
    """HMAC-SHA-256 with a key of its own for one purpose.

    Args:
        secret: the server's; 32 random bytes or more.
        purpose: what it is for.

    Raises:
        InputError: the secret is too short.
    """

    __slots__ = ("__key", "_purpose")

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._purpose = purpose
        derivation = HKDF(algorithm=SHA256(), length=_BYTES, salt=None, info=f"unmask gateway: {purpose}".encode())
        self.__key = derivation.derive(check_secret(secret))

    def digest(self, text: str) -> bytes:
        """Return what is stored of a token: nothing that opens anything."""
        return hmac.digest(self.__key, _bytes(text), "sha256")

    def tag(self, text: str) -> str:
        """Return the digest as text."""
        return _encode(self.digest(text))

    def fits(self, text: str, tag: str) -> bool:
        """Return whether a tag is a text's; takes as long whichever of its characters is wrong."""
        return hmac.compare_digest(_bytes(self.tag(text)), _bytes(tag))

    def sign(self, fields: dict[str, str], *, until: int) -> str:
        """Return fields as text that :meth:`read` takes until a time; whoever has it can read it, but not change it."""
        body = _encode(json.dumps([until, fields], separators=(",", ":")).encode())
        return f"{body}.{self.tag(body)}"

    def read(self, text: str, *, now: int) -> dict[str, str] | None:
        """Return the fields of a signed text; None if it is none of ours, was changed, or its time is over."""
        body, _, tag = text.partition(".")
        if not self.fits(body, tag):
            return None
        until, fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return None if until <= now else fields

    def __repr__(self) -> str:
        return f"<Keyed for {self._purpose}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: bytes in a file or a message would show the key."""
        raise TypeError("a derived key cannot be pickled")


def _bytes(text: str) -> bytes:
    # Whatever a client sends has bytes, half a character too.
    return text.encode("utf-8", "surrogatepass")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")

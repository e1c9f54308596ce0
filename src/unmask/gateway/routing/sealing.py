"""Providers' keys at rest: sealed with a key derived from the server's secret, and bound to where they are sent.

AES-256-GCM with a random nonce; its key is HKDF-SHA-256 of the secret, with a label of its own, so that nothing which
is done with the secret elsewhere gives it away. What is sealed opens only for the same model, name and address: who can
write to the database cannot have a key sent to another server.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from unmask.gateway.accounts.keyform import check_secret
from unmask.gateway.routing.errors import ProviderKeyError
from unmask.gateway.routing.routes import ProviderKey

_LABEL: Final = b"unmask gateway: keys of providers"
_VERSION: Final = b"\x01"
_NONCE: Final = 12


class Sealer:
    """Seals and opens keys.

    Args:
        secret: the server's, in no database; 32 random bytes or more.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(self, secret: bytes) -> None:
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_LABEL).derive(check_secret(secret))
        self._cipher = AESGCM(derived)

    def seal(self, key: ProviderKey, *place: str) -> bytes:
        """Return a key as it may be stored.

        Args:
            key: to be sealed.
            place: where it belongs; it opens nowhere else.
        """
        nonce = secrets.token_bytes(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, key.reveal().encode(), _bound(place))

    def open(self, sealed: bytes, *place: str) -> ProviderKey:
        """Return a key that was sealed for a place.

        Raises:
            ProviderKeyError: it was sealed with another secret or for another place, or was changed.
        """
        nonce, text = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            if sealed[:1] != _VERSION or len(nonce) < _NONCE:
                raise InvalidTag
            return ProviderKey(self._cipher.decrypt(nonce, text, _bound(place)).decode())
        except InvalidTag as error:
            raise ProviderKeyError(
                "A provider's key cannot be opened: it was sealed with another secret, or its row was changed. Start "
                "with the secret that it was sealed with, or enter the key again."
            ) from error


def _bound(place: tuple[str, ...]) -> bytes:
    parts = [part.encode() for part in place]
    return _VERSION + b"".join(len(part).to_bytes(4, "big") + part for part in parts)

"""Static API keys: held as digests, compared in constant time, never logged."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from unmask.errors import InputError
from unmask.files.lines import read_lines
from unmask.gateway.api.errors import AuthenticationError

_SCHEME: Final = b"bearer "
#: Who calls where no keys are needed.
ANYONE: Final = "anyone"


class Keys:
    """Keys that may call.

    Args:
        keys: as their owners write them. With none, everybody may call.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        # Digests have one length, whatever the keys': a comparison's time says nothing about them.
        digests = sorted({hashlib.sha256(key.encode()).digest() for key in keys})
        self._callers = {digest: f"key-{digest.hex()[:12]}" for digest in digests}

    def __bool__(self) -> bool:
        """Return whether a key is needed."""
        return bool(self._callers)

    def caller(self, authorization: bytes | None) -> str:
        """Return who calls: a name that tells keys apart and says nothing about them.

        Args:
            authorization: the header's value.

        Raises:
            AuthenticationError: there is no key in it, or an unknown one.
        """
        if not self._callers:
            return ANYONE
        given = hashlib.sha256(bearer(authorization)).digest()
        found = None
        for digest, name in self._callers.items():  # to the end, whichever fits
            found = name if hmac.compare_digest(digest, given) else found
        if found is None:
            raise AuthenticationError(
                "The API key is not known here. Check it, or ask the operator for one.",
                headers={"www-authenticate": "Bearer"},
            )
        return found


def bearer(authorization: bytes | None) -> bytes:
    """Return the key in a header.

    Raises:
        AuthenticationError: there is none.
    """
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise AuthenticationError(
            "No API key was given. Send it in the header `Authorization: Bearer KEY`; nowhere else is it read.",
            headers={"www-authenticate": "Bearer"},
        )
    return authorization[len(_SCHEME) :].strip()


def read_keys(path: Path) -> list[str]:
    """Return the keys of a file: one a line; blank lines and lines that begin with # do not count.

    Raises:
        InputError: it cannot be read, or is not UTF-8; never shows a key.
    """
    lines = (line.strip() for _, line in read_lines(path))
    return [line for line in lines if line and not line.startswith("#")]


def check_keys(keys: Iterable[str]) -> None:
    """Refuse keys that no client can send.

    Raises:
        InputError: names the key's number, never the key.
    """
    for number, key in enumerate(keys, start=1):
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"API key {number} is empty or holds a space or another character that a header cannot carry; "
                "expected printable ASCII."
            )


def require_loopback(host: str) -> None:
    """Refuse to let everybody on the network call.

    Raises:
        InputError: ``host`` is more than this machine.
    """
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise InputError(
            f"The host is {host!r} and there is no API key: everybody who reaches this machine could call. "
            "Expected keys (UNMASK_API_KEYS or --api-keys-file), or a loopback host such as 127.0.0.1."
        )

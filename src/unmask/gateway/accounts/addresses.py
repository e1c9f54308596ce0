"""Where mail, a browser or a request may be sent: checked before it is."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from unmask.errors import InputError

#: Characters of an address and of its part before the ``@``: RFC 5321.
_LONGEST: Final = 254
_LONGEST_NAME: Final = 64
_ATOM: Final = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# Letters beyond ASCII are left out: some of them look like others, or become others in small letters.
_ADDRESS: Final = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@(?:{_LABEL}\.)*(?!\d+$){_LABEL}", re.ASCII)
_LONGEST_PATH: Final = 2000
#: Decoding of ``%25252F``: nobody decodes more often than this.
_DECODED: Final = 4
#: Bits of an IPv6 address that one customer of a provider has: the rest is theirs to choose.
_NETWORK: Final = 64


def parse_address(text: str) -> str:
    """Return an e-mail address in small letters.

    Raises:
        InputError: it is none; does not show it.
    """
    address = text.strip(" ")
    found = _ADDRESS.fullmatch(address.lower()) if address.isascii() and len(address) <= _LONGEST else None
    if found is None or len(found[1]) > _LONGEST_NAME:
        raise InputError("This is no e-mail address. Expected NAME@DOMAIN, such as ada@example.org.")
    return found[0]


def parse_local_path(text: str) -> str:
    """Return a path of this site, to which a browser may be sent.

    Raises:
        InputError: it may lead elsewhere, or could be read as if it did; does not show it.
    """
    decoded, forms = text, [text]
    for _ in range(_DECODED):
        decoded = unquote(decoded, errors="replace")
        forms.append(decoded)
    good = text.isascii() and len(text) <= _LONGEST_PATH and " " not in text and all(map(_is_local, forms))
    if not good:
        raise InputError("The address to go on to is not one of this site. Expected a path, such as /models.")
    return text


def _is_local(path: str) -> bool:
    # Browsers read a backslash as a slash, and drop tabs and line ends; two slashes begin a host's name.
    before_query = re.split("[?#]", path, maxsplit=1)[0]
    return path.startswith("/") and "//" not in before_query and "\\" not in path and path.isprintable()


def parse_site_url(text: str, what: str) -> SplitResult:
    """Return the parts of a URL that secrets may be sent to: ``https``, or ``http`` on this machine.

    Args:
        text: the URL.
        what: it is, for the message.

    Raises:
        InputError: it is none, or of another kind.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    plain = text.isascii() and text.isprintable() and " " not in text and "\\" not in text
    if not host or not plain or parts.username is not None or parts.password is not None or parts.fragment:
        raise InputError(f"The {what} is no URL that can be used. Expected one such as https://example.org.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InputError(f"The {what} {text!r} is not encrypted. Expected https://, or http:// on localhost only.")
    return parts


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def network_of(client: str) -> str:
    """Return what stands for a client in a count: its address, or of an IPv6 address the network."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _NETWORK), strict=False))

"""Which addresses requests may be sent to: an admin must not make the gateway ask what only its own machine can reach.

Checked twice: when a provider is added, and for every connection, for a name may stand for another address by then. The
connection is made to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx

from unmask.gateway.routing.errors import AddressError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Returns the addresses of a host; raises OSError where it has none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

#: Nobody's servers: this network, what one machine finds others by, machines' own descriptions (with their keys).
_NEVER: Final = tuple(
    map(ipaddress.ip_network, ("0.0.0.0/8", "169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "::/128"))
)
#: IPv6 addresses that stand for an IPv4 address in their last four bytes.
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
#: Seconds for which a name stands for what it stood for.
_KEPT: Final = 30.0
_LONGEST: Final = 2000


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host.

    Raises:
        OSError: it has none, or they cannot be found out now.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def read_url(url: str, *, private: bool) -> httpx.URL:
    """Return a provider's URL if it can be one.

    Args:
        url: of its API, ``/v1`` included.
        private: whether it may be on this machine or in a private network.

    Raises:
        AddressError: it is no such URL.
    """
    expected = "expected https://HOST/v1" + (", or http:// in a private network" if private else "")
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressError(f"The provider's address is no URL; {expected}.")
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise AddressError(f"The provider's address is no URL; {expected}.") from error
    if found.scheme not in (("https", "http") if private else ("https",)) or not found.host:
        raise AddressError(f"The provider's address begins with {found.scheme or 'nothing'!r}; {expected}.")
    if found.userinfo or found.query or found.fragment:
        raise AddressError(f"The provider's address has a password, a query or a fragment; {expected}.")
    return found


def is_allowed(address: str, *, private: bool, encrypted: bool) -> bool:
    """Return whether a connection may be made to an address.

    Args:
        address: of IP.
        private: whether it may be this machine or a private network.
        encrypted: whether what is sent is; it need not be in a private network.
    """
    found = _real(ipaddress.ip_address(address.partition("%")[0]))
    if found.is_multicast or any(found in network for network in _NEVER):
        return False
    if found.is_global:
        return encrypted
    # Neither global nor private: addresses between a provider's machines (100.64.0.0/10), which VPNs use.
    return private and (found.is_loopback or not found.is_reserved)


async def check_address(url: str, *, private: bool, resolve: Resolve = resolve) -> None:
    """Refuse a provider's URL that requests must not be sent to.

    Args:
        url: of its API.
        private: whether it may be on this machine or in a private network.
        resolve: finds addresses of names.

    Raises:
        AddressError: it is no URL, its name has no address, or one that is not allowed.
    """
    found = read_url(url, private=private)
    try:
        addresses = await resolve(found.host, _port(found))
    except OSError as error:
        raise AddressError(f"The host {found.host} has no address. Check the provider's URL.") from error
    if not all(is_allowed(each, private=private, encrypted=found.scheme == "https") for each in addresses):
        raise AddressError(_refused(found.host, private))


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends requests to addresses that are allowed, and to no others.

    Args:
        inner: what sends them.
        private: whether they may be this machine or in a private network.
        resolve: finds addresses of names.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        private: bool,
        resolve: Resolve = resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._private = private
        self._resolve = resolve
        self._clock = clock
        self._known: tuple[float, list[str]] = (float("-inf"), [])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first address of its host that takes a connection.

        Raises:
            AddressError: none of its addresses is allowed.
            httpx.TransportError: it cannot be sent or answered.
        """
        url = request.url
        # The certificate must be the host's, and the Host header names it already.
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        *others, last = await self._addresses(url)
        for address in others:
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        request.url = url.copy_with(host=last)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def _addresses(self, url: httpx.URL) -> list[str]:
        until, known = self._known
        if self._clock() < until:
            return known
        try:
            found = await self._resolve(url.host, _port(url))
        except OSError as error:
            raise httpx.ConnectError("the host has no address") from error
        encrypted = url.scheme == "https"
        allowed = [each for each in found if is_allowed(each, private=self._private, encrypted=encrypted)]
        if not allowed:
            raise AddressError(_refused(url.host, self._private))
        self._known = (self._clock() + _KEPT, allowed)
        return allowed


def _real(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for; itself if it stands for none."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    translated = ipaddress.IPv4Address(address.packed[-4:]) if address in _TRANSLATED else None
    return address.ipv4_mapped or address.sixtofour or translated or address


def _port(url: httpx.URL) -> int:
    return url.port or {"https": 443, "http": 80}[url.scheme]


def _refused(host: str, private: bool) -> str:
    expected = "a public one with https, or one of a private network" if private else "a public one"
    return f"The host {host} has an address that requests must not be sent to; expected {expected}."

"""What a caller may take: bytes of a body and the time they take, requests and tokens a minute."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from unmask.gateway.api.errors import BodyTooLargeError, RateLimitError, RequestError, SlowBodyError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: Bytes a second below which a body is too slow, once its first seconds are over.
_LEAST_RATE: Final = 10_000
_MINUTE: Final = 60.0


class ClientGoneError(Exception):
    """The client hung up: nobody is there to be answered."""


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """What a body may be.

    Attributes:
        size: most bytes.
        seconds: in which it must begin to arrive; from then on it may take a second more for every 10,000 bytes.
    """

    size: int
    seconds: float


class Body:
    """A body on its way.

    Args:
        receive: of the ASGI server.
        declared: the value of ``content-length``, None if there is none.
        limits: what it may be.

    Attributes:
        more: whether it is still on its way.

    Raises:
        BodyTooLargeError: it says that it is going to be.
        RequestError: ``content-length`` is no number.
    """

    def __init__(self, receive: Receive, declared: bytes | None, limits: BodyLimits) -> None:
        if declared is not None:
            if not declared.isdigit():
                raise RequestError("The header content-length is no number.")
            if int(declared) > limits.size:
                raise _too_large(limits)
        self.more = True
        self._receive = receive
        self._limits = limits
        self._size = 0
        self._start = time.monotonic()

    def seconds_left(self) -> float:
        """Return how long the next part of it may take; the more has arrived, the longer all of it may."""
        return self._start + self._limits.seconds + self._size / _LEAST_RATE - time.monotonic()

    def late(self) -> SlowBodyError:
        """Return the error for one that takes longer."""
        return SlowBodyError(f"The body did not arrive: {self._size} bytes so far. Send it faster.")

    async def chunk(self) -> bytes:
        """Return the next part, possibly empty, however long it takes.

        Raises:
            BodyTooLargeError: it is; the rest is not read.
            ClientGoneError: the client hung up.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        self.more = message.get("more_body", False)
        self._size += len(chunk)
        if self._size > self._limits.size:
            raise _too_large(self._limits)
        return chunk

    async def read(self) -> bytes:
        """Return all of it; raises as :meth:`chunk`."""
        chunks = []
        while self.more:
            chunks.append(await self.chunk())
        return b"".join(chunks)


async def body_chunks(receive: Receive, declared: bytes | None, limits: BodyLimits) -> AsyncGenerator[bytes, None]:
    """Yield a body as it arrives.

    Raises:
        SlowBodyError: it does not arrive.
        BodyTooLargeError, RequestError, ClientGoneError: as :class:`Body`; the arguments are its own, too.
    """
    body = Body(receive, declared, limits)
    while body.more:
        try:
            async with asyncio.timeout(body.seconds_left()):
                chunk = await body.chunk()
        except TimeoutError as error:
            raise body.late() from error
        yield chunk


def _too_large(limits: BodyLimits) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {limits.size:,} bytes. Send fewer or shorter inputs a request.")


class _Bucket:
    """A token bucket: filled evenly, emptied by what is taken; may be in debt."""

    def __init__(self, capacity: int, now: float) -> None:
        self.capacity = capacity
        self._level = float(capacity)
        self._at = now

    def level(self, now: float) -> float:
        self._level = min(self.capacity, self._level + (now - self._at) * self.capacity / _MINUTE)
        self._at = now
        return self._level

    def take(self, amount: float, now: float) -> float:
        """Take ``amount``, or return the seconds until there is as much; what is more than all needs all."""
        missing = min(amount, self.capacity) - self.level(now)
        if missing > 0:
            return missing * _MINUTE / self.capacity
        self._level -= amount
        return 0.0

    def give(self, amount: float) -> None:
        self._level = min(self.capacity, self._level + amount)

    def seconds_to_full(self, now: float) -> float:
        return (self.capacity - self.level(now)) * _MINUTE / self.capacity


class Allowance:
    """What one caller may still ask for.

    Args:
        requests: a minute, None for any number.
        tokens: a minute, None for any number.
        clock: seconds.
    """

    def __init__(
        self, *, requests: int | None, tokens: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        limits = {"requests": requests, "tokens": tokens}
        self._buckets = {kind: _Bucket(limit, clock()) for kind, limit in limits.items() if limit is not None}

    def take(self, kind: str, amount: int = 1) -> None:
        """Take requests or tokens.

        Raises:
            RateLimitError: there are not as many left.
        """
        bucket = self._buckets.get(kind)
        wait = bucket.take(amount, self._clock()) if bucket else 0.0
        if bucket and wait:
            raise RateLimitError(
                f"Rate limit reached: {bucket.capacity} {kind} a minute. Try again in {_duration(wait)}.",
                kind=kind,
                retry_after=wait,
            )

    def settle(self, kind: str, taken: int, used: int) -> None:
        """Put right what was taken before it was known how much is used."""
        if bucket := self._buckets.get(kind):
            bucket.give(taken - used)

    def headers(self) -> dict[str, str]:
        """Return OpenAI's headers about what is left."""
        now, found = self._clock(), {}
        for kind, bucket in self._buckets.items():
            found[f"x-ratelimit-limit-{kind}"] = str(bucket.capacity)
            found[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level(now))))
            found[f"x-ratelimit-reset-{kind}"] = _duration(bucket.seconds_to_full(now))
        return found


class Allowances:
    """The allowances of many callers, all of the same size; each is made when its caller first comes.

    Args:
        requests: a minute, None for any number.
        tokens: a minute, None for any number.
    """

    def __init__(self, *, requests: int | None = None, tokens: int | None = None) -> None:
        self._requests, self._tokens = requests, tokens
        self._found: dict[Hashable, Allowance] = {}

    def of(self, caller: Hashable) -> Allowance:
        """Return a caller's allowance."""
        found = self._found.get(caller)
        if found is None:
            found = self._found[caller] = Allowance(requests=self._requests, tokens=self._tokens)
        return found


def _duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: ``120ms``, ``6m0s``, ``1.5s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 10) / 10, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"

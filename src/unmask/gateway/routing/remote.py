"""Requests to one provider, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpx
import orjson

from unmask._version import __version__
from unmask.engine.contract import Priority
from unmask.errors import QueueFullError, StoppingError, UnmaskError
from unmask.gateway.routing.errors import AddressError, ProviderError, ProviderRefusedError
from unmask.gateway.routing.parts import Job, Listed, Whole, jobs_of, listed, put, tokens_of
from unmask.gateway.routing.refusals import Said, exception_of
from unmask.gateway.routing.routes import RemoteProvider
from unmask.gateway.routing.vectors import MalformedError, VectorReader, Vectors
from unmask.text import Text, TokenizedText

#: The id of the request that is answered, to be sent along; set by who takes requests.
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("unmask_request_id", default=None)

#: Bytes of an answer that is no success, and of a list of models.
_MOST_SAID: Final = 16_384
_MOST_LISTED: Final = 4_000_000


class Remote:
    """Talks to a provider.

    Args:
        provider: to which.
        http: the provider's own client.
    """

    def __init__(self, provider: RemoteProvider, http: httpx.AsyncClient) -> None:
        self.provider = provider
        self._http = http
        self._url = provider.url.rstrip("/")
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",  # what unfolds could be any size
            "content-type": "application/json",
            "user-agent": f"unmask/{__version__}",
        }
        if provider.key is not None:
            self._headers["authorization"] = f"Bearer {provider.key.reveal()}"
        self._running: set[asyncio.Timeout] = set()
        self._stopped = False

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        truncate: bool,
        wait: float,
        priority: Priority,
        dimension: int | None,
        seconds: float,
    ) -> Vectors:
        """Return vectors of texts; cancelling it ends the provider's request, too.

        Args:
            texts: at least one.
            truncate: cut texts that are too long; only an Unmask server can be told not to.
            wait: seconds to wait for a cold model.
            priority: of the request.
            dimension: that vectors must have, None for any.
            seconds: that it may take.

        Raises:
            InputError: the provider says that the request is wrong.
            ModelColdError, QueueFullError: it cannot answer now.
            ProviderError: it failed, or cannot be used.
            StoppingError: this process stops.
        """
        jobs = jobs_of(texts, by_instruction=self.provider.kind == "unmask")
        extra = self._extra(wait, priority)
        whole: Vectors | None = None
        async with self._attempt(seconds):
            for job in jobs:
                reader = VectorReader(len(job.strings), dimension)
                await self._post("/embeddings", self._body(job, truncate=truncate), extra, reader.feed)
                part = reader.finish()
                if len(jobs) == 1:
                    return part
                dimension = part.array.shape[1]
                whole = put(whole, len(texts), job, part)
        assert whole is not None, "there is at least one text"
        return whole

    async def tokenize(self, texts: Sequence[Text], *, truncate: bool, seconds: float) -> list[TokenizedText]:
        """Return the tokens of texts as an Unmask server reads them; raises as :meth:`embed`."""
        found: list[TokenizedText | None] = [None] * len(texts)
        async with self._attempt(seconds):
            for job in jobs_of(texts, by_instruction=True):
                content = {"instruction": job.instruction, "truncate": truncate}
                body = orjson.dumps({"model": self.provider.model, "input": job.strings, **content})
                # A token is a byte at least, and a number of some digits.
                said = Whole(16 * len(body) + _MOST_LISTED)
                await self._post("/tokenize", body, {}, said.feed)
                for index, each in zip(job.indices, tokens_of(said.json(), len(job.strings)), strict=True):
                    found[index] = each
        return [each for each in found if each is not None]

    async def check(self, seconds: float) -> Listed | None:
        """Return what an Unmask server says of its model; None of another one that answers.

        Raises:
            ProviderError: it failed, or cannot be used.
        """
        async with self._attempt(seconds):
            request = self._http.build_request("GET", self._url + "/models", headers=self._headers)
            async with self._sent(request) as response:
                if self.provider.kind == "openai":
                    # Not all of them list their models; whoever says so is there.
                    if response.status_code >= 500 or response.status_code in (401, 403):
                        raise exception_of(await self._said(response), self.provider)
                    return None
                if response.status_code != 200:
                    raise exception_of(await self._said(response), self.provider)
                said = Whole(_MOST_LISTED)
                async for data in response.aiter_raw():
                    said.feed(data)
                return listed(said.json(), self.provider)

    def stop(self) -> None:
        """End what is under way: this process stops."""
        self._stopped = True
        for timeout in self._running:
            timeout.reschedule(0)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # --- one exchange ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _attempt(self, seconds: float) -> AsyncIterator[None]:
        """Turn what can happen within into one of our errors."""
        name = self.provider.name
        if self._stopped:
            raise _stopping()
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                self._running.add(timeout)
                yield
        except TimeoutError as error:
            if self._stopped:
                raise _stopping() from error
            raise ProviderError(f"The provider {name!r} took too long.", kind="time-out") from error
        except httpx.PoolTimeout as error:
            # It is we who send it more than it takes: that is no fault of its own.
            raise QueueFullError(f"The provider {name!r} is busy. Ask again in 1 s.", retry_after=1.0) from error
        except httpx.TimeoutException as error:
            raise ProviderError(f"The provider {name!r} did not answer in time.", kind="time-out") from error
        except httpx.RemoteProtocolError as error:
            raise ProviderError(f"The provider {name!r} broke its answer off.", kind="connection") from error
        except AddressError as error:
            raise ProviderRefusedError(str(error)) from error
        except httpx.HTTPError as error:
            raise ProviderError(f"The provider {name!r} cannot be reached.", kind="connection") from error
        except MalformedError as error:
            raise ProviderError(f"The answer of provider {name!r} is none: {error}.", kind="malformed") from error
        finally:
            self._running.discard(timeout)

    async def _post(self, path: str, body: bytes, extra: Mapping[str, str], feed: Callable[[bytes], None]) -> None:
        """Send a body, and pass the answer's on piece by piece."""
        headers = {**self._headers, **extra}
        request = self._http.build_request("POST", self._url + path, content=body, headers=headers)
        async with self._sent(request) as response:
            if response.status_code != 200:
                raise exception_of(await self._said(response), self.provider)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise MalformedError("it is compressed, though it was not to be")
            async for data in response.aiter_raw():
                feed(data)

    @asynccontextmanager
    async def _sent(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        timeouts = self.provider.timeouts
        request.extensions["timeout"] = {
            "connect": timeouts.connect,
            "pool": timeouts.connect,
            "write": timeouts.read,
            "read": timeouts.read,
        }
        response = await self._http.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _said(self, response: httpx.Response) -> Said:
        body = b""
        async for data in response.aiter_raw():
            body += data
            if len(body) > _MOST_SAID:
                break
        return Said(status=response.status_code, headers=response.headers, body=body[:_MOST_SAID])

    # --- what is sent and said ---------------------------------------------------------------------

    def _extra(self, wait: float, priority: Priority) -> dict[str, str]:
        found = {}
        if request_id := REQUEST_ID.get():
            found["x-request-id"] = request_id
        if self.provider.kind == "unmask":
            if wait >= 1:
                found["prefer"] = f"wait={int(wait)}"
            if priority == "batch":
                found["x-tier"] = "batch"
        return found

    def _body(self, job: Job, *, truncate: bool) -> bytes:
        body: dict[str, Any] = {"model": self.provider.model, "input": job.strings, "encoding_format": "base64"}
        if self.provider.kind == "unmask":
            # An empty instruction says that there is none, and that none is to be looked for in the texts.
            body |= {"instruction": job.instruction, "normalize": False, "truncate": truncate}
        return orjson.dumps(body)


def _stopping() -> UnmaskError:
    return StoppingError("The server shuts down and takes nothing more. Ask another server.")

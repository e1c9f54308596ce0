"""A provider's answer that is no success → the exception it stands for: whose fault it is, and whether another may do.

| status | whose fault | what follows |
| --- | --- | --- |
| 3xx, 401, 402, 403, 404, 405, 410 | the operator's: address, key, account, name of the model | the next provider |
| 408, from 500 on | the provider's | the next provider |
| 429 | nobody's: it is busy | the next provider, and rest until ``Retry-After`` |
| 503 with ``Retry-After`` (Unmask: ``model_cold``) | nobody's: the model is being loaded | the next provider |
| ``encoding_failed`` of an Unmask server | the text's, it seems | the next provider |
| any other 4xx | the caller's | the caller is told |
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from unmask.errors import EncodingFailedError, InputError, ModelColdError, QueueFullError, UnmaskError
from unmask.gateway.routing.errors import ProviderError, ProviderRefusedError
from unmask.gateway.routing.routes import RemoteProvider

#: Statuses that only the operator can do something about, with what to look at.
_MENDED: Final[Mapping[int, str]] = {
    401: "its key",
    402: "the account with it",
    403: "its key",
    404: "its address, and the model's name there",
    405: "its address",
    410: "its address, and the model's name there",
}
#: Seconds after which to ask again where a provider does not say, and at most if it does.
_UNSAID: Final = 2.0
_LATEST: Final = 3600.0
_LONGEST: Final = 300


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer that is no success.

    Attributes:
        status: of HTTP.
        headers: names in small letters.
        body: the beginning of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def exception_of(said: Said, provider: RemoteProvider) -> UnmaskError:
    """Return what an answer stands for.

    Args:
        said: the answer.
        provider: that gave it.
    """
    status, error = said.status, _error(said.body)
    after = retry_after(said.headers)
    later = _UNSAID if after is None else after
    who = f"The provider {provider.name!r}"
    found: UnmaskError
    if status == 429:
        found = QueueFullError(f"{who} is busy. Ask again in {later:.0f} s.", retry_after=later)
    elif status == 503 and _is_cold(provider, error, after):
        found = ModelColdError(f"{who} is loading the model. Ask again in {later:.0f} s.", retry_after=later)
    elif error.get("code") == "encoding_failed":
        # Of an Unmask server: it fails on the text, and does well otherwise.
        found = EncodingFailedError(f"{who} fails on one of the texts.")
    elif status in _MENDED:
        found = ProviderRefusedError(f"{who} answers {status}. The operator must look at {_MENDED[status]}.")
    elif 300 <= status < 400:
        found = ProviderRefusedError(f"{who} sends requests elsewhere. The operator must look at its address.")
    elif status == 408:
        found = ProviderError(f"{who} waited too long.", kind="time-out")
    elif 400 <= status < 500:
        found = InputError(f"{who} refuses the request with {status}{_shown(error.get('message'), provider)}")
    else:
        found = ProviderError(f"{who} answers {status}.", kind="status", retry_after=after)
    return found


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which an answer asks to try again, at most an hour; None if it does not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _until(value)
        if 0 <= seconds < float("inf"):
            return min(seconds, _LATEST)
    return None


def _until(value: str) -> float:
    """Return the seconds until a date; not a number for anything else."""
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return float("nan")


def _is_cold(provider: RemoteProvider, error: Mapping[str, Any], after: float | None) -> bool:
    return error.get("code") == "model_cold" if provider.kind == "unmask" else after is not None


def _error(body: bytes) -> Mapping[str, Any]:
    """Return the object under ``error``; an empty one if there is none."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = said.get("error") if isinstance(said, dict) else None
    return error if isinstance(error, dict) else {}


def _shown(message: Any, provider: RemoteProvider) -> str:
    """Return what a provider says to its caller: one line, not long, without the provider's key."""
    if not isinstance(message, str) or not message.strip():
        return "."
    if provider.key is not None:
        message = message.replace(provider.key.reveal(), provider.key.shown)
    line = "".join(each if each.isprintable() else " " for each in message[: 4 * _LONGEST])
    return f": {' '.join(line.split())[:_LONGEST]}"

"""Requests to a provider and its answers, as data: how texts are divided among requests, what answers hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from unmask.engine.contract import State
from unmask.gateway.routing.counting import joined
from unmask.gateway.routing.errors import ProviderError, ProviderRefusedError
from unmask.gateway.routing.routes import RemoteProvider
from unmask.gateway.routing.vectors import MalformedError, Vectors
from unmask.text import Text, TokenizedText

#: Texts of one request to a provider (OpenAI's contract).
_MOST_TEXTS: Final = 2048
_STATES: Final[Mapping[str, State]] = {"ready": "ready", "cold": "cold", "warming": "warming", "failed": "failed"}


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What an Unmask server says of its model.

    Attributes:
        state: whether it can answer at once.
        dimension: components of a vector, None if it does not know yet.
        max_length: most tokens of a text, None likewise.
    """

    state: State
    dimension: int | None
    max_length: int | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Texts that can be sent together.

    Attributes:
        indices: of them in the whole.
        instruction: of all of them; empty for a provider that knows none.
        strings: what is sent.
    """

    indices: Sequence[int]
    instruction: str
    strings: Sequence[str]


class Whole:
    """A body that is read as a whole; its JSON.

    Args:
        most: bytes that it may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            MalformedError: there are too many.
        """
        self._body += data
        if len(self._body) > self._most:
            raise MalformedError("it is far too long")

    def json(self) -> Any:
        """Return the value.

        Raises:
            MalformedError: it is none.
        """
        try:
            return orjson.loads(self._body)
        except orjson.JSONDecodeError as error:
            raise MalformedError("it is not JSON") from error


def jobs_of(texts: Sequence[Text], *, by_instruction: bool) -> list[Job]:
    """Return texts in as few requests as can be: of one instruction each where that is a field of its own."""
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(text.instruction.strip() if by_instruction else "", []).append(index)
    jobs = []
    for instruction, indices in groups.items():
        for first in range(0, len(indices), _MOST_TEXTS):
            part = indices[first : first + _MOST_TEXTS]
            strings = [texts[index].content if by_instruction else joined(texts[index]) for index in part]
            jobs.append(Job(indices=part, instruction=instruction, strings=strings))
    return jobs


def put(whole: Vectors | None, count: int, job: Job, part: Vectors) -> Vectors:
    """Put a job's vectors where they belong; their usage is known if that of every job is."""
    array = np.empty((count, part.array.shape[1]), dtype=np.float32) if whole is None else whole.array
    array[np.asarray(job.indices)] = part.array
    before = 0 if whole is None else whole.tokens
    return Vectors(array=array, tokens=None if before is None or part.tokens is None else before + part.tokens)


def tokens_of(said: Any, count: int) -> list[TokenizedText]:
    """Return the tokens of ``count`` texts.

    Raises:
        MalformedError: they are not there.
    """
    data = said.get("data") if isinstance(said, dict) else None
    if not isinstance(data, list) or len(data) != count:
        raise MalformedError("it has not the tokens of every text")
    found = []
    for each in data:
        ids, start = (each.get("tokens"), each.get("content_start")) if isinstance(each, dict) else (None, None)
        if not isinstance(ids, list) or type(start) is not int or not all(type(number) is int for number in ids):
            raise MalformedError("its tokens are no numbers")
        found.append(TokenizedText(ids=ids, start=start))
    return found


def listed(said: Any, provider: RemoteProvider) -> Listed:
    """Return what a list of models says of a provider's one.

    Raises:
        ProviderRefusedError: it is not in it.
        ProviderError: it could not be loaded.
        MalformedError: it is no list.
    """
    models = said.get("data") if isinstance(said, dict) else None
    if not isinstance(models, list):
        raise MalformedError("it is no list of models")
    named = (each for each in models if isinstance(each, dict) and each.get("id") == provider.model)
    found = next(named, None)
    if found is None:
        raise ProviderRefusedError(
            f"The provider {provider.name!r} does not list the model. The operator must look at its name there."
        )
    state = _STATES.get(str(found.get("status")), "ready")
    if state == "failed":
        raise ProviderError(f"The provider {provider.name!r} could not load the model.", kind="status")
    sizes = (found.get(name) for name in ("dimensions", "max_length"))
    dimension, max_length = (size if type(size) is int and size > 0 else None for size in sizes)
    return Listed(state=state, dimension=dimension, max_length=max_length)

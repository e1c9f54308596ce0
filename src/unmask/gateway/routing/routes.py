"""Who may answer for a model, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from unmask.errors import InputError

#: ``openai``: any server that OpenAI's clients can talk to. ``unmask``: another server of ours, which understands more.
RemoteKind = Literal["openai", "unmask"]
#: By which the next provider is chosen among those that agree: what it costs, how fast it was, or by lot.
Choice = Literal["price", "latency", "weight"]

_LONGEST_KEY: Final = 1000
_SHOWN: Final = 4
#: A key that is shorter would show too large a part of itself.
_LEAST_TO_SHOW: Final = 16


class ProviderKey:
    """A key for a provider; nothing but :meth:`reveal` gives it away.

    Args:
        text: the key.

    Raises:
        InputError: it cannot stand in a header; the message does not repeat it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not 1 <= len(text) <= _LONGEST_KEY or not text.isascii() or not text.isprintable() or " " in text:
            raise InputError(
                f"The provider's key has {len(text)} characters; expected 1 to {_LONGEST_KEY} printable ones of ASCII, "
                "without spaces."
            )
        self._text = text

    @property
    def shown(self) -> str:
        """Its last four characters, for people."""
        return f"…{self._text[-_SHOWN:]}" if len(self._text) >= _LEAST_TO_SHOW else "…"

    def reveal(self) -> str:
        """Return the key itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProviderKey) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"ProviderKey({self.shown})"

    def __deepcopy__(self, memo: object) -> ProviderKey:
        return self

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A provider's key is not pickled.")


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long an attempt may take, in seconds.

    Attributes:
        connect: until there is a connection, and until one of the pool is free.
        read: without a byte of the answer.
        total: for all of it; waiting for a cold model is added.
    """

    connect: float = 3.0
    read: float = 60.0
    total: float = 120.0

    def __post_init__(self) -> None:
        for name in ("connect", "read", "total"):
            if not getattr(self, name) > 0:
                raise InputError(f"The time-out {name} is {getattr(self, name)}; expected more than 0 seconds.")


@dataclass(frozen=True, kw_only=True)
class LocalProvider:
    """The engine in this process.

    Attributes:
        model: what the engine calls it.
        name: how answers and pages call it.
        weight: its share when chosen by weight.
        price: what an answer costs the operator, millionths of the currency for 1M tokens.
    """

    model: str
    name: str = "local"
    weight: int = 1
    price: int | None = 0

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class RemoteProvider:
    """A server elsewhere.

    Attributes:
        name: how answers and pages call it.
        url: of its API, ``/v1`` included.
        model: what it calls the model.
        kind: what it understands.
        key: sent to it, None for none.
        weight: its share when chosen by weight; 0: only when no other is left.
        price: what an answer costs the operator, millionths of the currency for 1M tokens; None if not known.
        private: it may be on this machine or in a private network, where plain http is good enough.
        timeouts: of an attempt.
    """

    name: str
    url: str
    model: str
    kind: RemoteKind = "openai"
    key: ProviderKey | None = field(default=None, repr=False)
    weight: int = 1
    price: int | None = None
    private: bool = False
    timeouts: Timeouts = Timeouts()

    def __post_init__(self) -> None:
        _check(self)


Provider = LocalProvider | RemoteProvider


@dataclass(frozen=True, kw_only=True)
class Route:
    """A model's providers.

    Attributes:
        providers: in the operator's order: until they are known to agree, the first that is well answers alone.
        choice: how one is chosen among those that agree.
        dimension: components of a vector; None: as the first answer has.
        max_length: most tokens of a text, None if not known.
        query_instruction: what queries have by default, None if not known.
    """

    providers: tuple[Provider, ...]
    choice: Choice = "latency"
    dimension: int | None = None
    max_length: int | None = None
    query_instruction: str | None = None

    def __post_init__(self) -> None:
        names = [provider.name for provider in self.providers]
        if not names:
            raise InputError("A route has no provider; expected at least one.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"Several providers are named {', '.join(twice)}; expected a name of its own for each.")
        if sum(isinstance(provider, LocalProvider) for provider in self.providers) > 1:
            raise InputError("A route has the engine of this process twice; expected it once.")

    @property
    def local(self) -> LocalProvider | None:
        """The engine of this process, None if it is not among them."""
        return next((each for each in self.providers if isinstance(each, LocalProvider)), None)


@dataclass(frozen=True, kw_only=True)
class RoutingSettings:
    """How a router behaves.

    Attributes:
        attempts: at most of a request, the first included.
        seconds: after which a request is not tried again.
        retry_share: further attempts as a share of a model's requests, so that an outage does not multiply the load.
        explore: share of requests that go to another provider than the fastest, to learn how fast that is now.
        check_seconds: between two checks of a provider, more or less a fifth.
        failures: one after another that open a provider's circuit.
        failure_share: of the last half minute's answers that opens it, too.
        cooldown: seconds that it first stays open; doubled each time.
        longest_cooldown: seconds, at most.
    """

    attempts: int = 3
    seconds: float = 120.0
    retry_share: float = 0.15
    explore: float = 0.05
    check_seconds: float = 15.0
    failures: int = 5
    failure_share: float = 0.5
    cooldown: float = 2.0
    longest_cooldown: float = 300.0

    def __post_init__(self) -> None:
        for name in ("attempts", "failures", "seconds", "check_seconds", "cooldown"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected more than 0.")
        for name in ("retry_share", "explore", "failure_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1.")
        if self.longest_cooldown < self.cooldown:
            raise InputError(f"longest_cooldown is {self.longest_cooldown}; expected at least cooldown.")


def _check(provider: LocalProvider | RemoteProvider) -> None:
    if not provider.name.strip() or not provider.name.isprintable() or len(provider.name) > 100:
        raise InputError(f"A provider's name is {provider.name[:100]!r}; expected a line of at most 100 characters.")
    if not provider.model.strip():
        raise InputError(f"The model of provider {provider.name!r} is blank; expected what the provider calls it.")
    if provider.weight < 0:
        raise InputError(f"The weight of provider {provider.name!r} is {provider.weight}; expected 0 or more.")
    if provider.price is not None and provider.price < 0:
        raise InputError(f"The price of provider {provider.name!r} is {provider.price}; expected 0 or more.")

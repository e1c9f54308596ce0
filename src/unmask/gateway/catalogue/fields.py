"""The parts that an entry of the catalogue is made of: dates, licences, prices, providers, figures."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: What a model is asked for, in the words of the model hubs.
Task = Literal["feature-extraction", "sentence-similarity", "text-ranking", "text-generation"]
#: ``batch`` is answered when there is room, and costs less.
Tier = Literal["realtime", "batch"]
Pooling = Literal["mean", "weighted_mean", "last", "first"]
#: What a price is for, and how many tokens or documents that is.
UNITS: Final = {"1M tokens": 1_000_000, "1k documents": 1_000}


def like(pattern: str, expected: str) -> AfterValidator:
    """Return a check of a text: it matches as a whole, or the error says what was expected."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(expected)
        return value

    return AfterValidator(check)


def _dated(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _is_day_or_month(value: str) -> str:
    try:
        date.fromisoformat(value if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else f"{value}-01")
    except ValueError as error:
        raise ValueError("a day as 2024-04-30, or a month as 2024-04") from error
    return value


#: A day, or a month where the day is not known: ``2024-04-30``, ``2024-04``. Sorts as text.
Day = Annotated[str, BeforeValidator(_dated), AfterValidator(_is_day_or_month)]
#: A number above 0; neither ``true`` nor ``"1"`` nor ``1.0`` is one.
Count = Annotated[int, Field(strict=True, ge=1)]
#: Millionths of the gateway's currency.
Micros = Annotated[int, Field(strict=True, ge=0)]
#: A line of text.
Line = Annotated[str, like(r"[^\n]*\S[^\n]*", "a line of text")]
#: Anything up to a few paragraphs, which blank lines part.
Prose = Annotated[str, like(r"(?s).*\S.*", "a text")]
#: An address of the web; names and passwords have no place in it.
Url = Annotated[
    str, like(r"https?://[^\s/@]+(/\S*)?", "an address that begins with https:// or http://, without password")
]
#: Something times 100.
Percent = Annotated[float, Field(strict=True, ge=-100, le=100)]


class Part(BaseModel):
    """Base of all parts: nothing unknown, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Licence(Part):
    """Under what terms a model's own files are given out; those of its base hold, too.

    Attributes:
        spdx: its name in the SPDX list, as ``Apache-2.0``; None for one that is not in it.
        name: what it is called, where there is no SPDX name.
        link: where its text is; needed where there is no SPDX name.
    """

    spdx: Annotated[str, like(r"[A-Za-z0-9][A-Za-z0-9.+-]*", "a name of the SPDX list, as Apache-2.0")] | None = None
    name: Line | None = None
    link: Url | None = None

    @model_validator(mode="after")
    def _is_named_once(self) -> Licence:
        if (self.spdx is None) == (self.name is None) or (self.name and not self.link):
            raise ValueError("either spdx, or name and link")
        return self

    @property
    def label(self) -> str:
        """Its name, of either kind."""
        return self.spdx or self.name or ""


class Prices(Part):
    """What a model costs, in whole millionths of the gateway's currency.

    Attributes:
        per: how much of what the prices are for: tokens, or a reranker's documents.
        realtime: of requests that are answered at once.
        batch: of those that may wait; no more than ``realtime``.
    """

    per: Literal["1M tokens", "1k documents"] = "1M tokens"
    realtime: Micros
    batch: Micros

    @model_validator(mode="after")
    def _waiting_is_no_dearer(self) -> Prices:
        if self.batch > self.realtime:
            raise ValueError(f"a batch price of at most the realtime price, {self.realtime}")
        return self

    def price_of(self, count: int, tier: Tier) -> int:
        """Return what a request costs, in millionths; what is less than a whole one is rounded up.

        So a request is never billed below its price, and never more than one millionth above it. Integers alone:
        the same request costs the same on every machine.

        Args:
            count: its tokens, or documents, as ``per`` says.
            tier: how it is answered.

        Raises:
            ValueError: ``count`` is negative.
        """
        if count < 0:
            raise ValueError(f"count is {count}; expected at least 0.")
        price = self.realtime if tier == "realtime" else self.batch
        return -(-count * price // UNITS[self.per])

    def shown(self, tier: Tier) -> str:
        """Return a price as people write it, exact: ``0.02 per 1M tokens``."""
        whole = Decimal(self.realtime if tier == "realtime" else self.batch) / 1_000_000
        return f"{whole:f} per {self.per}"


class Provider(Part):
    """A server elsewhere that answers for a model. Its key is kept by the gateway, encrypted, and never stands here.

    Attributes:
        name: how answers and pages call it.
        url: of its API, ``/v1`` included; one that OpenAI's clients speak, as other Unmask servers do.
        model: what the model is called there.
        kind: ``unmask`` for another Unmask server, which takes instructions apart from texts.
    """

    name: Line
    url: Url
    model: Line
    kind: Literal["openai", "unmask"] = "openai"


class Question(Part):
    """A question that is asked often.

    Attributes:
        question: ends with a question mark.
        answer: a few sentences.
    """

    question: Annotated[str, like(r"[^\n]+\?", "a line that ends with a question mark")]
    answer: Prose


class Published(Part):
    """A figure that somebody else measured.

    Attributes:
        name: of the benchmark.
        metric: what was measured.
        value: times 100, as it was published.
        source: where it was published.
    """

    name: Line
    metric: Line
    value: Percent
    source: Line


class Figure(Part):
    """A figure that ``unmask eval`` measured.

    Attributes:
        name: of the task.
        kind: of the task: ``sts``, ``retrieval``, ….
        metric: the main one of its kind.
        value: times 100.
        low: lower end of its 95 % interval, None where there is none.
        high: upper end.
        items: how many items it is from.
        data: changes when the data does; figures on different data are not compared.
    """

    name: Line
    kind: Line
    metric: Line
    value: Percent
    low: Percent | None = None
    high: Percent | None = None
    items: Count
    data: str = ""


class Measurement(Part):
    """What ``unmask eval`` says of a model; written by ``unmask.gateway.catalogue.measuring``, never by hand.

    Attributes:
        date: of the last task.
        hardware: processor and threads, or GPU.
        tokens_per_second: while encoding, None if every vector was kept already.
        max_length: most tokens of a text.
        figures: the main one of each task.
    """

    date: Day
    hardware: Line
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    max_length: Count
    figures: tuple[Figure, ...]

    @property
    def average(self) -> float | None:
        """Mean of the figures, each task counting alike; None if there are none."""
        return sum(each.value for each in self.figures) / len(self.figures) if self.figures else None

"""A model of the catalogue: what one TOML file says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from unmask.gateway.catalogue.fields import (
    Count,
    Day,
    Licence,
    Line,
    Measurement,
    Part,
    Pooling,
    Prices,
    Prose,
    Provider,
    Published,
    Question,
    Task,
    Tier,
    like,
)

#: A name that can stand in an address and name a file.
Slug = Annotated[
    str,
    like(r"(?=.{1,100}$)[a-z0-9]+([.-][a-z0-9]+)*", "small letters and digits, with single dots or hyphens between"),
]
#: The tag of a language on the web: ``en``, ``pt-BR``.
Language = Annotated[str, like(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", "the tag of a language, as en or pt-BR")]
#: A repository of a hub, or what else can be loaded by this name.
Name = Annotated[str, like(r"(?=.{1,200}$)[^\s/]+(/[^\s/]+)?", "a name, or a repository as owner/name")]


class Entry(Part):
    """A model.

    Its status is not here: it follows from what is served (:func:`unmask.gateway.catalogue.status.status_of`).

    Attributes:
        slug: the name in addresses and requests; the file's name without its ending, not a field in it.
        title: how pages call it.
        source: repository it was published as, or the name it comes with Unmask by; ``Encoder.load`` takes it.
        names: others under which requests may ask for it.
        task: what it is made for.
        retired: it is not served any more, whatever runs.
        licence: of its own files; see ``Catalogue.licences`` for those of its base.
        published: first day, or month, at which everybody could have it.
        updated: of the last change.
        base: slug of the model that it was trained from.
        architecture: a line for people.
        parameters: of what computes; an encoder has no output head, a language model has one.
        dimensions: components of a vector.
        max_length: most tokens of a text.
        pooling: how the states of tokens become a vector.
        languages: it was trained for; empty where its makers do not say.
        query_instruction: stands in front of queries unless a request says else.
        about: what it is, in paragraphs.
        strengths: what speaks for it.
        best_for: what to use it for.
        faq: questions with answers.
        prices: of both tiers.
        providers: that answer for it, besides this server.
        benchmarks: figures that were published.
        measured: figures of ours; from the file ``SLUG.measured.json``, not a field of the TOML file.
        related: slugs of models to look at next; its base, and others over the same one, need not be named.
    """

    slug: Slug
    title: Line
    source: Name
    names: tuple[Name, ...] = ()
    task: Task
    retired: Annotated[bool, Field(strict=True)] = False
    licence: Licence
    published: Day | None = None
    updated: Day | None = None
    base: Slug | None = None
    architecture: Line
    parameters: Count | None = None
    dimensions: Count | None = None
    max_length: Count | None = None
    pooling: Pooling | None = None
    languages: tuple[Language, ...] = ()
    query_instruction: Line | None = None
    about: Prose
    strengths: tuple[Line, ...] = ()
    best_for: tuple[Line, ...] = ()
    faq: tuple[Question, ...] = ()
    prices: Prices
    providers: tuple[Provider, ...] = ()
    benchmarks: tuple[Published, ...] = ()
    measured: Measurement | None = None
    related: tuple[Slug, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Entry:
        # A month and a day are compared as months.
        both = min(len(self.published or ""), len(self.updated or ""))
        if (self.updated or "")[:both] < (self.published or "")[:both]:
            raise ValueError(f"updated {self.updated} not to lie before published {self.published}")
        per = "1k documents" if self.task == "text-ranking" else "1M tokens"
        if self.prices.per != per:
            raise ValueError(f'prices.per to be "{per}" for task "{self.task}"')
        return self

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every name under which requests may ask for it, the slug first; letters count alike, small or capital."""
        found: dict[str, str] = {}
        for name in (self.slug, self.source, *self.names):
            found.setdefault(name.casefold(), name)
        return tuple(found.values())

    def price_of(self, count: int, tier: Tier) -> int:
        """Return what ``count`` tokens (of a reranker: documents) cost; see :meth:`Prices.price_of`."""
        return self.prices.price_of(count, tier)

"""Models as data: one TOML file each, validated; found, filtered, compared, priced. Knows neither torch nor the web.

    catalogue = Catalogue.load([Path("my-models")])
    entry = catalogue.find("McGill-NLP/LLM2Vec-Meta-Llama-3-8B-Instruct-mntp-unsup-simcse")
    status_of(entry, {"smollm2-135m-unsup": "ready"})    # "coming soon", until something answers for it
    entry.price_of(1234, "batch")                        # millionths of the currency, rounded up

Folders and what the files say: ``docs/catalogue.md``.
"""

from __future__ import annotations

from unmask.gateway.catalogue.browsing import ORDERS, Choices, Order, Query, choices, select
from unmask.gateway.catalogue.catalogue import SHIPPED, Catalogue
from unmask.gateway.catalogue.comparing import Row, compare
from unmask.gateway.catalogue.entry import Entry
from unmask.gateway.catalogue.fields import Figure, Licence, Measurement, Prices, Provider, Published, Question, Tier
from unmask.gateway.catalogue.status import STATUSES, Listing, Status, status_of

__all__ = [
    "ORDERS",
    "SHIPPED",
    "STATUSES",
    "Catalogue",
    "Choices",
    "Entry",
    "Figure",
    "Licence",
    "Listing",
    "Measurement",
    "Order",
    "Prices",
    "Provider",
    "Published",
    "Query",
    "Question",
    "Row",
    "Status",
    "Tier",
    "choices",
    "compare",
    "select",
    "status_of",
]

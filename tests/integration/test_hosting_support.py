"""What the tests of the whole gateway share: one that runs in a thread, over the fake engine, and its customers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from pydantic import SecretStr

from tests.in_thread import served
from tests.integration.test_api_support import Knobs, RecordingEngine, wait_until
from unmask.engine.contract import EmbeddingEngine
from unmask.gateway.accounts.keys import Key, KeyLimits
from unmask.gateway.api.server import server_config
from unmask.gateway.api.settings import ModelSettings, RerankerSettings
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.hosting.gateway import Gateway
from unmask.gateway.hosting.settings import GatewaySettings

MODEL = "smollm2-135m-unsup"
SECRET = "the gateway's own secret, of some length"
#: Its price in the catalogue: 10,000 and 5,000 millionths for a million tokens. A token of the fake engine is a byte.
TEXT = "x" * 400
COST, BATCH_COST = 4, 2

T = TypeVar("T")


@dataclass(frozen=True)
class Customer:
    """Somebody with an account and a key."""

    id: int
    key: Key
    secret: str


class Hosted:
    """A gateway that runs in a thread of this process."""

    def __init__(self, url: str, gateway: Gateway, engine: RecordingEngine, loop: asyncio.AbstractEventLoop) -> None:
        self.url, self.gateway, self.engine, self._loop = url, gateway, engine, loop
        self._numbers = count(1)

    @property
    def knobs(self) -> Knobs:
        return self.engine.knobs

    def do(self, work: Awaitable[T]) -> T:
        """Do something in the gateway's event loop."""

        async def waited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(waited(), self._loop).result(30)

    def customer(self, credit: int = 1_000_000, **key: Any) -> Customer:
        number = next(self._numbers)
        user = self.do(self.gateway.users.add(f"customer{number}@example.org"))
        if credit:
            self.do(self.gateway.ledger.credit(user.id, credit, "top_up", reference=f"payment {number}"))
        found, secret = self.do(self.gateway.keyring.issue(user.id, "test", **key))
        return Customer(user.id, found, secret.reveal())

    def limited(self, **limits: int) -> Customer:
        return self.customer(limits=KeyLimits(**limits))

    def client(self, customer: Customer | None = None, **headers: str) -> httpx.Client:
        own = {"authorization": f"Bearer {customer.secret}"} if customer else {}
        return httpx.Client(base_url=self.url, headers=own | headers, timeout=20)

    def balance(self, customer: Customer) -> tuple[int, int]:
        """Return what a customer has, and how much of it is held."""
        found = self.do(self.gateway.ledger.balance(customer.id))
        return found.balance, found.held

    def settled(self, customer: Customer) -> int:
        """Return what a customer has once nothing is held any more: charges come after answers."""
        wait_until(lambda: self.balance(customer)[1] == 0)
        return self.balance(customer)[0]


def embed(client: httpx.Client, text: Any = TEXT, model: str = MODEL, **headers: str) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": model, "input": text}, headers=headers)


@contextmanager
def hosted(
    folder: Path,
    *,
    models: tuple[str, ...] = (MODEL,),
    rerankers: EmbeddingEngine | None = None,
    catalogue: Catalogue | None = None,
    **settings: Any,
) -> Iterator[Hosted]:
    """Run a gateway on a free port."""
    engine = RecordingEngine(models=models)
    loops: list[asyncio.AbstractEventLoop] = []

    async def begun(gateway: Gateway) -> None:
        loops.append(asyncio.get_running_loop())

    made: list[Gateway] = []

    def configure(port: int) -> uvicorn.Config:
        told = GatewaySettings(
            data=folder,
            port=port,
            secret=SecretStr(SECRET),
            models={name: ModelSettings() for name in models},
            rerankers={each.name: RerankerSettings() for each in rerankers.served()} if rerankers else {},
            mteb_instructions=False,
            **settings,
        )
        made.append(Gateway(told, catalogue or Catalogue.load(), engine, rerankers, begun=begun))
        return server_config(told, made[0])

    with served(configure):
        yield Hosted(made[0].settings.url, made[0], engine, loops[0])

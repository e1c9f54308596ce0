"""Whether the gateway is well: what an admin looks at first."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from unmask.engine.contract import EmbeddingEngine
from unmask.gateway.accounts.users import Users
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.routing.router import Router
from unmask.gateway.web.services import Check

#: Bytes that should be free on the disk of files and batches.
_FREE: Final = 1_000_000_000


class Health:
    """Looks after the parts of a gateway.

    Args:
        users: of its database.
        engine: that answers.
        router: of its providers; often the engine itself.
        folder: of files and batches.
        mails: whether sign-in links are mailed.
    """

    def __init__(self, users: Users, engine: EmbeddingEngine, router: Router, folder: Path, *, mails: bool) -> None:
        self._users = users
        self._engine = engine
        self._router = router
        self._folder = folder
        self._mails = mails

    async def __call__(self) -> Sequence[Check]:
        """Return every check."""
        return (
            await self._database(),
            *self._models(),
            self._queue(),
            *self._providers(),
            self._disk(),
            Check(
                name="mail", well=self._mails, text="sign-in links are mailed" if self._mails else "links go to the log"
            ),
        )

    async def _database(self) -> Check:
        try:
            await self._users.list(count=1)
        except DatabaseUnavailableError as error:
            return Check(name="database", well=False, text=str(error))
        return Check(name="database", well=True, text="it answers")

    def _models(self) -> list[Check]:
        return [
            Check(name=f"model {model.name}", well=model.state != "failed", text=model.error or model.state)
            for model in self._engine.served()
        ]

    def _queue(self) -> Check:
        load = self._engine.load()
        waiting = sum(load.queued_tokens.values())
        rate = "" if load.tokens_per_second is None else f", {load.tokens_per_second:,.0f} tokens a second"
        text = f"{waiting:,} tokens wait{rate}; {load.restarts} restarts of workers"
        return Check(name="engine", well=waiting < load.queue_limit, text=text)

    def _providers(self) -> list[Check]:
        return [
            Check(
                name=f"provider {provider.name} of {model.model}",
                well=provider.status not in ("down", "misconfigured"),
                text=provider.problem or provider.status,
            )
            for model in self._router.report()
            for provider in model.providers
            if provider.kind != "local"
        ]

    def _disk(self) -> Check:
        free = shutil.disk_usage(self._folder).free
        return Check(name="disk", well=free >= _FREE, text=f"{free / 1e9:,.1f} GB free for files and batches")

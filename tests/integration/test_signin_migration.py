"""Signing in came with a version of the schema: what was there before stays, and is right."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("cryptography")

from tests.bank import SECRET, bank, raw
from unmask.gateway.accounts.identities import Identity
from unmask.gateway.accounts.joining import Joining
from unmask.gateway.accounts.sessions import Sessions
from unmask.gateway.db.migrating import downgrade, upgrade

pytest_plugins = ("tests.databases",)


def test_users_of_before_are_kept_and_not_verified(empty_url: str) -> None:
    upgrade(empty_url, "0002")
    raw(
        empty_url,
        "INSERT INTO users (email, created_at) VALUES ('ada@example.org', 1)",
        "INSERT INTO entries (user_id, kind, amount, at, reference) VALUES (1, 'top_up', 7, 1, 'first')",
    )
    upgrade(empty_url)

    async def scenario() -> None:
        async with bank(empty_url) as b:
            ada = await b.users.find("ada@example.org")
            assert (ada.id, ada.verified_at, ada.admin) == (1, None, False)
            joining = Joining(b.database, b.users, b.ledger, free_credit=5, secret=SECRET, clock=b.clock)
            identity = Identity(issuer="https://provider.org", subject="7", email="ada@example.org")
            assert (await joining.enter_with(identity))[1]
            assert (await b.ledger.balance(ada.id)).balance == 12
            await Sessions(b.database, SECRET, clock=b.clock).begin(ada.id)
            await b.users.add("bob@example.org")
            await b.require_sound()

    asyncio.run(scenario())
    downgrade(empty_url, "0002")
    raw(empty_url, "INSERT INTO users (email, created_at) VALUES ('eve@example.org', 1)")
    assert raw(empty_url, "SELECT user_id, balance FROM balances ORDER BY user_id") == [(1, 12), (2, 0), (3, 0)]
    upgrade(empty_url)
    assert raw(empty_url, "SELECT verified_at, is_admin FROM users") == [(None, 0)] * 3
    assert raw(empty_url, "SELECT count(*) FROM sessions") == [(0,)]

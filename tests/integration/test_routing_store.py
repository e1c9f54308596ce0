"""Providers that admins add: kept, sealed, changed, removed; and the routes that come of them."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("cryptography")

from tests.bank import SECRET, Clock, raw
from unmask.errors import InputError
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.db.database import Database
from unmask.gateway.routing.assembling import routes_of, variable_of
from unmask.gateway.routing.errors import AddressError, ProviderExistsError, ProviderKeyError, UnknownProviderError
from unmask.gateway.routing.routes import LocalProvider, ProviderKey, RemoteProvider
from unmask.gateway.routing.store import ProviderStore

pytest_plugins = ("tests.databases",)

KEY = "sk-a-provider-key-0123456789-wxyz"


async def resolve(host: str, port: int) -> list[str]:
    if host.replace(".", "").isdigit():
        return [host]
    if host.endswith(".internal"):
        return ["10.0.0.7"]
    if host.endswith(".gone"):
        raise socket.gaierror
    return ["93.184.216.34"]


def store(database: Database, **options: Any) -> ProviderStore:
    return ProviderStore(database, options.pop("secret", SECRET), resolve=resolve, clock=Clock(), **options)


def far(**more: Any) -> RemoteProvider:
    options: dict[str, Any] = {"name": "far", "url": "https://far.example/v1", "model": "there"} | more
    return RemoteProvider(**options)


def test_what_is_added_comes_back(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            providers = store(database)
            stamp = await providers.stamp()
            given = far(key=ProviderKey(KEY), kind="unmask", weight=3, price=12_000)
            added = await providers.add("model", given)
            assert added.provider == given
            assert (added.slug, added.enabled, added.key_lost) == ("model", True, False)
            other = await providers.add("other", far(), enabled=False)
            assert other.provider.key is None
            assert await providers.list() == (added, other)
            assert await providers.stamp() != stamp
            with pytest.raises(ProviderExistsError, match="'far'"):
                await providers.add("model", far())
            stamp = await providers.stamp()
            await providers.remove(added.id)
            assert await providers.list() == (other,)
            assert await providers.stamp() != stamp
            with pytest.raises(UnknownProviderError):
                await providers.remove(added.id)
            with pytest.raises(UnknownProviderError):
                await providers.change(added.id, far(), enabled=True)

    asyncio.run(scenario())


def test_a_change_keeps_the_key_but_not_for_another_address(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            providers = store(database)
            added = await providers.add("model", far(key=ProviderKey(KEY)))
            changed = await providers.change(added.id, far(model="new", weight=2), enabled=False)
            assert changed.provider == far(model="new", weight=2, key=ProviderKey(KEY))
            assert not changed.enabled
            elsewhere = "https://evil.example/v1"
            with pytest.raises(InputError, match="Give it again"):
                await providers.change(added.id, far(url=elsewhere), enabled=True)
            moved = await providers.change(added.id, far(url=elsewhere, key=ProviderKey("another")), enabled=True)
            assert moved.provider.key == ProviderKey("another")
            # Who writes to the database himself gets no key sent to him.
            raw(url, "UPDATE providers SET url = 'https://thief.example/v1'")
            with pytest.raises(ProviderKeyError, match="'far' of model"):
                await providers.list()

    asyncio.run(scenario())


def test_with_another_secret_no_key_opens_and_an_admin_can_mend_it(url: str) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            added = await store(database).add("model", far(key=ProviderKey(KEY)))
            other = store(database, secret=b"another secret of the server, as long")
            with pytest.raises(ProviderKeyError, match="'far' of model.* enter them again"):
                await other.list()
            (lost,) = await other.list(with_lost_keys=True)
            assert (lost.key_lost, lost.provider.key) == (True, None)
            await other.change(added.id, far(key=ProviderKey("new")), enabled=True)
            assert (await other.list())[0].provider.key == ProviderKey("new")

    asyncio.run(scenario())


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Database(f"sqlite:///{tmp_path}/a.db") as database:
            public, private = store(database), store(database, private=True)
            for address in (
                "http://far.example/v1",
                "https://a.internal/v1",
                "https://a.gone/v1",
                "https://127.0.0.1/v1",
            ):
                with pytest.raises(AddressError):
                    await public.add("model", far(url=address))
            for more in ({"weight": 10**9}, {"price": 10**18}):
                with pytest.raises(InputError, match="expected at most"):
                    await public.add("model", far(**more))
            assert await public.list() == ()
            added = await private.add("model", far(url="http://a.internal:8000/v1"))
            assert added.provider.private
            with pytest.raises(AddressError):
                await public.change(added.id, far(url="http://a.internal:8000/v1"), enabled=True)

    asyncio.run(scenario())


def test_no_key_is_in_a_dump_or_a_log(url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Database(url) as database:
            providers = store(database)
            added = await providers.add("model", far(key=ProviderKey(KEY)))
            assert KEY not in repr(added) + repr(await providers.list())
            rows = raw(url, "SELECT * FROM providers")
            assert KEY not in str(rows)
            sealed = next(value for value in rows[0] if isinstance(value, bytes))
            assert KEY.encode() not in sealed
            assert KEY[-8:].encode() not in sealed

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert KEY not in caplog.text
    if url.startswith("sqlite"):
        for file in tmp_path.glob("gateway.db*"):
            assert KEY.encode() not in file.read_bytes()
    else:
        dump = subprocess.run(["pg_dump", url], capture_output=True, check=True)
        assert b"far.example" in dump.stdout
        assert KEY.encode() not in dump.stdout
        assert KEY.encode().hex().encode() not in dump.stdout


# --- routes --------------------------------------------------------------------------------------

OWN = """
title = "Mine"
source = "me/mine"
task = "sentence-similarity"
architecture = "small"
about = "Mine."
dimensions = 16
max_length = 99
query_instruction = "Q:"
[licence]
spdx = "MIT"
[prices]
realtime = 2
batch = 1
[[providers]]
name = "our GPU machine"
url = "http://gpu.internal/v1"
model = "llama3"
kind = "unmask"
"""


def test_routes_come_from_files_the_engine_and_admins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def stored() -> Any:
        async with Database(f"sqlite:///{tmp_path}/a.db") as database:
            providers = store(database)
            await providers.add("mine", far(key=ProviderKey(KEY)))
            await providers.add("mine", far(name="off"), enabled=False)
            await providers.add("smollm2-135m-unsup", far())
            await providers.add("unheard-of", far())
            return await providers.list()

    (tmp_path / "mine.toml").write_text(OWN)
    catalogue = Catalogue.load([tmp_path])
    variable = "UNMASK_PROVIDER_KEY_OUR_GPU_MACHINE"
    assert variable_of("our GPU machine") == variable
    routes = routes_of(
        catalogue, ["ME/mine"], asyncio.run(stored()), environment={variable: " of-the-file\n"}, choice="price"
    )
    assert sorted(routes) == ["mine", "smollm2-135m-unsup"]
    mine = routes["mine"]
    here, machine, added = mine.providers
    assert here == LocalProvider(model="ME/mine")
    assert machine == RemoteProvider(
        name="our GPU machine",
        url="http://gpu.internal/v1",
        model="llama3",
        kind="unmask",
        key=ProviderKey("of-the-file"),
        private=True,
    )
    assert added == far(key=ProviderKey(KEY))
    assert (mine.choice, mine.dimension, mine.max_length, mine.query_instruction) == ("price", 16, 99, "Q:")
    assert routes["smollm2-135m-unsup"].local is None
    assert [record.__dict__["fields"] for record in caplog.records] == [{"models": ["unheard-of"]}]


def test_a_model_with_nobody_elsewhere_needs_no_route() -> None:
    assert routes_of(Catalogue.load(), ["smollm2-135m-unsup"], environment={}) == {}

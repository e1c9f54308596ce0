"""Pulls: who goes on to a model's weights is counted once a day, sent where the catalogue says, and nowhere else."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from tests.bank import bank, raw
from tests.integration.test_hosting_support import MODEL, embed, hosted
from tests.integration.test_web_pages import at, titles
from tests.integration.test_web_support import BASE, HUB, LIVE, SECRET, SOON, Client, Website, catalogue, fill
from unmask.gateway.accounts.pulls import Pulls
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.web import site
from unmask.gateway.web.headers import POLICY, policy

pytest_plugins = ("tests.databases",)

DAY = 86_400
PATH = f"/models/{SOON}/weights"


def test_a_visitor_counts_once_a_day_whichever_process_they_come_to(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            pulls = [Pulls(each.database, SECRET, clock=one.clock) for each in (one, other)]
            asked = [each.add("m", user_id=None, client="192.0.2.7") for each in pulls * 5]
            assert sorted(await asyncio.gather(*asked)) == [False] * 9 + [True]
            # Others are: another address, another network, somebody signed in wherever they are, another model.
            for user, client, slug, new in (
                (None, "192.0.2.8", "m", True),
                (None, "2001:db8::1", "m", True),
                (None, "2001:db8::ffff:2", "m", False),
                (None, "2001:db8:0:1::1", "m", True),
                (7, "192.0.2.7", "m", True),
                (7, "198.51.100.1", "m", False),
                (8, "198.51.100.1", "m", True),
                (None, "192.0.2.7", "n", True),
            ):
                assert await pulls[0].add(slug, user_id=user, client=client) is new, (user, client, slug)
            assert await pulls[1].last_month() == {"m": 6, "n": 1}
            one.clock.skip(DAY)
            assert await pulls[0].add("m", user_id=None, client="192.0.2.7")
            assert await pulls[0].last_month() == {"m": 7, "n": 1}
            one.clock.skip(29 * DAY)
            assert await pulls[0].last_month() == {"m": 1}

    asyncio.run(scenario())


def test_who_it_was_is_not_kept_and_is_forgotten_with_the_day(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            pulls = Pulls(b.database, SECRET, clock=b.clock)
            await pulls.add("m", user_id=None, client="192.0.2.7")
            (first,) = raw(url, "SELECT digest FROM pull_marks")
            assert b"192" not in bytes(first[0])
            assert len(first[0]) == 32
            assert await pulls.sweep() == 0
            b.clock.skip(DAY)
            await pulls.add("m", user_id=None, client="192.0.2.7")
            # The same one leaves another mark the day after.
            assert len({bytes(digest) for (digest,) in raw(url, "SELECT digest FROM pull_marks")}) == 2
            assert await pulls.sweep() == 1
            assert not await pulls.add("m", user_id=None, client="192.0.2.7")
            b.clock.skip(400 * DAY)
            await pulls.add("m", user_id=None, client="192.0.2.7")
            assert len(raw(url, "SELECT slug FROM pulls")) == 1

    asyncio.run(scenario())


def test_the_button_counts_and_leads_to_the_source_alone(tmp_path: Path) -> None:
    source = catalogue().find(SOON).source

    async def use(made: Website, client: Client) -> None:
        page = f"/models/{SOON}"
        for _ in range(3):
            sent = await client.submit(page, PATH, {"next": "https://evil.example", "url": "//evil.example"})
            assert (sent.status_code, sent.headers["location"]) == (303, f"{HUB}/{source}")
        sent = await client.submit(page, f"{PATH}")
        assert await made.services.pulls.last_month() == {SOON: 1}
        assert "<dt>Pulls a month</dt><dd>1</dd>" in (await client.get(page)).text
        # Somebody signed in is somebody else; a page that is looked at counts nothing.
        await client.sign_in("ada@example.org")
        await client.submit(page, PATH)
        assert await made.services.pulls.last_month() == {SOON: 2}
        for query in ("?next=https://evil.example", "?url=//evil.example", "//evil.example", "/..%2f..%2fevil"):
            answer = await client.send_form(PATH + query, {"csrf": await token(client, page)})
            assert urlsplit(answer.headers.get("location", HUB)).netloc == "hub.example", query

    at(tmp_path, use)


async def token(client: Client, page: str) -> str:
    """Return what the forms of a page hold."""
    found = re.search(r'name="csrf" value="([^"]+)"', (await client.get(page)).text)
    assert found
    return found[1]


def test_nothing_is_counted_without_the_form_of_our_page(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        found = await token(client, f"/models/{SOON}")
        assert (await client.get(PATH)).status_code in (404, 405)
        assert (await client.head(PATH)).status_code in (404, 405)
        for headers, form in (
            ({"origin": BASE}, {"none": ""}),
            ({"origin": BASE}, {"csrf": found[:-1] + ("A" if found[-1] != "A" else "B")}),
            ({"origin": "https://evil.example"}, {"csrf": found}),
            ({"origin": BASE, "sec-fetch-site": "cross-site"}, {"csrf": found}),
            ({}, {"csrf": found}),
        ):
            assert (await client.post(PATH, data=form, headers=headers)).status_code == 403, (headers, form)
        assert (await client.send_form("/models/none-such/weights", {"csrf": found})).status_code == 404
        assert await made.services.pulls.last_month() == {}

    at(tmp_path, use)


def test_what_comes_with_unmask_has_no_button(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        page = (await client.get(f"/models/{LIVE}")).text
        assert "Get the weights" not in page
        assert f'Encoder.load("{LIVE}")' in page
        answer = await client.send_form(f"/models/{LIVE}/weights", {"csrf": await token(client, f"/models/{LIVE}")})
        assert answer.status_code == 404
        assert await made.services.pulls.last_month() == {}

    at(tmp_path, use)


@pytest.mark.parametrize(
    "source", ["evil.example/@x", "..//", "a/..", "http:/x", "a?b/c#d", "%2f/%2e%2e", "\\\\evil/x"]
)
def test_no_source_of_the_catalogue_leads_away_from_the_hub(tmp_path: Path, source: str) -> None:
    async def use(made: Website, client: Client) -> None:
        entries = Catalogue.load()
        entries._entries[SOON] = entries.find(SOON).model_copy(update={"source": source})
        made.app = site(replace(made.services, catalogue=entries))
        async with made.client() as other:
            sent = await other.submit(f"/models/{SOON}", PATH)
            assert sent.status_code == 303
            assert sent.headers["location"].startswith(f"{HUB}/")
            assert urlsplit(sent.headers["location"]).netloc == "hub.example"
            assert not re.search(r"[?#\\@]", sent.headers["location"])

    at(tmp_path, use)


def test_only_a_page_with_the_button_lets_its_forms_be_sent_on_and_only_to_the_hub(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        there = (await client.get(f"/models/{SOON}")).headers["content-security-policy"]
        assert there == policy(HUB) == POLICY.replace("form-action 'self'", f"form-action 'self' {HUB}")
        for path in (f"/models/{LIVE}", "/models", "/account", "/sign-in", "/nope"):
            assert (await client.get(path)).headers["content-security-policy"] == POLICY, path

    at(tmp_path, use)


def test_models_are_sorted_by_calls_pulls_and_the_hubs_figure_together(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await fill(made)
        three = [SOON, "smollm2-135m-unsup", LIVE]
        hub = {SOON: 4_715, "smollm2-135m-unsup": 4_715}  # SOON has a pull besides, LIVE 4,711 calls
        made.app = site(replace(made.services, downloads=lambda: hub))
        async with made.client() as other:
            page = await other.get("/models?sort=downloads")
            names = {entry.slug: entry.title for entry in catalogue()}
            assert titles(page.text)[:3] == [names[each] for each in three]
            assert '<option value="downloads" selected>' in page.text
            assert "4,711 calls a month" in page.text
            assert "1 pull a month" in page.text
            assert '<option value="status" selected>' in (await other.get("/models")).text
            assert titles((await other.get("/models?sort=downloads&q=supervised+smollm2")).text)
        assert titles((await client.get("/models?sort=downloads")).text)[0] == names[LIVE]

    at(tmp_path, use)


def test_the_api_tells_calls_pulls_and_the_hubs_figure(tmp_path: Path) -> None:
    with hosted(tmp_path) as gateway:
        customer, services = gateway.customer(), gateway.gateway.services
        assert services.hub.startswith("https://")
        with gateway.client(customer) as client:
            assert embed(client).status_code == 200
            gateway.do(services.pulls.add(SOON, user_id=customer.id, client=""))
            gateway.do(gateway.gateway._traffic.flush())
            gateway.do(gateway.gateway._popularity.refresh())
            listed = {each["id"]: each["downloads"] for each in client.get("/v1/models").json()["data"]}
            assert listed[MODEL] == {"calls": 1, "pulls": 0, "hub": None}
            assert listed[SOON] == {"calls": 0, "pulls": 1, "hub": None}
            assert client.get(f"/v1/models/{SOON}").json()["downloads"] == listed[SOON]

"""What an operator does: look up users, enter credit, see what is wanted, add and change providers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.integration.test_web_pages import at
from tests.integration.test_web_support import LIVE, SOON, Client, Website, fill


async def admin(made: Website, client: Client) -> None:
    """Fill a site, and sign in as its admin."""
    await fill(made)
    await client.sign_in("ada@example.org")


def test_the_overview_shows_health_use_and_the_latest_requests(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        page = (await client.get("/admin")).text
        for said in ("answers in 0.4 ms", "not well", "0.007515 EUR", 'id="requests-t"', "req-0000", "429"):
            assert said in page
        assert "req-0009" not in page
        assert "req-0009" in (await client.get("/admin/requests")).text

    at(tmp_path, use)


def test_users_are_found_by_part_of_their_address_a_page_at_a_time(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        for number in range(60):
            await made.services.users.add(f"u{number}@load.example")
        found = (await client.get("/admin/users?q=BOB")).text
        assert "bob@example.org" in found
        assert "cy@example.org" not in found
        first = (await client.get("/admin/users")).text
        older = re.search(r'href="(/admin/users\?q=&amp;before=\d+)"', first)
        assert older
        assert first.count("@load.example</a>") == 50
        assert (await client.get(older[1].replace("&amp;", "&"))).text.count("@load.example</a>") == 10
        assert "Nobody" in (await client.get("/admin/users?q=zzz")).text
        assert (await client.get("/admin/users?before=x")).status_code == 404
        assert (await client.get("/admin/users/999")).status_code == 404

    at(tmp_path, use)


def test_credit_is_entered_once_for_a_reference(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        bob = await made.services.users.find("bob@example.org")
        page, action = f"/admin/users/{bob.id}", f"/admin/users/{bob.id}/credit#credit"
        form = {"kind": "top_up", "amount": "12.50", "reference": "INV-7", "note": "paid <cash>"}
        for _ in range(2):
            done = await client.submit(page, action, form)
            assert done.headers["location"] == f"{page}?done=credit"
        assert (await made.services.ledger.balance(bob.id)).balance == 2_000_000 + 12_500_000
        assert "paid &lt;cash&gt;" in (await client.get(page)).text
        less = await client.submit(page, action, {"kind": "correction", "amount": "-4.5", "reference": "C-1"})
        assert less.status_code == 303
        assert (await made.services.ledger.balance(bob.id)).balance == 10_000_000

    at(tmp_path, use)


def test_credit_that_cannot_be_is_not_entered(tmp_path: Path) -> None:
    wrong = (
        ({"amount": ""}, "amount"),
        ({"amount": "five"}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"reference": ""}, "reference"),
        ({"reference": "INV-0042"}, "reference"),  # of another payment
        ({"kind": "charge"}, "kind"),
        ({"kind": "correction", "amount": "-99"}, "reference"),  # more than is left
    )

    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        bob = await made.services.users.find("bob@example.org")
        for change, field in wrong:
            form = {"kind": "top_up", "amount": "5", "reference": "INV-8", "note": "kept", **change}
            answer = await client.submit(f"/admin/users/{bob.id}", f"/admin/users/{bob.id}/credit#credit", form)
            assert answer.status_code == 422, change
            assert f'id="{field}-wrong"' in answer.text, change
            assert 'value="kept"' in answer.text
        assert (await made.services.ledger.balance(bob.id)).balance == 2_000_000

    at(tmp_path, use)


def test_the_most_wanted_models_come_first(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        page = (await client.get("/admin/models")).text
        rows = re.findall(r'<tr><th scope="row"><a href="/models/([^"]+)"', page)
        assert rows[0] == SOON
        assert len(rows) == 24
        assert "Enter another" in page  # what the operator must mend

    at(tmp_path, use)


def test_a_provider_is_added_changed_switched_off_and_removed_and_its_key_is_never_shown(tmp_path: Path) -> None:
    key = "sk-provider-0123456789abcdef"

    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        form: dict[str, Any] = {
            "slug": LIVE, "name": "second", "url": "http://127.0.0.1:9/v1", "model": "theirs", "kind": "openai",
            "key": key, "weight": "2", "price": "0.012",
        }  # fmt: skip
        page = "/admin/providers"
        added = await client.submit(page, "/admin/providers#new", form)
        assert added.headers["location"] == "/admin/providers?done=added", added.text
        (stored,) = await made.services.providers.list()
        assert stored.provider.key
        assert stored.provider.key.reveal() == key
        assert (stored.slug, stored.provider.weight, stored.provider.price) == (LIVE, 2, 12_000)
        shown = (await client.get(page)).text
        assert key not in shown
        assert "…cdef" in shown
        assert "0.012 EUR for 1M tokens" in shown
        assert "Enter another" in shown

        twice = await client.submit(page, "/admin/providers#new", form)
        assert twice.status_code == 422
        assert 'id="name-wrong"' in twice.text
        assert key not in twice.text

        action = f"/admin/providers/{stored.id}"
        changed = {
            "url": "http://127.0.0.1:9/v1",
            "model": "other",
            "kind": "unmask",
            "key": "",
            "weight": "",
            "price": "",
        }
        assert (await client.submit(page, action, changed)).status_code == 303
        (stored,) = await made.services.providers.list()
        assert not stored.enabled
        assert (stored.provider.model, stored.provider.kind, stored.provider.price) == ("other", "unmask", None)
        assert stored.provider.key
        assert stored.provider.key.reveal() == key

        moved = await client.submit(page, action, changed | {"url": "http://127.0.0.1:8/v1", "enabled": "yes"})
        assert moved.status_code == 422  # the key was given for the old address
        assert f'id="url-{stored.id}-wrong"' in moved.text

        assert (await client.submit(page, f"{action}/remove")).status_code == 303
        assert await made.services.providers.list() == ()

    at(tmp_path, use)


def test_a_provider_that_cannot_be_is_not_added(tmp_path: Path) -> None:
    wrong = (
        ("slug", "none-such"), ("name", ""), ("url", ""), ("url", "ftp://x/v1"), ("model", ""), ("kind", "grpc"),
        ("key", "with space"), ("weight", "-1"), ("price", "much"),
    )  # fmt: skip

    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        for field, value in wrong:
            form = {
                "slug": LIVE, "name": "second", "url": "http://127.0.0.1:9/v1", "model": "theirs", "kind": "openai",
                "key": "", "weight": "1", "price": "", field: value,
            }  # fmt: skip
            answer = await client.submit("/admin/providers", "/admin/providers#new", form)
            assert answer.status_code == 422, field
            assert f'id="{field}-wrong"' in answer.text, field
        assert await made.services.providers.list() == ()

    at(tmp_path, use)

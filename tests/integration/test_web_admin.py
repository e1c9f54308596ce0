"""What an operator does: look up users, enter credit, see what is wanted, add and change providers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_web_pages import at
from tests.integration.test_web_support import LIVE, SECRET, SOON, Client, Website, fill
from unmask.gateway.accounts.disabling import Disabling
from unmask.gateway.accounts.errors import UserDisabledError
from unmask.gateway.accounts.keyring import Keyring
from unmask.gateway.accounts.sessions import Sessions


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


def test_a_pin_is_forgotten_by_an_admin_who_says_so_and_saw_which_it_is(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        pins, action = made.services.providers.pins, f"/admin/pins/{LIVE}/forget"
        pin = await pins.claim(LIVE, "local", None)
        sure = {"sure": "yes", "mark": pin.mark}
        await admin(made, client)
        page = (await client.get("/admin/providers")).text
        assert "Pinned to local since" in page
        assert f'name="mark" value="{pin.mark}"' in page
        unsure = await client.submit("/admin/providers", action, {"mark": pin.mark})
        assert unsure.status_code == 422
        assert "Tick the box" in unsure.text
        late = await client.submit("/admin/providers", action, {"sure": "yes", "mark": "of another pin"})
        assert late.status_code == 422
        assert "pinned anew since you loaded the page" in late.text
        assert [each.mark for each in await pins.list()] == [pin.mark]
        without = await client.send_form(action, sure)
        assert without.status_code == 403  # no token of the form
        done = await client.submit("/admin/providers", action, sure)
        assert done.headers["location"] == "/admin/providers?done=forgotten"
        assert await pins.list() == ()
        after = (await client.get("/admin/providers?done=forgotten")).text
        assert "The pin is forgotten" in after
        assert 'id="pins"' not in after

    at(tmp_path, use)


def test_a_pin_that_is_not_there_is_404_and_only_an_admin_forgets_one(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        pins = made.services.providers.pins
        pin = await pins.claim(LIVE, "local", None)
        await client.sign_in("somebody@example.org")
        page = (await client.get("/account")).text
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token
        form = {"csrf": token[1], "sure": "yes", "mark": pin.mark}
        assert (await client.send_form(f"/admin/pins/{LIVE}/forget", form)).status_code == 404
        assert len(await pins.list()) == 1
        await client.submit("/account", "/sign-out")
        await admin(made, client)
        page = (await client.get("/account")).text
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token
        assert (await client.send_form("/admin/pins/none-such/forget", form | {"csrf": token[1]})).status_code == 404

    at(tmp_path, use)


def test_an_account_is_disabled_and_enabled_with_a_reason_that_is_kept(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        services = made.services
        bob = await services.users.find("bob@example.org")
        key, secret = await services.keyring.issue(bob.id, "his")
        page = f"/admin/users/{bob.id}"
        async with made.client() as his:
            await his.sign_in("bob@example.org")
            empty = await client.submit(page, f"{page}/disable#access", {"reason": " "})
            assert empty.status_code == 422
            assert 'id="reason-wrong"' in empty.text
            long = await client.submit(page, f"{page}/disable#access", {"reason": "x" * 501})
            assert long.status_code == 422
            assert "expected 1 to 500" in long.text
            assert (await his.get("/account")).status_code == 200
            done = await client.submit(page, f"{page}/disable#access", {"reason": "sends <spam>"})
            assert done.headers["location"] == f"{page}?done=disable"
            shown = (await client.get(f"{page}?done=disable")).text
            for said in ("Its sessions are ended", "Disabled</strong> since", "sends &lt;spam&gt;", "ada@example.org"):
                assert said in shown, said
            assert re.search(
                r"bob@example\.org</a></th>.*<td>disabled</td>", (await client.get("/admin/users?q=bob")).text
            )
            assert (await his.get("/account")).headers["location"] == "/sign-in?next=%2Faccount"
            with pytest.raises(UserDisabledError):
                await services.keyring.authenticate(secret.reveal())
            # To who proves that the address is theirs, one clear page, and no reason.
            await his.submit("/sign-in", "/sign-in", {"email": "bob@example.org"})
            token = made.mailbox.link().partition("token=")[2]
            refused = await his.submit(made.mailbox.link(), "/sign-in/link", {"token": token})
            assert refused.status_code == 403
            assert "<h1>Account disabled</h1>" in refused.text
            assert "spam" not in refused.text
            assert (await his.get("/account")).status_code == 303
            await client.submit(page, f"{page}/enable#access", {"reason": "it was somebody else"})
            assert (await services.keyring.authenticate(secret.reveal())).id == key.id
            await his.sign_in("bob@example.org")
            assert (await his.get("/account")).status_code == 200
        acts = await services.disabling.acts(bob.id)
        assert [(each.kind, each.by) for each in acts] == [
            ("enable", "ada@example.org"),
            ("disable", "ada@example.org"),
        ]

    at(tmp_path, use)


def test_no_admin_disables_themself(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        ada = await made.services.users.find("ada@example.org")
        bob = await made.services.users.find("bob@example.org")
        page = (await client.get(f"/admin/users/{ada.id}")).text
        assert "This is your own account" in page
        assert f"/admin/users/{ada.id}/disable" not in page
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token
        for kind in ("disable", "enable"):
            answer = await client.send_form(f"/admin/users/{ada.id}/{kind}", {"csrf": token[1], "reason": "x"})
            assert answer.status_code == 422
        assert (await made.services.users.get(ada.id)).disabled_at is None
        # An admin whom another one disables while they are signed in does nothing any more.
        await made.services.users.set_admin(bob.id, True)
        async with made.client() as his:
            await his.sign_in("bob@example.org")
            await his.submit(f"/admin/users/{ada.id}", f"/admin/users/{ada.id}/disable#access", {"reason": "mine"})
            assert (await client.get("/admin")).status_code == 404
            sent = await client.send_form(f"/admin/users/{bob.id}/disable", {"csrf": token[1], "reason": "x"})
            assert sent.status_code == 404
        assert (await made.services.users.get(bob.id)).disabled_at is None

    at(tmp_path, use)


def test_whom_another_process_disables_sees_no_page_any_more(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await admin(made, client)
        ada, bob = [await made.services.users.find(f"{name}@example.org") for name in ("ada", "bob")]
        async with made.client() as his:
            await his.sign_in("bob@example.org")
            assert (await his.get("/account")).status_code == 200  # and is remembered
            elsewhere = Disabling(made.database, Keyring(made.database, SECRET), Sessions(made.database, SECRET))
            await elsewhere.disable(bob.id, by=ada.id, reason="x")
            assert (await his.get("/account")).status_code == 303

    at(tmp_path, use)

"""Who may do what: two accounts and an operator, on every route that there is."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_api_support import wait_until
from tests.integration.test_hosting_support import COST, MODEL, Customer, embed, hosted
from tests.integration.test_security_support import BOSS, Place, pages, read, secured
from unmask.gateway.hosting.demo import DEMO, open_demo
from unmask.gateway.web.app import PAGES


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with secured(tmp_path_factory.mktemp("access")) as made:
        yield made


def uploaded(caller: httpx.Client) -> str:
    """Return the id of a file of one request, with a text that is nobody else's business."""
    line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": MODEL, "input": "secret"}}
    form = {"file": ("alices.jsonl", json.dumps(line).encode())}
    found = caller.post("/v1/files", files=form, data={"purpose": "batch"})
    assert found.status_code == 200, found.text
    return str(found.json()["id"])


def started(caller: httpx.Client, file: str) -> httpx.Response:
    body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return caller.post("/v1/batches", json=body)


def test_every_route_of_the_api_that_takes_an_id_knows_only_its_owners(place: Place) -> None:
    """Every operation with an id of the table: one that is added later cannot be left out."""
    with place.running.client(place.alice) as alice, place.running.client(place.bob) as bob:
        file = uploaded(alice)
        batch = started(alice, file).json()["id"]
        wait_until(lambda: alice.get(f"/v1/batches/{batch}").json()["status"] == "completed")
        output = alice.get(f"/v1/batches/{batch}").json()["output_file_id"]
        ids = {"/v1/files": (file, output), "/v1/batches": (batch,)}
        found = [each for each in place.running.gateway.api.operations if "{id}" in each.path]
        assert len(found) >= 5
        for operation in found:
            for mine in ids[operation.path.partition("/{")[0]]:
                other = mine[:-1] + ("0" if mine[-1] != "0" else "1")
                refused, unknown = (
                    bob.request(operation.method, operation.path.replace("{id}", each), json={})
                    for each in (mine, other)
                )
                assert refused.status_code == 404, (operation.method, operation.path)
                assert refused.text.replace(mine, "ID") == unknown.text.replace(other, "ID")
        assert bob.get("/v1/files").json()["data"] == []
        assert bob.get("/v1/batches").json()["data"] == []
        assert bob.get("/v1/files", params={"after": file}).json().get("data", []) == []
        assert started(bob, file).status_code == 404
        assert alice.get(f"/v1/files/{file}/content").status_code == 200
        assert alice.get(f"/v1/batches/{batch}").json()["status"] == "completed"


def test_every_route_of_the_site_that_takes_an_id_knows_only_its_owners(place: Place) -> None:
    """Every row with a number in its path: the owner is never read from the request."""
    with place.browser(place.bob.id) as bob:
        kept = place.kept()
        found = 0
        for method, template, _, _ in PAGES:
            path = place.path(template)
            if path != template and "{slug}" not in template and "{name" not in template:
                found += 1
                none = place.path(
                    template, key_id=9_999_999, user_id=9_999_999, provider_id=9_999_999, session_id=9_999_999
                )
                refused, unknown = (
                    bob.send_form(each, {"user_id": str(place.alice.id)}) if method == "POST" else bob.get(each)
                    for each in (path, none)
                )
                assert (refused.status_code, refused.text) == (404, unknown.text), path
        assert found >= 5
        for query in ({"user_id": place.alice.id}, {"user": place.alice.id}, {"id": place.alice.id}):
            for path in ("/account", "/account/keys", "/account/sessions"):
                page = bob.get(path, params=query).text
                assert place.alice.key.shown not in page
                assert "customer1@" not in page
        assert place.kept() == kept


def test_another_users_idempotency_key_is_another_key(place: Place) -> None:
    first = place.running.customer(credit=100)
    other = place.running.customer(credit=100)
    with place.running.client(first) as mine, place.running.client(other) as theirs:
        assert embed(mine, **{"idempotency-key": "the same"}).status_code == 200
        answer = embed(theirs, **{"idempotency-key": "the same"})
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers
    assert place.running.settled(other) < 100


def test_sessions_of_others_go_on(place: Place) -> None:
    with place.browser(place.alice.id) as alice, place.browser(place.bob.id) as bob:
        sent = bob.send_form("/account/sessions/end", {"user_id": str(place.alice.id), "session": "1"})
        assert sent.status_code == 303
        assert alice.get("/account").status_code == 200


def test_to_everybody_else_an_operators_pages_are_not_there(place: Place) -> None:
    with place.browser(place.boss) as admin, place.browser(place.bob.id) as user, place.browser() as visitor:
        kept = place.kept()
        for template in pages("GET", ("admin",)):
            path = place.path(template)
            assert admin.get(path).status_code == 200, path
            for browser in (user, visitor):
                answer = browser.get(path)
                assert (answer.status_code, answer.text) == (404, browser.get("/admin/none").text), path
                for header in ("x-original-url", "x-rewrite-url", "x-forwarded-for", "x-admin"):
                    assert browser.get(path, headers={header: path}).status_code == 404
        for template in pages("POST", ("admin",)):
            for browser in (user, visitor):
                form = {"kind": "top_up", "amount": "5", "reference": "mine"}
                assert browser.send_form(place.path(template), form).status_code == 404, template
        for path in (
            "/admin/",
            "/ADMIN",
            "//admin",
            "/./admin",
            "/%61dmin",
            "/admin/users/../users",
            "/account/../admin",
        ):
            status, _, text = place.raw("GET", path)
            assert status == 404, path
            assert "<h1>Admin" not in text
        assert place.kept() == kept


def test_who_the_settings_name_no_longer_is_no_admin_any_more(tmp_path: Path) -> None:
    with hosted(tmp_path, admins=(BOSS, "second@example.org")) as before:
        boss = before.do(before.gateway.users.find(BOSS))
        assert boss.admin
        customer = before.customer()
        before.do(before.gateway.users.set_admin(customer.id, True))
    with hosted(tmp_path, admins=(f" {BOSS.upper()} ",)) as after:
        users = after.gateway.users
        assert [user.id for user in after.do(users.admins())] == [boss.id]
        assert not after.do(users.get(customer.id)).admin


def test_fields_that_no_form_has_change_nothing(place: Place) -> None:
    more: dict[str, Any] = {
        "user_id": str(place.alice.id), "id": "1", "admin": "1", "is_admin": "true", "verified_at": "1",
        "balance": "999999999", "amount": "5", "email": BOSS, "digest": "x", "revoked_at": "", "created_at": "0",
        "key": "gr-" + "a" * 38, "secret": "s", "role": "admin", "user[admin]": "1", "__proto__[admin]": "1",
    }  # fmt: skip
    customer = place.running.customer(credit=0)
    with place.browser(customer.id) as browser:
        assert browser.send_form("/account/keys", more | {"name": "mine"}).status_code == 200
        place_keys = place.running.do(place.running.gateway.keyring.of(customer.id))
        assert [key.name for key in place_keys] == ["test", "mine"]
        for path in ("/account/sessions/end", f"/models/{MODEL}/wish", f"/account/keys/{place_keys[1].id}/rotate"):
            assert browser.send_form(path, more).status_code < 400
    user = place.running.do(place.running.gateway.users.get(customer.id))
    assert (user.admin, user.verified_at) == (False, None)
    assert place.running.balance(customer) == (0, 0)
    assert len(place.running.do(place.running.gateway.keyring.of(place.alice.id))) == 1
    with place.running.client(place.alice) as caller:
        body = {"model": MODEL, "input": "x", "owner": "user-1", "admin": True}
        assert caller.post("/v1/embeddings", json=body).status_code == 400


def test_a_sign_in_is_for_the_address_that_the_link_was_sent_to(place: Place) -> None:
    with place.browser() as visitor:
        visitor.send_form("/sign-in", {"email": "mallory@example.org", "next": "/models", "user_id": str(place.boss)})
        token = place.mailbox.link().partition("token=")[2]
        form = {"token": token, "email": BOSS, "user_id": str(place.boss), "next": "https://evil.example"}
        done = visitor.send_form("/sign-in/link", form)
        assert (done.status_code, done.headers["location"]) == (303, "/models")
        assert "mallory@example.org" in visitor.get("/account").text
        assert visitor.get("/admin").status_code == 404


def test_a_key_opens_what_it_is_for_and_no_page(place: Place) -> None:
    limited: Customer = place.running.customer(models=frozenset({"smollm2-135m-sup"}))
    with place.running.client(limited) as caller:
        assert embed(caller).status_code == 403
        for template in pages("GET", ("user", "admin")):
            assert caller.get(place.path(template)).status_code in (303, 404), template


def test_who_is_disabled_is_let_in_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with secured(tmp_path) as place:
        running, alice = place.running, place.alice
        with place.browser(place.boss) as admin, place.browser(alice.id) as user, running.client(alice) as caller:
            file = uploaded(caller)
            batch = started(caller, file).json()["id"]
            wait_until(lambda: caller.get(f"/v1/batches/{batch}").json()["status"] == "completed")
            action = f"/admin/users/{alice.id}"
            before, embed_well, disabled = running.settled(alice), running.engine.embed, threading.Event()

            async def answers_late(*arguments: Any, **options: Any) -> Any:
                found = await embed_well(*arguments, **options)
                while not disabled.is_set():
                    await asyncio.sleep(0.01)
                return found

            monkeypatch.setattr(running.engine, "embed", answers_late)
            with ThreadPoolExecutor(1) as pool:
                under_way = pool.submit(embed, caller)
                wait_until(lambda: running.balance(alice)[1] == COST)
                assert admin.send_form(f"{action}/disable", {"reason": "x"}).status_code == 303
                disabled.set()
                assert under_way.result().status_code == 200  # it was let in before
            assert running.settled(alice) == before - COST
            kept, asked = place.kept(), len(running.knobs.asked)
            for operation in running.gateway.api.operations:
                path = operation.path.replace("{id}", file).replace("{model}", MODEL)
                if not operation.open:
                    answer = caller.request(operation.method, path, json={"model": MODEL, "input": "x"})
                    assert answer.status_code == 403, path
                    error = answer.json()["error"]
                    assert error.keys() == {"message", "type", "param", "code"}
                    assert (error["code"], error["type"]) == ("account_disabled", "invalid_request_error")
                    assert "disabled" in error["message"]
            for path in map(place.path, pages("GET", ("user",))):
                assert user.get(path).status_code == 303, path
            with place.browser() as visitor:
                assert visitor.send_form("/sign-in", {"email": "customer1@example.org"}).status_code == 200
                token = place.mailbox.link().partition("token=")[2]
                refused = visitor.send_form("/sign-in/link", {"token": token})
                assert refused.status_code == 403
                assert "Account disabled" in read(refused).text
                assert "set-cookie" not in refused.headers
            assert len(running.knobs.asked) == asked
            assert running.balance(alice) == (before - COST, 0)
            of_the_link = re.compile(r"sign_in_links|throttle")
            now, then = (
                [line for line in each.splitlines() if not of_the_link.search(line)] for each in (place.kept(), kept)
            )
            assert now == then
            assert admin.send_form(f"{action}/enable", {"reason": "y"}).status_code == 303
            assert embed(caller).status_code == 200


def test_no_path_leads_out_of_a_folder(place: Place) -> None:
    up = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..%252f", "....//", "..;/", "/", "%00/")
    key = f"Bearer {place.alice.secret}"
    for step in up:
        for start in ("/static/", "/static/site.css/", "/v1/files/", "/models/", "/docs/", "/account/keys/"):
            for end in ("gateway.db", "secret", "etc/passwd", "web/app.py", "files/x.json"):
                status, _, text = place.raw("GET", start + step * 3 + end, authorization=key)
                assert 300 < status < 500, start + step
                assert "SQLite format" not in text
                assert "root:" not in text
    for name in ("../../gateway.db", "/etc/passwd", "a\0b", "file-x/../../secret", ".", "x" * 300):
        with place.running.client(place.alice) as caller:
            form = {"file": (name, b'{"custom_id": "1"}')}
            kept = caller.post("/v1/files", files=form, data={"purpose": "batch"})
            assert kept.status_code in (200, 400), name
    stored = {each.name for each in (place.folder / "files").iterdir()}
    assert stored
    assert all(name.startswith("file-") for name in stored)
    assert {each.name for each in place.folder.iterdir()} <= {
        "gateway.db", "gateway.db-wal", "gateway.db-shm", "files", "batches", "lock",
    }  # fmt: skip


def test_a_gateway_that_is_often_started_makes_room_for_its_demo_key(tmp_path: Path) -> None:
    with hosted(tmp_path, keys_per_user=2) as running:
        gateway, lines = running.gateway, list[str]()
        for _ in range(4):
            running.do(open_demo(gateway, lines.append))
        user = running.do(gateway.users.find(DEMO))
        keys = running.do(gateway.keyring.of(user.id))
        assert [key.revoked_at is None for key in keys] == [False, False, True, True]
        newest = [line for line in lines if line.startswith("Its key:")][-1].split()[2]
        assert running.do(gateway.keyring.authenticate(newest)).id == keys[-1].id

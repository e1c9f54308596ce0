"""What protects the site: headers, cookies, forms that only its own pages can send, pages that only admins see."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tests.integration.test_web_pages import ADMIN, OWN, PUBLIC, at
from tests.integration.test_web_support import HUB, LIVE, SOON, Client, Website, fill
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.web import site
from unmask.gateway.web.app import PAGES
from unmask.gateway.web.headers import POLICY, policy

HTTPS = "https://example.org"


def test_every_answer_has_the_headers(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await client.sign_in("ada@example.org")
        page = (await client.get("/")).text
        css = re.search(r'href="(/static/[^"]+\.css)"', page)
        assert css
        for path in (*PUBLIC, *OWN, "/nope", css[1], "/account"):
            headers = (await client.get(path)).headers
            assert headers["content-security-policy"] == (policy(HUB) if path == f"/models/{SOON}" else POLICY), path
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert "camera=()" in headers["permissions-policy"]
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert "strict-transport-security" not in headers
        assert "unsafe" not in POLICY
        assert "frame-ancestors 'none'" in POLICY

    at(tmp_path, use)


def test_pages_of_somebody_are_never_kept(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        assert (await client.get("/docs")).headers["cache-control"] == "no-cache"
        assert (await client.get("/sign-in")).headers["cache-control"] == "no-store"
        await client.sign_in("ada@example.org")
        for path in (*OWN, "/docs", "/nope"):
            assert (await client.get(path)).headers["cache-control"] == "no-store", path

    at(tmp_path, use)


def test_over_tls_cookies_are_bound_to_the_host_and_browsers_stay_there(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        assert "max-age=" in (await client.get("/")).headers["strict-transport-security"]
        visitor = (await client.get("/sign-in")).headers["set-cookie"]
        assert visitor.startswith("__Host-unmask-visitor=")
        link = await client.submit("/sign-in", "/sign-in", {"email": "ada@example.org"})
        assert "the link is in the server" not in link.text
        path = made.mailbox.link()
        token = re.search(r'name="token" value="([^"]+)"', (await client.get(path)).text)
        assert token
        done = await client.submit(path, "/sign-in/link", {"token": token[1]})
        session = next(each for each in done.headers.get_list("set-cookie") if "session" in each)
        for flag in ("__Host-unmask-session=", "HttpOnly", "Secure", "SameSite=lax", "Path=/"):
            assert flag.lower() in session.lower()

    at(tmp_path, use, base_url=HTTPS, development=False)


def forms() -> list[str]:
    """Return every path that takes a form."""
    numbers = {"{slug}": SOON, "{key_id}": "1", "{user_id}": "1", "{provider_id}": "1"}
    found = []
    for method, path, _, _ in PAGES:
        if method == "POST":
            for name, value in numbers.items():
                path = path.replace(name, value)  # noqa: PLW2901
            found.append(path)
    return found


def test_a_form_is_taken_from_our_own_pages_alone(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await fill(made)
        await client.sign_in("ada@example.org")
        token = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/account")).text)
        assert token
        own = {"origin": made.services.site.base_url}
        for path in forms():
            for headers, form in (
                ({}, {"csrf": token[1]}),  # no browser of today leaves it out
                ({"origin": "https://evil.example"}, {"csrf": token[1]}),
                ({"origin": "null"}, {"csrf": token[1]}),
                (own | {"sec-fetch-site": "cross-site"}, {"csrf": token[1]}),
                (own, {"none": ""}),
                (own, {"csrf": "A" * len(token[1])}),
            ):
                answer = await client.post(path, data=form, headers=headers)
                assert answer.status_code == 403, (path, headers, form)
                assert "Nothing was changed" in answer.text
            assert (await client.post(path, json={"csrf": token[1]}, headers=own)).status_code == 415, path
            large = await client.send_form(path, {"csrf": token[1], "x": "y" * 70_000})
            assert large.status_code == 413, path
            many = {"csrf": token[1], **{f"f{number}": "" for number in range(600)}}
            assert (await client.send_form(path, many)).status_code == 413, path
        assert await made.services.wishes.counts() == {SOON: 3}
        assert (await client.get("/account")).status_code == 200

    at(tmp_path, use)


def test_a_visitor_s_token_is_of_no_use_to_another(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        pattern = r'name="csrf" value="([^"]+)"'
        token = re.search(pattern, (await client.get("/sign-in")).text)
        again = re.search(pattern, (await client.get("/sign-in")).text)
        assert token
        assert again
        assert token[1] == again[1]
        async with made.client() as other:
            await other.get("/sign-in")
            stolen = await other.send_form("/sign-in", {"csrf": token[1], "email": "a@example.org"})
            assert stolen.status_code == 403
        async with made.client() as bare:
            assert (await bare.send_form("/sign-in", {"csrf": token[1], "email": "a@example.org"})).status_code == 403
        assert made.mailbox.mails == []

    at(tmp_path, use)


def test_to_everybody_else_the_pages_of_admins_are_not_there(tmp_path: Path) -> None:
    paths = [path for path in forms() if path.startswith("/admin")]

    async def use(made: Website, client: Client) -> None:
        await fill(made)
        nowhere = (await client.get("/admin/nope")).text
        for path in ADMIN:
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (404, nowhere), path
        await client.sign_in("bob@example.org")
        token = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/account")).text)
        assert token
        for path in ADMIN:
            assert (await client.get(path)).status_code == 404, path
        for path in paths:
            assert (await client.send_form(path, {"csrf": token[1]})).status_code == 404, path
        assert "/admin" not in (await client.get("/")).text
        await made.services.users.set_admin((await made.services.users.find("bob@example.org")).id, True)
        for path in ADMIN:
            assert (await client.get(path)).status_code == 200, path

    at(tmp_path, use)


def test_only_users_see_an_account(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        for path in OWN:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in"), path
        for method, path, _, access in PAGES:
            if method == "POST" and access == "user":
                answer = await client.send_form(path.replace("{key_id}", "1").replace("{slug}", LIVE), {})
                assert answer.headers["location"] == "/sign-in?next=%2Faccount", path

    at(tmp_path, use)


def test_what_the_catalogue_says_is_text_and_no_more(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        evil = "<img src=x onerror=alert(1)>"
        entry = made.services.catalogue.find(LIVE).model_copy(
            update={"title": evil, "about": evil, "strengths": (evil,), "architecture": evil, "query_instruction": evil}
        )
        catalogue = Catalogue.load()
        catalogue._entries[LIVE] = entry
        made.app = site(replace(made.services, catalogue=catalogue))
        async with made.client() as other:
            for path in ("/", "/models", f"/models/{LIVE}", f"/compare?model={LIVE}&model={SOON}", "/pricing"):
                page = (await other.get(path)).text
                assert "<img" not in page, path
                assert "&lt;img" in page, path

    at(tmp_path, use)

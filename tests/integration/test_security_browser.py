"""What a browser is told with every answer, and which forms are taken: headers, cookies, scripts, other sites."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import pytest

from tests.integration.test_hosting_support import MODEL, embed
from tests.integration.test_security_support import SOON, Browser, Place, pages, read, secured
from unmask.gateway.web.app import PAGES
from unmask.gateway.web.headers import POLICY
from unmask.gateway.web.headers import policy as allowing

#: Of everything, whatever it is and whoever asks.
_ALWAYS = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-origin"}
_API = ("/v1/models", "/v1/nothing", "/v1/files/file-none", "/health", "/ready", "/metrics", "/v1/openapi.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with secured(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, outside = tmp_path_factory.mktemp("encrypted"), "https://models.example.org"
    with secured(folder, site_url=outside, smtp_host="mail.example.org", mail_from="us@example.org") as made:
        yield made


def every_answer(place: Place) -> Iterator[tuple[str, httpx.Response]]:
    """Return an answer of every path, good and bad, page and API."""
    with place.browser(place.boss) as admin, place.browser() as visitor, place.running.client(place.alice) as caller:
        for method, template, _, _ in PAGES:
            path = place.path(template)
            for browser in (admin, visitor):
                yield "page", browser.request(method, path)
                yield "page", browser.request("DELETE", path)
        yield "page", visitor.get("/nothing/here")
        yield "page", visitor.get(re.findall(r'"(/static/[^"]+)"', visitor.get("/").text)[0])
        for path in _API:
            yield "api", caller.get(path)
            yield "api", visitor.get(path)
            yield "api", caller.request("DELETE", path)
        yield "api", embed(caller)
        yield "docs", visitor.get("/docs/api")


def test_every_answer_has_its_headers(place: Place) -> None:
    seen = 0
    for kind, answer in every_answer(place):
        seen += 1
        headers, name = answer.headers, f"{answer.request.method} {answer.request.url}"
        assert headers.items() >= _ALWAYS.items(), name
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'"), name
        assert "frame-ancestors 'none'" in policy, name
        assert "unsafe" not in policy, name
        assert "strict-transport-security" not in headers, name
        assert "server" not in headers
        assert not [each for each in headers if each.startswith("access-control-")], name
        if answer.content:
            kind_of = headers["content-type"]
            assert "charset=utf-8" in kind_of or not re.match(r"text/|.*\+xml", kind_of), name
        if kind == "page":
            # The button that leads to a model's weights: on that model's page, and to the hub alone.
            leads_away = answer.request.url.path == f"/models/{SOON}" and answer.status_code == 200
            assert policy == (allowing(place.running.gateway.services.hub) if leads_away else POLICY), name
            assert headers["x-frame-options"] == "DENY", name
            assert headers["referrer-policy"] == "same-origin", name
    assert seen > 4 * len(PAGES)


def test_over_tls_every_answer_says_so_and_every_cookie_is_the_hosts_own(encrypted: Place) -> None:
    for _, answer in every_answer(encrypted):
        found = re.match(r"max-age=(\d+)", answer.headers["strict-transport-security"])
        assert found
        assert int(found[1]) >= 31_536_000
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-"), cookie
            assert {"Secure", "HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; ")), cookie
            assert "domain" not in cookie.lower()


def test_over_tls_the_cookie_of_the_colours_is_the_hosts_own_too(encrypted: Place, place: Place) -> None:
    for there, good, bad in ((encrypted, "__Host-theme", "theme"), (place, "theme", "__Host-theme")):
        assert 'data-theme="dark"' in there.raw("GET", "/", cookie=f"{good}=dark")[2]
        assert "data-theme=" not in there.raw("GET", "/", cookie=f"{bad}=dark")[2]
    with place.browser() as visitor:
        script = visitor.get(re.findall(r'src="(/static/[^"]+)"', visitor.get("/").text)[0]).text
        assert '? ["__Host-", "; secure"]' in script


def test_on_this_machine_cookies_are_for_the_server_alone(place: Place) -> None:
    cookies = [each for _, answer in every_answer(place) for each in answer.headers.get_list("set-cookie")]
    assert cookies
    for cookie in cookies:
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; ")), cookie
        assert "Secure" not in cookie


def test_no_page_holds_a_script_or_a_style_of_its_own(place: Place) -> None:
    seen = 0
    for kind, answer in every_answer(place):
        if kind == "page" and answer.headers.get("content-type", "").startswith("text/html") and answer.text:
            seen += 1
            assert "csrf" not in read(answer).text
    assert seen > 2 * len(PAGES)


def test_the_reference_has_one_style_which_its_policy_names_and_no_script(place: Place) -> None:
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)
            assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]

    with place.browser() as visitor:
        answer = visitor.get("/docs/api")
    Tags().feed(answer.text)
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert found.count("style") == 1
    assert "script" not in found


def test_what_is_somebodys_is_kept_nowhere(place: Place) -> None:
    with place.browser(place.boss) as admin:
        for path in map(place.path, pages("GET")):
            assert admin.get(path).headers["cache-control"] == "no-store", path
        shown = admin.send_form("/account/keys", {"name": "shown once"})
        assert re.search(r"gr-[0-9A-Za-z]{38}", shown.text)
        assert shown.headers["cache-control"] == "no-store"
        assert not re.search(r"gr-[0-9A-Za-z]{38}", admin.get("/account/keys").text)
    with place.running.client(place.alice) as caller:
        assert embed(caller).headers["cache-control"] == "no-store"


def test_a_form_is_taken_from_a_page_of_ours_for_this_session_and_from_nowhere_else(place: Place) -> None:
    """Every POST of the table of pages: one that is added later cannot be left out."""
    forms = pages("POST")
    assert len(forms) > 10
    with place.browser(place.boss) as admin, place.browser(place.bob.id) as bob, place.browser() as visitor:
        own, ours = admin.token(), {"origin": admin.origin, "sec-fetch-site": "same-origin"}
        refused: tuple[tuple[dict[str, str], str], ...] = (
            (ours, ""),
            (ours, bob.token()),
            (ours, visitor.token()),
            (ours, own[:-1] + ("A" if own[-1] != "A" else "B")),
            (ours, "é\ud800".encode("utf-8", "surrogatepass").decode("latin-1")),
            ({}, own),
            ({"origin": "https://evil.example"}, own),
            ({"origin": admin.origin + ".evil.example"}, own),
            ({"origin": admin.origin.replace("127.0.0.1", "localhost")}, own),
            ({"origin": "null"}, own),
            ({"origin": "null", "sec-fetch-site": "cross-site"}, own),
            (ours | {"sec-fetch-site": "cross-site"}, own),
            (ours | {"sec-fetch-site": "same-site"}, own),
            ({"origin": "https://evil.example", "x-forwarded-host": "evil.example", "host": "evil.example"}, own),
        )
        kept = place.kept()
        for template in forms:
            path = place.path(template)
            for headers, token in refused:
                form = {"csrf": token} if token else {}
                answer = admin.post(path, data=form | {"name": "x", "email": "a@example.org"}, headers=headers)
                assert answer.status_code == 403, (path, headers, token)
                assert "Nothing was changed" in answer.text
            assert admin.post(f"{path}?csrf={own}", data={"name": "x"}, headers=ours).status_code == 403, path
        assert place.kept() == kept
        assert place.mailbox.mails == []
        answer = admin.post("/account/keys", data={"csrf": own, "name": "good"}, headers=ours)
        assert answer.status_code == 200
        assert place.kept() != kept


def test_nothing_is_changed_by_a_request_that_is_no_post(place: Place) -> None:
    with place.browser(place.boss) as admin:
        token, ours = (
            admin.token(),
            {"origin": admin.origin, "x-http-method-override": "POST", "x-method-override": "POST"},
        )
        kept = place.kept()
        for template in pages("POST"):
            path = place.path(template)
            for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"):
                query = {"csrf": token, "_method": "POST", "name": "x", "wanted": "yes", "email": "a@example.org"}
                answer = admin.request(method, path, params=query, headers=ours)
                assert answer.status_code < 500, (method, path)
                if method == "TRACE":
                    assert admin.session not in answer.text
                if method not in ("GET", "HEAD"):
                    assert answer.status_code == 405, (method, path)
        assert place.kept() == kept
        assert place.mailbox.mails == []


def test_the_api_needs_its_header_and_no_cookie_stands_for_it(place: Place) -> None:
    with place.browser(place.alice.id) as browser:
        for operation in place.running.gateway.api.operations:
            path = operation.path.replace("{id}", "x").replace("{model}", MODEL)
            for headers in ({}, {"origin": browser.origin}, {"x-api-key": place.alice.secret}):
                answer = browser.request(operation.method, path, headers=headers)
                assert answer.status_code == 401, (operation.method, path)
            asked = browser.request(operation.method, path, params={"api_key": place.alice.secret})
            assert asked.status_code == 401, path
        # A form, which a browser sends without asking first, is no request of the API.
        sent = browser.post(
            "/v1/embeddings",
            content='{"model":"x","input":"y"}',
            headers={"content-type": "text/plain", "authorization": f"Bearer {place.alice.secret}"},
        )
        assert sent.status_code == 415


def test_another_host_in_a_request_is_nowhere_in_what_is_answered_or_mailed(place: Place) -> None:
    evil = "evil.example"
    with Browser(place.running) as visitor:
        for name in ("host", "x-forwarded-host", "x-host", "forwarded", "x-forwarded-server", "x-original-url"):
            value = f"host={evil}" if name == "forwarded" else f"/{evil}" if name == "x-original-url" else evil
            for path in ("/", "/docs", "/account", f"/models/{MODEL}", "/nothing", "/sign-in/openid"):
                answer = visitor.get(path, headers={name: value})
                assert evil not in answer.text, (name, path)
                assert evil not in answer.headers.get("location", ""), (name, path)
        sent = visitor.send_form("/sign-in", {"email": "host@example.org"}, **{"host": evil, "x-forwarded-host": evil})
        assert sent.status_code == 200
    mail = place.mailbox.mails.pop()
    assert evil not in mail.text + mail.html
    assert f"{place.running.url}/sign-in/link?token=" in mail.text


@pytest.mark.parametrize("host", ["[", "[::1", "a/b?c", "x@y", "", "a b", "evil:99999999", "\xff", "a,b"])
def test_a_host_that_is_none_breaks_nothing(place: Place, host: str) -> None:
    for path in ("/", "/account", "/nothing", "/static/x.css", "/v1/models"):
        status, headers, _ = place.raw("GET", path, host=host)
        assert status < 500, path
        assert headers.get("location", "/").startswith("/")

"""What people may send: markup, commands, paths and addresses as text, forms that are none, places to be sent to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import quote, urljoin, urlsplit

import pytest

from tests.integration.test_hosting_support import MODEL
from tests.integration.test_security_support import EVIL, SOON, Place, pages, read, secured

#: Parameters that a page reads, and some that none does.
_QUERIES = ("q", "task", "status", "licence", "dimension", "size", "sort", "model", "before", "done", "ended",
            "welcome", "next", "token", "state", "code", "error", "nobody")  # fmt: skip
#: Ways to write an address elsewhere as if it were a path.
_ELSEWHERE = (
    "https://evil.example", "//evil.example", "///evil.example", "////evil.example", "/\\evil.example",
    "\\\\evil.example", "\\/evil.example", "/\t/evil.example", "/\n/evil.example", "\t//evil.example",
    " //evil.example", "https:evil.example", "https:/evil.example", "http:///evil.example", "javascript:alert(1)",
    "data:text/html,x", "/%2fevil.example", "%2f%2fevil.example", "/%5cevil.example", "/%09/evil.example",
    "/%252fevil.example", "/%25252fevil.example", "//evil.example/%2e%2e", "/..//evil.example", "/.//evil.example",
    "//evil%E3%80%82example", "/\u2215evil.example", "\u3000//evil.example", "@evil.example", ".evil.example",
    "/@evil.example//x", "?//evil.example", "#//evil.example", "/models\r\nSet-Cookie: evil=1",
    "/models%0d%0aX-Evil: 1",
    "/models%0aSet-Cookie:evil=1", "/\x00/evil.example", "/models\u010aSet-Cookie: evil=1", "//[::1]/", "//0x7f000001",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with secured(tmp_path_factory.mktemp("input"), tries_per_minute=1000) as made:
        yield made


@pytest.mark.parametrize("evil", EVIL)
def test_every_parameter_of_every_page_is_text(place: Place, evil: str) -> None:
    with place.browser(place.boss) as admin:
        for path in map(place.path, pages("GET")):
            answer = admin.get(path, params=dict.fromkeys(_QUERIES, evil))
            assert answer.status_code < 500, path
            assert "evil" not in answer.headers.get("set-cookie", "")
            if answer.text:
                assert read(answer).text.count("7*7") == answer.text.count("7*7")
        for name in ("sort", "q", "before", "ended"):  # alone: one that is refused hides the others
            for path in ("/models", "/account", "/account/sessions", "/admin/users"):
                assert admin.get(path, params={name: evil}).status_code < 500, (path, name)


@pytest.mark.parametrize("evil", EVIL)
def test_every_field_of_every_form_is_text_and_nothing_breaks(place: Place, evil: str) -> None:
    fields = ("name", "ends", "models", "requests_per_minute", "tokens_per_minute", "spend_per_day", "overlap",
              "wanted", "texts", "instruction", "email", "next", "token", "kind", "amount", "reference",
              "note", "slug", "url", "model", "key", "weight", "price", "enabled", "reason", "sure",
              "mark")  # fmt: skip
    good = {"kind": "top_up", "amount": "1", "ends": "", "wanted": "yes", "overlap": "1"}
    with place.browser(place.boss) as admin:
        token = admin.token()
        for template in pages("POST"):
            if template == "/sign-out" or template.endswith("/remove"):
                continue
            path = place.path(template, slug=MODEL, key_id=1)
            for form in (dict.fromkeys(fields, evil), dict.fromkeys(fields, evil) | good):
                answer = admin.send_form(path, form | {"csrf": token})
                assert answer.status_code < 500, (path, form)
                if answer.text:
                    read(answer)


@pytest.mark.parametrize("evil", [each for each in EVIL if each.isprintable()])
def test_what_is_stored_comes_back_as_it_was_typed(place: Place, evil: str) -> None:
    running = place.running
    owner = running.customer()
    with place.browser(owner.id) as browser, place.browser(place.boss) as admin:
        made = browser.send_form("/account/keys", {"name": evil})
        assert made.status_code == 200, made.text
        assert evil in read(made).text
        assert evil in read(browser.get("/account/keys")).text
        assert running.do(running.gateway.keyring.of(owner.id))[-1].name == evil
        form = {"kind": "top_up", "amount": "1", "reference": f"{evil} {owner.id}", "note": evil}
        assert admin.send_form(f"/admin/users/{owner.id}/credit", form).status_code == 303
        assert evil in read(browser.get("/account")).text
        assert read(admin.get(f"/admin/users/{owner.id}")).text.count(evil) == 2
        assert admin.send_form(f"/admin/users/{owner.id}/disable", {"reason": evil}).status_code == 303
        assert read(admin.get(f"/admin/users/{owner.id}")).text.count(evil) == 3
        assert admin.send_form(f"/admin/users/{owner.id}/enable", {"reason": "it is well"}).status_code == 303
        browser.session = browser._token = ""
        tried = browser.send_form(f"/models/{MODEL}/try", {"texts": f"{evil}\nother"})
        assert tried.status_code == 200
        assert read(tried).text.count(evil) == 2
        found = admin.get("/admin/users", params={"q": evil})
        assert "address contains that" in read(found).text
        assert evil in read(found).text


def test_an_address_with_signs_of_its_own_is_text(place: Place) -> None:
    running = place.running
    for address in ("{{7*7}}${7*7}@example.org", "o'brien&co--@example.org", "a`id`|b%s!@example.org"):
        with place.browser() as visitor:
            sent = visitor.send_form("/sign-in", {"email": address})
            assert sent.status_code == 200
            assert address in read(sent).text
            mail = place.mailbox.mails[-1]
            assert mail.to == address
            link = place.mailbox.link()
            assert address in read(visitor.get(link)).text
            assert visitor.send_form("/sign-in/link", {"token": link.partition("token=")[2]}).status_code == 303
            assert address in read(visitor.get("/account")).text
        with place.browser(place.boss) as admin:
            assert address in read(admin.get("/admin/users")).text
            assert [user.email for user in running.do(running.gateway.users.list(address))] == [address]


@pytest.mark.parametrize(
    "email",
    ["a@example.org\r\nBcc: b@example.org", "a@example.org%0aBcc:b@example.org", "a@example.org,b@example.org",
     "<a@example.org>", "a@example.org\0", '"a b"@example.org', "a@[127.0.0.1]", "a@example.org\u2028b",
     "а@example.org",
     "a" * 300 + "@example.org"],
)  # fmt: skip
def test_an_address_is_one_address(place: Place, email: str) -> None:
    with place.browser() as visitor:
        sent = visitor.send_form("/sign-in", {"email": email})
        assert sent.status_code in (400, 422)
        assert "set-cookie" not in sent.headers
        read(sent)
    assert email.strip() not in [mail.to for mail in place.mailbox.mails]
    assert "b@example.org" not in [mail.to for mail in place.mailbox.mails]


@pytest.mark.parametrize("place_to_go", _ELSEWHERE)
def test_nobody_is_sent_elsewhere(place: Place, place_to_go: str) -> None:
    def check(location: str) -> None:
        assert re.fullmatch(r"/[!-~]*", location), location
        for decoded in (location, location.replace("\\", "/")):
            assert urlsplit(urljoin(place.running.url, decoded)).netloc == urlsplit(place.running.url).netloc, location

    with place.browser(place.bob.id) as user, place.browser() as visitor:
        for written in (place_to_go, quote(place_to_go)):
            answer = user.get("/sign-in", params={"next": written})
            assert answer.status_code == 303
            check(answer.headers["location"])
            assert not [name for name in answer.headers if "evil" in name]
            assert "evil" not in answer.headers.get("set-cookie", "")
            shown = visitor.get("/sign-in", params={"next": written})
            found = re.search(r'name="next" value="([^"]*)"', shown.text)
            assert found
            check(unescape(found[1]))
        # A raw path with two slashes is no page, so nobody is sent to sign in for it.
    status, headers, _ = place.raw("GET", "//evil.example/account")
    assert (status, headers.get("location")) == (404, None)


def test_after_the_link_nobody_is_sent_elsewhere(place: Place) -> None:
    for number, elsewhere in enumerate(("//evil.example", "/\\evil.example", "/%2f/evil.example")):
        with place.browser() as visitor:
            visitor.send_form("/sign-in", {"email": f"path{number}@example.org", "next": elsewhere})
            token = place.mailbox.link().partition("token=")[2]
            done = visitor.send_form("/sign-in/link", {"token": token, "next": elsewhere})
            assert done.headers["location"].partition("?")[0] == "/account"


def test_a_form_that_is_none_is_refused_and_nothing_breaks(place: Place) -> None:
    """Every POST of the table of pages, with bodies that no page of ours sends."""
    form = "application/x-www-form-urlencoded"
    bomb = (
        b"".join(b'--x\r\ncontent-disposition: form-data; name="f%d"\r\n\r\n1\r\n' % n for n in range(2000)) + b"--x--"
    )
    with place.browser(place.boss) as admin:
        token = admin.token()
        ours = {"origin": admin.origin, "cookie": f"unmask-session={admin.session}"}
        bodies: tuple[tuple[str, bytes, tuple[int, ...]], ...] = (
            (form, b"csrf=" + token.encode() + b"&x=" + b"y" * 70_000, (413,)),
            (form, b"&".join(b"a%d=1" % number for number in range(600)), (413,)),
            (form, b"csrf=" + token.encode() + b"&name=%00", (400,)),
            (form, b"\xff\xfe\x00=\xc3\x28", (400, 403)),
            (form, b"%", (403,)),
            (form, b"", (403,)),
            (form + "; charset=utf-7", b"+ADw-script+AD4-", (403,)),
            ("multipart/form-data; boundary=x", bomb, (415,)),
            ("application/json", b'{"csrf": "' + token.encode() + b'"}', (415,)),
            ("text/plain", b"csrf=" + token.encode(), (415,)),
            ("application/xml", b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", (415,)),
            ("", b"csrf=" + token.encode(), (415,)),
        )
        kept = place.kept()
        for path in map(place.path, pages("POST")):
            for kind, body, statuses in bodies:
                status, headers, text = place.raw("POST", path, body, content_type=kind, **ours)
                assert status in statuses, (path, kind, body[:40])
                assert "root:" not in text
                assert "content-security-policy" in headers
        chunks = place.raw(
            "POST", "/account/keys", b"x" * 80_000, content_type=form, transfer_encoding="chunked", **ours
        )
        assert chunks[0] == 413
        assert place.kept() == kept


@pytest.mark.parametrize(
    "number",
    ["9" * 18, "9" * 19, "9" * 30, "9" * 5000, "-1", "0", "1.0", "1e3", "0x1", "\u0663", "1%00", "%31 ", "1;2", "''"],
)
def test_a_number_that_no_row_has_is_not_there(place: Place, number: str) -> None:
    with place.browser(place.boss) as admin:
        token = admin.token()
        for template in (*pages("GET"), *pages("POST")):
            if "_id" not in template:
                continue
            path = place.path(template, key_id=number, user_id=number, provider_id=number, session_id=number)
            for browser in (admin,):
                answer = (
                    browser.send_form(
                        path, {"csrf": token, "kind": "top_up", "amount": "1", "reference": "r", "reason": "r"}
                    )
                    if template in pages("POST")
                    else browser.get(path)
                )
                assert answer.status_code in (404, 422), path
        for query in ("before", "ended"):
            for path in ("/account", "/account/sessions", "/admin/users", f"/admin/users/{place.boss}"):
                assert admin.get(f"{path}?{query}={number}").status_code in (200, 404), path
    with place.browser() as visitor:
        assert visitor.get(f"/admin/users/{number}").status_code == 404


def test_what_an_admin_searches_is_searched_literally(place: Place) -> None:
    running = place.running
    for wanted in ("%", "_", "!", "%' OR 1=1 --", "\0", "customer1_"):
        with place.browser(place.boss) as admin:
            page = read(admin.get("/admin/users", params={"q": wanted})).text
            assert ("customer1@example.org" in page) == (wanted == "\0"), wanted
    assert running.do(running.gateway.users.get(place.alice.id)).email == "customer1@example.org"


def test_ids_that_a_caller_makes_up_are_never_written_into_a_header(place: Place) -> None:
    for given in ("a b", "x" * 65, "<b>", "a%0d%0aSet-Cookie: evil=1", "é"):
        status, headers, _ = place.raw("GET", "/health", x_request_id=given)
        assert status == 200
        assert re.fullmatch(r"req_[0-9a-f]{32}", headers["x-request-id"])
    assert place.raw("GET", "/health", x_request_id="mine-1")[1]["x-request-id"] == "mine-1"


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/v1", "https://localhost/v1", "https://localhost./v1", "https://2130706433/v1", "https://127.1/v1",
     "https://0x7f000001/v1", "https://0177.0.0.1/v1", "https://0/v1", "https://0.0.0.0/v1", "https://[::1]/v1",
     "https://[::]/v1", "https://[::ffff:127.0.0.1]/v1", "https://[::ffff:7f00:1]/v1", "https://[64:ff9b::7f00:1]/v1",
     "https://[2002:7f00:1::]/v1", "https://169.254.169.254/v1", "https://2852039166/v1", "https://[fd00:ec2::254]/v1",
     "https://[fe80::1]/v1", "https://[::ffff:169.254.169.254]/v1", "https://10.0.0.1/v1", "https://172.16.0.1/v1",
     "https://192.168.1.1/v1", "https://100.64.0.1/v1", "https://224.0.0.1/v1", "https://[fc00::1]/v1",
     "http://93.184.216.34/v1", "https://a:b@93.184.216.34/v1", "https://93.184.216.34@127.0.0.1/v1",
     "https://93.184.216.34/v1?a=b", "https://93.184.216.34/v1#a", "file:///etc/passwd", "gopher://93.184.216.34/1",
     "https://\u2460\u2461\u2466.0.0.1/v1", "https:///v1", "//127.0.0.1/v1", "127.0.0.1", "https://127.0.0.1:99999/v1"],
)  # fmt: skip
def test_a_provider_is_nowhere_in_our_own_network(place: Place, url: str) -> None:
    form = {"slug": SOON, "name": "inside", "url": url, "model": "m", "kind": "openai", "weight": "1", "enabled": "yes"}
    with place.browser(place.boss) as admin:
        kept = place.kept()
        for path in ("/admin/providers", place.path("/admin/providers/{provider_id}")):
            answer = admin.send_form(path, form)
            assert answer.status_code == 422, answer.text
            read(answer)
        assert place.kept() == kept

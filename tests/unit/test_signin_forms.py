"""Tokens, addresses, paths, cookies, forms: values, without a database."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("joserfc")

from tests.bank import SECRET, Clock
from unmask.errors import InputError
from unmask.gateway.accounts.addresses import (
    is_loopback,
    network_of,
    parse_address,
    parse_local_path,
    parse_site_url,
)
from unmask.gateway.accounts.cookies import Cookies
from unmask.gateway.accounts.csrf import VISITOR_SECONDS, FormTokens, Visitors, check_origin
from unmask.gateway.accounts.errors import CsrfError
from unmask.gateway.accounts.tokens import TOKEN_LENGTH, Keyed, new_token

OWN = "https://example.org"


def test_a_token_has_256_random_bits_that_cookies_and_urls_can_hold() -> None:
    tokens = [new_token() for _ in range(300)]
    assert {len(token) for token in tokens} == {TOKEN_LENGTH}
    assert TOKEN_LENGTH * 6 >= 256
    assert len(set(tokens)) == len(tokens)
    used = set("".join(tokens))
    assert len(used) == 64
    assert used <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_each_purpose_has_a_key_of_its_own() -> None:
    one, other = Keyed(SECRET, "one"), Keyed(SECRET, "other")
    assert len(one.digest("a")) == 32
    assert one.digest("a") == Keyed(SECRET, "one").digest("a")
    assert len({one.digest("a"), other.digest("a"), one.digest("b"), Keyed(SECRET + b"!", "one").digest("a")}) == 4
    assert other.read(one.sign({"a": "b"}, until=2), now=1) is None
    assert one.fits("a", one.tag("a"))
    assert not one.fits("a", other.tag("a"))
    assert not one.fits("a", "é\ud800")
    with pytest.raises(InputError, match="has 5 bytes; expected 32"):
        Keyed(b"short", "one")


def test_a_key_is_not_shown() -> None:
    keyed = Keyed(SECRET, "one")
    assert repr(keyed) == "<Keyed for one>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(keyed)


def test_a_signed_text_is_read_until_its_time_and_only_unchanged() -> None:
    keyed = Keyed(SECRET, "one")
    text = keyed.sign({"path": "/a?b=c", "word": "é"}, until=100)
    assert keyed.read(text, now=99) == {"path": "/a?b=c", "word": "é"}
    assert keyed.read(text, now=100) is None
    for place in range(len(text) - 1):  # the very last character holds two bits more than the tag
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert keyed.read(changed, now=99) is None
    for other in ("", ".", text + "A", text + ".", text[:-1], "é" + text, text.partition(".")[0], "." + text):
        assert keyed.read(other, now=99) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ada@example.org", "ada@example.org"),
        (" Ada.Lovelace+x@Mail.Example.ORG ", "ada.lovelace+x@mail.example.org"),
        ("o'neill@xn--mnchen-3ya.de", "o'neill@xn--mnchen-3ya.de"),
        ("root@localhost", "root@localhost"),
        ("a" * 64 + "@example.org", "a" * 64 + "@example.org"),
    ],
)
def test_addresses_are_written_in_one_way(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "ada", "@example.org", "ada@", "ada@@example.org", "a@b@example.org", "ada@example..org"),
        *("ada@-example.org", "ada@example.org.", ".ada@example.org", "ada.@example.org", "a..b@example.org"),
        *("ada @example.org", "ada@exam ple.org", "ada@example.org\n", "ada@example.org\r\nBcc: eve@example.org"),
        *("\tada@example.org", "ada@example.org\0", "ada,eve@example.org", "ada@example.org,eve@example.org"),
        *("<ada@example.org>", "Ada <ada@example.org>", '"a b"@example.org', "ada@[127.0.0.1]", "ada@127.0.0.1"),
        *("ada@ex\u0430mple.org", "ada@\uff45xample.org", "ada@\u00f6rg.org", "ada@\u212a.org"),
        *("a" * 65 + "@example.org", "ada@" + "a" * 64 + ".org", "ada@" + "a." * 130 + "org"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_address(text)
    assert str(refusal.value) == "This is no e-mail address. Expected NAME@DOMAIN, such as ada@example.org."


@pytest.mark.parametrize(
    "path",
    ["/", "/models", "/models?q=a%20b&sort=price#top", "/a/b/../c", "/compare?a=b&c=http://x", "/%C3%A9", "/%E9"],
)
def test_paths_of_this_site_are_taken(path: str) -> None:
    assert parse_local_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "models", "//evil.org", "///evil.org", "/\\evil.org", "\\\\evil.org", "/a//b", "https://evil.org"),
        *("https:evil.org", "javascript:alert(1)", "@evil.org", " /a", "/ a", "/a\n", "/\t/evil.org", "/\r\n/evil.org"),
        *("/a\r\nSet-Cookie: x=y", "/\0", "/é", "/%2Fevil.org", "/%2fevil.org", "%2F%2Fevil.org", "/%5Cevil.org"),
        *("/%5cevil.org", "/%252Fevil.org", "/%25252Fevil.org", "/%09/evil.org", "/%0d%0aSet-Cookie:x", "/a?b=%0a"),
        *("/.//evil.org", "/a/..//evil.org", "/" + "a" * 2000, "/\u2028", "/%E2%80%A8"),
    ],
)
def test_paths_that_may_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_local_path(path)
    assert str(refusal.value).startswith("The address to go on to is not one of this site.")


@pytest.mark.parametrize(
    "url", [OWN, "https://example.org:8443/a", "http://localhost:8000", "http://[::1]:80", "http://127.1.2.3"]
)
def test_urls_of_sites_are_encrypted_or_of_this_machine(url: str) -> None:
    assert parse_site_url(url, "URL").geturl() == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "https://", "http://example.org", "http://10.0.0.1", "ftp://localhost", "javascript:1"),
        *("http://localhost.evil.org", "https://ada:pass@example.org", "https://a b", "https://a\n", "https://a:x"),
        *("https://[::1", "https://example.org#a", "https://evil.org\\@example.org", "https://é.org"),
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        parse_site_url(url, "URL")


def test_a_client_counts_by_its_network() -> None:
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1:2:3") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("testclient") == "testclient"
    assert is_loopback("a.localhost")
    assert not is_loopback("localhost.org")


def test_cookies_are_only_the_hosts_own() -> None:
    cookies = Cookies.of(OWN)
    assert [each.name for each in (cookies.session, cookies.visitor, cookies.openid)] == [
        *("__Host-unmask-session", "__Host-unmask-visitor", "__Host-unmask-openid"),
    ]
    assert cookies.session.header("v") == (
        "__Host-unmask-session=v; Max-Age=5184000; Path=/; SameSite=lax; HttpOnly; Secure"
    )
    assert cookies.session.clearing().startswith("__Host-unmask-session=; Max-Age=0; Path=/")
    plain = Cookies.of("http://localhost:8000").session
    assert plain.header("v") == "unmask-session=v; Max-Age=5184000; Path=/; SameSite=lax; HttpOnly"
    with pytest.raises(InputError, match="not encrypted"):
        Cookies.of("http://example.org")


def test_a_form_goes_with_its_cookie() -> None:
    forms = FormTokens(SECRET, "sessions")
    token = forms.of("mine")
    forms.check("mine", token)
    wrong: list[tuple[str | None, str | None]] = [("mine", None), ("mine", ""), (None, token), ("", forms.of(""))]
    wrong += [
        ("other", token),
        ("mine", forms.of("other")),
        ("mine", token[:-1]),
        ("mine", FormTokens(SECRET, "x").of("mine")),
    ]
    for cookie, given in [*wrong, ("mine", "é")]:
        with pytest.raises(CsrfError, match="open for too long"):
            forms.check(cookie, given)


def test_a_visitors_form_goes_with_a_cookie_that_we_made() -> None:
    clock = Clock()
    visitors = Visitors(SECRET, clock=clock)
    cookie = visitors.begin()
    assert cookie != visitors.begin()
    visitors.check_csrf(cookie, visitors.csrf_token(cookie))
    changed = cookie[:-2] + ("B" if cookie[-2] == "A" else "A") + cookie[-1]
    for own in ("chosen by somebody else", changed, ""):
        assert not visitors.knows(own)
        with pytest.raises(CsrfError):
            visitors.check_csrf(own, visitors.csrf_token(own))
    clock.skip(VISITOR_SECONDS - 1)
    visitors.check_csrf(cookie, visitors.csrf_token(cookie))
    clock.skip(1)
    assert not visitors.knows(cookie)
    with pytest.raises(CsrfError):
        visitors.check_csrf(cookie, visitors.csrf_token(cookie))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": OWN},
        {"origin": OWN, "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"origin": OWN, "sec-fetch-site": "none"},
    ],
)
def test_requests_of_our_own_pages_pass(headers: dict[str, str]) -> None:
    check_origin(headers, OWN)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "example.org", "referer": OWN},
        {"origin": ""},
        {"origin": "null"},
        {"origin": "https://evil.org"},
        {"origin": "http://example.org"},
        {"origin": "https://example.org:8443"},
        {"origin": "https://example.org.evil.org"},
        {"origin": "https://evil.org", "sec-fetch-site": "same-origin"},
        {"origin": OWN, "sec-fetch-site": "cross-site"},
        {"origin": OWN, "sec-fetch-site": "same-site"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_requests_from_elsewhere_are_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(CsrfError, match="did not come from a page of this site"):
        check_origin(headers, OWN)

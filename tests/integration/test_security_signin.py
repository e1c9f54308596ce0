"""Signing in by somebody who has no right to: guessing, planting, asking too often, telling users apart."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_hosting_support import MODEL, embed
from tests.integration.test_security_support import BOSS, Browser, Place, secured
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.accounts.links import PER_ADDRESS, PER_CLIENT

#: Headers that are of the moment.
_OF_NOW = ("date", "x-request-id", "openai-processing-ms", "set-cookie", "content-length")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway behind a proxy, so that each test can come from an address of its own."""
    with secured(tmp_path_factory.mktemp("signin"), proxies=("127.0.0.1",), tries_per_minute=3) as made:
        yield made


def lasting(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in _OF_NOW}


def arrive(place: Place, browser: Browser, email: str) -> str:
    """Sign in by a link; return the session's cookie."""
    assert browser.send_form("/sign-in", {"email": email}).status_code == 200
    token = place.mailbox.link().partition("token=")[2]
    done = browser.send_form("/sign-in/link", {"token": token})
    assert done.status_code == 303, done.text
    found = re.search(r"unmask-session=([^;]+)", done.headers["set-cookie"])
    assert found
    return found[1]


def opens(place: Place, cookie: str) -> bool:
    return place.raw("GET", "/account", cookie=f"unmask-session={cookie}")[0] == 200


def test_a_session_begins_with_the_sign_in_and_ends_with_the_sign_out(place: Place) -> None:
    planted = "A" * 43
    with place.browser(client="198.51.100.1") as browser:
        before = browser.get("/sign-in").headers["set-cookie"]
        browser.cookies.set("unmask-session", planted, domain="127.0.0.1", path="/")
        first = arrive(place, browser, "fixed@example.org")
        assert planted not in (first, before)
        assert first not in before
        assert len(first) == 43
        assert opens(place, first)
        assert not opens(place, planted)
        browser._token = ""
        browser.session = first
        assert browser.get("/account").status_code == 200
        # Who signs in again gets another session, and the one before is over.
        with place.browser(client="198.51.100.1") as again:
            again.get("/sign-in")
            again.token()
            assert again.send_form("/sign-in", {"email": "fixed@example.org"}).status_code == 200
        token = place.mailbox.link().partition("token=")[2]
        done = browser.send_form("/sign-in/link", {"token": token})
        second = re.search(r"unmask-session=([^;]+)", done.headers["set-cookie"])
        assert second
        assert second[1] != first
        assert not opens(place, first)
        assert opens(place, second[1])
        browser._token = ""
        out = browser.send_form("/sign-out")
        assert "unmask-session=; Max-Age=0" in out.headers["set-cookie"]
        assert not opens(place, second[1])


def test_what_is_no_session_of_ours_signs_nobody_in(place: Place) -> None:
    with place.browser(place.alice.id) as alice:
        good = alice.session
        assert opens(place, good)
        visitor = alice.get("/sign-in", headers={"cookie": ""}).headers["set-cookie"]
        changed = (good[:-1] + ("A" if good[-1] != "A" else "B"), good[:-1], f"{good}A", good.lower(), f'"{good[1:]}"')
        other = (
            "",
            "1",
            visitor.partition("=")[2].partition(";")[0],
            alice.token(),
            place.alice.secret,
            good[1:] + "\xe9",
        )
        for bad in (*changed, *other):
            assert not opens(place, bad), bad
        with place.running.client() as caller:
            assert embed(caller, authorization=f"Bearer {good}").status_code == 401
            assert embed(caller, cookie=f"unmask-session={good}").status_code == 401
        assert not opens(place, place.alice.secret)


def test_a_visitors_cookie_cannot_be_made_or_changed(place: Place) -> None:
    with place.browser() as visitor:
        answer = visitor.get("/sign-in")
        cookie = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
        body, _, tag = cookie.partition(".")
        for forged in (f"{body}.", body, f"{body}A.{tag}", f"{body}.{tag[:-1]}", f".{tag}", "x.y", "é.é"):
            shown = place.raw("GET", "/sign-in", cookie=f"unmask-visitor={forged}".encode().decode("latin-1"))
            assert shown[0] == 200
            assert "unmask-visitor=" in shown[1]["set-cookie"], forged
        assert "set-cookie" not in place.raw("GET", "/sign-in", cookie=f"unmask-visitor={cookie}")[1]


def test_a_link_is_used_once_and_by_its_button_alone(place: Place) -> None:
    with place.browser(client="198.51.100.2") as browser:
        browser.send_form("/sign-in", {"email": "once@example.org"})
        link = place.mailbox.link()
        for _ in range(2):
            assert browser.get(link).status_code == 200
            assert browser.head(link).status_code == 200
        token = link.partition("token=")[2]
        assert browser.post(link, data={"token": token}).status_code == 403
        assert browser.send_form("/sign-in/link", {"token": token}).status_code == 303
        with place.browser() as other:
            for answer in (other.send_form("/sign-in/link", {"token": token}), other.get(link)):
                assert answer.status_code == 410
                assert "once@" not in answer.text


def test_every_guess_of_a_link_is_answered_alike(place: Place) -> None:
    with place.browser() as browser:
        answers = [browser.send_form("/sign-in/link", {"token": guess})
                   for guess in ("A" * 43, "B" * 43, "", "x", "é" * 100, "' OR 1=1 --")]  # fmt: skip
        assert {answer.status_code for answer in answers} == {410}
        assert len({answer.text for answer in answers}) == 1
        assert all(lasting(answer) == lasting(answers[0]) for answer in answers)


def test_an_address_is_sent_so_many_links_whoever_asks(place: Place) -> None:
    for number in range(PER_ADDRESS.count):
        with place.browser(client=f"198.51.100.{10 + number}") as browser:
            assert browser.send_form("/sign-in", {"email": "many@example.org"}).status_code == 200
    sent = len(place.mailbox.mails)
    with place.browser(client="198.51.100.99") as browser:
        for spelled in ("many@example.org", " MANY@example.ORG ", "Many@Example.org"):
            refused = browser.send_form("/sign-in", {"email": spelled})
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
        assert browser.send_form("/sign-in", {"email": "other@example.org"}).status_code == 200
    assert len(place.mailbox.mails) == sent + 1
    # Whoever has a link of before still comes in: nobody is locked out by others who ask.
    with place.browser() as owner:
        token = place.mailbox.mails[sent - 1].text.partition("token=")[2].split()[0]
        assert owner.send_form("/sign-in/link", {"token": token}).status_code == 303


def test_a_client_is_counted_by_its_connection_and_not_by_what_it_says(tmp_path: Path) -> None:
    with secured(tmp_path) as place, place.browser() as browser:
        headers = ("x-forwarded-for", "x-real-ip", "forwarded", "x-client-ip", "true-client-ip")
        answers = [
            browser.send_form(
                "/sign-in",
                {"email": f"n{number}@example.org"},
                **dict.fromkeys(headers, f"198.51.100.{number}"),
            ).status_code
            for number in range(PER_CLIENT.count + 1)
        ]
        assert answers == [200] * PER_CLIENT.count + [429]
        assert len(place.mailbox.mails) == PER_CLIENT.count


def test_whether_an_address_has_an_account_is_told_to_nobody(place: Place) -> None:
    known = place.running.do(place.running.gateway.users.get(place.alice.id)).email
    answers = []
    with place.browser(client="198.51.100.200") as browser:
        for email in (known, BOSS, "nobody-ever@example.org"):
            answer = browser.send_form("/sign-in", {"email": email})
            assert "set-cookie" not in answer.headers
            mail = place.mailbox.mails[-1]
            assert mail.to == email
            link = browser.get(place.mailbox.link())
            asked = re.sub(r'name="token" value="[^"]+"', "", link.text).replace(email, "EMAIL")
            answers.append((answer.status_code, answer.text.replace(email, "EMAIL"), lasting(answer), asked))
    assert answers[0] == answers[1] == answers[2]


def test_a_key_is_guessed_by_nobody_and_every_guess_is_answered_alike(place: Place) -> None:
    place.running.knobs.asked.clear()
    answers = []
    with place.running.client() as caller:
        for _ in range(20):
            guess = ApiKey.new().reveal()
            answers.append(embed(caller, authorization=f"Bearer {guess}"))
            assert guess not in answers[-1].text
        # The first half of a good key is as good as nothing.
        near = place.alice.secret[:20] + ApiKey.new().reveal()[20:]
        malformed = embed(caller, authorization=f"Bearer {near}")
    assert {answer.status_code for answer in [*answers, malformed]} == {401}
    assert {answer.json()["error"]["code"] for answer in [*answers, malformed]} == {"invalid_api_key"}
    assert len({answer.text for answer in answers}) == 1
    assert all(lasting(answer) == lasting(answers[0]) for answer in answers)
    assert place.running.knobs.asked == []


def test_secrets_are_compared_in_the_same_time_wherever_they_differ(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def noted(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    with place.browser(place.alice.id) as browser, place.running.client(place.alice) as caller:
        token = browser.token()
        monkeypatch.setattr(hmac, "compare_digest", noted)
        assert embed(caller).status_code == 200
        assert [each for each in compared if len(each[0]) == len(each[1]) == 32], "a key"
        compared.clear()
        for wrong in (token, "A" * len(token)):
            browser.send_form("/account/sessions/end", {"csrf": wrong})
        assert [(len(one), len(other)) for one, other in compared] == [(43, 43)] * 2, "a form's token"


def test_visitors_try_a_model_so_often_together(place: Place) -> None:
    place.running.knobs.asked.clear()
    path, form = f"/models/{MODEL}/try", {"texts": "one\ntwo"}
    statuses = []
    for number in range(5):
        with place.browser(client=f"198.51.100.{number}") as visitor:
            answer = visitor.send_form(path, form)
            statuses.append(answer.status_code)
            assert ("retry-after" in answer.headers) == (answer.status_code == 429)
    assert statuses == [200, 200, 200, 429, 429]
    assert len(place.running.knobs.asked) == 3
    with place.browser(place.alice.id) as user:
        assert user.send_form(path, form).status_code == 200
        assert user.send_form(path, {"texts": "x" * 2001 + "\ny"}).status_code == 422
        assert user.send_form(path, {"texts": "\n".join("abcdefghi")}).status_code == 422
    assert len(place.running.knobs.asked) == 4

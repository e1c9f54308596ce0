"""Signing in and out, keys, ledger, sessions: what a user sees, and what of another's nobody does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tests.integration.test_web_pages import at
from tests.integration.test_web_support import LIVE, SOON, Client, Website, fill
from unmask.gateway.accounts.clock import DAY, microseconds
from unmask.gateway.accounts.errors import MailError, OpenIdError
from unmask.gateway.accounts.identities import Identity
from unmask.gateway.accounts.openid import Arrived, OpenId
from unmask.gateway.web import site

SESSION = "unmask-session"


def test_a_new_user_comes_in_by_a_link_and_finds_the_free_credit(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        wanted = await client.get("/account?before=9")
        assert wanted.headers["location"] == "/sign-in?next=%2Faccount%3Fbefore%3D9"
        sent = await client.submit("/sign-in", "/sign-in", {"email": "Ada@Example.org", "next": "/account"})
        assert "Look into your mailbox" in sent.text
        assert "the link is in the server" in sent.text
        link = made.mailbox.link()
        page = (await client.get(link)).text
        assert "Sign in as ada@example.org?" in page
        assert (await client.get("/account")).status_code == 303  # looking at the link has signed nobody in
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token
        done = await client.submit(link, "/sign-in/link", {"token": token[1]})
        assert (done.status_code, done.headers["location"]) == (303, "/account?welcome=1")
        account = (await client.get("/account?welcome=1")).text
        assert "Welcome." in account
        assert "2.00 EUR" in account
        assert "Free credit" in account
        again = await client.get(link)
        assert again.status_code == 410
        assert (await client.get("/sign-in?next=/models")).headers["location"] == "/models"

    at(tmp_path, use)


def test_what_is_said_after_a_link_was_sent_is_the_same_for_every_address(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await made.services.joining.enter("known@example.org")
        pages = [
            (await client.submit("/sign-in", "/sign-in", {"email": f"{name}@example.org"})).text.replace(name, "X")
            for name in ("known", "stranger")
        ]
        assert pages[0] == pages[1]

    at(tmp_path, use)


def test_an_address_that_is_none_stays_in_its_field_with_what_is_wrong(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        answer = await client.submit("/sign-in", "/sign-in", {"email": '"><b>@', "next": "//evil.example"})
        assert answer.status_code == 422
        assert 'value="&#34;&gt;&lt;b&gt;@"' in answer.text
        assert re.search(r'aria-invalid="true" aria-describedby="email-wrong"', answer.text)
        empty = await client.submit("/sign-in", "/sign-in", {"email": " "})
        assert "Type the address" in empty.text
        assert made.mailbox.mails == []

    at(tmp_path, use)


def test_nobody_is_sent_elsewhere_after_signing_in(tmp_path: Path) -> None:
    paths = ("//evil.example", "https://evil.example", "/\\evil.example", "/%2f%2fevil", "/sign-out", "/")

    async def use(made: Website, client: Client) -> None:
        for path in paths:
            page = (await client.get("/sign-in", params={"next": path})).text
            assert 'name="next" value="/account"' in page, path
        await client.sign_in("ada@example.org")
        for path in paths:
            assert (await client.get("/sign-in", params={"next": path})).headers["location"] == "/account", path

    at(tmp_path, use)


def test_too_many_links_are_refused_and_a_mail_server_that_is_away_is_said(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        for _ in range(5):
            assert (await client.submit("/sign-in", "/sign-in", {"email": "a@example.org"})).status_code == 200
        refused = await client.submit("/sign-in", "/sign-in", {"email": "a@example.org"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 60

        async def fail(mail: object) -> None:
            raise MailError("host secret.example refused")

        made.mailbox.send = fail  # type: ignore[method-assign]
        away = await client.submit("/sign-in", "/sign-in", {"email": "b@example.org"})
        assert away.status_code == 503
        assert "The mail could not be sent." in away.text
        assert "secret" not in away.text

    at(tmp_path, use)


def test_signing_in_gives_a_new_session_whatever_was_planted(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        planted = "A" * 43
        client.cookies.set(SESSION, planted, domain="127.0.0.1")
        await client.sign_in("ada@example.org")
        first = client.cookies.get(SESSION)
        assert first
        assert first != planted
        assert (await client.get("/account")).status_code == 200
        out = await client.submit("/account", "/sign-out")
        assert out.headers["location"] == "/"
        client.cookies.set(SESSION, first, domain="127.0.0.1")
        assert (await client.get("/account")).status_code == 303  # the old value opens nothing any more

    at(tmp_path, use)


def test_who_signs_in_as_somebody_else_leaves_no_session_behind(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await client.sign_in("ada@example.org")
        first = client.cookies.get(SESSION)
        assert first
        async with made.client() as other:
            await other.submit("/sign-in", "/sign-in", {"email": "bob@example.org"})
        link = made.mailbox.link()
        token = re.search(r'name="token" value="([^"]+)"', (await client.get(link)).text)
        assert token
        await client.submit(link, "/sign-in/link", {"token": token[1]})
        assert "bob@example.org" in (await client.get("/account")).text
        assert await made.services.sessions.find(first) is None

    at(tmp_path, use)


class Provider:
    """Stands for a provider of OpenID Connect."""

    name = "Example ID"

    async def begin(self, next_path: str = "/") -> tuple[str, str]:
        return f"https://id.example/authorize?next={next_path}", "state-cookie"

    async def finish(self, cookie: str | None, params: Any) -> Arrived:
        if cookie != "state-cookie" or params.get("code") != "good":
            raise OpenIdError("Example ID did not sign you in. Start again.")
        return Arrived(Identity(issuer="https://id.example", subject="7", email="ada@example.org"), "/account/keys")


def test_somebody_signs_in_at_a_provider(tmp_path: Path) -> None:
    async def use(made: Website, _: Client) -> None:
        made.app = site(replace(made.services, openid=cast("OpenId", Provider())))
        async with made.client() as client:
            assert "Sign in with Example ID" in (await client.get("/sign-in?next=/account/keys")).text
            away = await client.get("/sign-in/openid?next=/account/keys")
            assert away.headers["location"] == "https://id.example/authorize?next=/account/keys"
            assert "HttpOnly" in away.headers["set-cookie"]
            refused = await client.get("/sign-in/openid/back?code=bad")
            assert refused.status_code == 403
            assert "unmask-openid" not in client.cookies
            assert SESSION not in client.cookies
            await client.get("/sign-in/openid")
            back = await client.get("/sign-in/openid/back?code=good")
            assert back.headers["location"] == "/account/keys"
            assert (await client.get("/account/keys")).status_code == 200

    at(tmp_path, use)


def test_without_a_provider_its_pages_are_not_there(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        assert "Sign in with" not in (await client.get("/sign-in")).text
        assert (await client.get("/sign-in/openid")).status_code == 404
        assert (await client.get("/sign-in/openid/back")).status_code == 404

    at(tmp_path, use)


def test_a_key_is_made_shown_once_rotated_and_revoked(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        user = await client.sign_in("ada@example.org")
        keyring = made.services.keyring
        data = {
            "name": "my <laptop>", "ends": "30", "requests_per_minute": "60", "tokens_per_minute": "100,000",
            "spend_per_day": "0.5", "models": [LIVE, SOON],
        }  # fmt: skip
        answer = await client.submit("/account/keys", "/account/keys#new", data)
        assert answer.headers["cache-control"] == "no-store"
        secret = re.search(r"gr-[0-9A-Za-z]{38}", answer.text)
        assert secret
        key = await keyring.authenticate(secret[0])
        assert (key.user_id, key.name, key.models) == (user.id, "my <laptop>", frozenset({LIVE, SOON}))
        limits = key.limits
        assert (limits.requests_per_minute, limits.tokens_per_minute, limits.spend_per_day) == (60, 100_000, 500_000)
        assert key.expires_at
        assert abs(key.expires_at - microseconds() - 30 * DAY) < DAY / 100

        page = (await client.get("/account/keys")).text
        assert secret[0] not in page
        for said in (
            key.shown,
            "my &lt;laptop&gt;",
            "60 requests a minute",
            "100,000 tokens a minute",
            "0.50 EUR a day",
            "Never used",
        ):
            assert said in page
        assert key.shown in (await client.get(f"/models/{LIVE}")).text  # its snippets

        rotated = await client.submit("/account/keys", f"/account/keys/{key.id}/rotate", {"overlap": "1"})
        second = re.search(r"gr-[0-9A-Za-z]{38}", rotated.text)
        assert second
        assert second[0] != secret[0]
        assert (await keyring.authenticate(second[0])).limits == limits
        old = await keyring.authenticate(secret[0])
        assert old.expires_at
        assert 0 < old.expires_at - microseconds() <= 3_600_000_000

        gone = await client.submit("/account/keys", f"/account/keys/{key.id}/revoke")
        assert gone.headers["location"] == "/account/keys?done=revoked"
        assert "revoked" in (await client.get("/account/keys?done=revoked")).text
        assert (await keyring.of(user.id))[0].revoked_at

    at(tmp_path, use)


def test_a_key_that_cannot_be_is_not_made_and_the_form_says_why(tmp_path: Path) -> None:
    wrong = (
        ("name", ""), ("name", "x" * 101), ("ends", "7"), ("requests_per_minute", "0"), ("tokens_per_minute", "many"),
        ("tokens_per_minute", "9" * 17), ("spend_per_day", "-1"), ("models", "no-such-model"),
    )  # fmt: skip

    async def use(made: Website, client: Client) -> None:
        user = await client.sign_in("ada@example.org")
        for field, value in wrong:
            data = {"name": "good", "ends": "", field: value}
            answer = await client.submit("/account/keys", "/account/keys#new", data)
            assert answer.status_code == 422, field
            assert f'id="{field}-wrong"' in answer.text, field
            assert f'aria-describedby="{field}' in answer.text, field
            if field != "name":
                assert 'value="good"' in answer.text, field
        assert await made.services.keyring.of(user.id) == []

    at(tmp_path, use)


def test_the_account_shows_balance_usage_and_the_ledger_a_page_at_a_time(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await fill(made)
        await client.sign_in("ada@example.org")
        page = (await client.get("/account")).text
        for said in ("26.992485 EUR", "30 requests", 'id="usage-t"', "my laptop"):
            assert said in page
        assert page.count("<td><time") == 25
        older = re.search(r'href="(/account\?before=\d+)#ledger"', page)
        assert older
        rest = (await client.get(older[1])).text
        assert rest.count("<td><time") == 7
        assert "Top-up" in rest
        assert "Invoice 42" in rest
        assert "Older" not in rest
        for wrong in ("-1", "x", "9" * 20):
            assert (await client.get(f"/account?before={wrong}")).status_code == 404

    at(tmp_path, use)


def test_all_other_sessions_are_ended(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await client.sign_in("ada@example.org")
        async with made.client() as other, made.client() as stranger:
            await other.sign_in("ada@example.org")
            await stranger.sign_in("bob@example.org")
            done = await client.submit("/account/sessions", "/account/sessions/end")
            assert "1 other session is ended" in (await client.get(done.headers["location"])).text
            assert (await other.get("/account")).status_code == 303
            assert (await stranger.get("/account")).status_code == 200
            assert (await client.get("/account")).status_code == 200

    at(tmp_path, use)


def test_sessions_are_listed_one_by_one_and_each_can_be_ended(tmp_path: Path) -> None:
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 Version/26.0 Safari/604.1"
    laptop = "Mozilla/5.0 (X11; Linux x86_64; rv:148.0) Gecko/20100101 Firefox/148.0"

    async def use(made: Website, client: Client) -> None:
        client.headers["user-agent"] = laptop
        user = await client.sign_in("ada@example.org")
        alone = (await client.get("/account/sessions")).text
        assert "You are signed in nowhere else." in alone
        async with made.client() as mobile, made.client() as curl, made.client() as stranger:
            mobile.headers["user-agent"] = phone
            for each in (mobile, curl):
                await each.sign_in("ada@example.org")
            await stranger.sign_in("eve@example.org")
            sessions = await made.services.sessions.of(user.id)
            assert [each.agent for each in sessions] == ["", "Safari on iPhone", "Firefox on Linux"]
            page = (await client.get("/account/sessions")).text
            listed = re.findall(r'<h3 class="item">([^<]+)</h3>(<span class="badge live">this one</span>)?', page)
            assert [(name, bool(here)) for name, here in listed] == [
                ("Firefox on Linux", True), ("An unknown browser", False), ("Safari on iPhone", False)
            ]  # fmt: skip
            assert page.count("Signed in <time") == page.count("Last seen <time") == 3
            for hidden in ("Mozilla", *(each.digest.hex() for each in sessions), client.cookies.get(SESSION) or "?"):
                assert hidden not in page
            action = f"/account/sessions/{sessions[1].id}/end"
            done = await client.submit("/account/sessions", action)
            assert done.headers["location"] == "/account/sessions?ended=1"
            assert (await mobile.get("/account")).status_code == 303
            for each in (curl, stranger, client):
                assert (await each.get("/account")).status_code == 200
            token = re.search(r'name="csrf" value="([^"]+)"', page)
            assert token
            assert (await client.send_form(action, {"csrf": token[1]})).status_code == 404  # it is over
            (theirs,) = await made.services.sessions.of((await made.services.users.find("eve@example.org")).id)
            answer = await client.send_form(f"/account/sessions/{theirs.id}/end", {"csrf": token[1]})
            assert answer.status_code == 404
            assert (await stranger.get("/account")).status_code == 200
            # To end this one is to sign out.
            out = await client.submit("/account/sessions", f"/account/sessions/{sessions[2].id}/end")
            assert out.headers["location"] == "/"
            assert SESSION not in client.cookies
            assert (await curl.get("/account")).status_code == 200

    at(tmp_path, use)


def test_who_had_the_free_credit_with_another_address_is_told_so(tmp_path: Path) -> None:
    said = "This account has no free credit."

    async def use(made: Website, client: Client) -> None:
        await client.sign_in("ada@example.org")
        first = (await client.get("/account?welcome=1")).text
        assert said not in first
        assert "Your free credit is here." in first
        async with made.client() as other:
            user = await other.sign_in("ada+second@example.org")
            assert (await made.services.ledger.balance(user.id)).balance == 0
            for path in ("/account?welcome=1", "/account"):
                page = (await other.get(path)).text
                assert said in page
                assert "Your free credit is here" not in page
                assert "ada@example.org" not in page  # which account had it is not said
            await made.services.keyring.issue(user.id, "works all the same")
            # An operator's grant is free credit, too.
            await made.services.ledger.credit(user.id, 5, "grant", reference="a gift")
            assert said not in (await other.get("/account")).text

    at(tmp_path, use)


def test_at_so_many_keys_the_form_says_so(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        user = await client.sign_in("ada@example.org")
        made.services.keyring._most_keys = 2
        for name in ("one", "two"):
            assert (await client.submit("/account/keys", "/account/keys#new", {"name": name})).status_code == 200
        full = await client.submit("/account/keys", "/account/keys#new", {"name": "three"})
        assert full.status_code == 422
        assert "You have 2 keys that work, as many as one may have." in full.text
        first = (await made.services.keyring.of(user.id))[0]
        rotate = f"/account/keys/{first.id}/rotate"
        assert (await client.submit("/account/keys", rotate, {"overlap": "24"})).status_code == 422
        assert (await client.submit("/account/keys", rotate, {"overlap": "0"})).status_code == 200
        assert len(await made.services.keyring.of(user.id)) == 3

    at(tmp_path, use)


def test_one_user_sees_and_changes_nothing_of_another_s(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await fill(made)
        ada = await made.services.users.find("ada@example.org")
        theirs = (await made.services.keyring.of(ada.id))[0]
        await client.sign_in("mallory@example.org")
        own, _ = await made.services.keyring.issue((await made.services.users.find("mallory@example.org")).id, "own")
        page = (await client.get("/account/keys")).text
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token
        for number in (theirs.id, 9999, f"{own.id}x", "9" * 30, "-1"):
            for what in ("rotate", "revoke"):
                answer = await client.send_form(f"/account/keys/{number}/{what}", {"csrf": token[1]})
                assert answer.status_code == 404, (number, what)
        assert (await made.services.keyring.of(ada.id)) == [theirs]
        seen = "".join([(await client.get(path)).text for path in ("/account", "/account/keys", "/account/sessions")])
        for secret in (">my laptop<", theirs.shown, "ada@", "Invoice"):
            assert secret not in seen
        ledger = await made.services.ledger.entries(ada.id, count=1)
        assert "Requests" not in (await client.get(f"/account?before={ledger[0].id + 1}")).text

    at(tmp_path, use)

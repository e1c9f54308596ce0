"""The whole way of a new user, in a real browser and with OpenAI's client, on the whole gateway."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser import find
from tests.integration.test_hosting_support import COST, MODEL, TEXT, Hosted, hosted


class Mailbox(logging.Handler):
    """What the log says of mails, as a developer reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.links += re.findall(r"http\S+/sign-in/link\?token=[\w-]+", record.getMessage())


@pytest.fixture
def browser() -> Iterator[Browser]:
    path = find()
    if path is None:
        pytest.skip("no browser here; install one, for instance with: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path, models=(MODEL, "smollm2-135m-sup"), free_credit=2_000_000, currency="EUR") as running:
        yield running


def test_find_compare_sign_in_make_a_key_call_and_see_what_it_cost(browser: Browser, gateway: Hosted) -> None:
    mailbox = Mailbox()
    logger = logging.getLogger("unmask.gateway.accounts.mail")
    logger.addHandler(mailbox)
    page = browser.new_page(base_url=gateway.url)
    page.set_default_timeout(20_000)
    try:
        # Find, compare, try.
        page.goto("/models?q=smollm2")
        for box in page.get_by_label("Compare SmolLM2").all():
            box.check()
        page.get_by_role("button", name="Compare the ticked ones").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Compare")
        page.goto(f"/models/{MODEL}")
        page.get_by_label("Texts, one a line").fill("a cat\na kitten")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".heat")).to_be_visible()
        # Sign in: the link is in the log.
        page.goto("/sign-in")
        page.get_by_label("E-mail address").fill("new@example.org")
        page.get_by_role("button", name="Send the link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Look into your mailbox")
        (link,) = mailbox.links
        page.goto(link)
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("2.00 EUR").first).to_be_visible()
        # A key.
        page.goto("/account/keys")
        page.get_by_label("Name", exact=True).fill("laptop")
        page.get_by_role("button", name="Make a key").click()
        key = page.locator("#secret").inner_text()
        assert re.fullmatch(r"gr-[0-9A-Za-z]{38}", key)
        page.goto("/account/keys")
        assert key not in page.content()
        # Call: with the client that everybody has.
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)
        assert client.embeddings.create(model=MODEL, input=[TEXT] * 500).usage.total_tokens == 200_000
        user = gateway.do(gateway.gateway.users.find("new@example.org"))
        for _ in range(100):
            if gateway.do(gateway.gateway.ledger.balance(user.id)).balance == 2_000_000 - 500 * COST:
                break
            page.wait_for_timeout(50)
        # See what it cost.
        page.goto("/account")
        expect(page.get_by_text("1.998 EUR").first).to_be_visible()
        expect(page.get_by_text("200,000").first).to_be_visible()
        page.goto("/account/keys")
        expect(page.get_by_text("laptop").first).to_be_visible()
        # Revoke it: it opens nothing any more.
        page.get_by_text("Rotate or revoke").click()
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Revoke").click()
        expect(page.get_by_text("It opens nothing any more")).to_be_visible()
        with pytest.raises(openai.AuthenticationError):
            client.embeddings.create(model=MODEL, input=TEXT)
    finally:
        logger.removeHandler(mailbox)
        page.close()

"""The site in a real browser: with and without scripts, light and dark, on a desktop and on a phone, read by axe."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser import find
from tests.integration.test_web_pages import ADMIN, OWN, PUBLIC
from tests.integration.test_web_support import LIVE, SOON, Website, serving

PAGES = (*PUBLIC[:-1], *OWN, *ADMIN, "/nope")
#: In the dark only the colours differ, and these pages have all of them.
DARK = ("/", f"/models/{LIVE}", f"/models/{SOON}", "/account", "/account/keys", "/admin", "/admin/providers", "/nope")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, if there is one."""
    path = find()
    if path is None:
        pytest.skip("no browser here; install one, for instance with: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """A site with a past, on a port of this machine."""
    with serving(tmp_path_factory.mktemp("site")) as made:
        yield made


def context(browser: Browser, served: Website, **options: Any) -> BrowserContext:
    """Return a new profile that reaches the site and nothing else."""
    base = served.services.site.base_url
    opened = browser.new_context(base_url=base, **options)
    opened.route(lambda url: not url.startswith(base), lambda route: route.abort())
    opened.set_default_timeout(20_000)
    return opened


def sign_in(page: Page, served: Website, email: str) -> None:
    """Sign in by a link."""
    page.goto("/sign-in")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Look into your mailbox")
    page.goto(served.mailbox.link())
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Account")).to_be_visible()


def grave(page: Page, **options: Any) -> list[str]:
    """Return what axe finds serious or critical."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        f"{page.url}: {each['id']}, {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(browser: Browser, served: Website, scheme: Any) -> None:
    options: dict[str, Any] = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
    problems: list[str] = []
    findings: list[str] = []
    with context(browser, served, color_scheme=scheme) as opened:
        page = opened.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto("/sign-in")
        findings += grave(page, **options)
        sign_in(page, served, "ada@example.org")
        for path in PAGES if scheme == "light" else DARK:
            page.goto(path)
            findings += grave(page, **options)
        page.goto(f"/models/{LIVE}")
        page.locator("#try-b").click()
        expect(page.locator(".heat")).to_be_visible()
        findings += grave(page, **options)
        page.goto("/account/keys")
        page.get_by_text("Limits and models").click()
        page.get_by_label("Requests a minute").fill("0")
        page.get_by_role("button", name="Make a key").click()
        expect(page.locator("#name-wrong")).to_be_visible()
        findings += grave(page, **options)
    assert findings == []
    assert [each for each in problems if not re.search("40[49]|422", each)] == []


def test_no_page_is_wider_than_a_phone(browser: Browser, served: Website) -> None:
    wide = {}
    with context(browser, served, viewport={"width": 390, "height": 844}) as opened:
        page = opened.new_page()
        sign_in(page, served, "ada@example.org")
        for path in PAGES:
            page.goto(path)
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if over > 0:
                wide[path] = over
    assert wide == {}


def test_a_new_user_goes_the_whole_way_without_scripts(browser: Browser, served: Website) -> None:
    with context(browser, served, java_script_enabled=False) as opened:
        page = opened.new_page()
        page.goto("/")
        page.get_by_role("link", name="Browse 24 models").click()
        expect(page.get_by_role("button", name="Light or dark colours")).to_be_hidden()
        page.get_by_label("live").check()
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#results h2")).to_have_count(2)
        for box in page.get_by_label("Compare SmolLM2").all():
            box.check()
        page.get_by_role("button", name="Compare the ticked ones").click()
        expect(page.get_by_role("columnheader")).to_have_count(2)
        page.get_by_role("link", name="SmolLM2 135M, supervised").first.click()
        page.get_by_text("JavaScript", exact=True).click()
        expect(page.locator("#call-code-2")).to_be_visible()
        expect(page.locator("#call-code-1")).to_be_hidden()
        page.get_by_label("Texts, one a line").fill("a cat\na kitten")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".heat td").first).to_have_text("1.00")
        sign_in(page, served, "new@example.org")
        expect(page.get_by_text("Welcome.")).to_be_visible()
        expect(page.get_by_text("2.00 EUR").first).to_be_visible()
        page.get_by_role("link", name="Make a key").click()
        page.get_by_label("Name", exact=True).fill("laptop")
        page.get_by_role("button", name="Make a key").click()
        expect(page.locator("#secret")).to_have_text(re.compile(r"^gr-[0-9A-Za-z]{38}$"))
        page.goto(f"/models/{SOON}")
        page.get_by_role("button", name="Tell us you want it").click()
        expect(page.get_by_text("Your vote is counted.")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("link", name="Sign in", exact=True)).to_be_visible()


def test_scripts_swap_what_changed_and_keep_the_place(browser: Browser, served: Website) -> None:
    with context(browser, served, permissions=["clipboard-read", "clipboard-write"]) as opened:
        page = opened.new_page()
        page.goto("/models")
        page.evaluate("window.kept = true")
        box = page.get_by_label("Search")
        box.press_sequentially("mistral")
        expect(page.locator("#results h2")).to_have_count(4)
        expect(page.locator("#live")).to_have_text("4 of 24 models")
        expect(box).to_be_focused()
        assert page.url.endswith("/models?q=mistral&sort=status")
        page.get_by_label("Language model").check()
        expect(page.locator("#results h2")).to_have_count(1)
        assert page.evaluate("window.kept") is True

        page.goto(f"/compare?model={LIVE}&model={SOON}")
        page.evaluate("window.kept = true")
        page.get_by_role("link", name="Remove LLM2Vec").click()
        expect(page.get_by_role("columnheader")).to_have_count(1)
        assert page.evaluate("window.kept") is True
        page.go_back()
        expect(page.get_by_role("columnheader")).to_have_count(2)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.url.endswith("#main")

        page.goto("/")
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()").startswith("from openai import OpenAI\n")


def test_a_vote_and_a_try_are_swapped_in(browser: Browser, served: Website) -> None:
    with context(browser, served) as opened:
        page = opened.new_page()
        sign_in(page, served, "voter@example.org")
        page.goto(f"/models/{SOON}")
        page.evaluate("window.kept = true")
        page.get_by_role("button", name="Tell us you want it").click()
        expect(page.get_by_text("Your vote is counted.")).to_be_visible()
        expect(page.locator("#wish-b")).to_be_focused()
        page.get_by_role("button", name="Take it back").click()
        expect(page.get_by_role("button", name="Tell us you want it")).to_be_visible()
        assert page.evaluate("window.kept") is True


def test_colours_follow_the_system_until_somebody_chooses(browser: Browser, served: Website) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with context(browser, served, color_scheme="dark") as opened:
        page = opened.new_page()
        page.goto("/docs")
        dark = page.evaluate(paper)
        page.get_by_role("button", name="Light or dark colours").click()
        light = page.evaluate(paper)
        assert light != dark
        page.goto("/pricing")
        assert page.evaluate(paper) == light
    with context(browser, served, color_scheme="light") as opened:
        page = opened.new_page()
        page.goto("/docs")
        assert page.evaluate(paper) == light


def test_charts_of_another_time_are_swapped_in(browser: Browser, served: Website) -> None:
    with context(browser, served) as opened:
        page = opened.new_page()
        page.goto(f"/models/{LIVE}")
        page.evaluate("window.kept = true")
        expect(page.locator("#providers figure")).to_have_count(3)
        expect(page.locator("#span-day")).to_have_attribute("aria-current", "true")
        page.get_by_role("link", name="7 days").click()
        expect(page.locator("#span-week")).to_have_attribute("aria-current", "true")
        expect(page.locator("figcaption", has_text="Up, by six hours")).to_be_visible()
        assert page.evaluate("window.kept") is True
        page.locator("#providers summary").first.click()
        expect(page.get_by_role("region", name="Latency in milliseconds, by six hours, table")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False])
def test_the_button_leads_to_the_weights_and_is_counted(browser: Browser, tmp_path: Path, scripts: bool) -> None:
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(f"<h1>{self.path}</h1>".encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        with (
            serving(tmp_path, filled=False, hub=f"http://127.0.0.1:{hub.server_port}") as made,
            context(browser, made, java_script_enabled=scripts) as opened,
        ):
            page = opened.new_page()
            for _ in range(2):
                page.goto(f"/models/{SOON}")
                page.get_by_role("button", name="Get the weights").click()
                # The browser asks the page's policy for the address that the form is sent on to, too.
                expect(page.get_by_role("heading")).to_have_text(f"/{made.services.catalogue.find(SOON).source}")
            page.goto(f"/models/{SOON}")
            expect(page.locator("dt", has_text="Pulls a month").locator("+ dd")).to_have_text("1")
    finally:
        hub.shutdown()
        hub.server_close()

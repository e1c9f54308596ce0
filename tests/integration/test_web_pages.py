"""The pages that everybody sees: what is on them, how large they are, and what happens when something is wrong."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_web_support import LIVE, SOON, Client, Website, fill, website
from unmask.errors import EncodingFailedError
from unmask.gateway.accounts.errors import ThrottledError
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.web import TryIt, site

PUBLIC = (
    "/",
    "/models",
    f"/models/{LIVE}",
    f"/models/{SOON}",
    "/compare",
    f"/compare?model={LIVE}&model=smollm2-135m-unsup&model={SOON}",
    "/docs",
    "/pricing",
    "/sign-in",
)
OWN = ("/account", "/account/keys", "/account/sessions")
ADMIN = ("/admin", "/admin/users", "/admin/users/1", "/admin/models", "/admin/providers", "/admin/requests")


def at(folder: Path, use: Callable[[Website, Client], Awaitable[None]], **options: Any) -> None:
    """Use a site as a visitor."""

    async def run() -> None:
        async with website(folder, **options) as made, made.client() as client:
            await use(made, client)

    asyncio.run(run())


def titles(page: str) -> list[str]:
    """Return the models of a list."""
    return [unescape(each) for each in re.findall(r'<h2 class="item"><a href="/models/[^"]+">([^<]+)</a>', page)]


def test_every_page_is_small_and_quick_and_whole(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await fill(made)
        await client.sign_in("ada@example.org")
        page = (await client.get("/")).text
        files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
        assert len(files) == 3
        shared = sum([len((await client.get(path)).content) for path in files])
        for path in (*PUBLIC, *OWN, *ADMIN):
            if path == "/sign-in":
                continue
            best = 9.0
            for _ in range(3):
                began = time.perf_counter()
                answer = await client.get(path)
                best = min(best, time.perf_counter() - began)
            assert answer.status_code == 200, path
            assert shared + len(answer.content) < 100_000, path
            assert best < 0.1, (path, best)
            assert answer.text.count("<h1") == 1, path
            assert answer.text.rstrip().endswith("</html>"), path
            assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! src=\"/static/)", answer.text), path

    at(tmp_path, use)


def test_the_start_page_shows_live_models_first_and_three_lines(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        page = (await client.get("/")).text
        assert page.index(f"/models/{LIVE}") < page.index("/models/llm2vec-")
        code = re.search(r'<code id="three-lines">(.*?)</code>', page, re.DOTALL)
        assert code
        assert len(code[1].strip().splitlines()) == 3

    at(tmp_path, use)


def test_the_list_is_searched_filtered_and_sorted_by_its_address(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        everything = titles((await client.get("/models")).text)
        assert len(everything) == 24
        assert everything[:2] == ["SmolLM2 135M, supervised", "SmolLM2 135M, unsupervised"]
        live = (await client.get("/models?status=live")).text
        assert titles(live) == everything[:2]
        assert 'value="live" checked' in live
        named = (await client.get("/models", params={"q": 'mistral "><b>'})).text
        assert "&#34;&gt;&lt;b&gt;" in named
        assert titles((await client.get("/models?q=mistral&task=text-generation")).text) == ["Mistral 7B Instruct v0.2"]
        small = titles((await client.get("/models?size=small&licence=Apache-2.0&dimension=576&sort=title")).text)
        assert small == sorted(small, key=str.casefold)
        assert len(small) == 4
        large = titles((await client.get("/models?size=large&sort=smallest&dimension=2048&dimension=4096")).text)
        assert len(large) == 16
        none = await client.get("/models?q=nothinglikeit")
        assert "No model is like that" in none.text

    at(tmp_path, use)


def test_an_address_that_asks_for_what_cannot_be_says_so(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        for query in ("sort=worst", "status=good", "task=x", "dimension=many", "dimension=9999999999999999"):
            answer = await client.get(f"/models?{query}")
            assert answer.status_code == 422, query
            assert "expected" in answer.text, query

    at(tmp_path, use)


def test_a_model_s_page_has_all_of_its_entry_and_how_its_providers_do(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await fill(made)
        entry = made.services.catalogue.find(LIVE)
        page = unescape((await client.get(f"/models/{LIVE}")).text)
        said = [*entry.strengths, *entry.best_for, entry.architecture, *(each.question for each in entry.faq)]
        said += ["134,515,008", "576", "512 tokens", "mean", "2026-11-23", "Apache-2.0", "0.01 EUR", "0.005 EUR"]
        traffic = await made.services.history.of(LIVE, hours=24, step=1)
        now = traffic.now["local"]
        slow = [now.latency.at_most(share) or 0 for share in (0.5, 0.9, 0.99)]
        rates = [now.throughput.at_least(share) or 0 for share in (0.5, 0.9, 0.99)]
        assert slow == sorted(slow)
        assert rates == sorted(rates, reverse=True)
        said += [f"{1000 * value:.0f} ms" for value in slow] + [f">{value:,.0f}<" for value in rates]
        said += ["4,711", "100.00 %", f"{100 * traffic.uptime['second']:.2f} %", "Measured by us"]
        said += [entry.query_instruction or "", "requests in 24 hours"]
        assert [each for each in said if each not in page] == []
        assert "Enter another" not in page  # what is wrong with a provider is the operator's business
        assert "Published by others" not in page
        assert "coming soon" not in page.partition("<h2")[0]
        other = unescape((await client.get(f"/models/{SOON}")).text)
        assert "Published by others" in other
        assert "Measured by us" not in other
        assert "Llama 3 Community License" in other  # of what it was made from
        assert 'id="try"' not in other

    at(tmp_path, use)


def test_a_model_is_found_by_each_of_its_names(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        for name in made.services.catalogue.find(SOON).accepted[1:]:
            answer = await client.get(f"/models/{name}")
            assert (answer.status_code, answer.headers["location"]) == (303, f"/models/{SOON}")
        assert (await client.get("/models/none-such")).status_code == 404

    at(tmp_path, use)


def test_a_model_is_tried_and_what_was_typed_stays(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        path, action = f"/models/{LIVE}", f"/models/{LIVE}/try#try"
        done = await client.submit(path, action, {"texts": "a cat\n\n a kitten \n<b>", "instruction": "Find:"})
        assert done.status_code == 200
        assert re.findall(r'<td class="h4">1\.00</td>', done.text).__len__() == 3
        assert "&lt;b&gt;" in done.text
        assert 'value="Find:"' in done.text
        assert "12 ms" in done.text
        one = await client.submit(path, action, {"texts": "alone", "instruction": ""})
        assert one.status_code == 422
        assert re.search(
            r'<textarea[^>]*aria-describedby="texts-hint texts-wrong" aria-invalid="true">alone<', one.text
        )
        assert "there are 1" in one.text
        long = await client.submit(path, action, {"texts": f"a\n{'b' * 2001}", "instruction": "c" * 2001})
        assert long.text.count('aria-invalid="true"') == 2

    at(tmp_path, use)


@pytest.mark.parametrize(
    ("error", "status"),
    [(EncodingFailedError("Text 1 failed."), 422), (ThrottledError("Too often.", retry_after=3), 429)],
)
def test_a_try_that_is_refused_says_why_beside_the_texts(tmp_path: Path, error: Exception, status: int) -> None:
    async def refuse(slug: str, texts: list[str], instruction: str | None, user_id: int | None) -> TryIt:
        raise error

    async def use(made: Website, client: Client) -> None:
        made.app = site(replace(made.services, try_it=refuse))
        async with made.client() as other:
            answer = await other.submit(f"/models/{LIVE}", f"/models/{LIVE}/try#try", {"texts": "a\nb"})
        assert answer.status_code == status
        assert f'id="texts-wrong">{error}<' in answer.text

    at(tmp_path, use)


def test_a_user_s_vote_counts_once_and_can_be_taken_back(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await fill(made)
        path = f"/models/{SOON}"
        assert "3 people want it" in (await client.get(path)).text
        assert f"/sign-in?next={path}" in (await client.get(path)).text
        await client.sign_in("eve@example.org")
        for _ in range(2):
            await made.services.wishes.wish((await made.services.users.find("eve@example.org")).id, SOON)
            page = (await client.get(path)).text
            assert "4 people want it" in page
            assert "Your vote is counted" in page
        gone = await client.submit(path, f"{path}/wish", {"wanted": "no"})
        assert gone.status_code == 303
        assert "3 people want it" in (await client.get(path)).text
        await client.submit(path, f"{path}/wish", {"wanted": "yes"})
        assert (await made.services.wishes.counts())[SOON] == 4

    at(tmp_path, use)


def test_models_are_compared_side_by_side_and_unknown_ones_are_named(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        answer = await client.get(f"/compare?model={LIVE}&model=smollm2-135m-unsup&model={LIVE}&model=<b>none")
        page = answer.text
        assert page.count('<th scope="col"><a href="/models/') == 2
        assert "&lt;b&gt;none" in page
        assert "85.5 (81.7–88.7)" in page
        assert 'id="ours-t"' in page
        assert "price, realtime, EUR" in page
        assert f'href="/compare?model={LIVE}"' in page
        empty = await client.get("/compare")
        assert "<details open>" in empty.text

    at(tmp_path, use)


def test_what_is_not_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        for path, status in (("/nope", 404), ("/models/", 404), ("/static/../app.py", 404), ("/static/site.css", 404)):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
            assert "<h1" in answer.text
        wrong = await client.delete("/models")
        assert wrong.status_code == 405
        assert "does not take that kind" in wrong.text

    at(tmp_path, use)


def test_a_database_that_is_away_is_said_in_one_sentence(tmp_path: Path) -> None:
    async def use(made: Website, client: Client) -> None:
        await client.sign_in("ada@example.org")

        async def fail(*_: object, **__: object) -> None:
            raise DatabaseUnavailableError("sqlite said: secret path")

        made.database.read = fail  # type: ignore[assignment, method-assign]
        for path in ("/models", "/account", f"/models/{LIVE}"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert "The database cannot answer now." in answer.text
            assert "secret" not in answer.text
        assert (await client.get("/docs")).status_code in (200, 503)

    at(tmp_path, use)


def test_a_failure_of_ours_shows_a_number_and_logs_it_without_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(made: Website, client: Client) -> None:
        value = "of a secret".removeprefix("of a ")

        def broken() -> Any:
            raise RuntimeError(value)

        made.app = site(replace(made.services, served=broken))
        async with made.client() as other:
            answer = await other.get("/models")
        number = re.search(r"The number is <code>([0-9a-f]{12})</code>", answer.text)
        assert answer.status_code == 500
        assert number
        assert value not in answer.text
        said = "\n".join(record.getMessage() for record in caplog.records)
        assert number[1] in said
        assert "broken" in said
        assert value not in said

    at(tmp_path, use)


def test_static_files_are_kept_for_good_and_pages_are_not(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        page = await client.get("/")
        assert page.headers["cache-control"] == "no-cache"
        path = re.search(r'href="(/static/site\.[0-9a-f]{12}\.css)"', page.text)
        assert path
        css = await client.get(path[1])
        assert css.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert css.headers["content-type"].startswith("text/css")

    at(tmp_path, use)


def test_the_colours_that_somebody_chose_are_in_the_page(tmp_path: Path) -> None:
    async def use(_: Website, client: Client) -> None:
        assert "data-theme=" not in (await client.get("/", headers={"cookie": "theme=blue"})).text
        assert '<html lang="en" data-theme="dark">' in (await client.get("/", headers={"cookie": "theme=dark"})).text

    at(tmp_path, use)

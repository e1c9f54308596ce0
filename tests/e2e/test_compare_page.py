"""The page of a comparison in a real browser: drawn, sorted, narrow and wide, light and dark, without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from tests.browser import Browser, find
from tests.compared import write_three
from unmask.evaluation.compare.comparing import compare
from unmask.evaluation.compare.page import write_page
from unmask.evaluation.compare.reading import read_entrants

#: What a test's own script finds out about the page; it runs after the page's.
PROBE = """<script>
const names = () => [...document.querySelectorAll("#scores tbody th")].map(head => head.dataset.name);
const buttons = [...document.querySelectorAll("#scores button")];
const press = label => buttons.find(each => each.textContent === label).click();
const found = {given: names()};
press("all"); found.best = names(); found.sort = document.querySelector("th[aria-sort]").getAttribute("aria-sort");
press("all"); found.worst = names(); found.fragment = location.hash;
press("TIME"); found.lacking = names();
press("model"); found.named = names();
const cells = [...document.querySelectorAll("#scores tr:has([data-name=better]) td")];
cells.find(cell => cell.dataset.tip).dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
found.tip = document.getElementById("tip").textContent;
found.shown = !document.getElementById("tip").hidden;
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.drawn = [...document.querySelectorAll("svg")].filter(each => each.getBoundingClientRect().height > 40).length;
found.loaded = performance.getEntriesByType("resource").length;
document.body.insertAdjacentHTML("beforeend", "<pre id=found></pre>");
document.getElementById("found").textContent = JSON.stringify(found);
</script></body>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """A browser, if there is one."""
    path = find()
    if path is None:
        pytest.skip("no browser here; install one, for instance with: apt-get install chromium")
    return Browser(path, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a base, an equal and a better model."""
    folder = tmp_path_factory.mktemp("report")
    write_page(compare(read_entrants(write_three(folder / "results"))), folder / "report.html")
    return folder / "report.html"


def rows(dom: str) -> list[str]:
    return re.findall(r'<th scope="row" class="stick" data-name="([^"]+)"', dom)


def test_the_table_is_drawn_and_sorts_and_says_more_when_asked(browser: Browser, report: Path) -> None:
    probed = report.with_name("probed.html")
    probed.write_text(report.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    dom = browser.dom(probed.as_uri())
    inside = re.search(r'<pre id="found">(.*?)</pre>', dom)
    assert inside, dom[-2000:]
    found = json.loads(inside[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    others = found["given"][3:]
    assert found["given"][:3] == ["base", "equal", "better"]
    assert len(others) == 3  # published ones; they have no average, so they stand last either way
    assert found["best"] == ["better", "equal", "base", *others]
    assert (found["sort"], found["fragment"]) == ("descending", "#sort=1")
    assert found["worst"] == ["base", "equal", "better", *others]
    assert found["lacking"][:2] == ["better", "base"]
    assert found["named"] == sorted(found["given"], key=str.lower)
    assert found["shown"]
    assert found["tip"].startswith("better, CACM: ")
    assert "adjusted p = 0.005" in found["tip"]
    assert found["overflow"] == 0
    assert found["drawn"] == 5 + 3
    assert found["loaded"] == 0


@pytest.mark.parametrize(
    ("fragment", "first"), [("", "base"), ("#sort=-1", "better"), ("#sort=1", "base"), ("#sort=99", "base")]
)
def test_a_link_opens_the_table_as_it_was_sorted(browser: Browser, report: Path, fragment: str, first: str) -> None:
    assert rows(browser.dom(report.as_uri() + fragment))[0] == first


def test_nothing_is_fetched(browser: Browser, report: Path) -> None:
    empty, asking = report.with_name("empty.html"), report.with_name("asking.html")
    empty.write_text("<!doctype html><title>x</title>")
    asking.write_text('<!doctype html><title>x</title><img src="http://elsewhere.invalid/x.png">')
    by_itself = browser.requests(empty.as_uri())
    assert browser.requests(asking.as_uri()) - by_itself == {"elsewhere.invalid"}
    assert browser.requests(report.as_uri()) - by_itself == set()


def test_the_page_itself_forbids_what_it_could_be_made_to_fetch(browser: Browser, report: Path) -> None:
    asking = report.with_name("asking-report.html")
    text = report.read_text(encoding="utf-8")
    asking.write_text(text.replace("<main>", '<main><img src="http://elsewhere.invalid/x.png">'), encoding="utf-8")
    assert "elsewhere.invalid" not in browser.requests(asking.as_uri())


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_it_fits_any_screen_and_follows_the_scheme(browser: Browser, report: Path, width: int, dark: bool) -> None:
    frame = report.with_name(f"frame-{width}.html")
    frame.write_text(
        '<!doctype html><body style="margin:0"><iframe id="page" style="border:0;display:block" '
        f'src="{report.name}" width="{width}" height="1600"></iframe>'
    )
    picture = report.with_name("picture.png")
    browser.picture(frame.as_uri(), picture, width=max(width, 500), height=1600, dark=dark)
    with Image.open(picture) as image:
        page = image.convert("RGB").crop((0, 0, width, 1600))
    colours = cast("list[tuple[int, tuple[int, int, int]]]", page.getcolors(maxcolors=1 << 24))
    share, paper = max(colours)
    assert (sum(paper) / 3 < 60) is dark
    # Text, lines and dots: more than nothing, and no big blank page.
    assert 0.6 < share / (width * 1600) < 0.99
    assert len(colours) > 50

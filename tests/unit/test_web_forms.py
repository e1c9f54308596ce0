"""Values as people read and type them, the table of refusals, the snippets."""

from __future__ import annotations

import json
import re

import pytest
from starlette.exceptions import HTTPException

from unmask.errors import InputError, ModelColdError, UnknownModelError
from unmask.gateway.accounts import errors as account_errors
from unmask.gateway.accounts.errors import AddressRefusedError, CsrfError, LinkGoneError, ThrottledError
from unmask.gateway.accounts.keys import Key, KeyLimits
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.web import formats
from unmask.gateway.web.forms import Form
from unmask.gateway.web.refusals import refusal_of
from unmask.gateway.web.services import SiteSettings
from unmask.gateway.web.snippets import NO_KEY, shown_key, snippets, three_lines


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (5_000_000, "5.00 EUR"),
        (62, "0.000062 EUR"),
        (-1_234_500_000, "−1,234.50 EUR"),
        (0, "0.00 EUR"),
        (10**18, "1,000,000,000,000.00 EUR"),
    ],
)
def test_money_is_exact(micros: int, shown: str) -> None:
    assert formats.money(micros, "EUR") == shown


def test_sizes_counts_and_times_are_short_and_say_when_there_is_nothing() -> None:
    assert [formats.size(each) for each in (134_515_008, 1_279_887_360, 999, None)] == ["135M", "1.28B", "999", "–"]
    assert [formats.count(each) for each in (1234567, None)] == ["1,234,567", "–"]
    assert [formats.milliseconds(each) for each in (3.14159, 1234.5, None)] == ["3.1 ms", "1,234 ms", "–"]
    assert formats.moment(1_700_000_000_000_000) == (
        '<time datetime="2023-11-14T22:13:20+00:00">14 Nov 2023, 22:13 UTC</time>'
    )
    assert formats.paragraphs("a\nb\n\n\n c \n") == ["a b", "c"]


@pytest.mark.parametrize(
    ("text", "micros"), [("5", 5_000_000), ("0.000001", 1), ("1,000.5", 1_000_500_000), ("−3", -3_000_000), ("", None)]
)
def test_an_amount_is_read_exactly(text: str, micros: int | None) -> None:
    form = Form.of(amount=text)
    assert form.amount("amount", negative=True) == micros
    assert form.wrong == {}


@pytest.mark.parametrize("text", ["-3", "NaN", "Infinity", "1e400", "0.0000001", "five", "9" * 30, "٣.٥x"])
def test_an_amount_that_is_none_is_said_beside_its_field(text: str) -> None:
    form = Form.of(amount=text)
    assert form.amount("amount") is None
    assert "amount" in form.wrong


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "٣", "1e3", "9" * 30])
def test_a_number_that_is_none_is_said_beside_its_field(text: str) -> None:
    form = Form.of(n=text)
    assert form.number("n") is None
    assert "n" in form.wrong
    assert form.get("n") == text


def test_the_first_thing_that_is_wrong_stands() -> None:
    form = Form({"a": [" x ", "y"]})
    assert (form.get("a"), form.all("a"), form.get("b", "z")) == ("x", [" x ", "y"], "z")
    assert form.require("b", "first") == ""
    form.fail("b", "second")
    assert form.wrong == {"b": "first"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("no"), 422),
        (CsrfError("no"), 403),
        (ThrottledError("no", retry_after=1.2), 429),
        (UnknownModelError("no"), 404),
        (LinkGoneError("no"), 410),
        (AddressRefusedError("no"), 503),
        (ModelColdError("no"), 503),
        (DatabaseUnavailableError("secret words"), 503),
        (HTTPException(404), 404),
        (HTTPException(405), 405),
        (HTTPException(418), 418),
        (RuntimeError("secret words"), 500),
    ],
)
def test_every_exception_has_its_page(error: Exception, status: int) -> None:
    refusal = refusal_of(error)
    assert refusal.rule.status == status
    assert refusal.sentence
    assert "secret" not in refusal.sentence
    assert refusal.retry_after == (2 if isinstance(error, ThrottledError) else 1 if "Database" in repr(error) else None)


def test_no_error_of_an_account_is_the_site_s_fault() -> None:
    kinds = [each for each in vars(account_errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    plain = [kind for kind in kinds if kind.__init__ is Exception.__init__ or "__init__" not in vars(kind)]
    for kind in plain:
        error = kind.__new__(kind)
        assert refusal_of(error).rule.status < 500 or kind.__name__ in {
            "MailError",
            "AddressRefusedError",
            "ProviderDownError",
        }


def key(number: int, *, revoked: int | None = None, expires: int | None = None) -> Key:
    """Return what is known of a key."""
    return Key(
        id=number, user_id=1, name="n", shown=f"gr-{number:04d}…", created_at=0, expires_at=expires, revoked_at=revoked,
        models=None, limits=KeyLimits(), last_used_at=None, disabled_at=None, digest=b"",
    )  # fmt: skip


def test_the_key_of_a_snippet_is_the_newest_that_works_and_masked() -> None:
    assert shown_key([], 10) == NO_KEY
    assert shown_key([key(1), key(2, revoked=5), key(3, expires=10)], 10) == "gr-0001…"
    assert shown_key([key(1), key(2, expires=11)], 10) == "gr-0002…"


def test_snippets_call_the_model_at_this_site() -> None:
    entry = Catalogue.load().find("smollm2-135m-sup")
    codes = snippets(entry, "https://e.org", "gr-abcd…")
    assert list(codes) == ["Python", "JavaScript", "curl"]
    for code in codes.values():
        assert "https://e.org/v1" in code
        assert "gr-abcd…" in code
        assert entry.slug in code
    compile(codes["Python"], "snippet", "exec")
    body = re.search(r"-d '(.*)'", codes["curl"])
    assert body
    assert json.loads(body[1])["model"] == entry.slug
    assert len(three_lines(entry.slug, "https://e.org").splitlines()) == 3
    ranker = entry.model_copy(update={"task": "text-ranking"})
    reranking = snippets(ranker, "https://e.org", "gr-abcd…")
    compile(reranking["Python"], "snippet", "exec")
    assert all("/v1/rerank" in code for code in reranking.values())


@pytest.mark.parametrize(
    "url", ["https://e.org/", "https://e.org/site", "http://e.org", "e.org", "https://u:p@e.org", ""]
)
def test_a_site_has_an_address_that_links_can_be_made_of(url: str) -> None:
    with pytest.raises(InputError):
        SiteSettings(name="n", base_url=url, currency="EUR", free_credit=0)
    assert SiteSettings(name="n", base_url="https://e.org", currency="EUR", free_credit=0).secure
    assert not SiteSettings(name="n", base_url="http://localhost:8000", currency="EUR", free_credit=0).secure

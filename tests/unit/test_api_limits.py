"""Rates, keys, refusals and settings: what a caller may, and what it is told."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
import pytest

from unmask import errors as domain
from unmask.errors import InputError, QueueFullError, UnmaskError
from unmask.gateway.api import errors
from unmask.gateway.api.errors import AuthenticationError, RateLimitError, RequestError, refusal_of, rule_of
from unmask.gateway.api.keys import ANYONE, Keys, read_keys
from unmask.gateway.api.limits import Allowance
from unmask.gateway.api.logs import JsonFormatter, request_id
from unmask.gateway.api.parsing import load_object
from unmask.gateway.api.settings import load_settings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_evenly_and_never_beyond() -> None:
    clock = Clock()
    allowance = Allowance(requests=60, tokens=None, clock=clock)
    for _ in range(60):
        allowance.take("requests")
    with pytest.raises(RateLimitError) as refused:
        allowance.take("requests")
    assert refused.value.retry_after == pytest.approx(1)
    clock.now += 1
    allowance.take("requests")
    clock.now += 1000
    assert allowance.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "60",
        "x-ratelimit-reset-requests": "0ms",
    }
    allowance.take("tokens", 10**9)


def test_tokens_are_settled_when_they_are_known() -> None:
    clock = Clock()
    allowance = Allowance(requests=None, tokens=600, clock=clock)
    allowance.take("tokens", 100)
    allowance.settle("tokens", 100, 40)
    assert allowance.headers()["x-ratelimit-remaining-tokens"] == "560"
    allowance.take("tokens", 100)
    allowance.settle("tokens", 100, 860)  # it turned out to be more: in debt, never shown below 0
    left = allowance.headers()
    assert left["x-ratelimit-remaining-tokens"] == "0"
    assert left["x-ratelimit-reset-tokens"] == "1m30s"
    with pytest.raises(RateLimitError):
        allowance.take("tokens", 1)
    clock.now += 90
    allowance.take("tokens", 10_000)  # more than ever fits needs all there is
    with pytest.raises(RateLimitError):
        allowance.take("tokens", 1)


def test_keys_are_told_apart_and_never_shown() -> None:
    keys = Keys(["gr-one", "gr-two", "gr-one"])
    assert keys
    names = {keys.caller(f"Bearer {key}".encode()) for key in ("gr-one", "gr-two")}
    assert len(names) == 2
    assert not any("gr-" in name for name in names)
    assert "gr-one" not in repr(vars(keys))
    assert keys.caller(b"bEaReR  gr-one ") in names
    for wrong in (
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"gr-one",
        b"Basic gr-one",
        b"Bearer gr-on",
        b"Bearer gr-one,gr-two",
    ):
        with pytest.raises(AuthenticationError) as refused:
            keys.caller(wrong)
        assert "gr-" not in str(refused.value)
    assert not Keys([])
    assert Keys([]).caller(None) == ANYONE


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    keys = Keys([f"gr-{number}" for number in range(5)])

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    for number in range(5):
        compared.clear()
        keys.caller(b"Bearer gr-%d" % number)
        assert len(set(compared)) == 5


def test_a_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# who\ngr-one\n\n  gr-two  \n")
    assert read_keys(file) == ["gr-one", "gr-two"]
    assert load_settings(flags={"api_keys_file": file}).keys().caller(b"Bearer gr-two").startswith("key-")
    for broken in ("# none\n", "gr-one two\n", "gr-é\n"):
        file.write_text(broken, encoding="utf-8")
        with pytest.raises(InputError) as refused:
            load_settings(flags={"api_keys_file": file}).keys()
        assert "gr-" not in str(refused.value)
    file.write_bytes(b"gr-one\ngr-\xe9\n")
    with pytest.raises(InputError, match="line 2: .* not UTF-8") as refused:
        read_keys(file)
    assert "gr-" not in str(refused.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_settings_are_refused_without_showing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "serve.toml"
    for text, said in (
        ("port = 'gr-secret'", "'port'"),
        ("prot = 1", "'prot'"),
        ("body_bytes = 0", "'body_bytes'"),
        ("[models.a]\nsourse = 'x'", "'models.a.sourse'"),
        ("port = = 1", "not TOML"),
    ):
        file.write_text(text)
        with pytest.raises(InputError) as refused:
            load_settings(file)
        assert said in str(refused.value)
        assert "gr-secret" not in str(refused.value)
    with pytest.raises(InputError, match="no file of settings"):
        load_settings(tmp_path / "none.toml")
    monkeypatch.setenv("UNMASK_API_KEYS", "gr-one, gr-two,")
    settings = load_settings()
    assert "gr-" not in str(settings.shown())
    assert "gr-" not in repr(settings)
    assert settings.keys().caller(b"Bearer gr-two")


def test_every_error_has_a_row_of_its_own_kind() -> None:
    for module in (errors, domain):
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, UnmaskError)]
        for kind in kinds:
            row = rule_of(kind.__new__(kind))
            client_side = issubclass(kind, InputError | RequestError)
            assert (row.status < 500) >= client_side, kind
    assert rule_of(RequestError("x")).status == 400
    assert rule_of(ZeroDivisionError()).message is not None
    assert refusal_of(ZeroDivisionError("a text")).error["message"] != "a text"


def test_a_refusal_has_all_four_keys() -> None:
    for error in (ValueError("x"), QueueFullError("Full.", retry_after=0.2), RequestError("No.", param="p", code="c")):
        assert set(orjson.loads(refusal_of(error).body)["error"]) == {"message", "type", "param", "code"}
    full = refusal_of(QueueFullError("Full.", retry_after=0.2))
    assert full.headers == {"retry-after": "1", "retry-after-ms": "200"}
    told = refusal_of(RequestError("No.", param="p", code="c")).error
    assert told == {"message": "No.", "type": "invalid_request_error", "param": "p", "code": "c"}


def test_keys_that_stand_twice_are_found_wherever_they_are() -> None:
    assert load_object(b'{"a": {"a": 1}, "b": "a"}') == {"a": {"a": 1}, "b": "a"}
    for twice in (b'{"a":1,"a":2}', b'{"a":{"b":1,"b":2},"c":"a"}', b'{"\\u0061":1,"a":2}'):
        with pytest.raises(RequestError, match="twice"):
            load_object(twice)


def test_request_ids_of_callers_are_taken_if_they_can_be_logged() -> None:
    assert request_id(b"abc-1.2_3") == "abc-1.2_3"
    for bad in (None, b"", b"a" * 65, b"a b", b"a\nb", b"\xff"):
        made = request_id(bad)
        assert made.startswith("req_")
        assert len(made) == 36


def test_logs_are_json_a_line() -> None:
    record = logging.LogRecord("unmask.x", logging.WARNING, "", 1, "said\n%s", ("twice",), None)
    record.fields = {"request_id": "r", "path": Path("a")}
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found = orjson.loads(line)
    assert (found["level"], found["message"], found["request_id"], found["path"]) == (
        "warning",
        "said\ntwice",
        "r",
        "a",
    )

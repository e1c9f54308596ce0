"""Keys, prices and orders: values, without a database."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import string
from collections import Counter

import pytest

pytest.importorskip("sqlalchemy")

from unmask.errors import InputError, UnmaskError
from unmask.gateway.accounts import errors
from unmask.gateway.accounts.errors import MalformedKeyError
from unmask.gateway.accounts.keyform import ApiKey, check_secret
from unmask.gateway.accounts.keys import KeyLimits
from unmask.gateway.accounts.money import Order, Retry, fingerprint, new_hold_id, price
from unmask.gateway.db import errors as db_errors

DIGITS = string.digits + string.ascii_letters


def test_a_key_has_190_random_bits_and_a_checksum() -> None:
    keys = [ApiKey.new().reveal() for _ in range(500)]
    assert {len(key) for key in keys} == {41}
    assert all(key.startswith("gr-") for key in keys)
    assert len(set(keys)) == len(keys)
    assert 62**32 >= 2**190
    # Every digit at every random place, about as often: 16,000 draws of 62 digits, 258 each.
    counts = Counter("".join(key[3:35] for key in keys))
    assert set(counts) == set(DIGITS)
    assert 170 < min(counts.values()) <= max(counts.values()) < 350
    for key in keys:
        assert ApiKey.parse(key).reveal() == key


def test_every_typing_error_is_noticed() -> None:
    key = ApiKey.new().reveal()
    for place in range(3, len(key)):
        other = "a" if key[place] != "a" else "b"
        with pytest.raises(MalformedKeyError, match="typing error"):
            ApiKey.parse(key[:place] + other + key[place + 1 :])
    for place in range(3, len(key) - 1):
        if key[place] != key[place + 1]:
            with pytest.raises(MalformedKeyError, match="typing error"):
                ApiKey.parse(key[:place] + key[place + 1] + key[place] + key[place + 2 :])


@pytest.mark.parametrize(
    "change",
    [
        lambda key: "",
        lambda key: key[:-1],
        lambda key: key + "a",
        lambda key: "sk-" + key[3:],
        lambda key: key[3:],
        lambda key: " " + key[1:],
        lambda key: key[:20] + "-" + key[21:],
        lambda key: key[:20] + "é" + key[21:],
        lambda key: key[:20] + "٣" + key[21:],
        lambda key: key[:20] + "\n" + key[21:],
        lambda key: key * 1000,
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(change: object) -> None:
    key = ApiKey.new().reveal()
    text = change(key)  # type: ignore[operator]
    with pytest.raises(MalformedKeyError) as refusal:
        ApiKey.parse(text)
    assert not text or (text not in str(refusal.value) and text[5:25] not in str(refusal.value))


def test_a_key_is_shown_by_its_beginning_only(caplog: pytest.LogCaptureFixture) -> None:
    key = ApiKey.new()
    hidden = key.reveal()[7:]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("%s %r", key, key)
    shown = [repr(key), str(key), f"{key}", f"{[key]}", key.shown, caplog.text, json.dumps({"a": key}, default=repr)]
    for text in shown:
        assert hidden not in text
        assert key.reveal()[:7] in text
        # 28 random characters stay hidden: 166 bits.
        assert key.reveal()[:8] not in text


@pytest.mark.parametrize("store", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_cannot_be_stored(store: object) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        store(ApiKey.new())  # type: ignore[operator]


def test_a_digest_needs_the_secret() -> None:
    key, one, other = ApiKey.new(), b"1" * 32, b"2" * 32
    assert key.digest(one) == ApiKey.parse(key.reveal()).digest(one)
    assert key.digest(one) != key.digest(other)
    assert len(key.digest(one)) == 32
    assert check_secret(one) == one
    with pytest.raises(InputError, match="31 bytes; expected 32"):
        check_secret(b"1" * 31)


def test_a_price_is_rounded_up() -> None:
    assert price(1_000_000, rate=10_000, per=1_000_000) == 10_000
    assert price(1, rate=10_000, per=1_000_000) == 1
    assert price(0, rate=10_000, per=1_000_000) == 0
    assert price(101, rate=10_000, per=1_000_000) == 2
    assert price(7, rate=2_000, per=1_000) == 14
    assert price(2**40, rate=10**9, per=3) == -(-(2**40) * 10**9 // 3)


def test_a_fingerprint_tells_parts_apart() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    assert fingerprint(b"ab", b"c") == fingerprint(b"ab", b"c")


def test_hold_ids_are_unique_and_in_order() -> None:
    ids = [new_hold_id(now) for now in range(10**15, 10**15 + 10**6, 1000)]
    assert ids == sorted(ids)
    assert len({new_hold_id(0) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("field", ["amount", "units", "tokens"])
@pytest.mark.parametrize("value", [-1, 10**15 + 1])
def test_an_order_that_cannot_be_is_refused(field: str, value: int) -> None:
    good = {"user_id": 1, "key_id": 1, "amount": 1, "model": "m", "units": 1, "tokens": 1}
    with pytest.raises(InputError, match=f"order's {field} is {value}"):
        Order(**(good | {field: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "a" * 256, "é", "a\nb", "\x7f"])
def test_an_idempotency_key_that_cannot_be_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="expected 1 to 255"):
        Retry(key=key, fingerprint="")


@pytest.mark.parametrize(
    "limits", [{"requests_per_minute": 0}, {"tokens_per_minute": 0}, {"spend_per_day": -1}, {"spend_per_day": 10**16}]
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"key's {next(iter(limits))} is"):
        KeyLimits(**limits)


@pytest.mark.parametrize("module", [errors, db_errors])
def test_the_tree_of_errors_is_the_one_that_is_drawn(module: object) -> None:
    drawn = str(module.__doc__)
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, UnmaskError)]
    parents: list[str] = []
    found = {}
    for line in drawn.splitlines():
        name = line.strip("│├└─ ").split(" ")[0]
        if name.endswith("Error") and line.startswith("    "):
            depth = (len(line) - len(line.lstrip("│├└─ "))) // 4 - 1
            parents = [*parents[:depth], name]
            found[name] = parents[-2] if depth else None
    assert {kind.__name__: kind.__mro__[1].__name__ for kind in kinds if kind is not UnmaskError} == {
        name: parent for name, parent in found.items() if parent
    }

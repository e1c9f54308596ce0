"""Routing's rules, each by itself: circuits, budgets, choice, figures, addresses, keys, refusals."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import asdict, dataclass
from email.utils import formatdate

import pytest

pytest.importorskip("httpx")
pytest.importorskip("cryptography")

from unmask.errors import EncodingFailedError, InputError, ModelColdError, QueueFullError, UnmaskError
from unmask.gateway.routing.addresses import is_allowed, read_url
from unmask.gateway.routing.breaker import Breaker
from unmask.gateway.routing.budget import RetryBudget
from unmask.gateway.routing.choosing import Candidate, order
from unmask.gateway.routing.counting import most_tokens, split
from unmask.gateway.routing.errors import AddressError, ProviderError, ProviderKeyError, ProviderRefusedError
from unmask.gateway.routing.meters import Meter, percentile
from unmask.gateway.routing.refusals import Said, exception_of, retry_after
from unmask.gateway.routing.routes import Choice, LocalProvider, ProviderKey, RemoteProvider, Route, RoutingSettings
from unmask.gateway.routing.sealing import Sealer
from unmask.gateway.routing.tallies import Tally
from unmask.text import Text

KEY = "sk-a-provider-key-0123456789-wxyz"
SECRET = b"a secret of the server, 32 bytes and more"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


# --- circuit -------------------------------------------------------------------------------------


def test_failures_in_a_row_open_the_circuit_and_one_probe_closes_it() -> None:
    clock = Clock()
    breaker = Breaker(RoutingSettings(failures=3, cooldown=2), clock)
    for _ in range(2):
        breaker.failed(breaker.ask() or 0)
    breaker.succeeded(breaker.ask() or 0)  # in between one went well
    for _ in range(3):
        permit = breaker.ask()
        assert permit is not None
        breaker.failed(permit)
    assert (breaker.state, breaker.ask(), breaker.seconds_left) == ("open", None, 2)
    clock.now += 2
    states = [breaker.state]
    probe = breaker.ask()
    assert probe is not None
    assert breaker.ask() is None  # one alone
    breaker.succeeded(probe)
    assert [*states, breaker.state] == ["half-open", "closed"]
    assert breaker.ask() is not None


def test_each_failed_probe_doubles_the_cooldown_up_to_a_limit() -> None:
    clock = Clock()
    breaker = Breaker(RoutingSettings(failures=1, cooldown=2, longest_cooldown=10), clock)
    breaker.failed(breaker.ask() or 0)
    waits = []
    for _ in range(4):
        waits.append(breaker.seconds_left)
        clock.now += breaker.seconds_left
        probe = breaker.ask()
        assert probe is not None
        breaker.failed(probe)
    assert [*waits, breaker.seconds_left] == [2, 4, 8, 10, 10]
    clock.now += 10
    breaker.succeeded(breaker.ask() or 0)
    breaker.failed(breaker.ask() or 0)
    assert breaker.seconds_left == 2  # all is forgiven


def test_a_share_of_failures_opens_the_circuit_too_but_not_of_a_few() -> None:
    clock = Clock()
    breaker = Breaker(RoutingSettings(failures=5, failure_share=0.5), clock)
    for number in range(18):
        (breaker.failed if number % 3 else breaker.succeeded)(breaker.ask() or 0)
    states = [breaker.state]
    clock.now += 31  # and what is older than half a minute does not count
    for number in range(19):
        (breaker.failed if number % 3 else breaker.succeeded)(breaker.ask() or 0)
        states.append(breaker.state)
    breaker.failed(breaker.ask() or 0)
    assert (set(states), breaker.state) == ({"closed"}, "open")


def test_what_comes_late_changes_nothing_and_a_dropped_probe_is_free_again() -> None:
    clock = Clock()
    breaker = Breaker(RoutingSettings(failures=1, cooldown=2), clock)
    early, late = breaker.ask(), breaker.ask()
    assert early is not None
    assert late is not None
    breaker.failed(early)
    breaker.succeeded(late)
    breaker.failed(late)
    assert (breaker.state, breaker.openings, breaker.seconds_left) == ("open", 1, 2)
    clock.now += 2
    probe = breaker.ask()
    assert probe is not None
    breaker.dropped(probe)
    assert breaker.ask() is not None


# --- budget --------------------------------------------------------------------------------------


def test_retries_are_a_share_of_the_requests() -> None:
    clock = Clock()
    budget = RetryBudget(0.1, clock)
    while budget.withdraw():
        pass
    done = 0
    for _ in range(1000):
        budget.pay_in()
        done += budget.withdraw()
    assert 99 <= done <= 101
    clock.now += 10
    assert budget.saved == pytest.approx(5, abs=1)  # few requests may fail over, too


def test_no_share_means_no_retries_once_the_first_are_spent() -> None:
    clock = Clock()
    budget = RetryBudget(0, clock)
    while budget.withdraw():
        pass
    clock.now += 1000
    budget.pay_in()
    assert not budget.withdraw()


# --- choice --------------------------------------------------------------------------------------


def candidates() -> list[Candidate[str]]:
    return [
        Candidate(provider="dear", price=30, latency=0.1, weight=1),
        Candidate(provider="unpriced", price=None, latency=0.3, weight=3),
        Candidate(provider="cheap", price=10, latency=0.2, weight=0),
    ]


def chosen(choice: Choice, *, explore: float = 0, seed: int = 1) -> list[str]:
    return [each.provider for each in order(candidates(), choice, explore=explore, chance=random.Random(seed))]


def test_the_cheapest_or_the_fastest_is_first() -> None:
    assert chosen("price") == ["cheap", "dear", "unpriced"]
    assert chosen("latency") == ["dear", "cheap", "unpriced"]
    unmeasured = [*candidates(), Candidate(provider="new", price=1, latency=None, weight=1)]
    found = order(unmeasured, "latency", explore=0, chance=random.Random(1))
    assert found[0].provider == "new"


def test_exploring_asks_others_now_and_then() -> None:
    firsts = [chosen("latency", explore=0.2, seed=seed)[0] for seed in range(2000)]
    assert 0.16 < 1 - firsts.count("dear") / 2000 < 0.24
    assert {"cheap", "unpriced"} < set(firsts)
    assert sorted(chosen("latency", explore=1)) == ["cheap", "dear", "unpriced"]


def test_weights_are_shares_and_a_weight_of_nothing_is_the_last_resort() -> None:
    drawn = [chosen("weight", seed=seed) for seed in range(2000)]
    assert 0.71 < [each[0] for each in drawn].count("unpriced") / 2000 < 0.79
    assert {each[2] for each in drawn} == {"cheap"}


# --- figures -------------------------------------------------------------------------------------


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 11)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99)] == [5, 9, 10]
    assert percentile([7.0], 0.5) == 7


def test_speed_is_of_the_last_quarter_of_an_hour() -> None:
    clock = Clock()
    meter = Meter(clock, Tally())
    assert meter.speed() is None
    meter.answered(100.0, 1)
    clock.now += 901
    for seconds in (0.1, 0.2, 0.4):
        meter.answered(seconds, 70)
    speed = meter.speed()
    assert speed is not None
    assert (speed.answers, speed.p50, speed.p99, round(speed.tokens_per_second)) == (3, 0.2, 0.4, 300)
    assert meter.median() == 0.2
    meter.answered(0.1, 1)
    meter.answered(0.1, 1)
    assert meter.median() == 0.2  # for a second
    clock.now += 1
    assert meter.median() == 0.1


# --- tokens --------------------------------------------------------------------------------------


def test_a_bound_is_no_less_than_any_tokenizer_makes() -> None:
    plain, decomposed, expanded = most_tokens(
        [Text("", "abc" * 100), Text("", "é" * 100), Text("q:", "\ufdfa" * 100)], None
    )
    assert plain >= 300
    assert decomposed >= 300  # an e and an accent each
    assert expanded >= 2 + 3300  # each stands for 18 characters
    assert most_tokens([Text("", "x" * 10_000)], 512) == (512,)


@pytest.mark.parametrize(("total", "weights"), [(10, (1, 1, 1)), (7, (5, 0, 5)), (1, (3, 900)), (100, (100,))])
def test_a_sum_is_split_whole(total: int, weights: tuple[int, ...]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total * weight / sum(weights)) < 1


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1:248:1893:25c8:1946", True, True),
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.1.1", False, True),
        ("100.64.1.1", False, True),
        ("::1", False, True),
        ("fd12::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("64:ff9b::7f00:1", False, True),
        ("2002:7f00:1::", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fd00:ec2::254", False, False),
        ("fe80::1%eth0", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
    ],
)
def test_only_public_addresses_unless_the_operator_allows_others(address: str, public: bool, private: bool) -> None:
    assert is_allowed(address, private=False, encrypted=True) is public
    assert is_allowed(address, private=True, encrypted=True) is private


def test_nothing_goes_unencrypted_over_the_internet() -> None:
    assert not is_allowed("93.184.216.34", private=True, encrypted=False)
    assert is_allowed("127.0.0.1", private=True, encrypted=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example/v1",
        "ftp://api.example/v1",
        "https://user:password@api.example/v1",
        "https://api.example/v1?key=1",
        "https://api.example/v1#a",
        "https:///v1",
        "api.example/v1",
        "https://api.example/v1\r\nx: y",
        "https://" + "a" * 3000,
        "file:///etc/passwd",
        "",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(AddressError, match="expected https://HOST/v1"):
        read_url(url, private=False)
    assert read_url("https://api.example/v1", private=False).host == "api.example"
    assert read_url("http://api.example/v1", private=True).host == "api.example"


# --- keys and routes -----------------------------------------------------------------------------


def test_a_key_shows_four_characters_and_no_more() -> None:
    key = ProviderKey(KEY)
    provider = RemoteProvider(name="a", url="https://a.example/v1", model="m", key=key)
    for shown in (repr(key), str(key), f"{key}", repr(provider), repr(asdict(provider)), repr(copy.copy(provider))):
        assert KEY not in shown
        assert KEY[-10:] not in shown
    assert key.shown == "…wxyz"
    assert ProviderKey("short").shown == "…"
    assert key == ProviderKey(KEY) != ProviderKey(KEY + "1")
    with pytest.raises(TypeError):
        pickle.dumps(key)
    for wrong in ("", "two words", "a\r\nb", "ключ", "x" * 2000):
        with pytest.raises(InputError) as raised:
            ProviderKey(wrong)
        assert not wrong or wrong not in str(raised.value)


def test_a_sealed_key_opens_in_its_place_alone() -> None:
    sealer, key = Sealer(SECRET), ProviderKey(KEY)
    sealed = sealer.seal(key, "model", "name", "https://a.example/v1")
    assert KEY.encode() not in sealed
    assert sealer.seal(key, "model", "name", "https://a.example/v1") != sealed
    assert Sealer(SECRET).open(sealed, "model", "name", "https://a.example/v1") == key
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for other, data, place in (
        (Sealer(SECRET + b"!"), sealed, ("model", "name", "https://a.example/v1")),
        (sealer, sealed, ("model", "name", "https://evil.example/v1")),
        (sealer, sealed, ("modeln", "ame", "https://a.example/v1")),
        (sealer, changed, ("model", "name", "https://a.example/v1")),
        (sealer, b"", ("model", "name", "https://a.example/v1")),
    ):
        with pytest.raises(ProviderKeyError, match="another secret"):
            other.open(data, *place)
    with pytest.raises(InputError, match="32 random"):
        Sealer(b"short")


def test_a_route_that_cannot_be_is_refused() -> None:
    one = RemoteProvider(name="a", url="https://a.example/v1", model="m")
    for providers, message in (
        ((), "no provider"),
        ((one, one), "Several providers are named a"),
        ((LocalProvider(model="m"), LocalProvider(model="n", name="b")), "twice"),
    ):
        with pytest.raises(InputError, match=message):
            Route(providers=providers)
    with pytest.raises(InputError, match="weight"):
        RemoteProvider(name="a", url="https://a.example/v1", model="m", weight=-1)
    with pytest.raises(InputError, match="share from 0 to 1"):
        RoutingSettings(retry_share=1.5)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (400, b'{"error": {"message": "too long"}}', {}, InputError),
        (409, b"", {}, InputError),
        (413, b"", {}, InputError),
        (422, b"[]", {}, InputError),
        (401, b"", {}, ProviderRefusedError),
        (402, b"", {}, ProviderRefusedError),
        (403, b"", {}, ProviderRefusedError),
        (404, b"", {}, ProviderRefusedError),
        (302, b"", {"location": "https://evil.example"}, ProviderRefusedError),
        (408, b"", {}, ProviderError),
        (500, b"<html>", {}, ProviderError),
        (502, b"", {}, ProviderError),
        (503, b"", {}, ProviderError),
        (503, b"", {"retry-after": "7"}, ModelColdError),
        (429, b"", {"retry-after": "7"}, QueueFullError),
        (500, b'{"error": {"code": "encoding_failed"}}', {}, EncodingFailedError),
    ],
)
def test_what_an_answer_stands_for(
    status: int, body: bytes, headers: dict[str, str], expected: type[UnmaskError]
) -> None:
    provider = RemoteProvider(name="far", url="https://a.example/v1", model="m")
    found = exception_of(Said(status=status, headers=headers, body=body), provider)
    assert type(found) is expected
    if "retry-after" in headers:
        assert getattr(found, "retry_after", None) == 7


def test_a_cold_unmask_server_says_so_by_its_code() -> None:
    peer = RemoteProvider(name="peer", url="https://a.example/v1", model="m", kind="unmask")
    for code, expected in (("model_cold", ModelColdError), ("stopping", ProviderError)):
        said = Said(status=503, headers={"retry-after": "3"}, body=b'{"error": {"code": "%b"}}' % code.encode())
        assert type(exception_of(said, peer)) is expected


def test_what_a_provider_says_is_one_line_without_its_key() -> None:
    provider = RemoteProvider(name="far", url="https://a.example/v1", model="m", key=ProviderKey(KEY))
    message = f"bad\\n\\u0000 key {KEY} " + "x" * 5000
    found = exception_of(
        Said(status=400, headers={}, body=b'{"error": {"message": "%b"}}' % message.encode()), provider
    )
    assert KEY not in str(found)
    assert "\n" not in str(found)
    assert len(str(found)) < 500
    assert str(found).startswith("The provider 'far' refuses the request with 400: bad key …wxyz")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after-ms": "1500", "retry-after": "12"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, 3600),
        ({"retry-after": formatdate(0)}, 0),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds

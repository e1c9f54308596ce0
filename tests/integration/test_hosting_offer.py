"""The gateway beside its API: names, prices and status of models, providers, settings, what only an operator sees."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.integration.test_api_support import serving, wait_until
from tests.integration.test_hosting_support import COST, MODEL, SECRET, Hosted, embed, hosted
from unmask.engine.fake import FakeEngine
from unmask.errors import InputError
from unmask.gateway.api.settings import ModelSettings, load
from unmask.gateway.catalogue import Catalogue
from unmask.gateway.hosting.downloads import Downloads
from unmask.gateway.hosting.gateway import named_by_slug
from unmask.gateway.hosting.settings import GatewaySettings
from unmask.gateway.routing.routes import ProviderKey, RemoteProvider

SOON = "llm2vec-meta-llama-3-8b-instruct-unsup-simcse"
SOON_AS_PUBLISHED = "McGill-NLP/LLM2Vec-Meta-Llama-3-8B-Instruct-mntp-unsup-simcse"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    with hosted(tmp_path_factory.mktemp("gateway"), private_providers=True, admins=("boss@example.org",)) as running:
        yield running


def models(client: httpx.Client) -> dict[str, dict[str, Any]]:
    return {model["id"]: model for model in client.get("/v1/models").json()["data"]}


def test_models_are_listed_with_live_price_and_status(gateway: Hosted) -> None:
    with gateway.client(gateway.customer()) as client:
        found = models(client)
        assert found.keys() == {entry.slug for entry in Catalogue.load()}
        ours = found[MODEL]
        assert (ours["status"], ours["dimensions"], ours["providers"]) == ("live", 384, ["local"])
        assert ours["prices"] == {"per": "1M tokens", "realtime": "0.01", "batch": "0.005", "currency": "USD"}
        assert (found[SOON]["status"], found[SOON]["endpoints"], found[SOON]["providers"]) == ("coming soon", [], [])
        assert client.get(f"/v1/models/{SOON_AS_PUBLISHED}").json()["id"] == SOON
        gateway.knobs.state = "warming"
        assert models(client)[MODEL]["status"] == "warming"
        gateway.knobs.state = "ready"


def test_a_model_is_called_by_any_of_its_names(gateway: Hosted) -> None:
    customer = gateway.customer()
    with gateway.client(customer) as client:
        plain = embed(client).json()
        capital = embed(client, model=MODEL.upper()).json()
        assert plain["data"] == capital["data"]
        assert embed(client, model="nobody/knows").status_code == 404
        soon = embed(client, model=SOON_AS_PUBLISHED)
        assert (soon.status_code, soon.json()["error"]["code"]) == (404, "model_not_found")
        assert "not served yet" in soon.json()["error"]["message"]
    assert {entry.model for entry in gateway.do(gateway.gateway.ledger.entries(customer.id)) if entry.model} == {MODEL}


def test_a_model_goes_live_when_an_admin_adds_a_provider_and_nothing_else_changes(
    gateway: Hosted, tmp_path: Path
) -> None:
    customer = gateway.customer()
    with (
        serving(tmp_path, engine=FakeEngine(models=("theirs",), dimension=4096), api_keys=("their-key",)) as elsewhere,
        gateway.client(customer) as client,
    ):
        provider = RemoteProvider(
            name="elsewhere", url=f"{elsewhere.url}/v1", model="theirs", kind="unmask", key=ProviderKey("their-key")
        )
        kept = gateway.do(gateway.gateway.providers.add(SOON, provider))
        gateway.do(gateway.gateway.refresh_providers())
        wait_until(lambda: embed(client, model=SOON).status_code == 200)
        for name in (SOON, SOON_AS_PUBLISHED):
            response = embed(client, model=name)
            assert response.headers["x-provider"] == "elsewhere"
            assert len(response.json()["data"][0]["embedding"]) == 4096
        listed = models(client)[SOON]
        assert (listed["status"], listed["providers"]) == ("live", ["elsewhere"])
        gateway.do(gateway.gateway.providers.remove(kept.id))
        gateway.do(gateway.gateway.refresh_providers())
        assert embed(client, model=SOON).status_code == 404
        assert models(client)[SOON]["status"] == "coming soon"
    price = Catalogue.load().find(SOON).price_of(400, "realtime")
    charges = [entry for entry in gateway.do(gateway.gateway.ledger.entries(customer.id)) if entry.kind == "charge"]
    assert {(entry.model, entry.amount) for entry in charges} == {(SOON, -price)}


def test_a_visitor_tries_a_model_within_limits(tmp_path: Path) -> None:
    with hosted(tmp_path, tries_per_minute=3) as gateway:
        try_it = gateway.gateway.services.try_it
        found = gateway.do(try_it(MODEL, ["a cat", "a kitten", "a cat"], "Find it:", None))
        assert found.similarities[0][0] == pytest.approx(1, abs=1e-6)
        assert found.similarities[0][2] < 0.99  # the instruction stands before the first alone
        assert gateway.knobs.asked[-1].priority == "batch"
        with pytest.raises(InputError, match="Expected 2 to 8"):
            gateway.do(try_it(MODEL, ["alone"], None, None))
        for _ in range(2):
            gateway.do(try_it(MODEL, ["a", "b"], None, None))
        with pytest.raises(Exception, match="Rate limit"):
            gateway.do(try_it(MODEL, ["a", "b"], None, None))
        gateway.do(try_it(MODEL, ["a", "b"], None, 1))  # who is signed in has tries of their own


def test_an_admin_sees_requests_calls_and_health(gateway: Hosted) -> None:
    customer = gateway.customer()
    with gateway.client(customer) as client:
        answer = embed(client)
        assert embed(client, model="nobody/knows").status_code == 404
    wait_until(lambda: len(gateway.gateway.services.requests()) >= 2)
    newest, before = gateway.gateway.services.requests()[:2]
    assert (newest.status, newest.model, newest.user_id) == (404, None, customer.id)
    assert (before.id, before.status, before.tokens) == (answer.headers["x-request-id"], 200, 400)
    calls = gateway.do(gateway.gateway.services.calls.last_month()).get(MODEL, 0)
    gateway.do(gateway.gateway._traffic.flush())
    counted = gateway.do(gateway.gateway.services.calls.last_month())[MODEL]
    assert counted > calls
    gateway.do(gateway.gateway._traffic.flush())
    assert gateway.do(gateway.gateway.services.calls.last_month())[MODEL] == counted
    checks = {check.name: check for check in gateway.do(gateway.gateway.services.health())}
    assert {name for name, check in checks.items() if not check.well} == {"mail"}
    assert checks.keys() >= {"database", "engine", "disk", f"model {MODEL}"}


def test_the_hubs_downloads_are_shown_where_the_operator_lets_them_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(repository: str) -> int | None:
        asked.append(repository)
        if "Mistral" in repository:
            raise OSError("no such repository")
        return 12_345 if repository == SOON_AS_PUBLISHED else None

    monkeypatch.setattr(Downloads.__init__, "__defaults__", (ask,))
    with hosted(tmp_path / "asks", hub_downloads=True) as gateway, gateway.client() as client:
        repositories = {entry.source for entry in Catalogue.load() if "/" in entry.source}
        wait_until(lambda: set(asked) == repositories)
        wait_until(lambda: "12,345" in client.get(f"/models/{SOON}").text)
        assert "by its hub" not in client.get(f"/models/{MODEL}").text
    asked.clear()
    with hosted(tmp_path / "does not") as gateway, gateway.client() as client:
        assert "by its hub" not in client.get(f"/models/{SOON}").text
    assert not asked


def test_a_user_has_so_much_room_for_files(tmp_path: Path) -> None:
    with hosted(tmp_path, stored_bytes=1000) as gateway, gateway.client(gateway.customer()) as client:

        def upload(size: int) -> httpx.Response:
            return client.post("/v1/files", files={"file": ("in.jsonl", b"x" * size)}, data={"purpose": "batch"})

        first = upload(600)
        assert first.status_code == 200
        assert upload(401).json()["error"]["code"] == "storage_quota"
        with gateway.client(gateway.customer()) as other:
            body = {"file": ("in.jsonl", b"x" * 600)}
            assert other.post("/v1/files", files=body, data={"purpose": "batch"}).status_code == 200
        client.delete(f"/v1/files/{first.json()['id']}")
        assert upload(1000).status_code == 200


def test_a_form_that_does_not_arrive_is_given_up(gateway: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.gateway.web.forms._SECONDS", 0.3)
    url = httpx.URL(gateway.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        head = "POST /sign-in HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        connection.sendall((head + f"origin: {gateway.url}\r\ncontent-length: 100\r\n\r\nemail=").encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_admins_of_the_settings_are_admins(gateway: Hosted) -> None:
    boss = gateway.do(gateway.gateway.users.find("boss@example.org"))
    assert boss.admin
    assert boss.verified_at is None
    assert not gateway.do(gateway.gateway.users.get(gateway.customer().id)).admin


def test_pages_and_api_are_one_site(gateway: Hosted) -> None:
    with gateway.client() as client:
        assert "text/html" in client.get("/").headers["content-type"]
        assert client.get("/docs").text != client.get("/docs/api").text
        assert "/v1/embeddings" in client.get("/docs/api").text
        assert client.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
        assert client.get("/nothing").status_code == 404
        assert "text/html" in client.get("/nothing").headers["content-type"]
        assert client.get("/health").status_code == 200
        assert "unmask_" in client.get("/metrics").text
        assert client.get("/metrics", headers={"x-forwarded-for": "192.0.2.1"}).status_code == 404


def test_the_key_is_charged_for_what_a_process_that_stopped_had_answered(tmp_path: Path) -> None:
    with hosted(tmp_path) as gateway:
        customer = gateway.customer(credit=100)
        with gateway.client(customer) as client:
            assert embed(client).status_code == 200
    with hosted(tmp_path) as gateway:
        assert gateway.balance(customer) == (100 - COST, 0)
        with gateway.client(customer) as client:  # the secret is the same, so the key is known
            assert embed(client).status_code == 200


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": "0.0.0.0"}, "expected site_url"),
        ({"host": "0.0.0.0", "site_url": "https://models.example.org"}, "Nobody could sign in"),
        ({"host": "0.0.0.0", "site_url": "http://models.example.org"}, "site's URL"),
        ({"site_url": "https://models.example.org", "demo": True}, "demo account is for this machine alone"),
        ({"port": 0}, "expected"),
        ({"api_keys": ("gr-1",)}, "expected no api_keys"),
        ({"secret": SecretStr("too short")}, "expected 32"),
        ({"database": "mysql://x"}, "database"),
    ],
)
def test_settings_that_are_unsafe_are_refused(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    settings: dict[str, Any] = {
        "data": tmp_path,
        "models": {MODEL: ModelSettings()},
        "secret": SecretStr(SECRET),
    } | given
    with pytest.raises(InputError, match=told):
        _made(GatewaySettings(**settings))


def _made(settings: GatewaySettings) -> None:
    from unmask.gateway.hosting.gateway import Gateway

    Gateway(settings, Catalogue.load(), FakeEngine(models=(MODEL,)))


def test_the_secret_is_made_once_and_its_owner_s_alone(tmp_path: Path) -> None:
    settings = GatewaySettings(data=tmp_path / "new")
    secret = settings.read_secret()
    assert len(secret) >= 43
    assert settings.read_secret() == secret
    assert stat.S_IMODE((tmp_path / "new" / "secret").stat().st_mode) == 0o600
    assert GatewaySettings(data=tmp_path / "other").read_secret() != secret
    with pytest.raises(InputError, match="cannot be used"):
        GatewaySettings(secret_file=tmp_path / "nowhere").read_secret()


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_SECRET", SECRET)
    monkeypatch.setenv("UNMASK_SMTP_PASSWORD", "pass word")
    monkeypatch.setenv("UNMASK_OPENID_CLIENT_SECRET", "client secret")
    settings = load(GatewaySettings)
    shown = f"{settings.shown()} {settings!r}"
    for secret in (SECRET, "pass word", "client secret"):
        assert secret not in shown


def test_models_are_served_under_their_slugs() -> None:
    catalogue = Catalogue.load()
    settings = GatewaySettings(models={SOON_AS_PUBLISHED: ModelSettings(), MODEL: ModelSettings(source="a-folder")})
    found = named_by_slug(settings, catalogue).models
    assert {name: model.source for name, model in found.items()} == {SOON: SOON_AS_PUBLISHED, MODEL: "a-folder"}
    with pytest.raises(InputError, match="no entry in the catalogue"):
        named_by_slug(GatewaySettings(models={"a/model": ModelSettings()}), catalogue)
    twice = GatewaySettings(models={SOON_AS_PUBLISHED: ModelSettings(), SOON: ModelSettings()})
    with pytest.raises(InputError, match="twice"):
        named_by_slug(twice, catalogue)

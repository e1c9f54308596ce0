"""What is written down or shown on a whole way through the gateway, good and bad: nothing that opens anything."""

from __future__ import annotations

import logging
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_hosting_support import MODEL, SECRET, embed
from tests.integration.test_security_support import PROVIDER_KEY, SOON, Place, pages, secured
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.api.logs import JsonFormatter

TEXT = "what-nobody-else-may-read"


class Written(logging.Handler):
    """Keeps what the gateway's threads log, as it would be written and as its records are."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._tests = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        # The tests' own clients log, too; records of requests are copies of one that was made in their thread.
        if record.thread != self._tests or record.name.startswith("unmask"):
            plain = logging.Formatter().format(record) + str(getattr(record, "fields", ""))
            self.lines += [JsonFormatter().format(record), plain]


@contextmanager
def everything_logged() -> Iterator[Written]:
    """Take every record of every logger, down to DEBUG."""
    handler, root = Written(), logging.getLogger()
    names = ("unmask", "uvicorn", "unmask.requests", "")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def way(place: Place, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], list[str]]:
    """Go the whole way; return every secret that it had, and every answer that has no right to show one."""
    running, shown, secrets = place.running, [], {"server": SECRET, "provider": PROVIDER_KEY, "text": TEXT}
    with place.browser() as visitor, place.browser(place.boss) as admin:
        visitor.send_form("/sign-in", {"email": "whole-way@example.org"})
        secrets["link"] = place.mailbox.link().partition("token=")[2]
        visitor.send_form("/sign-in/link", {"token": secrets["link"]})
        secrets["session"] = visitor.cookies["unmask-session"]
        secrets["admin"] = admin.session
        visitor._token, visitor.session = "", secrets["session"]
        secrets["form"] = visitor.token()
        made = visitor.send_form("/account/keys", {"name": "mine"}).text
        secrets["key"] = made.partition('id="secret">')[2].partition("<")[0]
        assert len(secrets["key"]) == 41
        secrets["wrong"] = ApiKey.new().reveal()
        secrets["entered"] = "sk-entered-by-an-admin-0123456789"
        form = {"slug": SOON, "name": "theirs", "url": "https://93.184.216.35/v1", "model": "m", "kind": "openai"}
        refused = admin.send_form("/admin/providers", form | {"key": secrets["entered"], "url": "https://127.0.0.1/v1"})
        assert refused.status_code == 422
        assert admin.send_form("/admin/providers", form | {"key": secrets["entered"]}).status_code == 303
        running.do(running.gateway.providers.remove(place.provider + 1))
        shown += [refused.text, visitor.post("/account/keys", data={"csrf": "x", "name": secrets["key"]}).text]
        shown.append(visitor.get(f"/sign-in/link?token={secrets['link']}").text)
        assert visitor.send_form(f"/models/{MODEL}/try", {"texts": f"{TEXT}\nb"}).status_code == 200
        with running.client() as caller:
            good, bad = ({"authorization": f"Bearer {secrets[name]}"} for name in ("key", "wrong"))
            assert embed(caller, TEXT, **good, **{"idempotency-key": "k"}).status_code == 200
            running.knobs.failures.append(RuntimeError(TEXT))
            shown += [
                embed(caller, TEXT, **good).text,
                embed(caller, TEXT, **bad).text,
                embed(caller, [TEXT, 1], **good).text,
            ]
            shown.append(embed(caller, TEXT, model=f"none-{secrets['key'][:3]}", **good).text)
            shown.append(caller.get(f"/v1/nothing/{TEXT[:0]}", headers=bad).text)
            shown.append(caller.get("/v1/models", headers=good).text)
            shown += [caller.get(path).text for path in ("/metrics", "/ready", "/health")]

        async def broken(*arguments: object, **more: object) -> object:
            raise RuntimeError(f"{secrets['session']} {secrets['key']} {TEXT} {SECRET}")

        with monkeypatch.context() as patch:
            patch.setattr(running.gateway.ledger, "balance", broken)
            failed = visitor.get("/account")
            assert failed.status_code == 500
            shown.append(failed.text)
        for path in map(place.path, pages("GET")):
            shown.append(admin.get(path).text)
    return secrets, shown


def test_nothing_that_opens_anything_is_logged_shown_or_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with everything_logged() as written, secured(tmp_path) as place:
        secrets, shown = way(place, monkeypatch)
        running = place.running
        kept = place.kept()
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        stored = b"".join(file.read_bytes() for file in files)
        gateway = running.gateway
        objects = (gateway.settings, gateway.keyring, gateway.sessions, gateway.links, gateway.providers,
                   running.do(gateway.providers.list()), running.do(gateway.users.list()), place.mailbox.mails,
                   running.do(gateway.keyring.of(place.alice.id)))  # fmt: skip
        described = repr(objects) + str(objects) + repr(gateway.settings.shown())
    log = "\n".join(written.lines)
    assert "page /account failed" in log, "the log was heard"
    assert '"path":"/v1/embeddings"' in log
    for name, secret in secrets.items():
        assert secret not in log, (name, next(line for line in written.lines if secret in line))
        assert name == "form" or not [page for page in shown if secret in page], name  # a form's token is in its page
        assert secret not in kept, name
        assert secret.encode() not in stored, name
        assert secret not in described, name
    for word in ("Bearer", "authorization", "unmask-session", "whole-way@"):
        assert word.lower() not in log.lower(), next(line for line in written.lines if word.lower() in line.lower())


def test_a_new_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with secured(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not (folder / "secret").exists(), "the settings have one"

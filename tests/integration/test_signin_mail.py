"""Mail, in real conversations with a mail server on loopback."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")

from tests.bank import START, Clock
from tests.smtp import Office, mail_server
from unmask.errors import InputError
from unmask.gateway.accounts.errors import AddressRefusedError, MailError
from unmask.gateway.accounts.mail import LogMailer, Mail, SmtpMailer, SmtpSettings

MAIL = Mail(
    to="ada@example.org",
    subject="Sign in to Größe",
    text="Hello,\n\nhttps://example.org/sign-in/link?token=SECRETTOKEN\n.\n.a line with a dot\nGrüße\n",
    html="<p>Grüße</p>",
)
PASSWORD = "p@ss word"


def mailer(office: Office, *, trusting: bool = True, **options: Any) -> SmtpMailer:
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": office.port, "sender": "noreply@example.org"}
    settings |= {"tls": "none"} | options
    return SmtpMailer(
        SmtpSettings(**settings), context=office.trusting() if trusting else ssl.create_default_context(), clock=Clock()
    )


def test_a_mail_arrives_as_it_was_written(tmp_path: Path) -> None:
    with mail_server(tmp_path) as office:
        asyncio.run(mailer(office, sender_name="Größe & Co").send(MAIL))
    assert "MAIL FROM:<noreply@example.org>" in office.lines[1]
    assert office.lines[2].startswith("RCPT TO:<ada@example.org>")
    assert office.lines[0] == "EHLO example.org"  # not this machine's name
    (mail,) = office.mails
    assert mail["To"] == "ada@example.org"
    assert mail["From"] == "Größe & Co <noreply@example.org>"
    assert mail["Subject"] == "Sign in to Größe"
    assert mail["Date"].datetime.timestamp() == START / 1e6
    assert mail["Message-ID"].endswith("@example.org>")
    assert mail["Auto-Submitted"] == "auto-generated"
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert text.get_content().replace("\r\n", "\n") == MAIL.text
    assert html is not None
    assert html.get_content().strip() == MAIL.html.strip()


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_passwords_and_mails_go_encrypted(tmp_path: Path, tls: str) -> None:
    with mail_server(tmp_path, tls_at_once=tls == "tls") as office:
        asyncio.run(mailer(office, tls=tls, user="postman", password=PASSWORD).send(MAIL))
    assert len(office.mails) == 1
    words = [line.split()[0] for line in office.lines]
    assert {word for word, hidden in zip(words, office.encrypted, strict=True) if not hidden} <= {"EHLO", "STARTTLS"}
    assert "AUTH" in words


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_server_that_is_not_trusted_gets_nothing(tmp_path: Path, tls: str) -> None:
    with mail_server(tmp_path, tls_at_once=tls == "tls") as office, pytest.raises(MailError):
        asyncio.run(mailer(office, trusting=False, tls=tls, user="postman", password=PASSWORD).send(MAIL))
    assert not office.mails
    assert not [line for line in office.lines if line.startswith(("AUTH", "MAIL"))]


def test_a_server_that_cannot_encrypt_gets_nothing(tmp_path: Path) -> None:
    with mail_server(tmp_path) as office:
        office.answers["EHLO"] = "250 AUTH PLAIN"
        with pytest.raises(MailError):
            asyncio.run(mailer(office, tls="starttls", user="postman", password=PASSWORD).send(MAIL))
    assert [line.split()[0] for line in office.lines] == ["EHLO", "QUIT"]


@pytest.mark.parametrize(
    ("answers", "options", "error"),
    [
        ({"RCPT": "550 no such user here SECRETANSWER"}, {}, AddressRefusedError),
        ({"RCPT": "450 come again"}, {}, MailError),
        ({"MAIL": "530 who are you"}, {}, MailError),
        ({"DATA": "554 no"}, {}, MailError),
        ({"DATA": ""}, {}, MailError),
        ({"EHLO": "421 too busy", "HELO": "421 too busy"}, {}, MailError),
        ({"EHLO": "nonsense", "HELO": "nonsense"}, {}, MailError),
        ({}, {"user": "postman", "password": "wrong SECRETWORD"}, MailError),
    ],
)
def test_what_a_server_says_no_to_was_not_sent(
    tmp_path: Path,
    answers: dict[str, str],
    options: dict[str, Any],
    error: type[MailError],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with mail_server(tmp_path) as office, caplog.at_level(logging.DEBUG):
        office.answers.update(answers)
        with pytest.raises(MailError, match="mail") as refusal:
            asyncio.run(mailer(office, **options).send(MAIL))
    assert type(refusal.value) is error
    assert not office.mails
    assert "127.0.0.1" in caplog.text  # the operator is told
    for word in ("SECRET", "ada@"):
        assert word not in caplog.text + str(refusal.value)


@pytest.mark.parametrize("answer", ["500 what", ""])
def test_a_good_bye_that_fails_is_no_failure(tmp_path: Path, answer: str) -> None:
    with mail_server(tmp_path) as office:
        office.answers["QUIT"] = answer
        asyncio.run(mailer(office).send(MAIL))
    assert len(office.mails) == 1


def test_a_server_that_is_not_there_or_says_nothing_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        office = Office(tmp_path, port=silent.getsockname()[1])
        settings = SmtpSettings(host="127.0.0.1", port=office.port, sender="a@b.org", tls="none", timeout=0.05)
        with pytest.raises(MailError, match="Try again in a few minutes"):
            asyncio.run(SmtpMailer(settings).send(MAIL))
    with pytest.raises(MailError):
        asyncio.run(SmtpMailer(settings).send(MAIL))


def test_the_event_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            settings = SmtpSettings(host="127.0.0.1", port=port, sender="a@b.org", tls="none", timeout=5)
            sending = asyncio.create_task(SmtpMailer(settings).send(MAIL))
            loop = asyncio.get_running_loop()
            silent.setblocking(False)
            connection, _ = await loop.sock_accept(silent)
            # The mailer waits for a greeting in its thread; we are still here to answer.
            connection.setblocking(False)
            with connection:
                await loop.sock_sendall(connection, b"554 closed\r\n")
                with pytest.raises(MailError):
                    await sending

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change",
    [
        lambda: Mail(to="ada@example.org\nBcc: eve@example.org", subject="a", text="", html=""),
        lambda: Mail(to="ada", subject="a", text="", html=""),
        lambda: Mail(to="ada@example.org", subject="a\r\nBcc: eve@example.org", text="", html=""),
        lambda: SmtpSettings(host="a", sender="a@b.org", sender_name="a\nBcc: eve@example.org"),
        lambda: SmtpSettings(host="a", sender="a@b.org\nBcc: eve@example.org"),
        lambda: SmtpSettings(host="a b", sender="a@b.org"),
        lambda: SmtpSettings(host="", sender="a@b.org"),
        lambda: SmtpSettings(host="a..b", sender="a@b.org"),
        lambda: SmtpSettings(host="a", sender="a@b.org", port=0),
        lambda: SmtpSettings(host="a", sender="a@b.org", timeout=0),
        lambda: SmtpSettings(host="a", sender="a@b.org", user="a"),
        lambda: SmtpSettings(host="a", sender="a@b.org", password="a"),
        lambda: SmtpSettings(host="a", sender="a@b.org", user="a", password="é"),
        lambda: SmtpSettings(host="smtp.example.org", sender="a@b.org", user="a", password="a", tls="none"),
    ],
)
def test_what_cannot_be_mail_is_refused(change: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        change()


def test_nothing_secret_is_shown() -> None:
    settings = SmtpSettings(host="a", sender="a@b.org", user="postman", password=PASSWORD)
    shown = repr([settings, MAIL, SmtpMailer(settings)])
    assert "postman" in shown
    assert PASSWORD not in shown
    assert "SECRETTOKEN" not in shown


def test_development_writes_mails_down() -> None:
    lines: list[str] = []
    asyncio.run(LogMailer(lines.append).send(MAIL))
    assert "ada@example.org" in lines[0]
    assert MAIL.text in lines[0]

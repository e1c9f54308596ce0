"""Mail: what is sent, and how."""

from __future__ import annotations

import asyncio
import logging
import smtplib
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Final, Literal, Protocol

from unmask.errors import InputError
from unmask.gateway.accounts.addresses import is_loopback, parse_address
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.errors import AddressRefusedError, MailError

_log = logging.getLogger(__name__)

#: Mails that are sent at the same time; more wait.
_AT_ONCE: Final = 4
#: The first of the answers by which a mail server says no for good.
_PERMANENT: Final = 500

Tls = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail to one person.

    Attributes:
        to: the address.
        subject: one line.
        text: all of it.
        html: the same for readers that show it.

    Raises:
        InputError: the address is none, or the subject is more than a line.
    """

    to: str
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)

    def __post_init__(self) -> None:
        parse_address(self.to)
        if not self.subject.isprintable():
            raise InputError("The mail's subject has characters that no line has. Leave them out.")


class Mailer(Protocol):
    """Something that sends mail."""

    async def send(self, mail: Mail) -> None:
        """Send a mail: it is with the mail server when this returns.

        Raises:
            AddressRefusedError: the mail server does not take the address.
            MailError: it could not be sent.
        """


class LogMailer:
    """Writes mails to the log, links and all: for development only.

    Args:
        write: takes the lines; the log by default.
    """

    def __init__(self, write: Callable[[str], None] = _log.warning) -> None:
        self._write = write

    async def send(self, mail: Mail) -> None:
        """Write a mail down."""
        self._write(f"A mail to {mail.to}, written here because no mail server is set:\n{mail.subject}\n\n{mail.text}")


@dataclass(frozen=True, kw_only=True)
class SmtpSettings:
    """A mail server that takes our mail.

    Attributes:
        host: of the server.
        port: of the server.
        sender: the address that mail comes from.
        sender_name: shown beside it.
        user: to sign in as; None not to.
        password: of the user.
        tls: ``starttls``: the connection is encrypted before anything is said; ``tls``: from its beginning; ``none``.
        timeout: seconds for each answer.

    Raises:
        InputError: one of them cannot be, or a password would go out unencrypted.
    """

    host: str
    sender: str
    port: int = 587
    sender_name: str = "Unmask"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls = "starttls"
    timeout: float = 10.0

    def __post_init__(self) -> None:
        parse_address(self.sender)
        if not _is_host(self.host):
            raise InputError("The mail server's host is no name of one. Expected one such as smtp.example.org.")
        if not 1 <= self.port <= 65_535 or self.timeout <= 0:
            raise InputError(f"The mail server's port {self.port} or time-out {self.timeout} s cannot be.")
        if not self.sender_name.isprintable():
            raise InputError("The sender's name has characters that no line has. Leave them out.")
        if not f"{self.user}{self.password}".isascii():
            raise InputError("The mail server's user or password has letters that mail servers do not take: use ASCII.")
        if (self.user is None) != (self.password is None):
            raise InputError("The mail server needs a user and a password, or neither. Give the other one, too.")
        if self.user is not None and self.tls == "none" and not is_loopback(self.host):
            raise InputError(f"The password would go to {self.host} unencrypted. Choose starttls or tls.")


class SmtpMailer:
    """Sends mail by a mail server.

    Args:
        settings: which one.
        context: whom to trust; by default those whom this machine trusts.
        clock: the time.
    """

    def __init__(
        self, settings: SmtpSettings, *, context: ssl.SSLContext | None = None, clock: Clock = microseconds
    ) -> None:
        self._settings = settings
        self._context = context or ssl.create_default_context()
        self._clock = clock
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def send(self, mail: Mail) -> None:
        """Send a mail; see :meth:`Mailer.send`."""
        message = self._message(mail)
        async with self._room:
            try:
                await asyncio.to_thread(self._deliver, message)
            except smtplib.SMTPRecipientsRefused as error:
                (code, _), *_ = error.recipients.values()
                _log.warning("the mail server %s refused a recipient: %d", self._settings.host, code)
                raise _refused(code) from None
            except (smtplib.SMTPException, OSError) as error:
                # Its words may quote the mail; its kind and code do not.
                said = getattr(error, "smtp_code", None) or getattr(error, "errno", None)
                _log.warning("the mail server %s failed: %s %s", self._settings.host, type(error).__name__, said)
                raise MailError("The mail could not be sent now. Try again in a few minutes.") from None

    def _message(self, mail: Mail) -> EmailMessage:
        settings = self._settings
        message = EmailMessage(policy=SMTP)
        message["From"] = Address(settings.sender_name, addr_spec=settings.sender)
        message["To"] = Address(addr_spec=mail.to)
        message["Subject"] = mail.subject
        message["Date"] = formatdate(self._clock() / SECOND)
        message["Message-ID"] = make_msgid(domain=self._domain)
        # No "I am on holiday" in return.
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        message.add_alternative(mail.html, subtype="html")
        return message

    def _deliver(self, message: EmailMessage) -> None:
        server = self._connect()
        try:
            if self._settings.tls == "starttls":
                server.starttls(context=self._context)
            if self._settings.user is not None and self._settings.password is not None:
                server.login(self._settings.user, self._settings.password)
            server.send_message(message)
        finally:
            # The mail was taken or refused by now, whatever the server says to a good-bye.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        # The name that we give ourselves: looking up this machine's own may take long, and tells it to others.
        name, timeout = self._domain, settings.timeout
        if settings.tls == "tls":
            return smtplib.SMTP_SSL(settings.host, settings.port, name, timeout=timeout, context=self._context)
        return smtplib.SMTP(settings.host, settings.port, name, timeout=timeout)

    @property
    def _domain(self) -> str:
        return self._settings.sender.rpartition("@")[2]


def _refused(code: int) -> MailError:
    if code < _PERMANENT:
        return MailError("The mail could not be sent to this address now. Try again in a few minutes.")
    return AddressRefusedError("The mail server does not take this address. Look for a typing error in it.")


def _is_host(text: str) -> bool:
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return text.isascii() and text.isprintable() and bool(text) and " " not in text

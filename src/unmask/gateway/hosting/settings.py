"""What a gateway is told, besides what any server is: accounts, site, mail, sign-in."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from unmask.errors import InputError
from unmask.gateway.accounts.addresses import is_loopback
from unmask.gateway.accounts.keyform import SECRET_BYTES, check_secret
from unmask.gateway.accounts.keyring import MOST_KEYS
from unmask.gateway.accounts.mail import LogMailer, Mailer, SmtpMailer, SmtpSettings, Tls
from unmask.gateway.accounts.money import UNIT
from unmask.gateway.accounts.openid_provider import OpenIdSettings
from unmask.gateway.api.keys import Keys
from unmask.gateway.api.settings import Settings
from unmask.gateway.web.services import SiteSettings
from unmask.hub.cache import home

#: Where a provider of sign-ins sends people back to.
OPENID_BACK = "/sign-in/openid/back"


class GatewaySettings(Settings):
    """All of a gateway's settings, those of :class:`unmask.gateway.api.settings.Settings` included.

    Attributes:
        database: ``sqlite:///FILE`` or ``postgresql://USER@HOST/NAME``; None for a file in the data folder.
        always_durable: charges outlive a power cut, too, at a wait for the disk (docs/gateway.md).
        secret: 32 characters or more from which keys and cookies are derived; None for a file in the data folder.
        secret_file: a file that holds it.
        site_url: under which browsers reach the site; None for this machine, as a developer uses it.
        site_name: what it is called.
        stored_bytes: of each user's files together.
        contact: an e-mail address for its users.
        currency: of all prices.
        free_credit: of each new person, in millionths of the currency.
        keys_per_user: that work at the same time.
        admins: addresses of those who run it; they are admins once they have signed in.
        catalogue: folders of further models, or of changes to those that come with Unmask.
        private_providers: admins may add providers on this machine and in private networks.
        smtp_host: of the mail server; None: sign-in links are written to the log, for development.
        smtp_port: of it.
        smtp_user: to log in as, None for without.
        smtp_password: likewise.
        smtp_tls: ``starttls``, ``tls`` or ``none``.
        mail_from: whom mails are from.
        openid_name: of the provider to sign in at, for people.
        openid_issuer: its URL; None for none.
        openid_client_id: that it gave us.
        openid_client_secret: likewise.
        tries_per_minute: how often a visitor may try a model on its page.
        hub_downloads: ask Hugging Face once a day how often the catalogue's models are downloaded.
        proxies: addresses of reverse proxies, whose X-Forwarded-For is believed.
        demo: make an account to look around with; None: where no site_url is given.
    """

    database: str | None = None
    always_durable: bool = False
    secret: SecretStr | None = None
    secret_file: Path | None = None
    site_url: str | None = None
    site_name: Annotated[str, Field(min_length=1, max_length=60)] = "Unmask"
    stored_bytes: Annotated[int, Field(ge=1)] | None = 2_000_000_000
    contact: str = ""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    free_credit: Annotated[int, Field(ge=0)] = UNIT
    keys_per_user: Annotated[int, Field(ge=1)] = MOST_KEYS
    admins: tuple[str, ...] = ()
    catalogue: tuple[Path, ...] = ()
    private_providers: bool = False
    smtp_host: str | None = None
    smtp_port: Annotated[int, Field(ge=1, le=65_535)] = 587
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_tls: Tls = "starttls"
    mail_from: str | None = None
    openid_name: str = "single sign-on"
    openid_issuer: str | None = None
    openid_client_id: str = ""
    openid_client_secret: SecretStr = SecretStr("")
    tries_per_minute: Annotated[int, Field(ge=1)] = 20
    hub_downloads: bool = False
    proxies: tuple[str, ...] = ()
    demo: bool | None = None

    @property
    def folder(self) -> Path:
        """Where files and batches are, and what else is not told to be elsewhere."""
        return self.data or home() / "gateway"

    @property
    def has_demo(self) -> bool:
        """Whether there is an account to look around with."""
        return self.site_url is None and self.smtp_host is None if self.demo is None else self.demo

    @property
    def _is_for_development(self) -> bool:
        """Whether only this machine reaches the site, so that sign-in links may be written to the log."""
        return self.site_url is None or is_loopback(urlsplit(self.site_url).hostname or "")

    @property
    def url(self) -> str:
        """Where browsers reach the site."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.site_url or f"http://{host}:{self.port}"

    @property
    def database_url(self) -> str:
        """Where the accounts are."""
        return self.database or f"sqlite:///{self.folder / 'gateway.db'}"

    def keys(self) -> Keys:
        """Return no keys: they are in the database.

        Raises:
            InputError: there are some in the settings.
        """
        if self.api_keys or self.api_keys_file:
            raise InputError("A gateway keeps its keys in the database; expected no api_keys. Remove them.")
        return Keys(())

    def check(self) -> None:
        """Refuse what would be unsafe, or cannot work.

        Raises:
            InputError: the site is not where it says, or others could read the sign-in links; or as
                :meth:`unmask.gateway.api.settings.Settings.check`.
        """
        self.keys()
        self.check_packages()
        if self.site_url is None and self.port == 0:
            raise InputError("The port is 0 and there is no site_url; expected either, for the links of the pages.")
        if self.has_demo and (self.site_url is not None or self.smtp_host is not None):
            raise InputError("A demo account is for this machine alone; expected no site_url and no smtp_host with it.")
        if self.site_url is None and not is_loopback(self.host):
            raise InputError(
                f"The host is {self.host!r}, so others can reach it; expected site_url, under which they do, such as "
                "https://models.example.org."
            )
        self.site()
        if not self._is_for_development and self.smtp_host is None:
            raise InputError("Nobody could sign in: expected smtp_host, by which sign-in links are mailed.")

    def site(self) -> SiteSettings:
        """Return what the pages are told.

        Raises:
            InputError: ``site_url`` is none.
        """
        return SiteSettings(
            name=self.site_name,
            base_url=self.url,
            currency=self.currency,
            free_credit=self.free_credit,
            contact=self.contact,
            development=self.smtp_host is None,
        )

    def mailer(self) -> Mailer:
        """Return what sends mails.

        Raises:
            InputError: a setting of mail cannot be used.
        """
        if self.smtp_host is None:
            return LogMailer()
        if self.mail_from is None:
            raise InputError("smtp_host is set and mail_from is not; expected the address that mails are from.")
        password = self.smtp_password.get_secret_value() if self.smtp_password else None
        return SmtpMailer(
            SmtpSettings(
                host=self.smtp_host,
                port=self.smtp_port,
                sender=self.mail_from,
                sender_name=self.site_name,
                user=self.smtp_user,
                password=password,
                tls=self.smtp_tls,
            )
        )

    def openid(self) -> OpenIdSettings | None:
        """Return the provider to sign in at, None for none.

        Raises:
            InputError: a setting of it cannot be used.
        """
        if self.openid_issuer is None:
            return None
        return OpenIdSettings(
            name=self.openid_name,
            issuer=self.openid_issuer,
            client_id=self.openid_client_id,
            client_secret=self.openid_client_secret.get_secret_value(),
            redirect_url=self.url + OPENID_BACK,
        )

    def read_secret(self) -> bytes:
        """Return the secret; without one it is made, once, in a file that only its owner reads.

        Raises:
            InputError: it is too short, or the file cannot be read or written.
        """
        if self.secret is not None:
            return check_secret(self.secret.get_secret_value().encode())
        file = self.secret_file or self.folder / "secret"
        try:
            if self.secret_file is None:
                _make(file)
            return check_secret(file.read_bytes().strip())
        except OSError as error:
            raise InputError(f"The secret's file {file} cannot be used: {error.strerror}. Set secret_file.") from error


def _make(file: Path) -> None:
    """Write a new secret, unless there is one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w", encoding="ascii") as written:
        written.write(secrets.token_urlsafe(2 * SECRET_BYTES))
    try:
        os.link(draft, file)  # whole or not at all, and never over another
    except FileExistsError:
        pass
    finally:
        draft.unlink()

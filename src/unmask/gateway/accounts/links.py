"""Signing in by a link that is sent to an e-mail address.

Whoever can read the mail of an address is let in as its owner. Nothing here looks whether the address has an account:
what is answered, and how long that takes, is the same.

A link is opened twice. Mail scanners open every link they see, so its page only asks whether to sign in, and as whom;
the button on it sends the token back, and this uses it up.
"""

from __future__ import annotations

import html
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from sqlalchemy import LargeBinary, bindparam, delete, insert, select

from unmask.gateway.accounts.addresses import network_of, parse_address, parse_local_path, parse_site_url
from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.errors import AddressRefusedError, LinkGoneError, MailError
from unmask.gateway.accounts.mail import Mail, Mailer
from unmask.gateway.accounts.throttle import Limit, Throttle
from unmask.gateway.accounts.tokens import Keyed, new_token
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import sign_in_links

#: Seconds for which a link works.
LINK_SECONDS: Final = 900
#: Where the page is that a link opens; the token is its query's ``token``.
LINK_PATH: Final = "/sign-in/link"
#: Links that are sent to one address, and that one client may ask for.
PER_ADDRESS: Final = Limit(name="links to an address", count=5, seconds=3600)
PER_CLIENT: Final = Limit(name="links for a client", count=20, seconds=3600)

_print: Final = bindparam("print", type_=LargeBinary)
_now: Final = number("now")
_links: Final = sign_in_links.c
_ADD: Final = Statement(
    insert(sign_in_links).values(
        digest=_print, email=words("address"), next_path=words("path"), expires_at=number("until")
    )
)
_FIND: Final = Statement(select(_links.email).where(_links.digest == _print, _links.expires_at > _now))
_USE: Final = Statement(
    delete(sign_in_links)
    .where(_links.digest == _print, _links.expires_at > _now)
    .returning(_links.email, _links.next_path)
)
_DROP: Final = Statement(delete(sign_in_links).where(_links.digest == _print))
_DROP_OTHERS: Final = Statement(delete(sign_in_links).where(_links.email == words("address")))
_SWEEP: Final = Statement(
    delete(sign_in_links).where(
        _links.digest.in_(
            select(_links.digest).where(_links.expires_at <= _now).order_by(_links.expires_at).limit(1000)
        )
    )
)


class Arrival(NamedTuple):
    """Somebody who opened a link.

    Attributes:
        email: the address that is theirs.
        next_path: of this site, where they wanted to go.
    """

    email: str
    next_path: str


class Links:
    """Links that sign in.

    Args:
        database: where they are kept, as keyed hashes.
        secret: the server's.
        mailer: that sends them.
        throttle: that counts them.
        site: its name, in the mail.
        clock: the time.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(
        self,
        database: Database,
        secret: bytes,
        mailer: Mailer,
        throttle: Throttle,
        *,
        site: str = "Unmask",
        clock: Clock = microseconds,
    ) -> None:
        self._database = database
        self._keyed = Keyed(secret, "sign-in links")
        self._mailer = mailer
        self._throttle = throttle
        self._site = site
        self._clock = clock

    async def send(self, email: str, base_url: str, next_path: str = "/", *, client: str) -> None:
        """Send a link to an address, whether it has an account or not.

        Args:
            email: the address.
            base_url: of this site: the operator's setting, never the request's ``Host``, which anybody can choose.
            next_path: of this site, where to go then.
            client: the IP address that asks.

        Raises:
            InputError: the address, the URL or the path cannot be.
            ThrottledError: the address was sent too many, or the client asked for too many.
            AddressRefusedError: the mail server does not take the address.
            MailError: the mail cannot be sent now; the attempt is not counted.
            DatabaseUnavailableError: the database cannot be written now; nothing was sent.
        """
        address, path = parse_address(email), parse_local_path(next_path)
        parse_site_url(base_url, "site's URL")
        acts = (PER_ADDRESS, address), (PER_CLIENT, network_of(client))
        await self._throttle.take(*acts)
        token = new_token()
        values: dict[str, Any] = {"print": self._keyed.digest(token), "address": address, "path": path}
        until = self._clock() + LINK_SECONDS * SECOND
        await self._database.write(lambda transaction: transaction.run(_ADD, until=until, **values))
        try:
            await self._mailer.send(
                self._mail(address, f"{base_url.rstrip('/')}{LINK_PATH}?{urlencode({'token': token})}")
            )
        except MailError as error:
            await self._database.write(lambda transaction: transaction.run(_DROP, print=values["print"]))
            # An address that is none is counted: else anybody could try which ones a mail server takes.
            if not isinstance(error, AddressRefusedError):
                await self._throttle.give_back(*acts)
            raise

    async def look(self, token: str) -> str:
        """Return the address that a link signs in, without using it up: for the page that it opens.

        Raises:
            LinkGoneError: it was used, has expired, or is none.
            DatabaseUnavailableError: the database cannot be read now.
        """
        digest, now = self._keyed.digest(token), self._clock()
        rows = await self._database.read(lambda transaction: transaction.rows(_FIND, print=digest, now=now))
        if not rows:
            raise _gone()
        return str(rows[0][0])

    async def accept(self, token: str) -> Arrival:
        """Use a link up, and with it all others of its address. Only a ``POST`` may, with a form's token checked.

        Raises:
            LinkGoneError: it was used, has expired, or is none.
            DatabaseUnavailableError: the database cannot be written now; the link still works.
        """
        digest, now = self._keyed.digest(token), self._clock()

        def operation(transaction: Transaction) -> Arrival:
            rows = transaction.rows(_USE, print=digest, now=now)
            if not rows:
                raise _gone()
            transaction.run(_DROP_OTHERS, address=rows[0][0])
            return Arrival(*rows[0])

        return await self._database.write(operation, durable=True)

    async def sweep(self) -> int:
        """Forget the links that have expired, a thousand at most; return how many there were.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        now = self._clock()
        return await self._database.write(lambda transaction: transaction.run(_SWEEP, now=now), hurry=False)

    def _mail(self, address: str, url: str) -> Mail:
        minutes = LINK_SECONDS // 60
        note = (
            f"The link works once, for {minutes} minutes. If you did not ask for it, you can ignore this mail: "
            "without the link nobody can sign in."
        )
        site = html.escape(self._site)
        return Mail(
            to=address,
            subject=f"Sign in to {self._site}",
            text=f"Hello,\n\nopen this link to sign in to {self._site}:\n\n{url}\n\n{note}\n",
            html=f'<p>Hello,</p>\n<p><a href="{html.escape(url)}">Sign in to {site}</a></p>\n<p>{note}</p>\n',
        )


def _gone() -> LinkGoneError:
    return LinkGoneError("This link was used already, or is too old. Ask for a new one.")

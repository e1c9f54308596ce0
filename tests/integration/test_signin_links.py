"""Links that sign in: sent, looked at, used once; the same for every address."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("cryptography")

from tests.bank import SECRET, Bank, bank, outcomes
from unmask.errors import InputError
from unmask.gateway.accounts.errors import AddressRefusedError, LinkGoneError, MailError, ThrottledError
from unmask.gateway.accounts.links import LINK_SECONDS, PER_ADDRESS, PER_CLIENT, Arrival, Links
from unmask.gateway.accounts.mail import LogMailer, Mail
from unmask.gateway.accounts.throttle import Throttle
from unmask.gateway.accounts.tokens import new_token

pytest_plugins = ("tests.databases",)

BASE = "https://example.org"
HERE = "192.0.2.1"


@dataclass
class Box:
    """A mailer that keeps what it is to send, or fails."""

    mails: list[Mail] = field(default_factory=list)
    error: MailError | None = None

    async def send(self, mail: Mail) -> None:
        self.mails.append(mail)
        if self.error is not None:
            raise self.error

    @property
    def token(self) -> str:
        """That the last mail holds."""
        found = re.findall(rf"{BASE}/sign-in/link\?token=([\w-]+)\n", self.mails[-1].text)
        assert len(found) == 1
        assert f'href="{BASE}/sign-in/link?token={found[0]}"' in self.mails[-1].html
        return str(found[0])


def links_of(b: Bank, box: Box, secret: bytes = SECRET) -> Links:
    return Links(b.database, secret, box, Throttle(b.database, secret, clock=b.clock), clock=b.clock)


def test_a_link_signs_in_once(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            box = Box()
            links = links_of(b, box)
            await links.send(" Ada@Example.org ", BASE, "/models?q=a", client=HERE)
            assert [mail.to for mail in box.mails] == ["ada@example.org"]
            token = box.token
            for _ in range(3):  # a mail scanner looks at it
                assert await links.look(token) == "ada@example.org"
            assert await links_of(b, box).accept(token) == ("ada@example.org", "/models?q=a")
            for use in (links.look, links.accept):
                with pytest.raises(LinkGoneError, match="used already, or is too old. Ask for a new one"):
                    await use(token)

    asyncio.run(scenario())


def test_of_two_who_use_a_link_at_once_one_gets_in(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            box = Box()
            both = [links_of(each, box) for each in (one, other)]
            await both[0].send("ada@example.org", BASE, client=HERE)
            asked = [links.accept(box.token) for _ in range(5) for links in both]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert len(outcomes(results, LinkGoneError)) == 9
            assert outcomes(results, Arrival) == [("ada@example.org", "/")]

    asyncio.run(scenario())


def test_a_link_works_for_a_quarter_of_an_hour(url: str) -> None:
    assert LINK_SECONDS == 15 * 60

    async def scenario() -> None:
        async with bank(url) as b:
            box = Box()
            links = links_of(b, box)
            await links.send("ada@example.org", BASE, client=HERE)
            b.clock.skip(LINK_SECONDS - 0.001)
            await links.look(box.token)
            assert await links.sweep() == 0
            b.clock.skip(0.001)
            for use in (links.look, links.accept):
                with pytest.raises(LinkGoneError):
                    await use(box.token)
            assert await links.sweep() == 1
            await links.send("ada@example.org", BASE, client=HERE)
            assert (await links.accept(box.token)).email == "ada@example.org"

    asyncio.run(scenario())


def test_a_link_that_is_used_ends_the_others_of_its_address(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            box = Box()
            links = links_of(b, box)
            tokens = []
            for email in ("ada@example.org", "ada@example.org", "bob@example.org"):
                await links.send(email, BASE, client=HERE)
                tokens.append(box.token)
            assert len(set(tokens)) == 3
            await links.accept(tokens[1])
            with pytest.raises(LinkGoneError):
                await links.accept(tokens[0])
            assert (await links.accept(tokens[2])).email == "bob@example.org"

    asyncio.run(scenario())


def test_no_other_text_is_a_link(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            box = Box()
            links = links_of(b, box)
            await links.send("ada@example.org", BASE, client=HERE)
            stored = b.rows("SELECT digest, email, next_path FROM sign_in_links")[0]
            assert box.token not in repr(stored)
            for token in ("", new_token(), box.token[:-1], box.token + "A", bytes(stored[0]).hex(), "é", "' OR 1=1 --"):
                with pytest.raises(LinkGoneError):
                    await links.accept(token)
            with pytest.raises(LinkGoneError):
                await links_of(b, box, SECRET + b"!").accept(box.token)
            await links.accept(box.token)

    asyncio.run(scenario())


def test_whether_an_address_has_an_account_makes_no_difference(url: str) -> None:
    """The same statements, the same mail: so the same answer, in about the same time."""

    async def scenario() -> None:
        async with bank(url) as b:
            await b.customer(email="ada@example.org")
            box, ran = Box(), []
            links = links_of(b, box)
            write, read = b.database.write, b.database.read

            for email in ("ada@example.org", "bob@example.org"):
                counts = {"write": 0, "read": 0}

                async def writing(*args: object, counts: dict[str, int] = counts, **options: object) -> object:
                    counts["write"] += 1
                    return await write(*args, **options)  # type: ignore[arg-type]

                async def reading(*args: object, counts: dict[str, int] = counts) -> object:
                    counts["read"] += 1
                    return await read(*args)  # type: ignore[arg-type]

                b.database.write, b.database.read = writing, reading  # type: ignore[method-assign, assignment]
                await links.send(email, BASE, client=HERE)
                ran.append(counts)
            assert ran[0] == ran[1] == {"write": 2, "read": 0}
            known, unknown = box.mails
            text = known.text.replace(re.findall(r"token=(\S+)", known.text)[0], box.token)
            assert text == unknown.text
            assert known.subject == unknown.subject

    asyncio.run(scenario())


def test_addresses_and_clients_get_so_many(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            box = Box()
            links = links_of(b, box)
            for i in range(PER_ADDRESS.count):
                await links.send("ada@example.org", BASE, client=f"192.0.2.{i}")
            for email in ("ada@example.org", "ADA@example.org"):
                with pytest.raises(ThrottledError, match="too often"):
                    await links.send(email, BASE, client="192.0.2.99")
            assert len(box.mails) == PER_ADDRESS.count
            for i in range(PER_CLIENT.count):
                await links.send(f"user{i}@example.org", BASE, client=f"2001:db8::{i:x}")
            with pytest.raises(ThrottledError):
                await links.send("bob@example.org", BASE, client="2001:db8::ffff")
            await links.send("bob@example.org", BASE, client="2001:db8:0:1::1")
            b.clock.skip(3600)
            await links.send("ada@example.org", BASE, client=HERE)

    asyncio.run(scenario())


def test_a_mail_that_cannot_be_sent_does_not_count(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            box = Box(error=MailError("The mail could not be sent now."))
            links = links_of(b, box)
            for _ in range(2 * PER_ADDRESS.count):
                with pytest.raises(MailError, match="could not be sent now"):
                    await links.send("ada@example.org", BASE, client=HERE)
            with pytest.raises(LinkGoneError):
                await links.accept(box.token)
            assert b.rows("SELECT count(*) FROM sign_in_links") == [(0,)]
            box.error = None
            for _ in range(PER_ADDRESS.count):
                await links.send("ada@example.org", BASE, client=HERE)
            # An address that is none counts: nobody may try which ones there are.
            box.error = AddressRefusedError("The mail server does not take this address.")
            for _ in range(PER_ADDRESS.count):
                with pytest.raises(AddressRefusedError):
                    await links.send("bob@example.org", BASE, client=HERE)
            with pytest.raises(ThrottledError):
                await links.send("bob@example.org", BASE, client=HERE)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("email", "base", "path"),
    [
        ("ada", BASE, "/"),
        ("ada@example.org\r\nBcc: eve@example.org", BASE, "/"),
        ("ada@example.org", "http://example.org", "/"),
        ("ada@example.org", BASE, "//evil.org"),
        ("ada@example.org", BASE, "https://evil.org"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_sent(url: str, email: str, base: str, path: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            box = Box()
            with pytest.raises(InputError):
                await links_of(b, box).send(email, base, path, client=HERE)
            assert not box.mails
            assert b.rows("SELECT count(*) FROM throttle") == [(0,)]

    asyncio.run(scenario())


def test_links_are_logged_in_development_only(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> str:
        async with bank(url) as b:
            box = Box()
            links = links_of(b, box)
            await links.send("ada@example.org", BASE, client=HERE)
            token = box.token
            shown = repr([links, box.mails])
            await links.accept(token)
            with pytest.raises(LinkGoneError) as refusal:
                await links.accept(token)
            assert token not in shown + repr(refusal.value)
            throttle = Throttle(b.database, SECRET, clock=b.clock)
            assert token not in caplog.text
            await Links(b.database, SECRET, LogMailer(), throttle, clock=b.clock).send(
                "bob@example.org", "http://localhost:8000/", client=HERE
            )
            return token

    with caplog.at_level(logging.DEBUG):
        token = asyncio.run(scenario())
    assert re.search(r"http://localhost:8000/sign-in/link\?token=[\w-]{43}\n", caplog.text)
    assert token not in caplog.text

"""The way in: one user, one grant, whatever happens at the same time or in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("joserfc")

from tests.bank import SECRET, Bank, bank, break_statements
from unmask.errors import InputError
from unmask.gateway.accounts.errors import IdentityTakenError
from unmask.gateway.accounts.identities import Identity
from unmask.gateway.accounts.joining import Joining
from unmask.gateway.db.errors import DatabaseUnavailableError

pytest_plugins = ("tests.databases",)

FREE = 5_000_000
ISSUER = "https://provider.org"


def joining_of(b: Bank, free_credit: int = FREE) -> Joining:
    return Joining(b.database, b.users, b.ledger, free_credit=free_credit, secret=SECRET, clock=b.clock)


def identity(subject: str = "7", email: str = "ada@example.org", issuer: str = ISSUER) -> Identity:
    return Identity(issuer=issuer, subject=subject, email=email)


async def require_one_grant(b: Bank, user_id: int) -> None:
    entries = await b.ledger.entries(user_id)
    assert [(entry.kind, entry.amount, entry.reference) for entry in entries] == [("grant", FREE, f"welcome:{user_id}")]
    await b.require_sound()


def test_the_first_time_brings_credit(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            joining = joining_of(b)
            user, first = await joining.enter(" Ada@Example.org ")
            assert first
            assert (user.email, user.verified_at, user.admin) == ("ada@example.org", b.clock.now, False)
            b.clock.skip(60)
            assert await joining.enter("ada@example.org") == (user, False)
            await require_one_grant(b, user.id)
            with pytest.raises(InputError):
                await joining.enter("ada")

    asyncio.run(scenario())


def test_a_user_whom_the_operator_added_is_welcome_too(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            added, _, _ = await b.customer()
            user, first = await joining_of(b).enter("ada@example.org")
            assert (user.id, first) == (added.id, True)
            await require_one_grant(b, user.id)

    asyncio.run(scenario())


def test_many_first_times_at_once_are_one(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            joinings = [joining_of(each) for each in (one, other)]
            asked = [joining.enter("ada@example.org") for _ in range(6) for joining in joinings]
            asked += [joining.enter_with(identity()) for _ in range(3) for joining in joinings]
            results = await asyncio.gather(*asked)
            assert len({user.id for user, _ in results}) == 1
            assert sum(first for _, first in results) == 1
            assert all(user.verified_at is not None for user, _ in results)
            await require_one_grant(one, results[0][0].id)
            assert one.rows("SELECT count(*) FROM users") == [(1,)]

    asyncio.run(scenario())


@pytest.mark.parametrize("late", [False, True])
def test_who_was_interrupted_gets_the_rest_the_next_time(url: str, late: bool) -> None:
    """The process dies at each statement in turn; it is done, or not, when it does."""

    async def scenario() -> None:
        async with bank(url) as b:
            faults, joining, died = break_statements(b.database), joining_of(b), 0
            for number in range(100):
                email = f"user{number}@example.org"
                faults.set(number, late=late)
                try:
                    user, first = await joining.enter_with(identity(str(number), email))
                except DatabaseUnavailableError:
                    died += 1
                    faults.set(None)
                    before = b.rows(f"SELECT verified_at FROM users WHERE email = '{email}'")
                    user, first = await joining_of(b).enter_with(identity(str(number), email))
                    assert first == (before in ([], [(None,)]))
                assert user.verified_at is not None
                await require_one_grant(b, user.id)
                if len(faults.seen) < number:
                    break
            assert died > 3 * 3
            assert b.rows("SELECT count(*) FROM identities") == [(number + 1,)]

    asyncio.run(scenario())


def test_another_amount_is_no_second_grant(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user = await b.users.add("ada@example.org")
            await b.ledger.credit(user.id, FREE, "grant", reference=f"welcome:{user.id}")  # and then it died
            assert (await joining_of(b, 2 * FREE).enter("ada@example.org"))[1]
            await require_one_grant(b, user.id)

    asyncio.run(scenario())


def test_no_free_credit_is_no_entry(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            user, first = await joining_of(b, 0).enter("ada@example.org")
            assert first
            assert await b.ledger.entries(user.id) == []
            assert not (await joining_of(b).enter("ada@example.org"))[1]
            assert await b.ledger.entries(user.id) == []
            for amount in (-1, 10**15 + 1):
                with pytest.raises(InputError):
                    joining_of(b, amount)

    asyncio.run(scenario())


def test_an_identity_finds_its_account_by_the_address_once(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            joining = joining_of(b)
            ada, _ = await joining.enter("ada@example.org")
            assert await joining.enter_with(identity()) == (ada, False)
            bob, first = await joining.enter_with(identity("8", "bob@example.org"))
            assert first
            assert bob.id != ada.id
            await require_one_grant(b, bob.id)
            # Another provider, another identity of the same person.
            assert await joining.enter_with(identity("7", issuer="https://other.org")) == (ada, False)

    asyncio.run(scenario())


def test_a_new_address_at_the_provider_opens_no_other_account(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            joining = joining_of(b)
            ada, _ = await joining.enter_with(identity())
            eve, _ = await joining.enter_with(identity("8", "eve@example.org"))
            assert await joining.enter_with(identity("8", "ada@example.org")) == (eve, False)
            assert await joining.enter_with(identity("7", "new@example.org")) == (ada, False)
            assert b.rows("SELECT count(*) FROM users") == [(2,)]

    asyncio.run(scenario())


def test_an_address_that_the_provider_gave_to_somebody_new_opens_nothing(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            joining = joining_of(b)
            ada, _ = await joining.enter_with(identity())
            for _ in range(2):
                with pytest.raises(IdentityTakenError, match="Sign in by a link to the address instead"):
                    await joining.enter_with(identity("9"))
            assert await joining.enter_with(identity()) == (ada, False)

    asyncio.run(scenario())


def test_two_addresses_of_an_identity_at_once_are_one_user_in_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bank(f"sqlite:///{tmp_path}/a.db") as b:
            joining = joining_of(b)
            both = identity(), identity(email="new@example.org")
            results = await asyncio.gather(*(joining.enter_with(each) for each in both))
            assert len({user.id for user, _ in results}) == 1
            await b.require_sound()

    asyncio.run(scenario())


def test_addresses_of_one_mailbox_have_one_free_credit_whichever_comes_first(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as one, bank(url) as other:
            joinings = [joining_of(each) for each in (one, other)]
            for person in range(4):
                name = f"ada{person}"
                spelled = [
                    *(f"{name}+{tag}@gmail.com" for tag in "abcd"),
                    *(f"{name[:at]}.{name[at:]}@googlemail.com" for at in (1, 2, 3)),
                    f"{name.upper()}@Gmail.com",
                ]
                asked = [joinings[number % 2].enter(email) for number, email in enumerate(spelled * 2)]
                users = {user.id: user for user, _ in await asyncio.gather(*asked)}
                assert len(users) == len(spelled)  # all of them have an account
                assert all(user.verified_at is not None for user in users.values())
                granted = [user for user in users if await one.ledger.entries(user)]
                assert len(granted) == 1
                await require_one_grant(one, granted[0])
                had = {user.id: await joinings[0].had_free_credit_before(user) for user in users.values()}
                assert had == {user: user not in granted for user in users}
            await joinings[0].enter("stranger@gmail.com")
            assert one.rows("SELECT count(*) FROM welcomes") == [(5,)]
            assert "gmail" not in repr(one.rows("SELECT * FROM welcomes"))

    asyncio.run(scenario())


def test_another_secret_knows_nobody_and_no_grant_is_noted_without_one(url: str) -> None:
    async def scenario() -> None:
        async with bank(url) as b:
            await joining_of(b, 0).enter("ada@example.org")
            assert b.rows("SELECT count(*) FROM welcomes") == [(0,)]
            first, _ = await joining_of(b).enter("ada+1@example.org")
            second, _ = await joining_of(b).enter("ada+2@example.org")
            strange = Joining(b.database, b.users, b.ledger, free_credit=FREE, secret=SECRET[::-1], clock=b.clock)
            assert await joining_of(b).had_free_credit_before(second)
            assert not await joining_of(b).had_free_credit_before(first)
            assert not await strange.had_free_credit_before(second)

    asyncio.run(scenario())


def test_who_had_the_free_credit_before_it_was_noted_is_caught_up_with(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade: grants in the ledger, and nobody in the list."""

    async def scenario() -> None:
        async with bank(url) as b:
            joining, former = joining_of(b), {}
            for email in ("ada@example.org", "a.da@gmail.com", "ad.a@gmail.com", "eve@example.org"):
                user = former[email] = await b.users.add(email)
                if email != "eve@example.org":
                    await b.ledger.credit(user.id, FREE, "grant", reference=f"welcome:{user.id}")
                    await b.users.verify(user.id)
            monkeypatch.setattr("unmask.gateway.accounts.joining._AT_ONCE", 2)
            assert await joining.catch_up() == 2  # of the two at one mailbox, one is noted
            assert await joining.catch_up() == 0
            for email in ("ada+new@example.org", "ada@googlemail.com"):
                user, first = await joining.enter(email)
                assert first
                assert await b.ledger.entries(user.id) == []
            assert await joining.had_free_credit_before(former["ad.a@gmail.com"])
            assert not await joining.had_free_credit_before(former["a.da@gmail.com"])
            user, _ = await joining.enter("eve@example.org")
            await require_one_grant(b, user.id)

    asyncio.run(scenario())

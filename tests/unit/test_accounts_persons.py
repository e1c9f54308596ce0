"""Which addresses lead to one mailbox, and which do not."""

from __future__ import annotations

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("cryptography")

from unmask.gateway.accounts.addresses import parse_address
from unmask.gateway.accounts.persons import SAME_MAILBOX, mailbox_of


@pytest.mark.parametrize(
    ("mailbox", "addresses"),
    [
        ("ada@example.org", ["ada@example.org", "ADA+news@Example.org", "ada+@example.org", "ada+a+b@example.org"]),
        ("adal@gmail.com", ["a.d.a.l@gmail.com", "adal+x.y@googlemail.com", "AD.AL@GMAIL.com", "adal@gmail.com"]),
        ("adal@proton.me", ["a-d_a.l@protonmail.com", "adal+1@pm.me", "adal@protonmail.ch", "ADAL@proton.me"]),
    ],
)
def test_addresses_of_one_mailbox_are_one(mailbox: str, addresses: list[str]) -> None:
    assert {mailbox_of(parse_address(each)) for each in addresses} == {mailbox}


def test_addresses_of_different_people_are_not() -> None:
    different = [
        "ada@example.org", "a.da@example.org", "ada@example.com", "ada@gmail.com", "a-da@gmail.com", "ada@proton.me",
        "ada@mail.gmail.com", "ada@example.org.gmail.com", "+ada@example.org", "+bob@example.org",
    ]  # fmt: skip
    assert len({mailbox_of(parse_address(each)) for each in different}) == len(different)


def test_no_domain_is_listed_twice() -> None:
    domains = [domain for each in SAME_MAILBOX for domain in each.domains]
    assert len(domains) == len(set(domains))

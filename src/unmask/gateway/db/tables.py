"""The tables as they are now; the migrations say how they came about, and a test that both agree.

Amounts are integers: millionths of the currency's unit. Times are microseconds since 1970, days are days since 1970,
both in UTC. What must never be wrong is kept by the database itself (``migrations/versions/r0002_credit.py``):

- ``entries`` only grows; each row changes ``balances.balance`` by its amount in the same statement.
- A row in ``holds`` raises ``balances.held`` and the key's ``key_usage`` in the same statement; it goes when the hold
  is settled or released, and never changes but for a later end (``r0008_pins.py``).
- ``0 <= held <= balance``, or the statement is undone.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

#: Most micro-units of one entry, and of one balance: sums stay whole numbers of 64 bits.
MOST_AMOUNT: Final = 10**15
MOST_BALANCE: Final = 10**18

#: SQLite's strict tables know no BIGINT; their INTEGER has 64 bits.
Integer64: Final = BigInteger().with_variant(Integer(), "sqlite")

#: What the migrations make beside the tables: they keep the books right (``r0002_credit.py``, ``r0005_site.py``).
TRIGGERS: Final = frozenset(
    {
        *("users_have_balances", "keys_have_usage", "holds_never_change", "holds_count", "holds_uncount"),
        *("entries_are_new", "entries_never_change", "entries_never_go", "entries_count", "entries_add_up"),
    }
)

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", Integer64, Identity(), primary_key=True)


users: Final = Table(
    "users",
    metadata,
    _id(),
    Column("email", Text, nullable=False, unique=True),
    Column("created_at", Integer64, nullable=False),
    Column("verified_at", Integer64),
    Column("is_admin", Integer64, nullable=False, server_default="0"),
    Column("disabled_at", Integer64),
    sqlite_strict=True,
)

keys: Final = Table(
    "keys",
    metadata,
    _id(),
    Column("user_id", Integer64, ForeignKey(users.c.id), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("created_at", Integer64, nullable=False),
    Column("expires_at", Integer64),
    Column("revoked_at", Integer64),
    Column("models", Text),
    Column("requests_per_minute", Integer64),
    Column("tokens_per_minute", Integer64),
    Column("spend_per_day", Integer64),
    CheckConstraint("requests_per_minute > 0 AND tokens_per_minute > 0 AND spend_per_day >= 0", name="limits"),
    sqlite_strict=True,
)

key_usage: Final = Table(
    "key_usage",
    metadata,
    Column("key_id", Integer64, ForeignKey(keys.c.id), primary_key=True, autoincrement=False),
    Column("requests_until", Integer64, nullable=False, server_default="0"),
    Column("tokens_until", Integer64, nullable=False, server_default="0"),
    Column("day", Integer64, nullable=False, server_default="0"),
    Column("spent", Integer64, nullable=False, server_default="0"),
    Column("last_used_at", Integer64),
    CheckConstraint("spent >= 0", name="spent"),
    sqlite_strict=True,
)

balances: Final = Table(
    "balances",
    metadata,
    Column("user_id", Integer64, ForeignKey(users.c.id), primary_key=True, autoincrement=False),
    Column("balance", Integer64, nullable=False, server_default="0"),
    Column("held", Integer64, nullable=False, server_default="0"),
    CheckConstraint(f"held >= 0 AND held <= balance AND balance <= {MOST_BALANCE}", name="covered"),
    sqlite_strict=True,
)

entries: Final = Table(
    "entries",
    metadata,
    _id(),
    Column("user_id", Integer64, ForeignKey(balances.c.user_id), nullable=False),
    Column("key_id", Integer64, ForeignKey(keys.c.id)),
    Column("kind", Text, nullable=False),
    Column("amount", Integer64, nullable=False),
    Column("at", Integer64, nullable=False),
    Column("hold_id", Text, unique=True),
    Column("reference", Text),
    Column("model", Text),
    Column("units", Integer64),
    Column("note", Text),
    CheckConstraint(
        "(kind = 'charge' AND amount <= 0 AND hold_id IS NOT NULL AND key_id IS NOT NULL) OR "
        "(kind IN ('grant', 'top_up') AND amount > 0 AND hold_id IS NULL) OR "
        "(kind = 'correction' AND amount <> 0 AND hold_id IS NULL)",
        name="kind",
    ),
    CheckConstraint(f"amount BETWEEN -{MOST_AMOUNT} AND {MOST_AMOUNT}", name="amount"),
    Index("ix_entries_user_id", "user_id", "id"),
    # Charges have none, and need no place in it.
    Index(
        "uq_entries_reference",
        "reference",
        unique=True,
        sqlite_where=text("reference IS NOT NULL"),
        postgresql_where=text("reference IS NOT NULL"),
    ),
    sqlite_strict=True,
)

# Of open requests only: few enough to be looked through when the expired ones are swept.
holds: Final = Table(
    "holds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Integer64, ForeignKey(balances.c.user_id), nullable=False),
    Column("key_id", Integer64, ForeignKey(key_usage.c.key_id), nullable=False),
    Column("amount", Integer64, nullable=False),
    Column("model", Text, nullable=False),
    Column("units", Integer64, nullable=False),
    Column("created_at", Integer64, nullable=False),
    Column("expires_at", Integer64, nullable=False),
    Column("day", Integer64, nullable=False),
    Column("requests_until", Integer64, nullable=False),
    Column("tokens_until", Integer64, nullable=False),
    CheckConstraint(f"amount BETWEEN 0 AND {MOST_AMOUNT}", name="amount"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("user_id", Integer64, ForeignKey(users.c.id), primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("hold_id", Text, nullable=False, index=True),
    Column("expires_at", Integer64, nullable=False, index=True),
    Column("charged", Integer64),
    Column("outcome", LargeBinary),
    sqlite_strict=True,
)

sign_in_links: Final = Table(
    "sign_in_links",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("email", Text, nullable=False, index=True),
    Column("next_path", Text, nullable=False),
    Column("expires_at", Integer64, nullable=False, index=True),
    sqlite_strict=True,
)

sessions: Final = Table(
    "sessions",
    metadata,
    _id(),
    Column("user_id", Integer64, ForeignKey(users.c.id), nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("created_at", Integer64, nullable=False),
    Column("last_seen_at", Integer64, nullable=False),
    Column("expires_at", Integer64, nullable=False, index=True),
    Column("agent", Text, nullable=False, server_default=""),
    sqlite_strict=True,
)

# Who somebody is at a provider of OpenID Connect; a user has at most one identity at each.
identities: Final = Table(
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", Integer64, ForeignKey(users.c.id), nullable=False),
    Column("created_at", Integer64, nullable=False),
    UniqueConstraint("user_id", "issuer"),
    sqlite_strict=True,
)

throttle: Final = Table(
    "throttle",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("used_until", Integer64, nullable=False, index=True),
    sqlite_strict=True,
)

# What the charges of a day come to, kept by a trigger: pages need not read the ledger.
usage_days: Final = Table(
    "usage_days",
    metadata,
    Column("user_id", Integer64, ForeignKey(users.c.id), primary_key=True, autoincrement=False),
    Column("day", Integer64, primary_key=True, autoincrement=False, index=True),
    Column("model", Text, primary_key=True),
    Column("requests", Integer64, nullable=False),
    Column("units", Integer64, nullable=False),
    Column("amount", Integer64, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

wishes: Final = Table(
    "wishes",
    metadata,
    Column("user_id", Integer64, ForeignKey(users.c.id), primary_key=True, autoincrement=False),
    Column("slug", Text, primary_key=True, index=True),
    Column("created_at", Integer64, nullable=False),
    sqlite_strict=True,
)

calls: Final = Table(
    "calls",
    metadata,
    Column("slug", Text, primary_key=True),
    Column("day", Integer64, primary_key=True, autoincrement=False, index=True),
    Column("count", Integer64, nullable=False),
    sqlite_strict=True,
)

# What admins add while the gateway runs; the catalogue's files have others.
providers: Final = Table(
    "providers",
    metadata,
    _id(),
    Column("slug", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sealed", LargeBinary),
    Column("weight", Integer64, nullable=False),
    Column("price", Integer64),
    Column("enabled", Integer64, nullable=False),
    Column("created_at", Integer64, nullable=False),
    Column("changed_at", Integer64, nullable=False),
    UniqueConstraint("slug", "name"),
    CheckConstraint("kind IN ('openai', 'unmask')", name="kind"),
    CheckConstraint("weight >= 0 AND price >= 0 AND enabled IN (0, 1)", name="numbers"),
    sqlite_strict=True,
)

# Which provider's vectors are a model's, of models with several; its vectors of the probe texts (float32, in rows of
# ``dimension``), and what tells those texts from others. Each change gives the row another ``mark``.
pins: Final = Table(
    "pins",
    metadata,
    Column("model", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("since", Integer64, nullable=False),
    Column("mark", Text, nullable=False),
    Column("probes", Text, nullable=False),
    Column("texts", Integer64, nullable=False),
    Column("dimension", Integer64, nullable=False),
    Column("vectors", LargeBinary),
    CheckConstraint(
        "texts >= 0 AND dimension >= 0 AND coalesce(length(vectors), 0) = 4 * texts * dimension", name="shape"
    ),
    sqlite_strict=True,
)

# What was seen of each provider in each hour: plain counts (bucket 0) and histograms (``routing/histograms.py``). Every
# process adds what it counted.
traffic: Final = Table(
    "traffic",
    metadata,
    Column("figure", Text, primary_key=True),
    Column("slug", Text, primary_key=True),
    Column("hour", Integer64, primary_key=True, autoincrement=False, index=True),
    Column("provider", Text, primary_key=True),
    Column("bucket", Integer64, primary_key=True, autoincrement=False),
    Column("count", Integer64, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

pulls: Final = Table(
    "pulls",
    metadata,
    Column("slug", Text, primary_key=True),
    Column("day", Integer64, primary_key=True, autoincrement=False, index=True),
    Column("count", Integer64, nullable=False),
    sqlite_strict=True,
)

# Who was counted today: keyed digests, forgotten when the day is over.
pull_marks: Final = Table(
    "pull_marks",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("day", Integer64, nullable=False, index=True),
    sqlite_strict=True,
)

# What admins did to others' accounts, and why; only added to.
acts: Final = Table(
    "acts",
    metadata,
    _id(),
    Column("user_id", Integer64, ForeignKey(users.c.id), nullable=False),
    Column("by_id", Integer64, ForeignKey(users.c.id), nullable=False),
    Column("at", Integer64, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint("kind IN ('disable', 'enable') AND by_id <> user_id", name="kind"),
    Index("ix_acts_user_id", "user_id", "id"),
    sqlite_strict=True,
)

# Which persons had the free credit: a keyed hash of what their addresses have in common.
welcomes: Final = Table(
    "welcomes",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("user_id", Integer64, ForeignKey(users.c.id), nullable=False, index=True),
    Column("created_at", Integer64, nullable=False),
    sqlite_strict=True,
)

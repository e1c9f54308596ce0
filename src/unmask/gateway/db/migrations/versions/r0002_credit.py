"""Credit: balances, the ledger, holds, what was answered to whom; and the triggers that keep them right.

One statement reserves, settles or releases: the triggers do the rest of it, so no crash comes in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class _Trigger(NamedTuple):
    """A trigger for each row.

    Attributes:
        name: of it, and of its function on PostgreSQL.
        when: ``AFTER INSERT ON users``, say.
        refuse: pairs of a condition and what is said where it holds.
        then: statements.
        sqlite_only: what SQLite refuses besides.
    """

    name: str
    when: str
    refuse: Sequence[tuple[str, str]] = ()
    then: Sequence[str] = ()
    sqlite_only: Sequence[tuple[str, str]] = ()


_UNPAID = (
    "NEW.kind = 'charge' AND NOT EXISTS (SELECT 1 FROM holds WHERE id = NEW.hold_id AND user_id = NEW.user_id "
    "AND key_id = NEW.key_id AND amount >= -NEW.amount)"
)
#: SQLite's INSERT OR REPLACE would delete the older row without asking the trigger on deletions.
_REPLACED = "EXISTS (SELECT 1 FROM entries WHERE id = NEW.id OR hold_id = NEW.hold_id OR reference = NEW.reference)"

_TRIGGERS = (
    _Trigger(
        name="users_have_balances",
        when="AFTER INSERT ON users",
        then=["INSERT INTO balances (user_id) VALUES (NEW.id)"],
    ),
    _Trigger(
        name="keys_have_usage",
        when="AFTER INSERT ON keys",
        then=["INSERT INTO key_usage (key_id) VALUES (NEW.id)"],
    ),
    _Trigger(
        name="entries_are_new",
        when="BEFORE INSERT ON entries",
        refuse=[(_UNPAID, "a charge settles a hold that is as large")],
        sqlite_only=[(_REPLACED, "the ledger is append-only")],
    ),
    _Trigger(
        name="entries_never_change",
        when="BEFORE UPDATE ON entries",
        refuse=[("TRUE", "the ledger is append-only")],
    ),
    _Trigger(
        name="entries_never_go",
        when="BEFORE DELETE ON entries",
        refuse=[("TRUE", "the ledger is append-only")],
    ),
    _Trigger(
        name="entries_count",
        when="AFTER INSERT ON entries",
        then=[
            # The hold's going takes its whole amount off the day's spending: what is charged stays.
            "UPDATE key_usage SET spent = spent - NEW.amount "
            "WHERE key_id = NEW.key_id AND day = (SELECT day FROM holds WHERE id = NEW.hold_id)",
            "DELETE FROM holds WHERE id = NEW.hold_id",
            "UPDATE balances SET balance = balance + NEW.amount WHERE user_id = NEW.user_id",
        ],
    ),
    _Trigger(
        name="holds_never_change",
        when="BEFORE UPDATE ON holds",
        refuse=[("TRUE", "a hold never changes")],
    ),
    _Trigger(
        name="holds_count",
        when="AFTER INSERT ON holds",
        then=[
            "UPDATE balances SET held = held + NEW.amount WHERE user_id = NEW.user_id",
            "UPDATE key_usage SET requests_until = NEW.requests_until, tokens_until = NEW.tokens_until, "
            "spent = CASE WHEN day = NEW.day THEN spent ELSE 0 END + NEW.amount, day = NEW.day, "
            "last_used_at = NEW.created_at WHERE key_id = NEW.key_id",
        ],
    ),
    _Trigger(
        name="holds_uncount",
        when="AFTER DELETE ON holds",
        then=[
            "UPDATE balances SET held = held - OLD.amount WHERE user_id = OLD.user_id",
            # Less than is taken off is there when the clock went back over midnight and the day began anew.
            "UPDATE key_usage SET spent = CASE WHEN spent > OLD.amount THEN spent - OLD.amount ELSE 0 END "
            "WHERE key_id = OLD.key_id AND day = OLD.day",
        ],
    ),
)


def upgrade() -> None:
    """Make the tables, and a balance for each user and a usage for each key that there is."""
    _make_balances()
    _make_ledger()
    _make_retries()
    op.execute("INSERT INTO balances (user_id) SELECT id FROM users")
    op.execute("INSERT INTO key_usage (key_id) SELECT id FROM keys")
    for trigger in _TRIGGERS:
        for statement in _on_sqlite(trigger) if _is_sqlite() else _on_postgresql(trigger):
            op.get_bind().exec_driver_sql(statement)
    if not _is_sqlite():
        op.execute(
            "CREATE TRIGGER entries_stay BEFORE TRUNCATE ON entries EXECUTE FUNCTION entries_never_go()",
        )


def downgrade() -> None:
    """Drop them: the ledger, too."""
    for trigger in _TRIGGERS:
        table = trigger.when.rpartition(" ")[2]
        op.execute(f"DROP TRIGGER {trigger.name}" if _is_sqlite() else f"DROP TRIGGER {trigger.name} ON {table}")
    for table in ("idempotency", "holds", "entries", "balances", "key_usage"):
        op.drop_table(table)
    if not _is_sqlite():
        for trigger in _TRIGGERS:
            op.execute(f"DROP FUNCTION {trigger.name}()")


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _on_sqlite(trigger: _Trigger) -> list[str]:
    body = [
        f"SELECT RAISE(ABORT, '{words}') WHERE {condition}"
        for condition, words in (*trigger.sqlite_only, *trigger.refuse)
    ]
    body += trigger.then
    return [f"CREATE TRIGGER {trigger.name} {trigger.when} FOR EACH ROW BEGIN {'; '.join(body)}; END"]


def _on_postgresql(trigger: _Trigger) -> list[str]:
    body = [
        f"IF {condition} THEN RAISE EXCEPTION '{words}' USING ERRCODE = 'integrity_constraint_violation'; END IF"
        for condition, words in trigger.refuse
    ]
    body += [*trigger.then, "RETURN NEW"]
    function = (
        f"CREATE FUNCTION {trigger.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {'; '.join(body)}; END $$"
    )
    return [
        function,
        f"CREATE TRIGGER {trigger.name} {trigger.when} FOR EACH ROW EXECUTE FUNCTION {trigger.name}()",
    ]


def _make_balances() -> None:
    op.create_table(
        "key_usage",
        sa.Column("key_id", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("requests_until", _INTEGER, nullable=False, server_default="0"),
        sa.Column("tokens_until", _INTEGER, nullable=False, server_default="0"),
        sa.Column("day", _INTEGER, nullable=False, server_default="0"),
        sa.Column("spent", _INTEGER, nullable=False, server_default="0"),
        sa.Column("last_used_at", _INTEGER),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_usage"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_key_usage_key_id"),
        sa.CheckConstraint("spent >= 0", name="ck_key_usage_spent"),
        sqlite_strict=True,
    )
    op.create_table(
        "balances",
        sa.Column("user_id", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("balance", _INTEGER, nullable=False, server_default="0"),
        sa.Column("held", _INTEGER, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("user_id", name="pk_balances"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_balances_user_id"),
        sa.CheckConstraint(
            "held >= 0 AND held <= balance AND balance <= 1000000000000000000", name="ck_balances_covered"
        ),
        sqlite_strict=True,
    )


def _make_ledger() -> None:
    op.create_table(
        "entries",
        sa.Column("id", _INTEGER, sa.Identity(), nullable=False),
        sa.Column("user_id", _INTEGER, nullable=False),
        sa.Column("key_id", _INTEGER),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", _INTEGER, nullable=False),
        sa.Column("at", _INTEGER, nullable=False),
        sa.Column("hold_id", sa.Text),
        sa.Column("reference", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("units", _INTEGER),
        sa.Column("note", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_entries"),
        sa.ForeignKeyConstraint(["user_id"], ["balances.user_id"], name="fk_entries_user_id"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_entries_key_id"),
        sa.UniqueConstraint("hold_id", name="uq_entries_hold_id"),
        sa.CheckConstraint(
            "(kind = 'charge' AND amount <= 0 AND hold_id IS NOT NULL AND key_id IS NOT NULL) OR "
            "(kind IN ('grant', 'top_up') AND amount > 0 AND hold_id IS NULL) OR "
            "(kind = 'correction' AND amount <> 0 AND hold_id IS NULL)",
            name="ck_entries_kind",
        ),
        sa.CheckConstraint("amount BETWEEN -1000000000000000 AND 1000000000000000", name="ck_entries_amount"),
        sqlite_strict=True,
    )
    op.create_index("ix_entries_user_id", "entries", ["user_id", "id"])
    known = sa.text("reference IS NOT NULL")
    op.create_index(
        "uq_entries_reference", "entries", ["reference"], unique=True, sqlite_where=known, postgresql_where=known
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("user_id", _INTEGER, nullable=False),
        sa.Column("key_id", _INTEGER, nullable=False),
        sa.Column("amount", _INTEGER, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("units", _INTEGER, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.Column("expires_at", _INTEGER, nullable=False),
        sa.Column("day", _INTEGER, nullable=False),
        sa.Column("requests_until", _INTEGER, nullable=False),
        sa.Column("tokens_until", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
        sa.ForeignKeyConstraint(["user_id"], ["balances.user_id"], name="fk_holds_user_id"),
        sa.ForeignKeyConstraint(["key_id"], ["key_usage.key_id"], name="fk_holds_key_id"),
        sa.CheckConstraint("amount BETWEEN 0 AND 1000000000000000", name="ck_holds_amount"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _make_retries() -> None:
    op.create_table(
        "idempotency",
        sa.Column("user_id", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("hold_id", sa.Text, nullable=False),
        sa.Column("expires_at", _INTEGER, nullable=False),
        sa.Column("charged", _INTEGER),
        sa.Column("outcome", sa.LargeBinary),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_idempotency"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_idempotency_user_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_idempotency_hold_id", "idempotency", ["hold_id"])
    op.create_index("ix_idempotency_expires_at", "idempotency", ["expires_at"])

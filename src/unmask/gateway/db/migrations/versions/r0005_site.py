"""What pages show: usage by day, wishes for models, counts of their use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Times are microseconds: a day has 86,400,000,000 of them.
_ADD_UP = """
INSERT INTO usage_days (user_id, day, model, requests, units, amount)
SELECT user_id, at / 86400000000, coalesce(model, ''), count(*), coalesce(sum(units), 0), -sum(amount)
FROM entries WHERE kind = 'charge' GROUP BY 1, 2, 3
"""
_ADD = """
INSERT INTO usage_days (user_id, day, model, requests, units, amount)
VALUES (NEW.user_id, NEW.at / 86400000000, coalesce(NEW.model, ''), 1, coalesce(NEW.units, 0), -NEW.amount)
ON CONFLICT (user_id, day, model) DO UPDATE SET
requests = usage_days.requests + 1,
units = usage_days.units + excluded.units,
amount = usage_days.amount + excluded.amount
"""


def upgrade() -> None:
    """Make the tables, and add up the charges that there are."""
    op.create_table(
        "usage_days",
        sa.Column("user_id", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("day", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("requests", _INTEGER, nullable=False),
        sa.Column("units", _INTEGER, nullable=False),
        sa.Column("amount", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "day", "model", name="pk_usage_days"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_usage_days_user_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_days_day", "usage_days", ["day"])
    op.create_table(
        "wishes",
        sa.Column("user_id", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "slug", name="pk_wishes"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_wishes_user_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_wishes_slug", "wishes", ["slug"])
    op.create_table(
        "calls",
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("day", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("count", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("slug", "day", name="pk_calls"),
        sqlite_strict=True,
    )
    op.create_index("ix_calls_day", "calls", ["day"])
    op.execute(_ADD_UP)
    for statement in _trigger():
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drop them; the ledger stays."""
    if _is_sqlite():
        op.execute("DROP TRIGGER entries_add_up")
    else:
        op.execute("DROP TRIGGER entries_add_up ON entries")
        op.execute("DROP FUNCTION entries_add_up()")
    for table in ("calls", "wishes", "usage_days"):
        op.drop_table(table)


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _trigger() -> list[str]:
    made = "CREATE TRIGGER entries_add_up AFTER INSERT ON entries FOR EACH ROW WHEN (NEW.kind = 'charge')"
    if _is_sqlite():
        return [f"{made} BEGIN {_ADD}; END"]
    return [
        f"CREATE FUNCTION entries_add_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_ADD}; RETURN NEW; END $$",
        f"{made} EXECUTE FUNCTION entries_add_up()",
    ]

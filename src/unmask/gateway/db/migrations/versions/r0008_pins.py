"""Which provider each model is pinned to; and holds whose end can be moved while their request is under way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NAME = "holds_never_change"
#: Everything of a hold but its end stays, and that is never moved back.
_CHANGED = (
    "NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id OR NEW.key_id <> OLD.key_id OR NEW.amount <> OLD.amount "
    "OR NEW.model <> OLD.model OR NEW.units <> OLD.units OR NEW.created_at <> OLD.created_at OR NEW.day <> OLD.day "
    "OR NEW.requests_until <> OLD.requests_until OR NEW.tokens_until <> OLD.tokens_until "
    "OR NEW.expires_at < OLD.expires_at"
)
_WORDS = "a hold never changes"


def upgrade() -> None:
    """Make the table, and let a hold end later than it was to."""
    op.create_table(
        "pins",
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("since", _INTEGER, nullable=False),
        sa.Column("mark", sa.Text, nullable=False),
        sa.Column("probes", sa.Text, nullable=False),
        sa.Column("texts", _INTEGER, nullable=False),
        sa.Column("dimension", _INTEGER, nullable=False),
        sa.Column("vectors", sa.LargeBinary),
        sa.PrimaryKeyConstraint("model", name="pk_pins"),
        sa.CheckConstraint(
            "texts >= 0 AND dimension >= 0 AND coalesce(length(vectors), 0) = 4 * texts * dimension",
            name="ck_pins_shape",
        ),
        sqlite_strict=True,
    )
    _refuse(_CHANGED)


def downgrade() -> None:
    """Drop the table: models are pinned anew by each process; and have holds end as they were to."""
    _refuse("TRUE")
    op.drop_table("pins")


def _refuse(condition: str) -> None:
    """Have the trigger on changes of holds refuse those of which a condition holds."""
    bind = op.get_bind()
    if op.get_context().dialect.name == "sqlite":
        bind.exec_driver_sql(f"DROP TRIGGER {_NAME}")
        bind.exec_driver_sql(
            f"CREATE TRIGGER {_NAME} BEFORE UPDATE ON holds FOR EACH ROW BEGIN "
            f"SELECT RAISE(ABORT, '{_WORDS}') WHERE {condition}; END"
        )
        return
    bind.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {_NAME}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF {condition} THEN RAISE EXCEPTION '{_WORDS}' USING ERRCODE = 'integrity_constraint_violation'; END IF; "
        "RETURN NEW; END $$"
    )

"""People: who is disabled and why, what a session is of, who had the free credit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns, and make the tables."""
    op.add_column("users", sa.Column("disabled_at", _INTEGER))
    op.add_column("sessions", sa.Column("agent", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "acts",
        sa.Column("id", _INTEGER, sa.Identity(), nullable=False),
        sa.Column("user_id", _INTEGER, nullable=False),
        sa.Column("by_id", _INTEGER, nullable=False),
        sa.Column("at", _INTEGER, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_acts"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_acts_user_id"),
        sa.ForeignKeyConstraint(["by_id"], ["users.id"], name="fk_acts_by_id"),
        sa.CheckConstraint("kind IN ('disable', 'enable') AND by_id <> user_id", name="ck_acts_kind"),
        sqlite_strict=True,
    )
    op.create_index("ix_acts_user_id", "acts", ["user_id", "id"])
    op.create_table(
        "welcomes",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("user_id", _INTEGER, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_welcomes"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_welcomes_user_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_welcomes_user_id", "welcomes", ["user_id"])


def downgrade() -> None:
    """Drop them: who was disabled is let in again."""
    op.drop_table("welcomes")
    op.drop_table("acts")
    op.drop_column("sessions", "agent")
    op.drop_column("users", "disabled_at")

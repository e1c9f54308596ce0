"""Providers that admins added."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "providers",
        sa.Column("id", _INTEGER, sa.Identity(), nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("weight", _INTEGER, nullable=False),
        sa.Column("price", _INTEGER),
        sa.Column("enabled", _INTEGER, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.Column("changed_at", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_providers"),
        sa.UniqueConstraint("slug", "name", name="uq_providers_slug"),
        sa.CheckConstraint("kind IN ('openai', 'unmask')", name="ck_providers_kind"),
        sa.CheckConstraint("weight >= 0 AND price >= 0 AND enabled IN (0, 1)", name="ck_providers_numbers"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("providers")

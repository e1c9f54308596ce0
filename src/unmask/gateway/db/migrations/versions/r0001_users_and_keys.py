"""Users and their keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "users",
        sa.Column("id", _INTEGER, sa.Identity(), nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sqlite_strict=True,
    )
    op.create_table(
        "keys",
        sa.Column("id", _INTEGER, sa.Identity(), nullable=False),
        sa.Column("user_id", _INTEGER, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.Column("expires_at", _INTEGER),
        sa.Column("revoked_at", _INTEGER),
        sa.Column("models", sa.Text),
        sa.Column("requests_per_minute", _INTEGER),
        sa.Column("tokens_per_minute", _INTEGER),
        sa.Column("spend_per_day", _INTEGER),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("digest", name="uq_keys_digest"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_keys_user_id"),
        sa.CheckConstraint(
            "requests_per_minute > 0 AND tokens_per_minute > 0 AND spend_per_day >= 0", name="ck_keys_limits"
        ),
        sqlite_strict=True,
    )
    op.create_index("ix_keys_user_id", "keys", ["user_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("keys")
    op.drop_table("users")

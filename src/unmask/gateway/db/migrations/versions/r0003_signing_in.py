"""Signing in: verified users, links, sessions, identities, what is throttled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns of users, and make the tables."""
    op.add_column("users", sa.Column("verified_at", _INTEGER))
    op.add_column("users", sa.Column("is_admin", _INTEGER, nullable=False, server_default="0"))
    op.create_table(
        "sign_in_links",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("next_path", sa.Text, nullable=False),
        sa.Column("expires_at", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_sign_in_links"),
        sqlite_strict=True,
    )
    op.create_index("ix_sign_in_links_email", "sign_in_links", ["email"])
    op.create_index("ix_sign_in_links_expires_at", "sign_in_links", ["expires_at"])
    op.create_table(
        "sessions",
        sa.Column("id", _INTEGER, sa.Identity(), nullable=False),
        sa.Column("user_id", _INTEGER, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.Column("last_seen_at", _INTEGER, nullable=False),
        sa.Column("expires_at", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("digest", name="uq_sessions_digest"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "identities",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("user_id", _INTEGER, nullable=False),
        sa.Column("created_at", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_identities"),
        sa.UniqueConstraint("user_id", "issuer", name="uq_identities_user_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_identities_user_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "throttle",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("used_until", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_throttle"),
        sqlite_strict=True,
    )
    op.create_index("ix_throttle_used_until", "throttle", ["used_until"])


def downgrade() -> None:
    """Drop them: everybody is signed out."""
    for table in ("throttle", "identities", "sessions", "sign_in_links"):
        op.drop_table(table)
    op.drop_column("users", "is_admin")
    op.drop_column("users", "verified_at")

"""What was seen of providers by hour, and how often weights were fetched by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "traffic",
        sa.Column("figure", sa.Text, nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("hour", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("bucket", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("count", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("figure", "slug", "hour", "provider", "bucket", name="pk_traffic"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_traffic_hour", "traffic", ["hour"])
    op.create_table(
        "pulls",
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("day", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("count", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("slug", "day", name="pk_pulls"),
        sqlite_strict=True,
    )
    op.create_index("ix_pulls_day", "pulls", ["day"])
    op.create_table(
        "pull_marks",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("day", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_pull_marks"),
        sqlite_strict=True,
    )
    op.create_index("ix_pull_marks_day", "pull_marks", ["day"])


def downgrade() -> None:
    """Drop them: the figures begin anew."""
    for table in ("pull_marks", "pulls", "traffic"):
        op.drop_table(table)

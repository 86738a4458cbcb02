"""Tags: free labels of versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tags",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["kind", "name", "version"],
            ["versions.kind", "versions.name", "versions.version"],
            name="fk_tags_kind_name_version",
        ),
        sa.PrimaryKeyConstraint("kind", "name", "version", "tag", name="pk_tags"),
    )

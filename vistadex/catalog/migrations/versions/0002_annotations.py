"""What manifests and annotation files say of images and boxes, and warnings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the columns; what is there stays as it is."""
    op.add_column("image", sa.Column("warning", sa.Text()))
    op.add_column("image", sa.Column("attributes", sa.JSON(none_as_null=True)))
    op.add_column("box", sa.Column("flags", sa.Integer()))
    op.add_column("box", sa.Column("attributes", sa.JSON(none_as_null=True)))

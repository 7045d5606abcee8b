"""Relations, classes packed by image, the log of changes, and what pictures look like."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op

from vistadex.catalog.packing import PackedClass, pack

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds tables and columns, and fills what follows from what is there."""
    for counted in ("source", "analyzer"):
        images = sa.Column("images", sa.BigInteger(), nullable=False, server_default="0")
        op.add_column(counted, images)
    op.add_column("source", sa.Column("image_url", sa.Text()))
    op.add_column("image", sa.Column("content_hash", sa.LargeBinary(16)))
    op.add_column("image", sa.Column("perceptual_hash", sa.BigInteger()))
    op.create_table(
        "attribute_set",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("image", sa.Column("attribute_set_id", sa.Integer()))
    op.add_column("analysis", sa.Column("classes", sa.LargeBinary()))
    _pack_classes()
    op.drop_index("image_class_by_image", table_name="image_class")
    trouble = sa.text("status <> 'ok' AND status <> 'unseen'")
    op.drop_index("image_by_status", table_name="image")
    op.create_index(
        "image_by_trouble",
        "image",
        ["status", "id"],
        sqlite_where=trouble,
        postgresql_where=trouble,
    )
    op.execute(
        "UPDATE source SET images = (SELECT count(*) FROM image WHERE source_id = source.id)"
    )
    op.execute(
        "UPDATE analyzer SET images = "
        "(SELECT count(*) FROM analysis WHERE analyzer_id = analyzer.id)"
    )
    _create_tables()
    state = sa.table("state", sa.column("id"), sa.column("uuid"), sa.column("revision"))
    op.execute(sa.insert(state).values(id=1, uuid=str(uuid.uuid4()), revision=0))


def _pack_classes() -> None:
    """Fills analysis.classes from image_class, a group of rows at a time."""
    connection = op.get_bind()
    rows = connection.execution_options(yield_per=10_000).execute(
        sa.text(
            "SELECT image_id, analyzer_id, class_id, score, boxes FROM image_class "
            "INDEXED BY image_class_by_image ORDER BY image_id"
        )
    )
    update = sa.text(
        "UPDATE analysis SET classes = :packed WHERE image_id = :image AND analyzer_id = :analyzer"
    )
    batch: list[dict[str, object]] = []
    for one in _packed(rows):
        batch.append(one)
        if len(batch) == 10_000:
            connection.execute(update, batch)
            batch = []
    if batch:
        connection.execute(update, batch)


def _packed(rows: sa.CursorResult[Any]) -> Iterator[dict[str, object]]:
    for image, of_image in groupby(rows, key=lambda row: row[0]):
        by_analyzer: dict[int, list[PackedClass]] = {}
        for row in of_image:
            _, analyzer, class_id, score, boxes = tuple(row)
            found = PackedClass(class_id, score, boxes)
            by_analyzer.setdefault(analyzer, []).append(found)
        for analyzer, classes in by_analyzer.items():
            yield {"image": image, "analyzer": analyzer, "packed": pack(classes)}


def _key(name: str, target: str | None = None) -> sa.Column[int]:
    """A column of a primary key, which may point at another table."""
    column = sa.Column(name, sa.Integer(), autoincrement=False, nullable=False)
    if target is not None:
        column.append_foreign_key(sa.ForeignKey(target))
    return column


def _create_tables() -> None:
    op.create_table(
        "class_parent",
        _key("class_id", "class.id"),
        _key("parent_id", "class.id"),
        sa.PrimaryKeyConstraint("class_id", "parent_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "predicate",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "relation_type",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject_id", sa.Integer(), sa.ForeignKey("class.id"), nullable=False),
        sa.Column("predicate_id", sa.Integer(), sa.ForeignKey("predicate.id"), nullable=False),
        sa.Column("object_id", sa.Integer(), sa.ForeignKey("class.id"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "subject_id", "predicate_id", "object_id", name="relation_type_by_parts"
        ),
    )
    corners = [
        sa.Column(f"{part}_{corner}", sa.Float(53))
        for part in ("subject", "object")
        for corner in ("x0", "y0", "x1", "y1")
    ]
    op.create_table(
        "relation",
        _key("image_id", "image.id"),
        _key("analyzer_id", "analyzer.id"),
        _key("ordinal"),
        sa.Column("type_id", sa.Integer(), sa.ForeignKey("relation_type.id"), nullable=False),
        sa.Column("score", sa.Integer(), nullable=False),
        *corners,
        sa.PrimaryKeyConstraint("image_id", "analyzer_id", "ordinal"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "image_relation",
        _key("type_id", "relation_type.id"),
        _key("score"),
        _key("image_id", "image.id"),
        _key("analyzer_id", "analyzer.id"),
        sa.Column("relations", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("type_id", "score", "image_id", "analyzer_id"),
        sqlite_with_rowid=False,
    )
    for table, what in (("relation_count", "relation_type"), ("predicate_count", "predicate")):
        name = "type_id" if what == "relation_type" else "predicate_id"
        op.create_table(
            table,
            _key(name, f"{what}.id"),
            _key("analyzer_id"),
            sa.Column("images", sa.Integer(), nullable=False),
            sa.Column("relations", sa.Integer(), nullable=False),
            sa.PrimaryKeyConstraint(name, "analyzer_id"),
            sqlite_with_rowid=False,
        )
    op.create_table(
        "state",
        _key("id"),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "change",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("images", sa.LargeBinary(length=1 << 24)),
        sa.PrimaryKeyConstraint("revision"),
    )
    op.create_table(
        "collection",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "collection_image",
        _key("collection_id", "collection.id"),
        _key("image_id", "image.id"),
        sa.PrimaryKeyConstraint("collection_id", "image_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
    )

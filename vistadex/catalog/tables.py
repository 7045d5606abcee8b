"""The catalog's tables; migrations/ holds the same as steps, and a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_REVISION = "0002"
"""The newest migration; a test holds it to migrations/versions."""

ANY_ANALYZER = 0
"""In class_count: images that have the class from at least one analyzer, each counted once."""

metadata = sa.MetaData()

source = sa.Table(
    "source",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uri", sa.String(1024), nullable=False, unique=True),
)

image = sa.Table(
    "image",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("source_id", sa.ForeignKey("source.id"), nullable=False),
    sa.Column("key", sa.String(1024), nullable=False),
    sa.Column("version", sa.String(128), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("error", sa.Text),
    sa.Column("indexed_at", sa.BigInteger, nullable=False),
    sa.Column("warning", sa.Text),
    sa.Column("attributes", sa.JSON(none_as_null=True)),
    sa.UniqueConstraint("source_id", "key", name="image_by_key"),
    sa.Index("image_by_status", "status", "id"),
)
"""status: ok, failed (reason and error say why) or vanished; indexed_at: Unix seconds; warning:
what is wrong although there are results; attributes: what manifests and annotation files say."""

klass = sa.Table(
    "class",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.Text),
    sa.Column("external_id", sa.String(255)),
)

model = sa.Table(
    "model",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("task", sa.String(32), nullable=False),
    sa.Column("card", sa.Text, nullable=False),
)

analyzer = sa.Table(
    "analyzer",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("model.id"), nullable=False),
    sa.Column("parameters_hash", sa.String(64), nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.UniqueConstraint("model_id", "parameters_hash", name="analyzer_by_parameters"),
)
"""A model with the parameters it ran with: other parameters are another analysis."""

analysis = sa.Table(
    "analysis",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("version", sa.String(128), nullable=False),
    sqlite_with_rowid=False,
)
"""Which analyzer has seen which version of which image: the whole of resuming."""

box = sa.Table(
    "box",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("class_id", sa.ForeignKey("class.id"), nullable=False),
    sa.Column("score", sa.Integer, nullable=False),
    sa.Column("x0", sa.Float, nullable=False),
    sa.Column("y0", sa.Float, nullable=False),
    sa.Column("x1", sa.Float, nullable=False),
    sa.Column("y1", sa.Float, nullable=False),
    sa.Column("flags", sa.Integer),
    sa.Column("attributes", sa.JSON(none_as_null=True)),
    sqlite_with_rowid=False,
)
"""Pixels of the upright image, half-open; clustered by image, by falling score. flags: two bits for
each of records.FLAGS, 0 unknown, 1 no, 2 yes; attributes: what else an annotation file says."""

image_class = sa.Table(
    "image_class",
    metadata,
    sa.Column("class_id", sa.ForeignKey("class.id"), primary_key=True, autoincrement=False),
    sa.Column("score", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("boxes", sa.Integer, nullable=False),
    sa.Index("image_class_by_image", "image_id", "class_id", "analyzer_id", "boxes"),
    sqlite_with_rowid=False,
)
"""The table that ranks: an image's best score and number of boxes per class and analyzer."""

class_count = sa.Table(
    "class_count",
    metadata,
    sa.Column("class_id", sa.ForeignKey("class.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("boxes", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Kept in the transaction that changes image_class; analyzer_id may be ANY_ANALYZER."""

embedding = sa.Table(
    "embedding",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""float16, little-endian, unit length."""

RESULT_TABLES = (analysis, box, image_class, embedding)
"""Every table with rows per image and analyzer."""

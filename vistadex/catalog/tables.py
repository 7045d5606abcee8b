"""The catalog's tables; migrations/ holds the same as steps, and a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

from vistadex.catalog.columns import Name, Prose, packed

SCHEMA_REVISION = "0003"
"""The newest migration; a test holds it to migrations/versions."""

ANY_ANALYZER = 0
"""In counts: images that have it from at least one analyzer, each counted once."""

metadata = sa.MetaData()

source = sa.Table(
    "source",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uri", Name(1024), nullable=False, unique=True),
    sa.Column("images", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("image_url", Prose),
)
"""images: how many it has, kept in the transaction that adds or removes some; image_url: where
pictures are shown from that were never read, as https://host/{split}/{image_id}.jpg."""

attribute_set = sa.Table(
    "attribute_set",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("attributes", sa.JSON, nullable=False),
)
"""Attributes that many images share, written once: a split, a license. Rows never change."""

image = sa.Table(
    "image",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("source_id", sa.ForeignKey("source.id"), nullable=False),
    sa.Column("key", Name(1024), nullable=False),
    sa.Column("version", Name(128), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("error", Prose),
    sa.Column("indexed_at", sa.BigInteger, nullable=False),
    sa.Column("warning", Prose),
    sa.Column("attributes", sa.JSON(none_as_null=True)),
    sa.Column("content_hash", packed(16)),
    sa.Column("perceptual_hash", sa.BigInteger),
    sa.Column("attribute_set_id", sa.Integer),
    sa.UniqueConstraint("source_id", "key", name="image_by_key"),
    sa.Index(
        "image_by_trouble",
        "status",
        "id",
        sqlite_where=sa.text("status <> 'ok' AND status <> 'unseen'"),
        postgresql_where=sa.text("status <> 'ok' AND status <> 'unseen'"),
    ),
)
"""status: ok, failed (reason and error say why), vanished, or unseen: known from annotations alone;
indexed_at: Unix seconds; warning: what is wrong although there are results; attributes: what
manifests and annotation files say of this image alone; attribute_set_id: what else they say, which
holds of many images. Width and height of an unseen image are NOMINAL_SIDE where its
boxes were fractions, else 0 where nothing says them. content_hash: BLAKE2b of the file in 16 bytes;
perceptual_hash: 64 bits of what the picture looks like, as a signed number."""

klass = sa.Table(
    "class",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", Name(255), nullable=False, unique=True),
    sa.Column("description", Prose),
    sa.Column("external_id", Name(255)),
)

model = sa.Table(
    "model",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sha256", Name(64), nullable=False, unique=True),
    sa.Column("name", Name(255), nullable=False),
    sa.Column("task", sa.String(32), nullable=False),
    sa.Column("card", Prose, nullable=False),
)

analyzer = sa.Table(
    "analyzer",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("model.id"), nullable=False),
    sa.Column("parameters_hash", sa.String(64), nullable=False),
    sa.Column("parameters", Prose, nullable=False),
    sa.Column("images", sa.BigInteger, nullable=False, server_default="0"),
    sa.UniqueConstraint("model_id", "parameters_hash", name="analyzer_by_parameters"),
)
"""A model with the parameters it ran with: other parameters are another analysis. images: how many
it has seen, kept in the transaction that changes analysis."""

analysis = sa.Table(
    "analysis",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("version", Name(128), nullable=False),
    sa.Column("classes", packed()),
    sqlite_with_rowid=False,
)
"""Which analyzer has seen which version of which image: the whole of resuming. classes: what it
says of the image, packed by vistadex.catalog.packing: the rows of image_class from the other side,
and the classes of which people said that they are not there."""

box = sa.Table(
    "box",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("class_id", sa.ForeignKey("class.id"), nullable=False),
    sa.Column("score", sa.Integer, nullable=False),
    sa.Column("x0", sa.Float(53), nullable=False),
    sa.Column("y0", sa.Float(53), nullable=False),
    sa.Column("x1", sa.Float(53), nullable=False),
    sa.Column("y1", sa.Float(53), nullable=False),
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

class_parent = sa.Table(
    "class_parent",
    metadata,
    sa.Column("class_id", sa.ForeignKey("class.id"), primary_key=True, autoincrement=False),
    sa.Column("parent_id", sa.ForeignKey("class.id"), primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
"""The hierarchy: an apple is a fruit."""

predicate = sa.Table(
    "predicate",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", Name(255), nullable=False, unique=True),
)

relation_type = sa.Table(
    "relation_type",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("subject_id", sa.ForeignKey("class.id"), nullable=False),
    sa.Column("predicate_id", sa.ForeignKey("predicate.id"), nullable=False),
    sa.Column("object_id", sa.ForeignKey("class.id"), nullable=False),
    sa.UniqueConstraint("subject_id", "predicate_id", "object_id", name="relation_type_by_parts"),
)
"""Person, rides, horse: each triplet that occurs somewhere, once."""

relation = sa.Table(
    "relation",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("type_id", sa.ForeignKey("relation_type.id"), nullable=False),
    sa.Column("score", sa.Integer, nullable=False),
    *(
        sa.Column(f"{part}_{corner}", sa.Float(53))
        for part in ("subject", "object")
        for corner in ("x0", "y0", "x1", "y1")
    ),
    sqlite_with_rowid=False,
)
"""Relations of an image, by falling score, with both boxes where they are known."""

image_relation = sa.Table(
    "image_relation",
    metadata,
    sa.Column("type_id", sa.ForeignKey("relation_type.id"), primary_key=True, autoincrement=False),
    sa.Column("score", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("relations", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""What image_class is for classes: an image's best score of a relation type, and how often."""

relation_count = sa.Table(
    "relation_count",
    metadata,
    sa.Column("type_id", sa.ForeignKey("relation_type.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("relations", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Kept like class_count: images and relations of each type."""

predicate_count = sa.Table(
    "predicate_count",
    metadata,
    sa.Column("predicate_id", sa.ForeignKey("predicate.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("relations", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Kept like class_count: images and relations of each predicate, whatever it relates."""

embedding = sa.Table(
    "embedding",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sa.Column("analyzer_id", sa.ForeignKey("analyzer.id"), primary_key=True, autoincrement=False),
    sa.Column("vector", packed(), nullable=False),
    sqlite_with_rowid=False,
)
"""float16, little-endian, unit length."""

state = sa.Table(
    "state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("uuid", sa.String(36), nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
"""One row, which a writing transaction locks on servers: its number of the last change."""

change = sa.Table(
    "change",
    metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("token", sa.String(32), nullable=False),
    sa.Column("images", packed(1 << 24)),
)
"""Which images' results a transaction has changed: ids as little-endian int64; NULL: any of them.
What is derived from the catalog follows it. token: random, tells copies of a catalog apart."""

collection = sa.Table(
    "collection",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", Name(255), nullable=False, unique=True),
    sa.Column("made_at", sa.BigInteger, nullable=False),
)
"""Images that somebody has put together under a name; made_at: Unix seconds."""

collection_image = sa.Table(
    "collection_image",
    metadata,
    sa.Column(
        "collection_id", sa.ForeignKey("collection.id"), primary_key=True, autoincrement=False
    ),
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

run = sa.Table(
    "run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("subject", Prose, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("numbers", sa.JSON, nullable=False),
    sa.Column("error", Prose),
)
"""What has worked on this catalog. kind: index, import …; subject: a line for people; status:
running, done, failed or stopped; Unix seconds; numbers: how far it is, by name."""

RESULT_TABLES = (analysis, box, image_class, relation, image_relation, embedding)
"""Every table with rows per image and analyzer."""

for _table in metadata.tables.values():
    _table.dialect_options["mysql"].update(
        {
            "engine": "InnoDB",
            "charset": "utf8mb4",
            "collate": "utf8mb4_bin",
            "row_format": "DYNAMIC",
        }
    )
for _table in RESULT_TABLES:
    # Servers would look up every row's image, class and analyzer, and InnoDB would keep an index
    # for each; SQLite only writes them down. `vistadex catalog check` finds what points nowhere.
    for _constraint in _table.foreign_key_constraints:
        _constraint.ddl_if(dialect="sqlite")

"""Bulk loading: annotations by column into a catalog, millions of images in minutes.

An empty SQLite catalog is built in a file beside it, table by table in the order of its keys, and
filled from that in one transaction; any other catalog gets a chunk of images in each transaction.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex import settings
from vistadex.catalog import Catalog, bulk_build, bulk_merge, bulk_servers, registering, tables
from vistadex.catalog.attributes import set_ids
from vistadex.catalog.bulk_chunks import triplet_parts
from vistadex.catalog.bulk_reading import Numbers, Spooled
from vistadex.catalog.bulk_spool import CHUNK, Work
from vistadex.catalog.counting import slices
from vistadex.formats.columns import ColumnSource, Kind
from vistadex.formats.contract import Problems
from vistadex.progress import Progress
from vistadex.records import Analyzer


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """What is loaded, and as what."""

    source_uri: str
    analyzers: Mapping[tuple[str, Kind], Analyzer]
    """Who says what, for each of ColumnSource.origins."""
    image_url: str | None = None
    """Where pictures are shown from."""


@dataclass(slots=True, kw_only=True)
class Loaded:
    """How a load went."""

    images: int = 0
    boxes: int = 0
    relations: int = 0
    repeated_images: int = 0
    """Named more than once in the lists."""
    repeated_labels: int = 0
    """Of a class that the same people or machine say of the image more surely elsewhere."""
    changed: int = 0
    """Images that the catalog did not have so before."""


def load(
    catalog: Catalog,
    columns: ColumnSource,
    loading: Loading,
    problems: Problems,
    progress: Progress,
    *,
    chunk: int = CHUNK,
) -> Loaded:
    """Enters everything that columns say; loading the same again changes nothing.

    A load that was killed goes on where it was, if it is called with the same again.

    Args:
        chunk: images that are held in memory together, and are in one transaction; at most CHUNK.
    Raises: CatalogError; FormatError and SourceError of the columns.
    """
    work = Work(_folder(catalog, loading), {**_identity(columns, loading), "chunk": chunk})
    try:
        spooled = Spooled(columns, work, min(chunk, CHUNK))
        try:
            spooled.read(problems, progress)
            if "now" not in work.marks:
                work.mark(now=int(time.time()))
            loaded = _write(catalog, spooled, loading, progress)
            loaded.repeated_labels = spooled.tell(loading.source_uri, problems)
            loaded.repeated_images = len(columns.repeated())
        finally:
            spooled.close()
        work.remove()
        return loaded
    finally:
        work.close()


def _write(catalog: Catalog, spooled: Spooled, loading: Loading, progress: Progress) -> Loaded:
    loaded = Loaded(images=spooled.images)

    def names(connection: sa.Connection) -> Numbers:
        return register(connection, spooled, loading)

    on_server = catalog.engine.dialect.name != "sqlite"
    if _is_empty(catalog):
        bulk_build.build(catalog, spooled, names, progress)
        loaded.changed = spooled.images
    elif on_server and bulk_servers.build(catalog, spooled, names, progress):
        loaded.changed = spooled.images
    else:
        numbers = catalog.transaction(names)
        loaded.changed = bulk_merge.merge(catalog, spooled, numbers, progress)
    lengths = spooled.lengths()
    loaded.boxes, loaded.relations = lengths["box"], lengths["relation"]
    return loaded


def _folder(catalog: Catalog, loading: Loading) -> Path:
    """Where a load keeps what it has done: beside the file, else in the cache."""
    database = catalog.engine.url.database
    if catalog.engine.dialect.name == "sqlite" and database and database != ":memory:":
        return Path(f"{database}.loading")
    place = hashlib.sha256(f"{catalog.location} {loading.source_uri}".encode()).hexdigest()
    return Path(settings.value("cache", None, str)) / "loading" / place[:32]


def _identity(columns: ColumnSource, loading: Loading) -> dict[str, Any]:
    return {
        "columns": columns.fingerprint(),
        "schema": tables.SCHEMA_REVISION,
        "source": loading.source_uri,
        "image_url": loading.image_url,
        "analyzers": [[*who, one.sha256] for who, one in loading.analyzers.items()],
    }


def _is_empty(catalog: Catalog) -> bool:
    """Whether it is a file of SQLite in which nothing is, but perhaps runs, as this one."""
    database = catalog.engine.url.database
    if catalog.engine.dialect.name != "sqlite" or not database or database == ":memory:":
        return False
    with catalog.reading() as connection:
        return not any(
            connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first()
            for table in tables.metadata.sorted_tables
            if table not in (tables.state, tables.run)
        )


def register(connection: sa.Connection, spooled: Spooled, loading: Loading) -> Numbers:
    """Gives numbers to all names, inside the caller's transaction."""
    vocabulary = spooled.source.vocabulary
    source = registering.register_source(connection, loading.source_uri, loading.image_url)
    analyzers = {
        who: registering.register_analyzer(connection, one).id
        for who, one in loading.analyzers.items()
    }
    classes = registering.class_ids(connection, vocabulary.classes)
    registering.describe_classes(
        connection, vocabulary.external_ids, vocabulary.descriptions, vocabulary.parents
    )
    predicates = registering.ids_by_name(connection, tables.predicate, vocabulary.predicates)
    names = vocabulary.predicates
    parts = [
        (classes[subject], predicates[names[predicate]], classes[object_])
        for subject, predicate, object_ in map(triplet_parts, spooled.triplets.tolist())
    ]
    return Numbers(
        source,
        np.array(classes, np.int64),
        np.array(_type_ids(connection, parts), np.int64),
        analyzers,
        np.array(set_ids(connection, spooled.texts.sets), np.int64),
    )


def _type_ids(connection: sa.Connection, parts: Sequence[tuple[int, int, int]]) -> list[int]:
    """The ids of relation types, made where they are new."""
    table = tables.relation_type
    columns = (table.c.subject_id, table.c.predicate_id, table.c.object_id)
    known: dict[tuple[int, int, int], int] = {}
    for subjects in slices(sorted({one[0] for one in parts})):
        query = sa.select(*columns, table.c.id).where(table.c.subject_id.in_(subjects))
        known.update(((s, p, o), id_) for s, p, o, id_ in connection.execute(query))
    new = [one for one in dict.fromkeys(parts) if one not in known]
    if new:
        names = [column.name for column in columns]
        rows = [dict(zip(names, one, strict=True)) for one in new]
        connection.execute(sa.insert(table), rows)
        return _type_ids(connection, parts)
    return [known[one] for one in parts]

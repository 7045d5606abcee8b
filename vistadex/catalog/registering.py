"""Names that the catalog gives numbers: sources, analyzers, classes and their hierarchy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import slices
from vistadex.catalog.lookup import Statement
from vistadex.records import Analyzer


@dataclass(frozen=True, slots=True)
class RegisteredAnalyzer:
    """An analyzer as the catalog knows it."""

    id: int
    class_ids: tuple[int, ...]
    """The catalog's class ids by the model's class index."""


def register_source(connection: sa.Connection, uri: str, image_url: str | None = None) -> int:
    """The id of a source, made where it is new.

    Args:
        image_url: where pictures are shown from that were never read; None: as it was.
    """
    id_ = _id_of(connection, tables.source, {"uri": uri}, {})
    if image_url is not None:
        source = tables.source
        connection.execute(sa.update(source).where(source.c.id == id_).values(image_url=image_url))
    return id_


def register_analyzer(connection: sa.Connection, analyzer: Analyzer) -> RegisteredAnalyzer:
    """The ids of an analyzer and of its classes, made where they are new."""
    card = json.dumps(analyzer.card, sort_keys=True)
    values = {"name": analyzer.name, "task": analyzer.task, "card": card}
    model_id = _id_of(connection, tables.model, {"sha256": analyzer.sha256}, values)
    newest = sa.update(tables.model).where(tables.model.c.id == model_id).values(**values)
    connection.execute(newest)  # the name or the card may have been corrected
    parameters = json.dumps(analyzer.parameters, sort_keys=True)
    identity = {
        "model_id": model_id,
        "parameters_hash": hashlib.sha256(parameters.encode()).hexdigest(),
    }
    analyzer_id = _id_of(connection, tables.analyzer, identity, {"parameters": parameters})
    return RegisteredAnalyzer(analyzer_id, class_ids(connection, analyzer.classes))


def _id_of(
    connection: sa.Connection, table: sa.Table, identity: dict[str, Any], values: dict[str, Any]
) -> int:
    match = sa.and_(*(table.c[name] == value for name, value in identity.items()))
    query = sa.select(table.c.id).where(match)
    found = connection.execute(query).scalar()
    if found is None:
        connection.execute(sa.insert(table).values(**identity, **values))
        found = connection.execute(query).scalar_one()
    return int(found)


def class_ids(connection: sa.Connection, names: Sequence[str]) -> tuple[int, ...]:
    """The ids of classes, made where they are new."""
    known = ids_by_name(connection, tables.klass, names)
    return tuple(known[name] for name in names)


def ids_by_name(connection: sa.Connection, table: sa.Table, names: Sequence[str]) -> dict[str, int]:
    """Ids by name, of rows that are made where they are new."""
    known: dict[str, int] = {}
    for part in slices(sorted(set(names))):
        query = sa.select(table.c.name, table.c.id).where(table.c.name.in_(part))
        known.update((name, id_) for name, id_ in connection.execute(query))
    new = [{"name": name} for name in dict.fromkeys(names) if name not in known]
    if new:
        connection.execute(sa.insert(table), new)
        return ids_by_name(connection, table, names)
    return known


def describe_classes(
    connection: sa.Connection,
    external_ids: Mapping[str, str],
    descriptions: Mapping[str, str],
    parents: Iterable[tuple[str, str]] = (),
) -> None:
    """Enters what a vocabulary says of its classes by name: ids, descriptions, class and parent."""
    pairs = list(parents)
    names = [*external_ids, *descriptions, *(name for pair in pairs for name in pair)]
    known = ids_by_name(connection, tables.klass, names)
    klass, parent = tables.klass, tables.class_parent
    for column, values in (("external_id", external_ids), ("description", descriptions)):
        rows = [{"a_class": known[name], "value": value} for name, value in values.items()]
        if rows:
            statement = sa.update(klass).where(klass.c.id == sa.bindparam("a_class"))
            connection.execute(statement.values({column: sa.bindparam("value")}), rows)
    new = {(known[child], known[above]) for child, above in pairs}
    new -= {(row.class_id, row.parent_id) for row in connection.execute(sa.select(parent))}
    if new:
        rows_ = [{"class_id": child, "parent_id": above} for child, above in sorted(new)]
        connection.execute(sa.insert(parent), rows_)


class KnownAnalyzer(NamedTuple):
    """A model with parameters, as the catalog knows it."""

    id: int
    name: str
    sha256: str
    task: str


_ANALYZERS = Statement(
    sa.select(
        tables.analyzer.c.id, tables.model.c.name, tables.model.c.sha256, tables.model.c.task
    ).join_from(tables.analyzer, tables.model)
)


def all_analyzers(connection: sa.Connection) -> list[KnownAnalyzer]:
    """Every analyzer of the catalog: a handful."""
    return [KnownAnalyzer(*row) for row in _ANALYZERS.rows(connection)]

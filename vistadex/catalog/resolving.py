"""From the names in a query to the catalog's ids: a Query to a Scope."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from vistadex.catalog import collections, tables
from vistadex.catalog.images import PREDICATES, names_of, remembered
from vistadex.catalog.lookup import Statement
from vistadex.catalog.registering import KnownAnalyzer
from vistadex.catalog.scope import Scope, Wanted
from vistadex.errors import QueryError
from vistadex.grammar import Query, RelationPattern, Term, exact, like


def resolve(
    connection: sa.Connection,
    query: Query,
    analyzers: Sequence[KnownAnalyzer],
    *,
    fold_case: bool = False,
    subclasses: bool = False,
) -> Scope:
    """The ids that a query's names stand for.

    Args:
        analyzers: all that the catalog has.
        fold_case: patterns of relations match in any case of letters, as classes always do.
        subclasses: a class stands for those below it in the hierarchy, too.
    Raises: QueryError for an unknown class, source, model or collection, with the nearest names.
    """
    names = [term.class_name for term in (*query.terms, *query.without) if term.relation is None]
    ids = dict(zip(names, class_ids(connection, names), strict=True))
    below = _children(connection) if subclasses and names else {}
    patterns = _Patterns(connection, fold_case)

    def wanted(term: Term) -> Wanted:
        if term.relation is not None:
            return Wanted("relation", patterns.type_ids(term.relation))
        found = _with_children(ids[term.class_name], below)
        return Wanted("class", found, term.min_boxes)

    once: dict[tuple[str, tuple[int, ...]], Wanted] = {}
    for one in map(wanted, query.terms):  # dog & DOG are one
        known = once.get((one.kind, one.ids), one)
        once[one.kind, one.ids] = max(one, known, key=lambda one: one.min_boxes)
    analyzer_ids = None if query.model is None else _analyzer_ids(analyzers, query.model)
    return Scope(
        tuple(once.values()),
        query.mode,
        tuple(dict.fromkeys(map(wanted, query.without))),
        query.min_score,
        None if query.source is None else _source_ids(connection, query.source),
        analyzer_ids,
        query.attributes,
        query.duplicates,
        query.status,
        query.min_size,
        query.newest,
        len(analyzers if analyzer_ids is None else analyzer_ids) <= 1,
        _collection_ids(connection, query.collections),
        _collection_ids(connection, query.not_in),
    )


def class_ids(connection: sa.Connection, names: Sequence[str]) -> list[int]:
    """Ids of classes by name, in any case of letters.

    Raises: QueryError for an unknown class, with the nearest known ones.
    """
    if not names:
        return []
    klass = tables.klass
    known: dict[str, int] = remembered(connection, "ids of classes")
    missing = [name for name in names if name not in known]
    if missing:
        query = sa.select(klass.c.name, klass.c.id).where(klass.c.name.in_(missing))
        known.update((name, id_) for name, id_ in connection.execute(query))
    if all(name in known for name in names):
        return [known[name] for name in names]
    rows = connection.execute(sa.select(klass.c.name, klass.c.id)).all()
    folded = {name.casefold(): id_ for name, id_ in rows}
    for name in names:
        if name not in known and name.casefold() not in folded:
            raise _unknown_class(name, [row.name for row in rows])
    return [known[name] if name in known else folded[name.casefold()] for name in names]


def _unknown_class(name: str, known: Sequence[str]) -> QueryError:
    folded = {one.casefold(): one for one in known}
    words = name.casefold().split()
    nearest = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.5)
    nearest += [word for word in words if word in folded and word not in nearest]
    names = tuple(dict.fromkeys(folded[one] for one in nearest))
    hint = f"did you mean {', '.join(names)}?" if names else "`vistadex classes` lists all"
    if len(words) > 1 and all(word in folded for word in words):
        hint = f"to ask for several classes write {' & '.join(words)}"
    if not known:
        hint = "the catalog has no classes yet; `vistadex index FOLDER` finds some"
    return QueryError(f"unknown class {name!r}: {hint}", names)


def _children(connection: sa.Connection) -> Mapping[int, list[int]]:
    below: dict[int, list[int]] = {}
    for row in connection.execute(sa.select(tables.class_parent)):
        below.setdefault(row.parent_id, []).append(row.class_id)
    return below


def _with_children(class_id: int, below: Mapping[int, Iterable[int]]) -> tuple[int, ...]:
    """A class and all below it, in ascending order; a circle in the hierarchy is no harm."""
    found, waiting = {class_id}, [class_id]
    while waiting:
        new = set(below.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return tuple(sorted(found))


def relation_types(
    connection: sa.Connection, pattern: RelationPattern, *, fold_case: bool = False
) -> tuple[int, ...]:
    """The relation types that a pattern matches, in ascending order.

    Raises: QueryError where a part without wildcards is no class or predicate of the catalog.
    """
    return _Patterns(connection, fold_case).type_ids(pattern)


_ALL_TYPES = "every relation type"
MOST_PATTERNS = 256
"""Patterns of which a connection remembers what they match."""


class _Types(NamedTuple):
    """Every relation type; they never change and only come."""

    newest: int | None
    """The highest id."""
    rows: Sequence[Any]
    """Id, subject, predicate and object."""
    subjects: Mapping[int, str]
    """Their names."""
    predicates: Mapping[int, str]
    objects: Mapping[int, str]
    matched: dict[tuple[RelationPattern, bool], tuple[int, ...]]
    """What patterns have matched, in any case of letters or as written."""


class _Patterns:
    """Finds the relation types that patterns match; their names are read once for a query."""

    def __init__(self, connection: sa.Connection, fold_case: bool) -> None:
        self.connection, self.fold_case = connection, fold_case
        self.types: _Types | None = None

    def _read(self) -> _Types:
        if self.types is None:
            newest = _NEWEST_TYPE.rows(self.connection)[0][0]
            # A connection that has read them all has them still.
            known = remembered(self.connection, _ALL_TYPES)
            kept: _Types | None = known.get(_ALL_TYPES)
            if kept is None or kept.newest != newest:
                known[_ALL_TYPES] = kept = _all_types(self.connection, newest)
            self.types = kept
        return self.types

    def type_ids(self, pattern: RelationPattern) -> tuple[int, ...]:
        """The relation types that match, in ascending order."""
        types, asked = self._read(), (pattern, self.fold_case)
        if asked not in types.matched:
            if len(types.matched) >= MOST_PATTERNS:
                types.matched.clear()
            types.matched[asked] = self._type_ids(types, pattern)
        return types.matched[asked]

    def _type_ids(self, types: _Types, pattern: RelationPattern) -> tuple[int, ...]:
        subject = self._matching(pattern.subject, types.subjects, "class")
        predicate = self._matching(pattern.predicate, types.predicates, "predicate")
        object_ = self._matching(pattern.object, types.objects, "class")
        return tuple(
            sorted(
                id_
                for id_, one, by, other in types.rows
                if one in subject and by in predicate and other in object_
            )
        )

    def _matching(self, part: str, names: Mapping[int, str], what: str) -> set[int]:
        pattern = like(part, fold_case=self.fold_case)
        found = {id_ for id_, name in names.items() if pattern.fullmatch(name)}
        name = exact(part)
        if name is not None and not found:
            self._need_known(name, list(names.values()), what)
        return found

    def _need_known(self, name: str, known: Sequence[str], what: str) -> None:
        """Raises: QueryError where no class or predicate has the name, in this case of letters.

        Args:
            known: those that relations have; another class is no error, it has none.
        """
        table = tables.klass if what == "class" else tables.predicate
        if self.connection.execute(sa.select(table.c.id).where(table.c.name == name)).first():
            return
        folded = {one.casefold(): one for one in known}
        nearest = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.5)
        near = tuple(folded[one] for one in nearest)
        hint = f"did you mean {', '.join(near)}?" if near else "`vistadex relations` lists all"
        raise QueryError(f"unknown {what} {name!r} in a relation: {hint}", near)


_NEWEST_TYPE = Statement(sa.select(sa.func.max(tables.relation_type.c.id)))


def _all_types(connection: sa.Connection, newest: int | None) -> _Types:
    kind = tables.relation_type
    columns = (kind.c.id, kind.c.subject_id, kind.c.predicate_id, kind.c.object_id)
    rows = [tuple(row) for row in connection.execute(sa.select(*columns))]
    subjects, predicates, objects = ({row[i] for row in rows} for i in (1, 2, 3))
    classes = names_of(connection, subjects | objects)
    by_id = names_of(connection, predicates, PREDICATES)
    return _Types(
        newest,
        rows,
        {id_: classes[id_] for id_ in subjects},
        {id_: by_id[id_] for id_ in predicates},
        {id_: classes[id_] for id_ in objects},
        {},
    )


def _collection_ids(connection: sa.Connection, names: Sequence[str]) -> tuple[int, ...]:
    if not names:
        return ()
    one = tables.collection
    rows = connection.execute(sa.select(one.c.name, one.c.id).where(one.c.name.in_(names)))
    known = {name: id_ for name, id_ in rows}
    for name in names:
        if name not in known:
            hint, near = collections.nearest(connection, name)
            raise QueryError(f"unknown collection {name!r}: {hint}", near)
    return tuple(sorted(known[name] for name in names))


def _source_ids(connection: sa.Connection, text: str) -> tuple[int, ...]:
    rows = connection.execute(sa.select(tables.source.c.id, tables.source.c.uri)).all()
    wanted = text.rstrip("/")
    found = tuple(row.id for row in rows if row.uri == wanted or row.uri.endswith("/" + wanted))
    if not found:
        known = ", ".join(row.uri for row in rows[:20]) or "none yet"
        raise QueryError(f"no source ends in {text!r}; known are: {known}")
    return found


def _analyzer_ids(analyzers: Sequence[KnownAnalyzer], text: str) -> tuple[int, ...]:
    found = tuple(
        one.id
        for one in analyzers
        if one.name == text or (len(text) >= 6 and one.sha256.startswith(text))
    )
    if not found:
        known = ", ".join(sorted({one.name for one in analyzers})) or "none yet"
        raise QueryError(f"no model is named {text!r}; known are: {known}")
    return found

"""Whatever is written in whatever order: counts, packed classes and log of changes are right."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from vistadex.catalog import Catalog, registering, tables, writing
from vistadex.catalog.packing import unpack
from vistadex.origins import AnnotationOrigin
from vistadex.records import (
    NOMINAL_SIDE,
    Classification,
    Detections,
    Failure,
    ImageEntry,
    Outcome,
    Relation,
    Relations,
    Result,
    Task,
)

CLASSES = ("Person", "Horse", "Table")
SIDE = 100
MODELS: dict[str, Task] = {"one": "detector", "two": "detector", "three": "classifier"}
PEOPLE: tuple[Task, ...] = ("detector", "classifier", "relater")

scores = st.sampled_from([0.0, 1e-9, 0.25, 0.5, 1.0])
keys = st.sets(st.sampled_from("abcd"), min_size=1)
versions = st.sampled_from(["v1", "v2"])
corners = st.sampled_from([(0.0, 0.0, 0.5, 0.5), (0.25, 0.5, 1.0, 1.0)])
found_classes = st.lists(st.tuples(st.integers(0, 2), scores), max_size=3)
found_relations = st.lists(
    st.tuples(
        st.sampled_from(CLASSES),
        st.sampled_from(["on", "under"]),
        st.sampled_from(CLASSES),
        scores,
        st.none() | corners,
    ),
    max_size=3,
)


def result_of(task: Task, data: st.DataObject, side: int) -> Result:
    """Anything that an analyzer of this task may say."""
    if task == "relater":
        return related(data, side)
    classes = data.draw(found_classes)
    ids = np.array([class_id for class_id, _ in classes], np.int64)
    of = np.array([score for _, score in classes], np.float64)
    if task == "classifier":
        ids, where = np.unique(ids, return_index=True)
        return Classification(of[where], ids)
    boxes = [data.draw(corners) for _ in classes]
    return Detections(np.array(boxes, np.float64).reshape(-1, 4) * side, of, ids)


def related(data: st.DataObject, side: int) -> Relations:
    return Relations(
        tuple(
            Relation(s, p, o, box and tuple(side * one for one in box), None, score)
            for s, p, o, score, box in data.draw(found_relations)
        )
    )


class Catalogs(RuleBasedStateMachine):
    """Writers of all kinds, in any order, over a few images of two sources."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.catalog = self.opened()
        self.said: dict[int, object] = {}
        self.revision = 0
        with self.catalog.writing() as connection:
            self.sources = [registering.register_source(connection, uri) for uri in ("/a", "/b")]
            register = registering.register_analyzer
            self.models = [
                register(connection, AnalyzerOf(name, task)) for name, task in MODELS.items()
            ]
            self.people = [
                register(connection, AnnotationOrigin("human", task, CLASSES, {}))
                for task in PEOPLE
            ]
            self.geometry = [
                register(connection, AnalyzerOf("geometry", "relater", {"of_analyzer": of.id}))
                for of in (self.models[0], self.people[0])
            ]

    def opened(self) -> Catalog:
        """A new catalog."""
        return Catalog(Path(self.folder.name) / "catalog.db", create=True, postings=False)

    def teardown(self) -> None:
        self.catalog.close()
        self.folder.cleanup()

    def known(self) -> dict[int, str]:
        with self.catalog.reading() as connection:
            image = tables.image
            return dict(map(tuple, connection.execute(sa.select(image.c.id, image.c.version))))

    def some(self, data: st.DataObject) -> list[int]:
        return sorted(data.draw(st.sets(st.sampled_from(sorted(self.known()) or [1]))))

    @rule(data=st.data(), which=st.integers(0, 1), keys=keys, used=st.sets(st.integers(0, 2)))
    def models_look(self, data: st.DataObject, which: int, keys: set[str], used: set[int]) -> None:
        analyzers = [self.models[i] for i in sorted(used)]
        tasks = [list(MODELS.values())[i] for i in sorted(used)]
        outcomes = []
        for key in sorted(keys):
            entry = ImageEntry(key, 1, data.draw(versions))
            if data.draw(st.booleans()):
                found = tuple(result_of(task, data, SIDE) for task in tasks)
                outcomes.append(
                    Outcome(entry, SIDE, SIDE, found, content_hash=b"h" * 16, perceptual_hash=1)
                )
            else:
                outcomes.append(Outcome(entry, failure=Failure("corrupt", "broken")))
        with self.catalog.writing() as connection:
            writing.write_outcomes(connection, self.sources[which], analyzers, outcomes)

    @rule(data=st.data(), which=st.integers(0, 1), keys=keys, seen=st.booleans())
    def people_say(self, data: st.DataObject, which: int, keys: set[str], seen: bool) -> None:
        used = sorted(data.draw(st.sets(st.integers(0, 2), min_size=1)))
        analyzers = [self.people[i] for i in used]
        outcomes = []
        for key in sorted(keys):
            version = data.draw(versions) if seen else ""
            side = SIDE if seen or self.is_sized(which, key) else NOMINAL_SIDE
            found = tuple(
                result_of(PEOPLE[i], data, side) if data.draw(st.booleans()) else None for i in used
            )
            entry = ImageEntry(key, None, version, attributes={"split": "train"})
            outcomes.append(Outcome(entry, side, side, found, seen=seen))
        with self.catalog.writing() as connection:
            writing.write_annotations(connection, self.sources[which], analyzers, outcomes)

    def is_sized(self, which: int, key: str) -> bool:
        image = tables.image
        query = sa.select(image.c.width).where(
            image.c.source_id == self.sources[which], image.c.key == key
        )
        with self.catalog.reading() as connection:
            return connection.execute(query).scalar() == SIDE

    @rule(data=st.data(), which=st.integers(0, 1), outdated=st.booleans())
    def relations_are_derived(self, data: st.DataObject, which: int, outdated: bool) -> None:
        known = self.known()
        found = {
            id_: ("another" if outdated else known.get(id_, ""), related(data, SIDE))
            for id_ in self.some(data)
        }
        with self.catalog.writing() as connection:
            writing.write_relations(connection, self.geometry[which], found)

    @rule(data=st.data())
    def images_are_deleted(self, data: st.DataObject) -> None:
        some = self.some(data)
        with self.catalog.writing() as connection:
            writing.delete_images(connection, some)

    @rule(data=st.data(), status=st.sampled_from(["ok", "failed", "vanished"]))
    def a_status_is_set(self, data: st.DataObject, status: str) -> None:
        some = [id_ for id_ in self.some(data) if id_ in self.known()]
        with self.catalog.writing() as connection:
            writing.set_status(connection, some, status)

    @invariant()
    def all_is_right(self) -> None:
        with self.catalog.reading() as connection:
            rows = {
                table.name: connection.execute(sa.select(table)).all()
                for table in tables.metadata.sorted_tables
            }
        check_classes(rows)
        check_relations(rows)
        check_images(rows)
        self.check_log(rows)

    def check_log(self, rows: dict[str, list[sa.Row]]) -> None:
        """Every image of which something else is known than before is named in the log."""
        said: dict[int, list[object]] = defaultdict(list)
        for row in rows["image"]:
            said[row.id].append((row.width, row.height, row.status, row.content_hash))
        for table in tables.RESULT_TABLES:
            for row in rows[table.name]:
                said[row.image_id].append((table.name, *row))
        now: dict[int, object] = {id_: sorted(map(repr, some)) for id_, some in said.items()}
        changed = {id_ for id_ in now | self.said if now.get(id_) != self.said.get(id_)}
        (state,) = rows["state"]
        new = [row for row in rows["change"] if row.revision > self.revision]
        assert [row.revision for row in new] == list(range(self.revision + 1, state.revision + 1))
        assert changed <= {id_ for row in new for id_ in np.frombuffer(row.images, "<i8").tolist()}
        self.said, self.revision = now, state.revision


class AnalyzerOf(AnnotationOrigin):
    """A model of that name."""

    def __init__(self, name: str, task: Task, parameters: dict[str, int] | None = None) -> None:
        super().__init__(name, task, CLASSES, {}, parameters or {})

    @property
    def sha256(self) -> str:
        return f"{self.task} {self.name}"


def counted(
    rows: Iterable[tuple[int, int, int, int]],
) -> dict[tuple[int, int], tuple[int, int]]:
    """Images and things of each key and analyzer, any of them as 0, of (key, image, analyzer,
    things)."""
    images: dict[tuple[int, int], set[int]] = defaultdict(set)
    things: Counter[tuple[int, int]] = Counter()
    for key, image_id, analyzer_id, number in rows:
        for analyzer in (analyzer_id, tables.ANY_ANALYZER):
            images[key, analyzer].add(image_id)
            things[key, analyzer] += number
    return {pair: (len(ids), things[pair]) for pair, ids in images.items()}


def kept(rows: Iterable[sa.Row]) -> dict[tuple[int, int], tuple[int, int]]:
    """A table of counts, without what is 0."""
    return {(row[0], row[1]): (row[2], row[3]) for row in rows if row[2] or row[3]}


def check_classes(rows: dict[str, list[sa.Row]]) -> None:
    packed = [
        (one.class_id, one.score, row.image_id, row.analyzer_id, one.boxes)
        for row in rows["analysis"]
        for one in unpack(row.classes)
        if not one.is_absent
    ]
    listed = list(map(tuple, rows["image_class"]))
    assert sorted(packed) == sorted(listed)
    assert kept(rows["class_count"]) == counted((c, i, a, n) for c, _, i, a, n in listed)
    boxes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in rows["box"]:
        boxes[row.class_id, row.image_id, row.analyzer_id].append(row.score)
    by_boxes = [(c, max(of), i, a, len(of)) for (c, i, a), of in boxes.items()]
    assert sorted(by_boxes) == sorted(row for row in listed if row[4])


def check_relations(rows: dict[str, list[sa.Row]]) -> None:
    found: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for row in rows["relation"]:
        found[row.type_id, row.image_id, row.analyzer_id].append(row.score)
    ranked = [(t, max(of), i, a, len(of)) for (t, i, a), of in found.items()]
    assert sorted(ranked) == sorted(map(tuple, rows["image_relation"]))
    assert kept(rows["relation_count"]) == counted((t, i, a, n) for t, _, i, a, n in ranked)
    predicates = {row.id: row.predicate_id for row in rows["relation_type"]}
    of_predicate = counted((predicates[t], i, a, n) for t, _, i, a, n in ranked)
    assert kept(rows["predicate_count"]) == of_predicate


def check_images(rows: dict[str, list[sa.Row]]) -> None:
    in_source = Counter(row.source_id for row in rows["image"])
    assert {row.id: row.images for row in rows["source"] if row.images} == in_source
    seen = Counter(row.analyzer_id for row in rows["analysis"])
    assert {row.id: row.images for row in rows["analyzer"] if row.images} == seen
    sizes = {row.id: row.width for row in rows["image"]}
    seen_by = {(row.image_id, row.analyzer_id) for row in rows["analysis"]}
    for table in tables.RESULT_TABLES:
        for row in rows[table.name]:
            assert row.image_id in sizes
            assert (row.image_id, row.analyzer_id) in seen_by
    for row in rows["box"]:
        assert not sizes[row.image_id] or row.x1 / sizes[row.image_id] in (0.5, 1.0)
    for row in rows["relation"]:
        known = sizes[row.image_id] and row.subject_x1 is not None
        geometric = row.analyzer_id > len(MODELS) + len(PEOPLE)
        assert not known or geometric or row.subject_x1 / sizes[row.image_id] in (0.5, 1.0)


def test_counts_and_log_are_right_after_any_sequence_of_writes() -> None:
    run_state_machine_as_test(
        Catalogs, settings=settings(max_examples=40, stateful_step_count=12, deadline=None)
    )

"""Posting lists under random changes, compared with a slow search that is plainly right."""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from vistadex.catalog import (
    Catalog,
    facets,
    postings_rows,
    ranking,
    ranking_facets,
    registering,
    tables,
    writing,
)
from vistadex.catalog.following import Following, View
from vistadex.catalog.packing import unpack
from vistadex.catalog.scope import BINS, Facets, Position, Scope, Wanted
from vistadex.records import (
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
from vistadex.testing import RedSquareDetector

CLASSES = ("dog", "cat", "person", "car", "tree", "sky")
PREDICATES = ("on", "under", "rides")


class _Named(RedSquareDetector):
    """Stands for any model; never looks at a picture."""

    def __init__(self, name: str, task: Task) -> None:
        super().__init__()
        self.given = name, task

    @property
    def name(self) -> str:
        return self.given[0]

    @property
    def sha256(self) -> str:
        return self.given[0] * 8

    @property
    def task(self) -> Task:
        return self.given[1]

    @property
    def classes(self) -> tuple[str, ...]:
        return () if self.task == "relater" else CLASSES


ANALYZERS = (
    _Named("first", "detector"),
    _Named("second", "detector"),
    _Named("whole", "classifier"),
    _Named("relater", "relater"),
    _Named("other relater", "relater"),
)


def random_result(rng: random.Random, task: Task) -> Result:
    number = rng.choice([0, 1, 2, 5])
    scores = np.array([rng.choice([0, 0.25, 0.5, 0.5, 0.7, 1]) for _ in range(number)], np.float32)
    ids = np.array([rng.choice([0, 0, 1, 2, 3, 4]) for _ in range(number)], np.int64)
    if task == "relater":
        return Relations(
            tuple(
                Relation(
                    rng.choice(CLASSES[:3]),
                    rng.choice(PREDICATES),
                    rng.choice(CLASSES[:3]),
                    score=float(score),
                )
                for score in scores
            )
        )
    if task == "classifier":
        _, first = np.unique(ids, return_index=True)
        return Classification(scores[first], ids[first])
    corners = np.array([[rng.uniform(0, 300) for _ in range(4)] for _ in range(number)])
    boxes = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    return Detections(boxes.astype(np.float32), scores, ids)


def random_outcome(rng: random.Random, key: str, tasks: list[Task]) -> Outcome:
    entry = ImageEntry(key, 1, rng.choice(["v1", "v1", "v2"]))
    if rng.random() < 0.1:
        return Outcome(entry, failure=Failure("corrupt", "it is"))
    width, height = rng.choice([(640, 480), (300, 300), (0, 0)])
    return Outcome(entry, width, height, tuple(random_result(rng, task) for task in tasks))


def change(catalog: Catalog, rng: random.Random, images: int) -> None:
    """One transaction of a random kind."""
    with catalog.writing() as connection:
        if rng.random() < 0.2:
            ids = connection.execute(sa.select(tables.image.c.id)).scalars().all()
            writing.delete_images(connection, rng.sample(ids, min(len(ids), rng.randint(1, 9))))
            return
        source_id = registering.register_source(connection, rng.choice(["/a", "/b", "/c"]))
        chosen = rng.sample(ANALYZERS, rng.randint(1, 3))
        analyzers = [registering.register_analyzer(connection, one) for one in chosen]
        tasks = [one.task for one in chosen]
        keys = rng.sample([f"{i:03}" for i in range(3 * images)], rng.randint(1, images))
        outcomes = [random_outcome(rng, key, tasks) for key in keys]
        if rng.random() < 0.5:
            writing.write_outcomes(connection, source_id, analyzers, outcomes)
            return
        said = [one for one in outcomes if one.failure is None]
        if rng.random() < 0.5:  # pictures that nobody has read
            said = [replace(one, seen=False, entry=replace(one.entry, version="")) for one in said]
        writing.write_annotations(connection, source_id, analyzers, said)


@dataclass
class Truth:
    """Every row, and a search that goes through all of them."""

    images: dict[int, tuple[int, bool, int]]
    """Source, shown, area."""
    rows: dict[str, list[tuple[int, int, int, int, int]]]
    """class or relation: image, analyzer, id, score, number."""
    boxes: list[tuple[int, int, int, int, float, float]]
    predicates: dict[int, int]
    statuses: dict[int, str]

    def has(self, scope: Scope, wanted: Wanted) -> dict[int, int]:
        best: dict[int, int] = {}
        for image, analyzer, key, score, number in self.rows[wanted.kind]:
            good = key in wanted.ids and number >= wanted.min_boxes
            if good and counts(scope, analyzer, score):
                best[image] = max(score, best.get(image, 0))
        return best

    def search(self, scope: Scope, only: set[int] | None) -> list[Position]:
        lists = [self.has(scope, one) for one in scope.wanted]
        bad = {image for one in scope.without for image in self.has(scope, one)}
        some = {row[0] for row in self.rows["class"] if counts(scope, row[1], row[3])}
        free = not scope.min_score and scope.analyzer_ids is None
        found = []
        for image, (source, shown, _) in self.images.items():
            scores = [one[image] for one in lists if image in one]
            enough = len(lists) if scope.mode == "all" else min(1, len(lists))
            if len(scores) < enough or image in bad:
                continue
            if scope.source_ids is not None and source not in scope.source_ids:
                continue
            if only is not None and image not in only:
                continue
            if lists or (shown and (free or image in some)):
                found.append(Position(image, len(scores), sum(scores)))
        return sorted(found, key=lambda one: (one.matched, one.score, one.image_id), reverse=True)

    def facets(self, scope: Scope, found: list[Position]) -> Facets:
        ids = {one.image_id for one in found}
        in_class: dict[int, set[int]] = defaultdict(set)
        in_predicate: dict[int, set[int]] = defaultdict(set)
        for image, analyzer, key, score, _ in self.rows["class"]:
            if image in ids and counts(scope, analyzer, score):
                in_class[key].add(image)
        for image, analyzer, key, score, _ in self.rows["relation"]:
            if image in ids and counts(scope, analyzer, score):
                in_predicate[self.predicates[key]].add(image)
        classes = {id_ for one in scope.wanted if one.kind == "class" for id_ in one.ids}
        sizes = [0] * BINS
        for image, analyzer, key, score, width, height in self.boxes:
            area = self.images[image][2]
            of_wanted = not classes or key in classes
            if image in ids and area and of_wanted and counts(scope, analyzer, score):
                share = max(width, 0) * max(height, 0) / area
                sizes[min(BINS - 1, int(share**0.5 * BINS))] += 1
        bins = Counter(facets.score_bin(one) for one in found) if scope.wanted else Counter[int]()
        return Facets(
            len(found),
            facets.by_number(Counter({key: len(images) for key, images in in_class.items()})),
            facets.by_number(Counter({key: len(images) for key, images in in_predicate.items()})),
            tuple(bins[i] for i in range(BINS)) if scope.wanted else (),
            tuple(sizes),
            facets.by_number(Counter(self.images[id_][0] for id_ in ids)),
            tuple(
                (status, number)
                for status in ("ok", "failed", "vanished", "unseen")
                if (number := sum(self.statuses[id_] == status for id_ in ids))
            ),
        )


def counts(scope: Scope, analyzer: int, score: int) -> bool:
    of_analyzer = scope.analyzer_ids is None or analyzer in scope.analyzer_ids
    return of_analyzer and score >= scope.min_score


def truth_of(connection: sa.Connection) -> Truth:
    image, box, analysis = tables.image, tables.box, tables.analysis
    images = {
        row.id: (row.source_id, row.width > 0 or row.status == "unseen", row.width * row.height)
        for row in connection.execute(sa.select(image))
    }
    of_class = [
        (row.image_id, row.analyzer_id, one.class_id, one.score, one.boxes)
        for row in connection.execute(sa.select(analysis))
        for one in unpack(row.classes)
        if not one.is_absent
    ]
    of_type = [
        (row.image_id, row.analyzer_id, row.type_id, row.score, row.relations)
        for row in connection.execute(sa.select(tables.image_relation))
    ]
    boxes = [
        (row.image_id, row.analyzer_id, row.class_id, row.score, row.x1 - row.x0, row.y1 - row.y0)
        for row in connection.execute(sa.select(box))
    ]
    types = connection.execute(sa.select(tables.relation_type))
    return Truth(
        images,
        {"class": of_class, "relation": of_type},
        boxes,
        {row.id: row.predicate_id for row in types},
        {row.id: row.status for row in connection.execute(sa.select(image))},
    )


def random_wanted(rng: random.Random) -> Wanted:
    kind = rng.choice(["class", "class", "relation"])
    most = 7 if kind == "class" else 20
    ids = tuple(rng.sample(range(1, most + 1), rng.choice([1, 1, 1, 2, 4])))
    assert kind in ("class", "relation")
    return Wanted("class" if kind == "class" else "relation", ids, rng.choice([0, 0, 0, 1, 2]))


def random_scope(rng: random.Random) -> Scope:
    scope = Scope(
        tuple(random_wanted(rng) for _ in range(rng.choice([0, 1, 1, 2, 3]))),
        rng.choice(["all", "any"]),
        tuple(random_wanted(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))),
        rng.choice([0, 0, 0, 250_000, 500_000, 1_000_000]),
        rng.choice([None, None, (1,), (2, 3), ()]),
        rng.choice([None, None, (1,), (1, 2), (3, 4, 5), (9,)]),
    )
    if scope.min_score:
        wanted, without = (
            tuple(replace(one, min_boxes=0) for one in part)
            for part in (scope.wanted, scope.without)
        )
        scope = replace(scope, wanted=wanted, without=without)
    return scope


def assert_equal(view: View, truth: Truth, scope: Scope, rng: random.Random) -> None:
    chosen = {i for i in truth.images if rng.random() < 0.5} | {10**6}
    only = rng.choice([None, None, chosen])
    ids = None if only is None else np.array(sorted(only), np.int64)
    assert view.can_answer(scope)
    expected = truth.search(scope, only)
    assert view.count(scope, ids) == len(expected)
    assert list(view.every_id(scope, ids)) == [one.image_id for one in expected]
    limit = rng.choice([1, 3, 10, 1000])
    found: list[Position] = []
    while part := view.page(scope, limit, found[-1] if found else None, ids):
        assert len(part) <= limit
        found += part
    assert found == expected
    assert view.facets(scope, ids) == truth.facets(scope, expected)
    number = rng.choice([0, 0, 0, 0, 1, 3, 10])  # each is searched for by itself, which takes long
    groups = [tuple(rng.sample(range(1, 6), rng.randint(1, 3))) for _ in range(number)]
    alone = [replace(scope, analyzer_ids=one) for one in groups]
    assert view.counts(scope, groups, ids) == [len(truth.search(one, only)) for one in alone]


@pytest.mark.parametrize("seed", range(12))
def test_answers_equal_a_slow_search_under_random_changes(
    tmp_path: Path, catalog_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    if seed % 3:  # small catalogs take the ways of large ones
        monkeypatch.setattr(ranking, "BLOCK", rng.choice([4, 16, 64]))
        monkeypatch.setattr(ranking, "SHORT", rng.choice([0, 5]))
        monkeypatch.setattr(ranking_facets, "CHUNK", rng.choice([3, 50]))
        monkeypatch.setattr(ranking_facets, "MANY_IMAGES", 7)
        monkeypatch.setattr(ranking_facets, "FEW_ROWS", rng.choice([0, 5, 1000]))
        monkeypatch.setattr(ranking_facets, "FEW_IMAGES", rng.choice([0, 10]))
        monkeypatch.setattr(ranking_facets, "FEW_STORED", rng.choice([0, 10]))
        monkeypatch.setattr(ranking_facets, "KEPT", rng.choice([1, 32]))
        monkeypatch.setattr(postings_rows, "IMAGES", rng.choice([1, 7, 50]))
    with Catalog(catalog_url) as catalog:
        for _ in range(rng.randint(0, 5)):
            change(catalog, rng, 60)
        following = Following(catalog.reading, tmp_path / "postings")
        assert following.rebuild()
        asked: list[Scope] = []
        for step in range(8):
            if step:
                change(catalog, rng, rng.choice([3, 30]))
            with catalog.reading() as connection:
                view = following.current(connection)
                assert view is not None
                truth = truth_of(connection)
            new = [random_scope(rng) for _ in range(15)]
            for scope in new + asked:  # what is kept of earlier answers is mended
                assert_equal(view, truth, scope, rng)
            asked += new[:3]


@pytest.mark.parametrize(
    "scope",
    [
        Scope((Wanted("class", (1,), 2),), min_score=1),
        Scope((Wanted("class", (1,), 256),)),
        Scope(without=(Wanted("class", (1,), 2),), min_score=1),
        Scope(attributes=(("split", "train"),)),
        Scope(duplicates="exact"),
        Scope(tuple(Wanted("class", (i,)) for i in range(64))),
    ],
)
def test_what_the_lists_do_not_say_is_left_to_the_database(scope: Scope) -> None:
    assert not View.can_answer(scope)


def test_ids_found_by_the_database_stand_for_attributes() -> None:
    scope = Scope(attributes=(("split", "train"),))
    assert View.can_answer(scope, np.array([1, 2]))

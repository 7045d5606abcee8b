"""Relations, absent classes, unseen images and facets in the catalog."""

from collections.abc import Iterator

import numpy as np
import pytest
import sqlalchemy as sa

from vistadex.catalog import (
    Catalog,
    OriginCount,
    QueryFacets,
    RelationCount,
    registering,
    tables,
    writing,
)
from vistadex.catalog.images import picture_url
from vistadex.errors import CatalogError, QueryError
from vistadex.origins import AnnotationOrigin
from vistadex.records import (
    NOMINAL_SIDE,
    Classification,
    Detections,
    ImageEntry,
    Outcome,
    Relation,
    Relations,
    Result,
)
from vistadex.testing import RedSquareDetector

CLASSES = ("Person", "Horse", "Table", "Wooden", "Pony")
HORSE_BOX = (10.0, 40.0, 90.0, 80.0)
PERSON_BOX = (30.0, 10.0, 60.0, 60.0)


def detections(*found: tuple[str, float, tuple[float, float, float, float]]) -> Detections:
    return Detections(
        np.array([box for _, _, box in found], np.float64).reshape(-1, 4),
        np.array([score for _, score, _ in found], np.float64),
        np.array([CLASSES.index(name) for name, _, _ in found], np.int64),
    )


def classification(**scores: float) -> Classification:
    ids = np.array([CLASSES.index(name) for name in scores], np.int64)
    return Classification(np.array(list(scores.values()), np.float64), ids)


def relations(*found: tuple[str, str, str, float]) -> Relations:
    return Relations(
        tuple(Relation(s, p, o, PERSON_BOX, HORSE_BOX, score) for s, p, o, score in found)
    )


def write(
    catalog: Catalog, key: str, *results: Result | None, version: str = "v1", seen: bool = True
) -> None:
    """What people say of an image: boxes, classes and relations."""
    tasks = ("detector", "classifier", "relater")
    side = 100 if seen else NOMINAL_SIDE
    outcome = Outcome(ImageEntry(key, 1, version), side, side, results, seen=seen)
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/photos")
        analyzers = [
            registering.register_analyzer(connection, AnnotationOrigin("human", task, CLASSES, {}))
            for task in tasks
        ]
        writing.write_annotations(connection, source, analyzers, [outcome])


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url) as made:
        write(
            made,
            "ride.jpg",
            detections(("Person", 1, PERSON_BOX), ("Horse", 0.9, HORSE_BOX)),
            classification(Person=1.0, Table=0.0),
            relations(("Person", "rides", "Horse", 0.9), ("Person", "next to", "Horse", 0.4)),
        )
        write(
            made,
            "stand.jpg",
            detections(("Person", 1, PERSON_BOX), ("Pony", 0.7, HORSE_BOX)),
            None,
            relations(("Person", "next to", "Pony", 0.8), ("Person", "next to", "Pony", 0.3)),
        )
        write(
            made,
            "table.jpg",
            None,
            classification(Table=0.6),
            relations(("Table", "is", "Wooden", 1.0)),
        )
        yield made


def keys(catalog: Catalog, query: str = "", **options: object) -> list[str]:
    found = catalog.search(query, **options)
    assert catalog.count(query, **options) == len(found.results)
    return [one.image.key for one in found.results]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("Person/rides/Horse", ["ride.jpg"]),
        ("Person/ride%/Horse", ["ride.jpg"]),
        ("Person/next_to/%", ["stand.jpg", "ride.jpg"]),
        ("//", ["table.jpg", "ride.jpg", "stand.jpg"]),
        ("/is/", ["table.jpg"]),
        ("//Wooden", ["table.jpg"]),
        ("%o%//P%", ["stand.jpg"]),
        ("Horse/rides/Person", []),
        (r"Person/next\_to/", None),
    ],
)
def test_a_relation_finds_images_best_first(
    catalog: Catalog, pattern: str, expected: list[str] | None
) -> None:
    if expected is None:
        with pytest.raises(QueryError, match="unknown predicate 'next_to'"):
            catalog.search(relation=pattern)
        return
    assert keys(catalog, relation=pattern) == expected
    assert keys(catalog, f'relation:"{pattern}"') == expected


def test_case_is_folded_only_on_request(catalog: Catalog) -> None:
    assert keys(catalog, relation="person/RIDES/%", ignore_case=True) == ["ride.jpg"]
    with pytest.raises(QueryError, match="unknown class 'person' in a relation: did you mean Pers"):
        catalog.search(relation="person/rides/")


def test_relations_combine_with_classes_and_sum_their_scores(catalog: Catalog) -> None:
    (best,) = catalog.search('Pony & relation:"Person/next to/"').results
    assert best.image.key == "stand.jpg"
    assert best.score == pytest.approx(0.7 + 0.8)
    assert keys(catalog, "Horse | relation:/is/") == ["table.jpg", "ride.jpg"]
    assert keys(catalog, "Person -relation:/rides/") == ["stand.jpg"]
    assert keys(catalog, "Person", relation="/rides/") == ["ride.jpg"]


def test_low_scores_of_relations_do_not_count(catalog: Catalog) -> None:
    assert keys(catalog, relation="/next to/", min_score=0.5) == ["stand.jpg"]


def test_kinds_of_relations_are_listed_with_their_numbers(catalog: Catalog) -> None:
    assert catalog.relations("Person//") == [
        RelationCount("Person", "next to", "Horse", 1, 1),
        RelationCount("Person", "next to", "Pony", 1, 2),
        RelationCount("Person", "rides", "Horse", 1, 1),
    ]
    assert [(one.predicate, one.images, one.relations) for one in catalog.predicates()] == [
        ("next to", 2, 3),
        ("is", 1, 1),
        ("rides", 1, 1),
    ]


def test_an_image_has_its_relations_with_both_boxes(catalog: Catalog) -> None:
    image = catalog.image("/photos/ride.jpg")
    best = image.relations[0]
    assert (best.subject, best.predicate, best.object) == ("Person", "rides", "Horse")
    assert (best.subject_xyxy, best.object_xyxy) == (PERSON_BOX, HORSE_BOX)
    assert (best.model, best.score) == ("human", 0.9)


def test_an_absent_class_is_known_but_not_found(catalog: Catalog) -> None:
    assert catalog.image("/photos/ride.jpg").absent == ("Table",)
    assert keys(catalog, "Table") == ["table.jpg"]
    assert {one.class_name: one.images for one in catalog.classes()}["Table"] == 1


def test_facets_count_what_is_in_the_result(catalog: Catalog) -> None:
    scores = [0] * 20
    scores[19] = 2
    sizes = [0] * 20
    sizes[7] = 2  # the person's box is 30 x 50 of 100 x 100 pixels: the root of 0.15 is 0.387
    assert catalog.facets("Person") == QueryFacets(
        2,
        (("Person", 2), ("Horse", 1), ("Pony", 1)),
        (("next to", 2), ("rides", 1)),
        tuple(scores),
        tuple(sizes),
        (("/photos", 2),),
        (("ok", 2),),
        (OriginCount("human", True, 2),),
    )
    everything = catalog.facets()
    assert everything.images == 3
    assert everything.scores == ()
    assert sum(everything.box_sizes) == 4


def test_writing_again_keeps_every_count(catalog: Catalog) -> None:
    before = dump(catalog)
    write(
        catalog,
        "ride.jpg",
        detections(("Person", 1, PERSON_BOX)),
        None,
        relations(("Person", "leads", "Horse", 0.5)),
    )
    assert keys(catalog, relation="/rides/") == []
    assert keys(catalog, relation="/leads/") == ["ride.jpg"]
    write(
        catalog,
        "ride.jpg",
        detections(("Person", 1, PERSON_BOX), ("Horse", 0.9, HORSE_BOX)),
        classification(Person=1.0, Table=0.0),
        relations(("Person", "rides", "Horse", 0.9), ("Person", "next to", "Horse", 0.4)),
    )
    assert dump(catalog) == before
    with catalog.writing() as connection:
        ids = [row.id for row in connection.execute(sa.select(tables.image.c.id))]
        writing.delete_images(connection, ids)
    assert not any(dump(catalog).values())
    assert catalog.stats().images == 0


def dump(catalog: Catalog) -> dict[str, list[tuple[object, ...]]]:
    """Rows that say something: counts of nothing and names are left out."""
    left_out = {"source", "model", "analyzer", "class", "predicate", "relation_type"}
    left_out |= {"state", "change", "image"}
    found = {}
    with catalog.reading() as connection:
        for table in tables.metadata.sorted_tables:
            if table.name not in left_out:
                rows = [tuple(row) for row in connection.execute(sa.select(table))]
                counted = "count" in table.name
                found[table.name] = sorted(row for row in rows if not counted or row[2])
    return found


def test_every_write_is_in_the_log_of_changes(catalog: Catalog) -> None:
    with catalog.reading() as connection:
        rows = connection.execute(sa.select(tables.change).order_by(tables.change.c.revision)).all()
        (revision,) = connection.execute(sa.select(tables.state.c.revision)).scalars()
    assert [row.revision for row in rows] == list(range(1, len(rows) + 1))
    assert revision == len(rows) == 3
    assert [np.frombuffer(row.images, "<i8").tolist() for row in rows] == [[1], [2], [3]]
    assert len({row.token for row in rows}) == 3


def test_a_circle_in_the_hierarchy_does_no_harm(catalog: Catalog) -> None:
    pairs = [("Pony", "Horse"), ("Horse", "Animal"), ("Animal", "Horse")]
    with catalog.writing() as connection:
        registering.describe_classes(connection, {"Pony": "/m/0gv1x"}, {}, pairs)
        registering.describe_classes(connection, {}, {"Pony": "a small horse"}, pairs)
    assert keys(catalog, "Animal") == []
    assert keys(catalog, "Animal", subclasses=True) == ["ride.jpg", "stand.jpg"]
    assert keys(catalog, "Person & Horse", subclasses=True) == ["ride.jpg", "stand.jpg"]
    assert keys(catalog, "Person -Horse", subclasses=True) == []
    assert catalog.facets("Horse", subclasses=True).images == 2


def test_an_unseen_image_is_found_and_gets_pixels_when_it_is_indexed(catalog: Catalog) -> None:
    fractions = np.array([[0.25, 0.5, 0.75, 1.0]]) * NOMINAL_SIDE
    found = Detections(fractions, np.ones(1), np.array([1], np.int64))
    half = (0.0, 0.0, NOMINAL_SIDE / 2, NOMINAL_SIDE / 2)
    related = Relations((Relation("Person", "sees", "Horse", half, None, 1.0),))
    write(catalog, "far.jpg", found, None, related, version="", seen=False)
    image = catalog.image("/photos/far.jpg")
    assert (image.status, image.width, image.height) == ("unseen", NOMINAL_SIDE, NOMINAL_SIDE)
    assert keys(catalog, "Horse") == ["far.jpg", "ride.jpg"]
    assert keys(catalog)[0] == "far.jpg"

    read = Outcome(ImageEntry("far.jpg", 9, "etag"), 400, 200, (detections(),))
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/photos")
        analyzer = registering.register_analyzer(connection, RedSquareDetector())
        writing.write_outcomes(connection, source, [analyzer], [read])
    image = catalog.image("/photos/far.jpg")
    assert (image.status, image.warning, image.width, image.height) == ("ok", None, 400, 200)
    assert image.boxes[0].box_xyxy == (100.0, 100.0, 300.0, 200.0)
    assert image.relations[0].subject_xyxy == (0.0, 0.0, 200.0, 100.0)
    assert keys(catalog, "Horse") == ["far.jpg", "ride.jpg"]


def test_annotations_of_a_picture_not_at_hand_leave_what_models_found(catalog: Catalog) -> None:
    seen = Outcome(
        ImageEntry("a.jpg", 9, "etag"), 400, 200, (detections(("Person", 0.8, HORSE_BOX)),)
    )
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/photos")
        analyzer = registering.register_analyzer(connection, RedSquareDetector())
        writing.write_outcomes(connection, source, [analyzer], [seen])
    write(catalog, "a.jpg", None, classification(Wooden=1.0), None, version="", seen=False)
    image = catalog.image("/photos/a.jpg")
    assert (image.status, image.version, image.width) == ("ok", "etag", 400)
    assert [one.class_name for one in image.classes] == ["Wooden", "red square"]


def test_fractions_become_pixels_when_others_annotate_the_picture_itself(catalog: Catalog) -> None:
    half = np.array([[0.0, 0.0, 0.5, 0.5]]) * NOMINAL_SIDE
    write(
        catalog, "far.jpg", Detections(half, np.ones(1), np.zeros(1, np.int64)), None, None,
        version="", seen=False,
    )  # fmt: skip
    read = Outcome(ImageEntry("far.jpg", 9, "etag"), 400, 200, (classification(Horse=1.0),))
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/photos")
        others = AnnotationOrigin("others", "classifier", CLASSES, {})
        analyzer = registering.register_analyzer(connection, others)
        writing.write_annotations(connection, source, [analyzer], [read])
    image = catalog.image("/photos/far.jpg")
    assert (image.status, image.width, image.height) == ("ok", 400, 200)
    assert [one.box_xyxy for one in image.boxes] == [(0.0, 0.0, 200.0, 100.0)]


def test_a_tiny_score_is_not_a_class_that_people_have_not_found(catalog: Catalog) -> None:
    write(catalog, "dim.jpg", None, classification(Horse=1e-9, Table=0.0))
    image = catalog.image("/photos/dim.jpg")
    assert [(one.class_name, one.score) for one in image.classes] == [("Horse", 0.000001)]
    assert image.absent == ("Table",)


def test_a_score_above_1_never_enters(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match=r"its score is 1\.1, not 0 to 1"):
        write(catalog, "bright.jpg", None, classification(Horse=1.1))
    assert catalog.count("Horse") == 1


def test_a_changed_status_is_in_the_log_of_changes(catalog: Catalog) -> None:
    with catalog.writing() as connection:
        writing.set_status(connection, [1, 3], "vanished")
    with catalog.reading() as connection:
        last = sa.select(tables.change.c.images).order_by(tables.change.c.revision.desc()).limit(1)
        named = connection.execute(last).scalar_one()
    assert np.frombuffer(named, "<i8").tolist() == [1, 3]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("https://h/{split}/{image_id}.jpg", "https://h/train/a%20b.jpg"),
        ("{original_url}", "https://h/x.jpg?size=large&v=1"),
        ("https://h/{missing}.jpg", None),
        (None, None),
    ],
)
def test_a_picture_that_is_not_at_hand_has_an_address(
    template: str | None, expected: str | None
) -> None:
    attributes = {"split": "train", "original_url": "https://h/x.jpg?size=large&v=1"}
    assert picture_url(template, "train/a b.jpg", attributes) == expected

"""Images with all that is known of them, as they are read."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import sqlalchemy as sa

from tests.test_catalog_relations import classification, detections, relations, write
from vistadex.catalog import Catalog, images, tables
from vistadex.catalog.lookup import Lookup, Statement
from vistadex.errors import CatalogError

FRAME = (10.0, 10.0, 50.0, 50.0)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url, create=True) as catalog:
        yield catalog


def share(catalog: Catalog, set_id: int, shared: dict[str, object], *image_ids: int) -> None:
    """Gives images a set of attributes."""
    with catalog.writing() as connection:
        connection.execute(sa.insert(tables.attribute_set).values(id=set_id, attributes=shared))
        image = tables.image
        statement = sa.update(image).where(image.c.id.in_(image_ids))
        connection.execute(statement.values(attribute_set_id=set_id))


def describe(catalog: Catalog, image_id: int, own: dict[str, object] | None) -> None:
    """Gives an image attributes of its own."""
    with catalog.writing() as connection:
        image = tables.image
        statement = sa.update(image).where(image.c.id == image_id)
        connection.execute(statement.values(attributes=own))


def test_images_come_in_the_order_of_their_ids_and_unknown_ids_are_left_out(
    catalog: Catalog,
) -> None:
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        write(catalog, key, classification(Person=0.5))
    first, second, third = (catalog.image(id_).id for id_ in (1, 2, 3))
    found = catalog.images([third, 999, first, second])
    assert [one.id for one in found] == [third, first, second]
    assert catalog.images([]) == []
    assert catalog.images([999]) == []


def test_more_images_than_one_list_of_sql_are_read_in_parts(catalog: Catalog) -> None:
    write(catalog, "a.jpg", classification(Person=0.5))
    found = catalog.images([1, *range(1000, 2200), 1])
    assert [one.key for one in found] == ["a.jpg", "a.jpg"]


def test_boxes_and_classes_stand_by_falling_score_then_name(catalog: Catalog) -> None:
    write(
        catalog,
        "a.jpg",
        detections(
            ("Table", 0.5, FRAME),
            ("Person", 0.5, FRAME),
            ("Horse", 0.9, FRAME),
            ("Pony", 0.1, FRAME),
        ),
        classification(Wooden=0.5, Pony=0.7),
    )
    image = catalog.image(1)
    assert [one.class_name for one in image.boxes] == ["Horse", "Person", "Table", "Pony"]
    assert [(one.class_name, one.score) for one in image.classes] == [
        ("Horse", 0.9),
        ("Pony", 0.7),
        ("Person", 0.5),
        ("Table", 0.5),
        ("Wooden", 0.5),
    ]
    assert [one.boxes for one in image.classes] == [1, 1, 1, 1, 0]


def test_relations_stand_by_falling_score_with_both_boxes(catalog: Catalog) -> None:
    triplets = [("Person", "rides", "Horse", score) for score in (0.2, 0.9, 0.4)]
    write(catalog, "a.jpg", relations(*triplets))
    found = catalog.image(1).relations
    assert [one.score for one in found] == [0.9, 0.4, 0.2]
    assert all(a.score >= b.score for a, b in pairwise(found))
    assert found[0].subject_xyxy == (30.0, 10.0, 60.0, 60.0)
    assert found[0].object_xyxy == (10.0, 40.0, 90.0, 80.0)


def test_an_image_with_nothing_said_of_it_is_whole(catalog: Catalog) -> None:
    write(catalog, "a.jpg")
    image = catalog.image(1)
    assert (image.classes, image.boxes, image.relations) == ((), (), ())
    assert (image.models, image.analyzer_ids, image.absent) == ((), (), ())
    assert image.attributes == {}


def test_own_attributes_go_before_those_of_the_set(catalog: Catalog) -> None:
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        write(catalog, key, classification(Person=0.5))
    share(catalog, 7, {"split": "train", "license": "by"}, 1, 2)
    describe(catalog, 1, {"split": "test", "rotation": 90})
    describe(catalog, 3, {"split": "validation"})
    first, second, third = catalog.images([1, 2, 3])
    assert first.attributes == {"split": "test", "license": "by", "rotation": 90}
    assert second.attributes == {"split": "train", "license": "by"}
    assert third.attributes == {"split": "validation"}


def test_a_picture_is_shown_from_where_the_attributes_of_its_set_say(catalog: Catalog) -> None:
    write(catalog, "a.jpg", classification(Person=0.5))
    share(catalog, 1, {"split": "train"}, 1)
    with catalog.writing() as connection:
        template = "https://host.test/{split}/{image_id}.jpg"
        connection.execute(sa.update(tables.source).values(image_url=template))
    assert catalog.image(1).image_url == "https://host.test/train/a.jpg"


def test_sets_that_a_transaction_took_back_are_not_remembered(catalog: Catalog) -> None:
    write(catalog, "a.jpg", classification(Person=0.5))
    with catalog.engine.connect().execution_options(write=True) as connection:
        shared = sa.insert(tables.attribute_set)
        connection.execute(shared.values(id=1, attributes={"split": "regretted"}))
        assert images.attributes_of_sets(connection, [1, None]) == {1: {"split": "regretted"}}
        connection.rollback()
    share(catalog, 1, {"split": "train"}, 1)
    assert catalog.image(1).attributes == {"split": "train"}


def test_a_lookup_gives_columns_of_what_there_is(catalog: Catalog) -> None:
    write(catalog, "ä b.jpg", classification(Person=0.5))
    describe(catalog, 1, {"of": ["what", None]})
    columns = (tables.image.c.id, tables.image.c.key, tables.image.c.attributes)
    lookup = Lookup(sa.select(*columns), tables.image.c.id)
    with catalog.reading() as connection:
        assert [list(one) for one in lookup.columns(connection, [1, 2])] == [
            [1],
            ["ä b.jpg"],
            [{"of": ["what", None]}],
        ]
        assert [list(one) for one in lookup.columns(connection, [2])] == [[], [], []]
        assert lookup.columns(connection, []) == [(), (), ()]


def test_an_error_of_the_driver_in_a_lookup_says_the_place(catalog: Catalog) -> None:
    lookup = Lookup(
        sa.select(sa.column("gone", sa.Integer)).select_from(tables.image), tables.image.c.id
    )
    with pytest.raises(CatalogError, match="gone"), catalog.reading() as connection:
        lookup.columns(connection, [1])


def test_a_statement_keeps_its_texts_and_takes_other_numbers(catalog: Catalog) -> None:
    for key in ("a.jpg", "ä%s.jpg", "c.jpg"):
        write(catalog, key, classification(Person=0.5))
    image = tables.image.c
    least, most = sa.bindparam("least", type_=sa.Integer), sa.bindparam("most", type_=sa.Integer)
    found = sa.select(image.id, image.key).where(image.key != "a.jpg", image.id >= least)
    statement = Statement(found.order_by(image.id).limit(most))
    with catalog.reading() as connection:
        assert list(statement.rows(connection, least=1, most=9)) == [(2, "ä%s.jpg"), (3, "c.jpg")]
        assert list(statement.rows(connection, least=3, most=9)) == [(3, "c.jpg")]
        assert list(statement.rows(connection, least=1, most=1)) == [(2, "ä%s.jpg")]
        assert list(statement.rows(connection, least=4, most=1)) == []

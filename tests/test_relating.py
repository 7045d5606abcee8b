"""vistadex.relating.relate enters what follows from boxes into the catalog, and keeps it right."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import vistadex
from vistadex import relating, relations
from vistadex.catalog import Catalog, IndexedImage, boxed, registering, tables, writing
from vistadex.catalog.checking import check_catalog
from vistadex.errors import CatalogError, QueryError, UsageError
from vistadex.origins import AnnotationOrigin
from vistadex.records import Detections, ImageEntry, Outcome
from vistadex.relating import Geometry, relate
from vistadex.testing import DRAWN_SCENES, RedSquareDetector, scene_jpeg

RED, BLUE = ("red square", 10, 60, 40), ("blue square", 60, 60, 40)
OVER = ("blue square", 15, 28, 30)
SIDE_BY_SIDE = {
    ("red square", "left_of", "blue square"),
    ("blue square", "right_of", "red square"),
    ("blue square", "next_to", "red square"),
}
LETTERS = ("a", "b", "c")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Squares side by side, one on the other, one alone, none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    scenes = {"beside": [RED, BLUE], "over": [RED, OVER], "alone": [RED], "empty": []}
    for name, squares in scenes.items():
        (folder / f"{name}.jpg").write_bytes(scene_jpeg(squares))
    return folder


@pytest.fixture
def catalog(tmp_path: Path, photos: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.db", create=True) as opened:
        vistadex.index(photos, detector=RedSquareDetector(), catalog=opened)
        yield opened


def image(catalog: Catalog, name: str) -> IndexedImage:
    (found,) = (one for one in catalog.walk() if Path(one.key).stem == name)
    return found


def triplets(catalog: Catalog, name: str) -> set[tuple[str, str, str]]:
    return {one[:3] for one in image(catalog, name).relations}


def totals(catalog: Catalog) -> list[tuple[str, int, int]]:
    return [(one.predicate, one.images, one.relations) for one in catalog.predicates()]


def draw(photos: Path, name: str, *squares: tuple[str, int, int, int]) -> None:
    (photos / f"{name}.jpg").write_bytes(scene_jpeg(squares, (161, 120)))


def annotate(
    catalog: Catalog,
    boxes: Mapping[str, Sequence[tuple[str, Any]]],
    *,
    model: str = "human",
    flags: Sequence[Mapping[str, bool]] = (),
    seen: bool = False,
    source: str = "/drawn",
) -> None:
    """What people say of images: (class, box) by key."""
    origin = AnnotationOrigin(model, "detector", LETTERS, {})
    outcomes = [
        Outcome(
            ImageEntry(key, None, ""),
            results=(
                Detections(
                    np.array([box for _, box in some], float).reshape(-1, 4),
                    np.ones(len(some)),
                    np.array([LETTERS.index(name) for name, _ in some], np.int64),
                    flags=flags,
                ),
            ),
            seen=seen,
        )
        for key, some in boxes.items()
    ]
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, source)
        registered = registering.register_analyzer(connection, origin)
        writing.write_annotations(connection, source_id, [registered], outcomes)


@pytest.fixture
def drawn(catalog_url: str) -> Iterator[Catalog]:
    """The drawn scenes as annotations of people."""
    with Catalog(catalog_url, create=True) as opened:
        for scene in DRAWN_SCENES:
            boxes = list(zip(scene.letters, scene.boxes_xyxy.tolist(), strict=True))
            annotate(opened, {f"{scene.name}.jpg": boxes})
        yield opened


def test_relations_of_detected_squares_are_found_by_search(catalog: Catalog) -> None:
    summary = relate(catalog=catalog)
    assert (summary.model, summary.images, summary.related) == ("red-squares", 3, 2)
    assert triplets(catalog, "beside") == SIDE_BY_SIDE
    assert ("blue square", "on", "red square") in triplets(catalog, "over")
    (best,) = catalog.search(relation="blue square/on/red square").results
    assert Path(best.image.key).stem == "over"
    one = best.image.relations[0]
    assert (one.model, one.subject_xyxy is None) == ("geometry", False)
    assert {box.box_xyxy for box in best.image.boxes} >= {one.subject_xyxy, one.object_xyxy}
    assert sum(number for _, _, number in totals(catalog)) == summary.relations


def test_drawn_scenes_have_their_relations_in_the_catalog(drawn: Catalog) -> None:
    summary = relate(catalog=drawn)
    assert (summary.model, summary.images) == ("human", len(DRAWN_SCENES))
    for scene in DRAWN_SCENES:
        found = {" ".join(one) for one in triplets(drawn, scene.name)}
        assert found == scene.related, scene.name


def test_a_second_run_finds_nothing_to_do(catalog: Catalog) -> None:
    first = relate(catalog=catalog)
    before = totals(catalog)
    second = relate(catalog=catalog)
    assert (first.images, second.images, second.relations) == (3, 0, 0)
    assert totals(catalog) == before


def test_all_does_every_image_again_and_counts_nothing_twice(catalog: Catalog) -> None:
    relate(catalog=catalog)
    before = totals(catalog)
    assert relate(catalog=catalog, only="all").images == 3
    assert totals(catalog) == before


def test_an_image_whose_picture_changed_is_done_again(catalog: Catalog, photos: Path) -> None:
    relate(catalog=catalog)
    draw(photos, "beside", RED, OVER)
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    assert triplets(catalog, "beside") == set()
    assert relate(catalog=catalog).images == 1
    assert ("blue square", "on", "red square") in triplets(catalog, "beside")
    assert ("red square", "left_of", "blue square") not in triplets(catalog, "beside")


def test_annotations_that_are_replaced_are_done_again(drawn: Catalog) -> None:
    relate(catalog=drawn)
    name = DRAWN_SCENES[0].name
    annotate(drawn, {f"{name}.jpg": [("a", (0, 0, 4, 4)), ("c", (5, 0, 9, 4))]})
    assert triplets(drawn, name) == set()
    assert relate(catalog=drawn).images == 1
    assert triplets(drawn, name) == {
        ("a", "left_of", "c"),
        ("c", "right_of", "a"),
        ("a", "next_to", "c"),
    }


def test_boxes_of_another_model_are_another_analysis(catalog: Catalog, photos: Path) -> None:
    relate(catalog=catalog)
    before = triplets(catalog, "beside")
    vistadex.index(photos, detector=RedSquareDetector(min_score=0.3), catalog=catalog)
    assert triplets(catalog, "beside") == before
    assert relate(catalog=catalog).images == 3
    ids = {one.analyzer_id for one in image(catalog, "beside").relations}
    assert len(ids) == 2


def test_other_predicates_or_scores_take_the_place_of_what_was_derived(catalog: Catalog) -> None:
    relate(catalog=catalog)
    left_of = {("red square", "left_of", "blue square")}
    assert relate(catalog=catalog, predicates=["left_of"]).images == 3
    assert triplets(catalog, "beside") == left_of
    assert totals(catalog) == [("left_of", 1, 1)]
    assert relate(catalog=catalog, predicates=["left_of"]).images == 0
    assert relate(catalog=catalog, predicates=["left_of"], min_score=0.9).images == 3
    assert totals(catalog) == []
    assert check_catalog(str(catalog.engine.url.database)) == []
    assert relate(catalog=catalog).images == 3
    assert triplets(catalog, "beside") == SIDE_BY_SIDE


def test_relations_are_replaced_on_every_database(drawn: Catalog, catalog_url: str) -> None:
    relate(catalog=drawn, predicates=["left_of", "on"])
    assert relate(catalog=drawn).images == len(DRAWN_SCENES)
    for scene in DRAWN_SCENES:
        assert {" ".join(one) for one in triplets(drawn, scene.name)} == scene.related
    assert check_catalog(catalog_url) == []


def test_only_the_images_of_a_query_get_other_relations(catalog: Catalog) -> None:
    relate(catalog=catalog, predicates=["on"])
    relate("blue square", catalog=catalog, predicates=["left_of"])
    assert triplets(catalog, "over") == set()
    with catalog.reading() as connection:
        analyses = sa.select(sa.func.count()).select_from(tables.analysis.join(tables.analyzer))
        of = tables.analyzer.c.parameters
        assert connection.execute(analyses.where(of.contains('["on"]'))).scalar() == 1
        assert connection.execute(analyses.where(of.contains('["left_of"]'))).scalar() == 2


def test_relations_of_other_boxes_stay_where_some_are_replaced(catalog: Catalog) -> None:
    key = image(catalog, "beside").key
    with catalog.reading() as connection:
        uri = connection.execute(sa.select(tables.source.c.uri)).scalar_one()
    annotate(catalog, {key: [("a", (0, 0, 4, 4)), ("b", (5, 0, 9, 4))]}, source=uri)
    relate(catalog=catalog, model="human")
    relate(catalog=catalog, model="red-squares")
    relate(catalog=catalog, model="red-squares", predicates=["left_of"])
    found = triplets(catalog, "beside")
    assert ("a", "next_to", "b") in found
    assert {one for one in found if "red square" in one} == {
        ("red square", "left_of", "blue square")
    }


def test_a_query_limits_the_images(catalog: Catalog) -> None:
    summary = relate("blue square", catalog=catalog)
    assert (summary.images, summary.related) == (2, 2)
    assert relate(catalog=catalog).images == 1
    with pytest.raises(QueryError, match="unknown class 'zebra'"):
        relate("zebra", catalog=catalog)


class Stops:
    """Progress that ends the run as a user would, after some updates."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.seen: list[tuple[int, int]] = []

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        self.seen.append((done, listed))
        if len(self.seen) == self.after:
            raise KeyboardInterrupt


def test_a_stopped_run_goes_on_where_it_was(
    drawn: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relating, "IN_TRANSACTION", 3)
    stops, number = Stops(after=2), len(DRAWN_SCENES)
    with pytest.raises(KeyboardInterrupt):
        relate(catalog=drawn, progress=stops)
    assert stops.seen == [(3, number), (6, number)]
    rest = Stops(after=0)
    assert relate(catalog=drawn, progress=rest).images == number - 6
    assert rest.seen[-1] == (number - 6, number - 6)
    for scene in DRAWN_SCENES:
        assert {" ".join(one) for one in triplets(drawn, scene.name)} == scene.related


def after_boxes_are_read(catalog: Catalog, url: str, work: Callable[[Catalog], None]) -> None:
    """Has another process change the catalog before relations are written for the first time."""
    reads = 0

    def at_the_end(connection: sa.Connection) -> None:
        nonlocal reads
        options = connection.get_execution_options()
        if options.get("schema", False):  # the run's own row, from another thread
            return
        reads += not options.get("write", False)
        if reads == 3:  # after that of the models, and that of the images
            reads += 1
            with Catalog(url) as other:
                work(other)

    sa.event.listen(catalog.engine, "commit", at_the_end)


def test_boxes_that_change_between_reading_and_writing_are_read_again(
    drawn: Catalog, catalog_url: str
) -> None:
    name = DRAWN_SCENES[0].name
    other = {f"{name}.jpg": [("a", (0, 0, 4, 4)), ("c", (5, 0, 9, 4))]}
    after_boxes_are_read(drawn, catalog_url, lambda catalog: annotate(catalog, other))
    assert relate(catalog=drawn).images == len(DRAWN_SCENES)
    assert ("a", "left_of", "c") in triplets(drawn, name)
    assert {one for triplet in triplets(drawn, name) for one in triplet[::2]} == {"a", "c"}
    assert relate(catalog=drawn).images == 0


def test_what_another_process_has_done_meanwhile_is_not_done_again(
    drawn: Catalog, catalog_url: str
) -> None:
    done = 0

    def other(catalog: Catalog) -> None:
        nonlocal done
        done = relate(catalog=catalog).images

    after_boxes_are_read(drawn, catalog_url, other)
    assert relate(catalog=drawn).images == 0
    assert done == len(DRAWN_SCENES)
    assert check_catalog(catalog_url) == []
    for scene in DRAWN_SCENES:
        assert {" ".join(one) for one in triplets(drawn, scene.name)} == scene.related


def test_an_image_that_goes_between_reading_and_writing_is_no_harm(
    drawn: Catalog, catalog_url: str
) -> None:
    gone = image(drawn, DRAWN_SCENES[0].name).id

    def delete(catalog: Catalog) -> None:
        with catalog.writing() as connection:
            writing.delete_images(connection, [gone])

    after_boxes_are_read(drawn, catalog_url, delete)
    assert relate(catalog=drawn).images == len(DRAWN_SCENES) - 1
    with drawn.reading() as connection:
        query = sa.select(tables.relation.c.image_id).where(tables.relation.c.image_id == gone)
        assert connection.execute(query).all() == []


def test_what_others_have_changed_is_unknown_where_the_log_has_gaps(drawn: Catalog) -> None:
    with drawn.writing() as connection:
        connection.execute(sa.delete(tables.change))
    with drawn.reading() as connection:
        assert boxed.changed_since(connection, 0, [3, 4]) == {3, 4}


def test_crowds_have_no_relations_and_are_counted(tmp_path: Path) -> None:
    boxes = [("a", (0, 0, 4, 4)), ("b", (5, 0, 9, 4)), ("c", (10, 0, 14, 4))]
    flags = [{}, {"crowd": True}, {"crowd": False}]
    with Catalog(tmp_path / "c.db", create=True) as catalog:
        annotate(catalog, {"x.jpg": boxes}, flags=flags)
        summary = relate(catalog=catalog)
        found = {one for triplet in triplets(catalog, "x") for one in triplet[::2]}
    assert (summary.images, summary.boxes_left_out) == (1, 1)
    assert found == {"a", "c"}


def test_what_has_no_place_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relating, "MOST_RELATIONS", 4)
    boxes = [("a", (5 * i, 0, 5 * i + 4, 4)) for i in range(6)]
    with Catalog(tmp_path / "c.db", create=True) as catalog:
        annotate(catalog, {"x.jpg": boxes})
        summary = relate(catalog=catalog)
    assert summary.relations == 4
    assert summary.left_out > 4


def test_people_are_asked_only_where_no_detector_has_looked(
    catalog: Catalog, tmp_path: Path
) -> None:
    annotate(catalog, {"x.jpg": [("a", (0, 0, 4, 4)), ("b", (5, 0, 9, 4))]})
    assert relate(catalog=catalog).model == "red-squares"
    assert relate(catalog=catalog, model="human").images == 1
    annotate(catalog, {"y.jpg": [("a", (0, 0, 4, 4))]}, model="machine")
    assert relate(catalog=catalog, model="machine").images == 1
    with Catalog(tmp_path / "two.db", create=True) as both:
        annotate(both, {"x.jpg": []})
        annotate(both, {"x.jpg": []}, model="machine")
        with pytest.raises(QueryError, match="2 have boxes, say whose with --model: human, mach"):
            relate(catalog=both)


def test_relations_that_people_said_stay_beside_derived_ones(catalog: Catalog) -> None:
    relate(catalog=catalog)
    assert {one.name for one in known(catalog)} == {"red-squares", "geometry"}
    geometry = next(one for one in known(catalog) if one.name == "geometry")
    assert geometry.task == "relater"
    assert geometry.sha256.startswith("geometry:")
    assert len(geometry.sha256) == 64


def known(catalog: Catalog) -> list[registering.KnownAnalyzer]:
    with catalog.reading() as connection:
        return registering.all_analyzers(connection)


def test_other_definitions_are_another_model(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    relate(catalog=catalog)
    before = totals(catalog)
    monkeypatch.setattr(relations, "VERSION", relations.VERSION + 1)
    assert relate(catalog=catalog).images == 3
    assert sum(one.name == "geometry" for one in known(catalog)) == 2
    assert totals(catalog) == before  # in place of those of the older definitions


def test_geometry_is_no_model_that_looks_at_pictures() -> None:
    with pytest.raises(UsageError, match="geometry: derives relations from boxes"):
        Geometry({}).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 0.0}, "min_score=0.0: expected above 0 to 1"),
        ({"min_score": 1.5}, "min_score=1.5: expected"),
        ({"only": "some"}, "only='some': expected 'new' or 'all'"),
        ({"predicates": ["onto"]}, "unknown predicate 'onto'"),
        ({"model": "yolo"}, "no boxes of 'yolo' in the catalog; there are: red-squares"),
    ],
)
def test_what_can_not_be_meant_is_refused(catalog: Catalog, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        relate(catalog=catalog, **options)
    assert [one.name for one in known(catalog)] == ["red-squares"]


def test_a_catalog_without_boxes_says_the_cure(tmp_path: Path) -> None:
    with (
        Catalog(tmp_path / "c.db", create=True) as empty,
        pytest.raises(QueryError, match="no boxes in the catalog; `vistadex index`"),
    ):
        relate(catalog=empty)
    with pytest.raises(CatalogError, match="no catalog here"):
        relate(catalog=tmp_path / "none.db")

"""Searching a catalog, compared with a slow search that is plainly right."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.databases import Place
from vistadex.catalog import Catalog, SearchResult, registering, writing
from vistadex.errors import QueryError, UsageError
from vistadex.grammar import parse
from vistadex.records import Classification, Detections, ImageEntry, Outcome, Result, Task
from vistadex.testing import RedSquareDetector

CLASSES = ("dog", "cat", "person", "car", "traffic light")


class NamedDetector(RedSquareDetector):
    """Stands for any model by name; never looks at a picture."""

    given_name = "first"

    @property
    def name(self) -> str:
        return self.given_name

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES


class SecondDetector(NamedDetector):
    given_name = "second"


class Classifier(NamedDetector):
    given_name = "whole"

    @property
    def task(self) -> Task:
        return "classifier"


def random_result(rng: random.Random, kind: type[NamedDetector]) -> Result:
    number = rng.choice([0, 1, 2, 5])
    scores = np.array([rng.choice([0.25, 0.5, 0.5, 0.7, 0.9]) for _ in range(number)], np.float32)
    ids = np.array([rng.choice([0, 0, 1, 2, 3, 4]) for _ in range(number)], np.int64)
    if kind is Classifier:
        _, first = np.unique(ids, return_index=True)
        return Classification(scores[first], ids[first])
    return Detections(np.zeros((number, 4), np.float32), scores, ids)


Truth = dict[tuple[str, str], dict[str, list[tuple[str, float]]]]
"""(source, key) -> model -> [(class, score)]."""


@pytest.fixture(scope="module", params=[1, 3], ids=["one analyzer", "three analyzers"])
def filled(request: pytest.FixtureRequest, database: Place) -> Iterator[tuple[Catalog, Truth]]:
    with database.catalog() as url, Catalog(url) as catalog:
        yield catalog, _fill(catalog, request.param)


def _fill(catalog: Catalog, models: int) -> Truth:
    rng = random.Random(0)
    truth: Truth = {}
    kinds = [NamedDetector, SecondDetector, Classifier][:models]
    for source in ("/photos", "s3://bucket/holiday"):
        for kind in kinds:
            outcomes = []
            for i in range(60):
                result = random_result(rng, kind)
                assert not isinstance(result, str)
                outcomes.append(Outcome(ImageEntry(f"{i:03}.jpg", 1, "v"), 640, 480, (result,)))
                scores = getattr(result, "scores").tolist()  # noqa: B009
                ids = getattr(result, "class_ids").tolist()  # noqa: B009
                pairs = [(CLASSES[c], round(s, 6)) for c, s in zip(ids, scores, strict=True)]
                truth.setdefault((source, f"{i:03}.jpg"), {})[kind.given_name] = pairs
            with catalog.writing() as connection:
                source_id = registering.register_source(connection, source)
                analyzer = registering.register_analyzer(connection, kind())
                writing.write_outcomes(connection, source_id, [analyzer], outcomes)
    return truth


def slow_search(truth: Truth, text: str) -> dict[tuple[str, str], tuple[int, float]]:
    """What a query should find, by going through everything: place -> (matched, score)."""
    query = parse(text)
    found = {}
    for place, by_model in truth.items():
        models = {m: p for m, p in by_model.items() if query.model in (None, m)}
        good = {
            model: [(c, s) for c, s in pairs if round(s * 1e6) >= query.min_score]
            for model, pairs in models.items()
        }
        every = [pair for pairs in good.values() for pair in pairs]
        names = {name for name, _ in every}
        best = []
        for term in query.terms:
            scores = []
            for model, pairs in good.items():
                own = [score for name, score in pairs if name == term.class_name]
                boxes = len(own) if model != "whole" else 0
                if own and boxes >= term.min_boxes:
                    scores.append(max(own))
            if scores:
                best.append(max(scores))
        wanted = len(query.terms) if query.mode == "all" else min(1, len(query.terms))
        some = bool(every) or not (query.min_score or query.model)
        if (
            len(best) >= wanted
            and not names & {term.class_name for term in query.without}
            and (query.source is None or place[0].endswith("/" + query.source))
            and (query.terms or some)
        ):
            found[place] = (len(best), round(sum(best), 5))
    return found


def all_pages(search: Callable[..., object], text: str, limit: int) -> list[SearchResult]:
    results: list[SearchResult] = []
    after = None
    while True:
        page = search(text, limit=limit, after=after)
        results += page.results
        after = page.next
        if after is None:
            return results


QUERIES = [
    "",
    "dog",
    "DOG",
    "traffic light",
    "dog & cat",
    "dog & cat & person",
    "dog | cat",
    "dog | cat | traffic light",
    "dog -person",
    "-person",
    "-person -dog",
    "dog>=2",
    "dog>=2 & cat",
    "dog>=2 | cat>=2",
    "dog score>0.5",
    "dog score>=0.5",
    "dog>=2 score>=0.5",
    "dog & cat score>=0.5 -person",
    "score>0.8",
    "dog source:holiday",
    "source:photos",
    "dog | cat source:bucket/holiday -car",
    "dog model:first",
    "dog -cat model:first",
    "model:first",
]


@pytest.mark.parametrize("text", QUERIES)
@pytest.mark.parametrize("limit", [7, 1000])
def test_search_finds_ranks_counts_and_pages(
    filled: tuple[Catalog, Truth], text: str, limit: int
) -> None:
    catalog, truth = filled
    expected = slow_search(truth, text.lower())
    results = all_pages(catalog.search, text, limit)
    found = {(r.image.source, r.image.key): (r.matched, round(r.score, 5)) for r in results}
    assert found == expected
    assert len(results) == len(expected) == catalog.count(text)
    ranks = [(-r.matched, -round(r.score, 5), -r.image.id) for r in results]
    assert ranks == sorted(ranks)


def test_the_filters_of_search_equal_those_of_the_query(filled: tuple[Catalog, Truth]) -> None:
    catalog, _ = filled
    text = "dog score>=0.5 source:holiday model:first"
    said = {"min_score": 0.5, "source": "holiday", "model": "first"}
    by_query = [r.image.id for r in catalog.search(text).results]
    by_arguments = [r.image.id for r in catalog.search("dog", **said).results]
    assert by_query == by_arguments != []
    assert catalog.count("dog", **said) == catalog.count(text)


def test_a_result_has_every_class_and_box(filled: tuple[Catalog, Truth]) -> None:
    catalog, truth = filled
    for result in catalog.search("dog", limit=20).results:
        pairs = truth[result.image.source, result.image.key]
        boxes = sorted((c, s) for model, some in pairs.items() for c, s in some if model != "whole")
        assert sorted((b.class_name, round(b.score, 6)) for b in result.image.boxes) == boxes
        names = {name for some in pairs.values() for name, _ in some}
        assert {one.class_name for one in result.image.classes} == names
        scores = [one.score for one in result.image.classes]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("dgo", "dog"), ("trafic light", "traffic light"), ("persons", "person"), ("DOGS", "dog")],
)
def test_an_unknown_class_gets_the_nearest_names(
    filled: tuple[Catalog, Truth], text: str, suggestion: str
) -> None:
    with pytest.raises(QueryError, match=f"unknown class .*{suggestion}") as caught:
        filled[0].search(text)
    assert caught.value.suggestions[0] == suggestion


def test_two_classes_without_a_sign_between_are_explained(filled: tuple[Catalog, Truth]) -> None:
    with pytest.raises(QueryError, match="to ask for several classes write dog & cat"):
        filled[0].search("dog cat")


def test_unknown_sources_and_models_name_the_known(filled: tuple[Catalog, Truth]) -> None:
    with pytest.raises(QueryError, match=r"no source ends in 'x'; known are: /photos, s3://bucket"):
        filled[0].search("source:x")
    with pytest.raises(QueryError, match=r"no model is named 'x'; known are: first"):
        filled[0].search("model:x")


@pytest.mark.parametrize("cursor", ["", "x", "1.2", "1.2.3.4", "-1.2.3", "1.²2.3", "9" * 30])
def test_a_cursor_that_is_none_is_an_error(filled: tuple[Catalog, Truth], cursor: str) -> None:
    with pytest.raises(QueryError, match="not a cursor"):
        filled[0].search("dog", after=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_an_error(filled: tuple[Catalog, Truth], limit: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 1000"):
        filled[0].search("dog", limit=limit)


def test_paging_goes_on_behind_its_place_when_images_are_added(catalog_url: str) -> None:
    catalog = Catalog(catalog_url)

    def add(keys: range, score: float) -> None:
        result = Detections(
            np.zeros((1, 4), np.float32), np.array([score], np.float32), np.zeros(1, np.int64)
        )
        outcomes = [Outcome(ImageEntry(f"{i}", 1, "v"), 4, 3, (result,)) for i in keys]
        with catalog.writing() as connection:
            source_id = registering.register_source(connection, "/photos")
            analyzer = registering.register_analyzer(connection, NamedDetector())
            writing.write_outcomes(connection, source_id, [analyzer], outcomes)

    add(range(6), 0.5)
    first = catalog.search("dog", limit=3)
    add(range(100, 110), 0.9)
    rest = catalog.search("dog", limit=100, after=first.next)
    assert [r.image.key for r in first.results + rest.results] == ["5", "4", "3", "2", "1", "0"]
    catalog.close()


def test_walking_gives_what_searching_page_by_page_gives(catalog_url: str) -> None:
    with many(catalog_url, 2500) as catalog:
        for query in ("", "dog", "dog | cat", "dog & cat"):
            paged: list[int] = []
            page = catalog.search(query, limit=999)
            paged += [one.image.id for one in page.results]
            while page.next is not None:
                page = catalog.search(query, limit=999, after=page.next)
                paged += [one.image.id for one in page.results]
            assert [image.id for image in catalog.walk(query)] == paged


def test_boxes_below_the_score_of_one_model_do_not_hide_those_of_another(tmp_path: Path) -> None:
    with Catalog(tmp_path / "catalog.db", create=True) as catalog, catalog.writing() as connection:
        source = registering.register_source(connection, "/photos")
        for model, scores in ((NamedDetector(), [0.9, 0.2]), (SecondDetector(), [0.8, 0.7])):
            found = Detections(
                np.zeros((2, 4), np.float32), np.array(scores, np.float64), np.zeros(2, np.int64)
            )
            analyzer = registering.register_analyzer(connection, model)
            image = Outcome(ImageEntry("a.jpg", 1, "v"), 9, 9, (found,))
            writing.write_outcomes(connection, source, [analyzer], [image])
    with Catalog(tmp_path / "catalog.db", postings=False) as catalog:
        assert catalog.count("dog>=2 score>0.5") == 1
        assert [one.score for one in catalog.search("dog>=2 score>0.5").results] == [0.8]


def test_one_class_is_found_without_a_sort_or_a_scan(tmp_path: Path) -> None:
    with many(str(tmp_path / "many.db"), 10) as catalog:
        statements: list[str] = []
        with catalog.reading() as connection:  # the pool gives it to search() again
            driver: Any = connection.connection.driver_connection
            driver.set_trace_callback(statements.append)
        catalog.search("dog score>=0.1")
        driver.set_trace_callback(None)
        with catalog.reading() as connection:
            plans = [
                row.detail
                for text in statements
                if "ORDER BY" in text
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
            ]
    assert plans[0] == "SEARCH image_class USING PRIMARY KEY (class_id=? AND score>?)"
    by_image = "USING PRIMARY KEY (image_id=?)"
    assert set(plans[1:]) == {f"SEARCH {table} {by_image}" for table in ("analysis", "box")}


def many(place: str, number: int) -> Catalog:
    """Two models that agree about every image."""
    catalog = Catalog(place, create=True)
    found = Detections(
        np.zeros((2, 4), np.float32), np.ones(2, np.float32), np.array([0, 1], np.int64)
    )
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/many")
        models = (NamedDetector(), SecondDetector(min_score=0.5))
        analyzers = [registering.register_analyzer(connection, model) for model in models]
        outcomes = [
            Outcome(ImageEntry(f"{i:05}.jpg", 1, "v"), 9, 9, (found, found)) for i in range(number)
        ]
        writing.write_outcomes(connection, source, analyzers, outcomes)
    return catalog

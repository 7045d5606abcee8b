"""The list of classes: filtered, sorted and paged; what is said of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests import web_catalog
from tests.web_catalog import HTML, error
from vistadex.catalog import Catalog, registering, writing
from vistadex.records import Analyzer, Detections, ImageEntry, Outcome

KINDS = 1200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return web_catalog.pictures_folder(tmp_path)


@pytest.fixture
def catalog(folder: Path, tmp_path: Path) -> Iterator[Catalog]:
    yield from web_catalog.filled_catalog(folder, tmp_path)


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    yield from web_catalog.asking(catalog, tmp_path)


def names(client: TestClient, **asked: str | int) -> list[str]:
    found = client.get("/api/v1/classes", params=asked).json()
    return [one["class"] for one in found["classes"]]


def add_many(catalog: Catalog) -> None:
    """One image with many classes, of each one box."""
    kinds = tuple(f"kind {i:04}" for i in range(KINDS))
    analyzer = SimpleNamespace(
        sha256="ab" * 32, name="many", task="detector", classes=kinds, card={}, parameters={}
    )
    found = Detections(
        np.tile(np.array([[0, 0, 9, 9]], np.float32), (KINDS, 1)),
        np.full(KINDS, 0.5, np.float32),
        np.arange(KINDS),
    )
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, "/nowhere")
        registered = registering.register_analyzer(connection, cast(Analyzer, analyzer))
        outcome = Outcome(ImageEntry("a.jpg", 1, "v"), 10, 10, (found,))
        writing.write_outcomes(connection, source_id, [registered], [outcome])


def test_classes_are_found_by_any_letters_of_their_name(client: TestClient) -> None:
    assert names(client, contains="IGHT") == ["traffic light"]
    assert names(client, contains='"q') == ['with "quotes"']
    assert names(client, contains="%") == []
    assert names(client, contains="t", prefix="l") == ["traffic light"]


def test_classes_are_sorted_by_images_boxes_or_name(client: TestClient) -> None:
    assert names(client)[0] == "dog"
    assert names(client, sort="boxes")[0] == "dog"
    by_name = names(client, sort="name")
    assert by_name == sorted(by_name, key=str.casefold)
    assert by_name[0] == "-minus"
    assert "sort" in error(client.get("/api/v1/classes?sort=age"), 400)["message"]


def test_pages_of_classes_join_without_gap_or_repeat(catalog: Catalog, client: TestClient) -> None:
    add_many(catalog)
    whole = names(client, sort="name", limit=1000)
    whole += names(client, sort="name", limit=1000, offset=1000)
    assert len(whole) == len(set(whole)) == KINDS + 6
    first = client.get("/classes?contains=kind&sort=name", headers=HTML).text
    assert "1 to 500 of 1,200" in first
    assert "offset=500" in first
    assert 'rel="prev"' not in first
    last = client.get("/classes?contains=kind&sort=name&offset=1000", headers=HTML).text
    assert "1,001 to 1,200 of 1,200" in last
    assert 'rel="next"' not in last
    assert "kind 1199" in last
    beyond = client.get("/classes?offset=5000", headers=HTML).text
    assert "That was the last one" in beyond


def test_the_page_keeps_what_was_asked(client: TestClient) -> None:
    page = client.get("/classes?contains=dog&sort=boxes", headers=HTML).text
    assert 'value="dog"' in page
    assert 'name="sort" value="boxes"' in page
    assert 'aria-sort="descending"' in page
    assert "1 class with “dog”" in page
    assert "No class" in client.get("/classes?contains=zebra", headers=HTML).text
    odd = client.get("/classes", params={"contains": "<b>"}, headers=HTML).text
    assert "<b>" not in odd


def test_one_class_has_counts_and_examples(client: TestClient) -> None:
    about = client.get("/api/v1/classes/about", params={"name": "dog"}).json()
    assert (about["images"], about["boxes"]) == (2, 3)
    assert [one["uri"].rpartition("/")[2] for one in about["examples"]] == ["a.jpg", "b.png"]
    assert about["examples"][0]["score"] == 0.9
    page = client.get("/classes/about", params={"name": "dog"}, headers=HTML).text
    assert page.count("/thumbnail/") == 2


def test_a_class_that_no_query_can_name_has_no_examples(client: TestClient) -> None:
    asked = {"name": 'with "quotes"'}
    assert client.get("/api/v1/classes/about", params=asked).json()["examples"] == []
    assert client.get("/classes/about", params=asked, headers=HTML).status_code == 200


def test_a_class_has_its_place_in_the_hierarchy(catalog: Catalog, client: TestClient) -> None:
    with catalog.writing() as connection:
        registering.describe_classes(
            connection,
            {"dog": "/m/0bt9lr"},
            {"dog": "a friend of people"},
            [("dog", "animal/mammal"), ("dog", "pet"), ("poodle", "dog")],
        )
    about = client.get("/api/v1/classes/about", params={"name": "dog"}).json()
    assert about["description"] == "a friend of people"
    assert about["external_id"] == "/m/0bt9lr"
    assert about["parents"] == ["animal/mammal", "pet"]
    assert about["children"] == ["poodle"]
    above = client.get("/api/v1/classes/about", params={"name": "animal/mammal"}).json()
    assert (above["images"], above["examples"], above["children"]) == (0, [], ["dog"])
    page = client.get("/classes/about", params={"name": "dog"}, headers=HTML).text
    assert "name=animal%2Fmammal" in page or "name=animal/mammal" in page


def test_an_unknown_class_is_a_404(client: TestClient) -> None:
    asked = {"name": "dgo"}
    assert "dgo" in error(client.get("/api/v1/classes/about", params=asked), 404)["message"]
    assert client.get("/api/v1/classes/about").status_code == 400

"""Collections in the web app: made, listed, searched, renamed and removed, by forms and by JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.web_catalog import HTML, asking, error, filled_catalog, ids, pictures_folder
from vistadex.catalog import Catalog
from vistadex.web import create_app, queries
from vistadex.web.api import Asked

folder = pytest.fixture(pictures_folder)
catalog = pytest.fixture(filled_catalog)
client = pytest.fixture(asking)
COLLECTIONS = "/api/v1/collections"


@pytest.fixture
def read_only(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(catalog, tmp_path / "cache", read_only=True)
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        yield client


def test_selected_images_are_collected_by_json(client: TestClient) -> None:
    known = ids(client)
    made = client.post(COLLECTIONS, json={"name": "best", "ids": [known["a.jpg"]]})
    assert made.status_code == 200
    assert made.json()["changed"] == 1
    collection = made.json()["collection"]
    assert (collection["name"], collection["images"]) == ("best", 1)
    assert client.get(COLLECTIONS).json() == {"collections": [collection]}
    found = client.get("/api/v1/search", params={"q": "collection:best"}).json()
    assert [one["id"] for one in found["results"]] == [known["a.jpg"]]
    assert client.get(f"/api/v1/images/{known['a.jpg']}").json()["collections"] == ["best"]
    assert client.get(f"/api/v1/images/{known['b.png']}").json()["collections"] == []


def test_the_form_of_the_search_page_collects_what_is_selected(client: TestClient) -> None:
    known = ids(client)
    chosen = f"{known['a.jpg']},{known['c.tif']}"
    fields = {"name": "My best & worst", "q": "dog", "ids": chosen}
    answer = client.post(COLLECTIONS, data=fields, headers=HTML, follow_redirects=False)
    assert answer.status_code == 303
    page = client.get(answer.headers["location"], headers=HTML)
    assert "<strong>2</strong> images" in page.text
    assert "in My best &amp; worst" in page.text


def test_without_a_selection_the_form_collects_all_that_the_search_finds(
    client: TestClient,
) -> None:
    for q, number in (("dog", 2), ("", 4)):
        fields = {"name": f"of {q}", "q": q, "ids": ""}
        made = client.post(COLLECTIONS, data=fields).json()
        assert made["collection"]["images"] == number


def test_images_are_taken_out_again(client: TestClient) -> None:
    client.post(COLLECTIONS, json={"name": "all", "q": ""})
    done = client.post(COLLECTIONS, json={"name": "all", "q": "dog", "remove": True}).json()
    assert (done["changed"], done["collection"]["images"]) == (2, 2)


@pytest.mark.parametrize("more", [{}, {"ids": []}, {"remove": True}, {"q": None}])
def test_a_name_alone_means_no_images_and_is_refused(
    client: TestClient, catalog: Catalog, more: dict[str, object]
) -> None:
    catalog.collect("best", query="dog")
    answer = client.post(COLLECTIONS, json={"name": "best", **more})
    assert "no images are named; give ids" in error(answer, 400)["message"]
    error(client.post(COLLECTIONS, data={"name": "other", "ids": ""}), 400)
    assert [(one.name, one.images) for one in catalog.collections()] == [("best", 2)]


def test_the_page_of_a_collection_takes_a_selection_out(client: TestClient) -> None:
    client.post(COLLECTIONS, json={"name": "my best", "q": "dog"})
    params = {"q": 'dog collection:"my best"'}
    page = client.get("/", params=params, headers=HTML).text
    assert '<input type="hidden" name="name" value="my best">' in page
    assert "Take out of my best" in page
    assert "Take out of" not in client.get("/?q=dog", headers=HTML).text
    fields = {"name": "my best", "remove": "true", "ids": str(ids(client)["a.jpg"])}
    answer = client.post(COLLECTIONS, data=fields, headers=HTML, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        queries.collection_href("my best"),
    )
    assert "<strong>1</strong> image" in client.get(answer.headers["location"], headers=HTML).text


def test_collections_are_renamed_and_removed_by_the_page(client: TestClient) -> None:
    id_ = client.post(COLLECTIONS, json={"name": "best", "q": ""}).json()["collection"]["id"]
    page = client.get("/collections", headers=HTML).text
    assert f'action="{COLLECTIONS}/{id_}/rename"' in page
    renamed = client.post(
        f"{COLLECTIONS}/{id_}/rename",
        data={"name": "<b>"},
        headers=HTML,
        follow_redirects=False,
    )
    assert (renamed.status_code, renamed.headers["location"]) == (303, "/collections")
    page = client.get("/collections", headers=HTML).text
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    gone = client.post(f"{COLLECTIONS}/{id_}/remove", headers=HTML, follow_redirects=False)
    assert (gone.status_code, gone.headers["location"]) == (303, "/collections")
    assert "No collections yet" in client.get("/collections", headers=HTML).text


def test_delete_says_what_is_gone(client: TestClient) -> None:
    one = client.post(COLLECTIONS, json={"name": "best", "q": ""}).json()["collection"]
    assert client.delete(f"{COLLECTIONS}/{one['id']}").json() == one
    assert "no such id" in error(client.delete(f"{COLLECTIONS}/{one['id']}"), 404)["message"]


@pytest.mark.parametrize(
    ("sent", "part"),
    [
        ({}, "name: field required"),
        ({"name": ""}, "name: "),
        ({"name": "x" * 256}, "name: "),
        ({"name": 'a"b', "q": ""}, "collection name"),
        ({"name": "a\nb", "q": ""}, "collection name"),
        ({"name": "a", "ids": [0]}, "greater than or equal to 1"),
        ({"name": "a", "ids": [2**63]}, "less than or equal to"),
        ({"name": "a", "ids": "1,x"}, "valid integer"),
        ({"name": "a", "q": "dog &"}, "a class is missing"),
        ([], "no JSON object"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_why(
    client: TestClient, sent: object, part: str
) -> None:
    assert part in error(client.post(COLLECTIONS, json=sent), 400)["message"]
    assert client.get(COLLECTIONS).json() == {"collections": []}


def test_a_body_that_is_no_json_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"{", b"\xff", b"[" * 100_000):
        answer = client.post(COLLECTIONS, content=body, headers=headers)
        assert "no JSON" in error(answer, 400)["message"]


def test_unknown_images_and_collections_are_not_found(client: TestClient) -> None:
    answer = client.post(COLLECTIONS, json={"name": "best", "ids": [999]})
    assert "no image has the id 999" in error(answer, 404)["message"]
    answer = client.post(COLLECTIONS, json={"name": "best", "ids": [1], "remove": True})
    assert "unknown collection 'best'" in error(answer, 404)["message"]
    answer = client.post(f"{COLLECTIONS}/7/rename", json={"name": "x"})
    assert "no such id" in error(answer, 404)["message"]
    client.post(COLLECTIONS, json={"name": "best", "q": ""})
    answer = client.get("/api/v1/search", params={"q": "collection:bist"})
    assert error(answer, 400)["suggestions"] == ["best"]


def test_read_only_shows_collections_and_changes_none(
    catalog: Catalog, read_only: TestClient
) -> None:
    id_ = catalog.collect("best", query="dog").collection.id
    assert "rename" not in read_only.get("/collections", headers=HTML).text
    assert len(read_only.get(COLLECTIONS).json()["collections"]) == 1
    error(read_only.post(COLLECTIONS, json={"name": "more"}), 403)
    error(read_only.post(f"{COLLECTIONS}/{id_}/rename", json={"name": "more"}), 403)
    error(read_only.post(f"{COLLECTIONS}/{id_}/remove"), 403)
    error(read_only.delete(f"{COLLECTIONS}/{id_}"), 403)
    assert [one.name for one in catalog.collections()] == ["best"]


def test_foreign_pages_change_nothing(client: TestClient) -> None:
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    error(client.post(COLLECTIONS, data={"name": "best"}, headers=headers), 403)
    assert client.get(COLLECTIONS).json() == {"collections": []}


def test_chips_take_a_collection_out_of_the_search() -> None:
    asked = Asked(q='dog collection:"my best" -collection:worst')
    chips = {chip.label: chip.href for chip in queries.chips(asked)}
    assert list(chips) == ["dog", "in my best", "not in worst"]
    assert chips["in my best"] == "/?q=dog+-collection%3A%22worst%22"

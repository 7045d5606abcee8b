"""Answers that are remembered: the same for the same question, and never older than the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from tests.web_catalog import HTML, asking, error, filled_catalog, ids, pictures_folder
from vistadex.catalog import Catalog, registering, tables, writing
from vistadex.catalog.freshness import freshness
from vistadex.web import create_app, static_files
from vistadex.web.access import Keys
from vistadex.web.remembering import MAX_BYTES, Memory, Remembered
from vistadex.web.snapshot import snapshot

folder = pytest.fixture(pictures_folder)
catalog = pytest.fixture(filled_catalog)
client = pytest.fixture(asking)

STATIC = Path(static_files.__file__).parent / "static"
REMEMBERED = (
    "/",
    "/?q=dog",
    "/?q=dog&facets=1",
    "/facets?q=dog",
    "/classes",
    "/relations",
    "/api/v1/search?q=dog",
    "/api/v1/facets?q=dog",
    "/api/v1/complete?prefix=do",
    "/api/v1/classes",
    "/api/v1/relations",
    "/api/v1/predicates",
)


def fail(catalog: Catalog, image: int) -> None:
    """Marks an image as gone, as a run does."""
    catalog.transaction(lambda connection: writing.set_status(connection, [image], "vanished"))


@pytest.mark.parametrize("path", REMEMBERED)
def test_the_same_question_gets_the_same_bytes_or_that_they_are_the_same(
    client: TestClient, path: str
) -> None:
    first = client.get(path, headers=HTML)
    again = client.get(path, headers=HTML)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert first.headers == again.headers
    assert first.headers["cache-control"] == "no-cache"
    known = client.get(path, headers={**HTML, "If-None-Match": first.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == first.headers["etag"]
    assert known.headers["content-security-policy"] == first.headers["content-security-policy"]


def test_a_remembered_answer_asks_the_catalog_nothing_but_whether_it_has_changed(
    client: TestClient, catalog: Catalog
) -> None:
    asked: list[str] = []

    def note(*args: object) -> None:
        asked.append(str(args[2]))

    client.get("/?q=dog", headers=HTML)
    sa.event.listen(catalog.engine, "before_cursor_execute", note)
    client.get("/?q=dog", headers=HTML)
    statements = [one for one in asked if one != "BEGIN"]
    assert len(statements) == 1
    assert "UNION ALL" in statements[0]


@pytest.mark.parametrize("path", ["/?q=status:ok", "/api/v1/search?q=dog", "/?q=status:vanished"])
def test_a_change_of_results_is_seen_at_once(
    client: TestClient, catalog: Catalog, path: str
) -> None:
    image = ids(client)["a.jpg"]
    before = client.get(path, headers=HTML)
    fail(catalog, image)
    after = client.get(path, headers={**HTML, "If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]


def test_what_another_program_writes_is_seen_at_once(
    client: TestClient, catalog: Catalog, tmp_path: Path
) -> None:
    image = ids(client)["a.jpg"]
    path = "/api/v1/search?q=status:ok"
    assert image in [one["id"] for one in client.get(path).json()["results"]]
    with Catalog(str(tmp_path / "catalog.db")) as other:
        fail(other, image)
    assert image not in [one["id"] for one in client.get(path).json()["results"]]


def test_sources_and_models_are_shown_as_they_are_now(client: TestClient, catalog: Catalog) -> None:
    client.get("/", headers=HTML)
    with catalog.reading() as connection:
        before = freshness(connection)
        uri = connection.execute(sa.select(tables.source.c.uri)).scalar_one()
    catalog.transaction(
        lambda connection: registering.register_source(
            connection, uri, "https://pictures.example.org/{key}"
        )
    )
    with catalog.reading() as connection:
        assert freshness(connection) != before


def test_collections_are_never_remembered(client: TestClient) -> None:
    image = ids(client)["a.jpg"]
    names = "/api/v1/complete?kind=collection&prefix=b"
    inside = "/api/v1/search?q=collection:best"
    assert error(client.get(inside), 400)
    assert client.get(names).json() == {"choices": []}
    client.post("/api/v1/collections", json={"name": "best", "ids": [image]})
    assert [one["id"] for one in client.get(inside).json()["results"]] == [image]
    assert [one["name"] for one in client.get(names).json()["choices"]] == ["best"]
    client.post("/api/v1/collections", json={"name": "best", "ids": [image], "remove": True})
    assert client.get(inside).json()["results"] == []


@pytest.mark.parametrize("query", ["collection:best", "-collection:best dog", "duplicate:near"])
def test_what_the_log_of_changes_does_not_name_has_no_tag(client: TestClient, query: str) -> None:
    client.post("/api/v1/collections", json={"name": "best", "q": "dog"})
    answer = client.get("/api/v1/search", params={"q": query})
    assert answer.status_code == 200
    assert "etag" not in answer.headers


@pytest.mark.parametrize("query", ["dgo", "dog &", "x" * 3000])
def test_errors_are_not_remembered(client: TestClient, query: str) -> None:
    for _ in range(2):
        answer = client.get("/api/v1/search", params={"q": query})
        error(answer, 400)
        assert "etag" not in answer.headers


def test_what_is_remembered_is_shown_to_nobody_without_a_key(
    catalog: Catalog, tmp_path: Path
) -> None:
    app = create_app(catalog, tmp_path / "cache", keys=Keys(token="t0ken-that-nobody-guesses"))
    with TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False) as client:
        bearer = {"Authorization": "Bearer t0ken-that-nobody-guesses"}
        known = client.get("/api/v1/search?q=dog", headers=bearer)
        assert known.status_code == 200
        for headers in ({}, {"If-None-Match": known.headers["etag"]}):
            error(client.get("/api/v1/search?q=dog", headers=headers), 401)
            assert client.get("/?q=dog", headers={**HTML, **headers}).status_code == 303


def test_a_page_is_of_one_state_of_the_catalog(client: TestClient, catalog: Catalog) -> None:
    image = ids(client)["a.jpg"]
    with snapshot(catalog) as seen:
        before = seen.search("status:ok")
        fail(catalog, image)
        assert seen.search("status:ok") == before
        assert seen.image(image).status == "ok"
        assert seen.image(image) is seen.image(image)
    assert catalog.image(image).status == "vanished"


def test_scripts_and_the_stylesheet_are_sent_once(client: TestClient) -> None:
    for name, media_type in (("style.css", "text/css"), ("grid.js", "text/javascript")):
        first = client.get(f"/static/{name}")
        assert first.content == (STATIC / name).read_bytes()
        assert first.headers["content-type"].startswith(media_type)
        assert first.headers["cache-control"] == "no-cache"
        known = client.get(f"/static/{name}", headers={"If-None-Match": first.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        assert client.head(f"/static/{name}").status_code == 200
    assert client.get("/static/none.js").status_code == 404
    assert client.post("/static/grid.js").status_code in (403, 405)


def test_memory_forgets_what_was_longest_unused() -> None:
    memory = Memory[str](100)
    for name in ("a", "b"):
        memory.put(name, name.upper(), 40)
    assert memory.get("a") == "A"
    memory.put("c", "C", 40)
    assert [memory.get(name) for name in "abc"] == ["A", None, "C"]
    assert memory.size_bytes == 80


def test_memory_counts_what_is_replaced_once() -> None:
    memory = Memory[str](100)
    memory.put("a", "old", 60)
    memory.put("a", "new", 70)
    assert (memory.get("a"), memory.size_bytes) == ("new", 70)


def test_memory_does_not_keep_what_is_larger_than_all_of_it() -> None:
    memory = Memory[str](100)
    memory.put("a", "A", 101)
    assert (memory.get("a"), memory.size_bytes) == (None, 0)


def test_many_questions_take_no_more_than_a_bounded_memory(
    catalog: Catalog, tmp_path: Path
) -> None:
    app = create_app(catalog, tmp_path / "cache")
    app.state.remembered = Remembered(catalog, max_bytes=40_000)
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        for i in range(20):
            assert client.get(f"/classes?contains={i}", headers=HTML).status_code == 200
        assert 0 < app.state.remembered.size_bytes <= 40_000 < MAX_BYTES

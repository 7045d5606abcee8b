"""The HTTP API, pictures and pages without a browser: every route, and how each one fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.web_catalog import (
    HTML,
    asking,
    error,
    filled_catalog,
    ids,
    pictures_folder,
)
from vistadex import jsonable
from vistadex.catalog import Catalog
from vistadex.web import create_app, queries

folder = pytest.fixture(pictures_folder)
catalog = pytest.fixture(filled_catalog)
client = pytest.fixture(asking)


def test_search_returns_ranked_images_with_boxes(client: TestClient, folder: Path) -> None:
    page = client.get("/api/v1/search", params={"q": "dog"}).json()
    assert page["query"] == "dog"
    assert page["total"] == 2
    assert page["next"] is None
    first, second = page["results"]
    assert first["score"] == pytest.approx(0.9)
    assert second["score"] == pytest.approx(0.7)
    assert first["uri"] == str(folder / "a.jpg")
    assert (first["width"], first["height"]) == (640, 480)
    assert first["classes"][0] == {"class": "dog", "score": 0.9, "boxes": 2}
    assert first["boxes"][0] == {
        "class": "dog",
        "score": 0.9,
        "box": [100.0, 50.0, 300.0, 250.0],
        "model": "drawn",
    }


def test_search_pages_meet_without_gap_or_repeat(client: TestClient) -> None:
    seen, after = [], ""
    while after is not None:
        page = client.get("/api/v1/search", params={"limit": 1, "after": after}).json()
        assert (page["total"] is None) == bool(after)
        seen += [one["id"] for one in page["results"]]
        after = page["next"]
    assert seen == [one["id"] for one in client.get("/api/v1/search").json()["results"]]
    assert len(seen) == 4


def test_search_limits_by_score_source_and_model(client: TestClient) -> None:
    def total(**params: str | float) -> int:
        return int(client.get("/api/v1/search", params=params).json()["total"])

    assert total(q="dog", min_score=0.8) == 1
    assert total(q="dog", source="pictures") == 2
    assert total(q="dog", model="drawn") == 2
    assert total(q="dog", source="", model="") == 2


def test_unknown_class_is_a_400_with_suggestions(client: TestClient) -> None:
    problem = error(client.get("/api/v1/search", params={"q": "dgo"}), 400)
    assert problem["type"] == "QueryError"
    assert "dog" in problem["suggestions"]


@pytest.mark.parametrize(
    "query",
    [
        "?limit=0",
        "?limit=99999999999999999999999",
        "?limit=x",
        "?min_score=2",
        "?min_score=nan",
        "?after=%00",
        "?after=1.2",
        "?after=1.2.99999999999999999999999",
        "?q=%00",
        "?q=%ED%A0%80",
        "?q=dog%20%26",
        "?q=" + "a" * 3000,
        "?source=nowhere",
        "?model=%ff%fe",
    ],
)
def test_odd_parameters_are_a_400_in_the_one_shape(client: TestClient, query: str) -> None:
    error(client.get("/api/v1/search" + query), 400)
    page = client.get("/" + query, headers=HTML)
    assert page.status_code == 400
    assert "<main" in page.text


def test_one_image_has_everything_known(client: TestClient, folder: Path) -> None:
    image = client.get(f"/api/v1/images/{ids(client)['a.jpg']}").json()
    assert image["source"] == str(folder)
    assert image["key"] == "a.jpg"
    assert image["models"] == ["drawn"]
    assert image["status"] == "ok"
    assert image["indexed_at"].endswith("+00:00")
    assert len(image["boxes"]) == 3


@pytest.mark.parametrize("id", ["999", str(2**63 - 1)])
@pytest.mark.parametrize("path", ["/api/v1/images", "/image", "/picture", "/thumbnail"])
def test_unknown_ids_are_a_404(client: TestClient, path: str, id: str) -> None:
    assert error(client.get(f"{path}/{id}"), 404)["type"] == "NotFoundError"


@pytest.mark.parametrize("id", ["0", "-1", str(2**63), "x", "%00", "..%2f..%2fetc%2fpasswd"])
@pytest.mark.parametrize("path", ["/api/v1/images", "/image", "/picture", "/thumbnail"])
def test_ids_that_are_none_are_refused(client: TestClient, path: str, id: str) -> None:
    assert client.get(f"{path}/{id}").status_code in (400, 404)


def test_classes_are_counted_and_found_by_prefix(client: TestClient) -> None:
    everything = client.get("/api/v1/classes").json()
    assert everything["total"] == 6
    assert everything["classes"][0] == {"class": "dog", "images": 2, "boxes": 3}

    def names(prefix: str) -> list[str]:
        found = client.get("/api/v1/classes", params={"prefix": prefix}).json()
        return [one["class"] for one in found["classes"]]

    assert names("D") == ["dog"]
    assert names("t") == ["t-shirt", "traffic light"]
    assert names("li") == ["traffic light"]
    assert names("zebra") == []


def test_errors_are_listed_by_reason_and_in_pages(client: TestClient) -> None:
    found = client.get("/api/v1/errors").json()
    assert found["failures"] == {"not_an_image": 1}
    assert found["images"][0]["message"] == "begins with b'<script>'"
    assert found["next"] is None
    assert client.get("/api/v1/errors?reason=empty").json()["images"] == []
    assert "unknown reason" in error(client.get("/api/v1/errors?reason=odd"), 400)["message"]


def test_stats_and_health(client: TestClient, folder: Path) -> None:
    stats = client.get("/api/v1/stats").json()
    assert (stats["images"], stats["failed"], stats["classes"]) == (5, 1, 6)
    assert stats["sources"][0]["uri"] == str(folder)
    assert stats["models"][0]["parameters"] == {"min_score": 0.25}
    assert client.get("/health").json() == {"status": "ok"}


def test_json_is_the_same_as_the_library_writes(client: TestClient, catalog: Catalog) -> None:
    page = jsonable.search_page(catalog.search("dog"), 2)
    assert client.get("/api/v1/search?q=dog").json() == json.loads(json.dumps(page))
    stats = jsonable.stats(catalog.stats())
    assert client.get("/api/v1/stats").json() == json.loads(json.dumps(stats))


def test_lists_are_made_of_what_the_library_writes_one_by_one(
    client: TestClient, catalog: Catalog
) -> None:
    counts = [jsonable.class_count(one) for one in catalog.classes()]
    assert client.get("/api/v1/classes").json()["classes"] == counts
    bad = [jsonable.bad_image(one) for one in catalog.errors()]
    assert client.get("/api/v1/errors").json()["images"] == bad
    assert client.get("/api/v1/stats").json() == jsonable.stats(catalog.stats())


def test_openapi_describes_every_route_and_its_errors(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    assert set(described) >= {
        "/picture/{id}",
        "/thumbnail/{id}",
        "/api/v1/search",
        "/api/v1/search.csv",
        "/api/v1/facets",
        "/api/v1/complete",
        "/api/v1/images/{id}",
        "/api/v1/classes",
        "/api/v1/errors",
        "/api/v1/stats",
        "/health",
    }
    every = [(path, one) for path, by_method in described.items() for one in by_method.values()]
    for path, operation in every:
        answers = operation["responses"]
        assert "422" not in answers
        assert {"500", "default"} <= set(answers), path
        assert any(status.startswith("2") for status in answers), path
        if operation.get("parameters"):
            assert "400" in answers, path
        for status, answer in answers.items():
            if not status.startswith("2") and status != "304":
                schema = answer["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("/ProblemAnswer")
    assert {"404", "415", "502"} <= set(described["/picture/{id}"]["get"]["responses"])


def test_answers_have_the_documented_shape(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    fields = document["components"]["schemas"]["SearchResult"]["required"]
    assert set(fields) == set(client.get("/api/v1/search").json()["results"][0])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", ["4</strong> images", "6 classes", "1 not readable"]),
        ("/?q=dog", ["2</strong> images", ">0.90<", "without dog"]),
        ("/?q=cat+traffic+light", ["unknown class"]),
        ("/classes", ["6 classes", "/?q=traffic+light", "dog"]),
        ("/classes?prefix=zebra", ["No class"]),
        ("/errors", ["1 image could not be read", "not an image"]),
        ("/errors?reason=not_an_image", ["no picture format"]),
        ("/docs", ["/api/v1/search", "min_score"]),
        ("/nowhere", ["Not found"]),
    ],
)
def test_pages_say_what_the_api_says(client: TestClient, path: str, words: list[str]) -> None:
    page = client.get(path, headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for word in words:
        assert word in page.text


def test_names_from_outside_are_text_on_every_page(client: TestClient) -> None:
    id = ids(client)["e <b>.webp"]
    for path in ("/", f"/image/{id}", "/errors", "/?q=%3Cb%3E", "/?q=%22%3Cscript%3E"):
        page = client.get(path, headers=HTML).text
        assert "<b>." not in page
        assert "<script>" not in page


def test_the_error_page_keeps_the_query_and_links_to_the_nearest_class(client: TestClient) -> None:
    page = client.get("/?q=dgo+%26+cat", headers=HTML)
    assert page.status_code == 400
    assert 'value="dgo &amp; cat"' in page.text
    assert 'href="/?q=dog+%26+cat"' in page.text


def test_image_page_of_a_bad_image_says_why(client: TestClient) -> None:
    page = client.get(f"/image/{ids(client)['d.jpg']}", headers=HTML)
    assert page.status_code == 200
    assert "begins with b&#39;&lt;script&gt;&#39;" in page.text


def test_image_page_leads_on_to_the_next_result(client: TestClient) -> None:
    first, second = client.get("/api/v1/search?q=dog").json()["results"]
    page = client.get(f"/image/{first['id']}?q=dog&after={first['cursor']}", headers=HTML).text
    assert f'href="/image/{second["id"]}?q=dog&amp;after={second["cursor"]}"' in page


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("[::1]:8765", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example:8765", 400),
        ("", 400),
    ],
)
def test_only_its_own_host_names_are_answered(client: TestClient, host: str, status: int) -> None:
    answer = client.get("/api/v1/stats", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["type"] == "UsageError"


def test_bound_to_every_network_any_name_is_answered(catalog: Catalog, tmp_path: Path) -> None:
    client = TestClient(create_app(catalog, tmp_path, hosts=None), base_url="http://photos.lan")
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/static/style.css", "/image/0"])
def test_every_answer_limits_the_browser(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "cache-control" in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(client: TestClient, method: str) -> None:
    answer = client.request(method, "/api/v1/search")
    error(answer, 405)
    assert answer.headers["allow"] == "GET"


def test_an_unforeseen_error_is_a_500_in_the_one_shape(
    client: TestClient, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(catalog, "stats", broken)
    answer = client.get("/api/v1/stats")
    problem = error(answer, 500)
    assert "secret" not in problem["message"]
    assert "default-src" in answer.headers["content-security-policy"]
    assert "This did not work" in client.get("/", headers=HTML).text


def test_static_files_lead_nowhere_else(client: TestClient) -> None:
    assert client.get("/static/style.css").status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py"):
        assert client.get(path).status_code == 404


def test_every_class_link_finds_that_class(client: TestClient) -> None:
    for name in ("dog", "traffic light", "t-shirt", "-minus"):
        href = queries.class_href(name)
        assert href is not None
        page = client.get(href, headers=HTML)
        assert page.status_code == 200, name


def test_a_class_that_no_query_can_name_is_text(client: TestClient) -> None:
    name = "with &#34;quotes&#34;"
    for path in ("/classes", f"/image/{ids(client)['e <b>.webp']}"):
        assert f"<a>{name}</a>" in client.get(path, headers=HTML).text
    page = client.get("/?q=with+quotes", headers=HTML).text
    assert name in page
    assert "/?q=%22with" not in page


def test_two_pictures_of_one_place_have_two_links(client: TestClient) -> None:
    page = client.get("/", headers=HTML).text
    links = [part.split('"')[0] for part in page.split('src="/thumbnail/')[1:]]
    assert len(set(links)) == 4
    for link in links:
        assert "immutable" in client.get(f"/thumbnail/{link}").headers["cache-control"]

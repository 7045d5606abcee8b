"""The HTTP API, pictures and pages without a browser: every route, and how each one fails."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import vistadex
from vistadex import jsonable
from vistadex.catalog import Catalog, registering, writing
from vistadex.records import Analyzer, Detections, Failure, Outcome
from vistadex.sources import open_source
from vistadex.sources.folder import FolderSource
from vistadex.testing import RedSquareDetector
from vistadex.web import create_app, queries
from vistadex.web.cache import Cache
from vistadex.web.pictures import Pictures
from vistadex.web.views import picture_href

CLASSES = ("dog", "cat", "traffic light", "t-shirt", "-minus", 'with "quotes"', "person")
HTML = {"Accept": "text/html"}
PICTURE = {"Accept": "image/avif,image/webp,image/*,*/*;q=0.8"}


def detections(*found: tuple[str, float, tuple[float, float, float, float]]) -> Detections:
    return Detections(
        np.array([box for _, _, box in found], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in found], np.float32),
        np.array([CLASSES.index(name) for name, _, _ in found], np.int64),
    )


def drawn(kind: str, size_wh: tuple[int, int] = (640, 480)) -> bytes:
    file = io.BytesIO()
    picture = Image.new("RGB", size_wh, "steelblue")
    picture.paste("orange", (100, 50, 300, 250))
    picture.save(file, kind)
    return file.getvalue()


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(drawn("JPEG"))
    (folder / "b.png").write_bytes(drawn("PNG", (300, 900)))
    (folder / "c.tif").write_bytes(drawn("TIFF"))
    (folder / "d.jpg").write_bytes(b"<script>alert(1)</script>")
    (folder / "e <b>.webp").write_bytes(drawn("WEBP", (2000, 100)))
    return folder


@pytest.fixture
def catalog(folder: Path, tmp_path: Path) -> Iterator[Catalog]:
    analyzer = SimpleNamespace(
        sha256="c0ffee" * 10 + "1234",
        name="drawn",
        task="detector",
        classes=CLASSES,
        card={},
        parameters={"min_score": 0.25},
    )
    box = (100.0, 50.0, 300.0, 250.0)
    found = {
        "a.jpg": detections(("dog", 0.9, box), ("dog", 0.5, (0, 0, 9.5, 9)), ("cat", 0.3, box)),
        "b.png": detections(("dog", 0.7, box), ("traffic light", 0.8, box)),
        "c.tif": detections(("t-shirt", 0.6, box), ("-minus", 0.55, box)),
        "e <b>.webp": detections(('with "quotes"', 0.6, (0, 0, 50, 50))),
    }
    source = open_source(folder)
    outcomes = []
    for page in source.pages():
        for entry in page:
            if entry.key in found:
                size = size_of((folder / entry.key).read_bytes())
                outcomes.append(Outcome(entry, *size, (found[entry.key],)))
            else:
                outcomes.append(
                    Outcome(entry, failure=Failure("not_an_image", "begins with b'<script>'"))
                )
    with Catalog(str(tmp_path / "catalog.db"), create=True) as catalog:
        with catalog.writing() as connection:
            source_id = registering.register_source(connection, source.uri)
            registered = registering.register_analyzer(connection, cast(Analyzer, analyzer))
            writing.write_outcomes(connection, source_id, [registered], outcomes)
        yield catalog


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(catalog, tmp_path / "cache")
    with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as client:
        yield client


def ids(client: TestClient) -> dict[str, int]:
    """Ids by key, failed images included."""
    results = client.get("/api/v1/search").json()["results"]
    failed = client.get("/api/v1/errors").json()["images"]
    return {one["uri"].rpartition("/")[2]: one["id"] for one in [*results, *failed]}


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    problem = answer.json()["error"]
    assert set(problem) == {"type", "message", "suggestions"}
    return cast(dict[str, Any], problem)


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
    assert set(described) == {
        "/picture/{id}",
        "/thumbnail/{id}",
        "/api/v1/search",
        "/api/v1/images/{id}",
        "/api/v1/classes",
        "/api/v1/errors",
        "/api/v1/stats",
        "/health",
    }
    for path, operations in described.items():
        answers = operations["get"]["responses"]
        assert "422" not in answers
        assert {"200", "500", "default"} <= set(answers), path
        if operations["get"].get("parameters"):
            assert "400" in answers, path
        for status, answer in answers.items():
            if status not in ("200", "304"):
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
    ("name", "media_type", "same"),
    [
        ("a.jpg", "image/jpeg", True),
        ("b.png", "image/png", True),
        ("e <b>.webp", "image/webp", True),
        ("c.tif", "image/jpeg", False),
    ],
)
def test_originals_are_sent_as_they_are_or_as_jpeg(
    client: TestClient, folder: Path, name: str, media_type: str, same: bool
) -> None:
    answer = client.get(f"/picture/{ids(client)[name]}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (answer.content == (folder / name).read_bytes()) == same
    assert size_of(answer.content) == size_of((folder / name).read_bytes())


@pytest.mark.parametrize(
    ("name", "size"), [("a.jpg", (341, 256)), ("b.png", (85, 256)), ("e <b>.webp", (1024, 51))]
)
def test_thumbnails_are_small_jpegs(client: TestClient, name: str, size: tuple[int, int]) -> None:
    answer = client.get(f"/thumbnail/{ids(client)[name]}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert size_of(answer.content) == size


@pytest.mark.parametrize("kind", ["picture", "thumbnail"])
def test_known_pictures_are_not_sent_again(client: TestClient, kind: str) -> None:
    url = f"/{kind}/{ids(client)['a.jpg']}"
    first = client.get(url)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    again = client.get(url, headers={"If-None-Match": f'"other", {tag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == tag
    kept = client.get(url, params={"v": tag.strip('"')})
    assert "immutable" in kept.headers["cache-control"]


def test_thumbnails_come_from_the_cache_when_the_source_is_gone(
    client: TestClient, folder: Path
) -> None:
    found = ids(client)
    before = client.get(f"/thumbnail/{found['a.jpg']}").content
    (folder / "a.jpg").unlink()
    assert client.get(f"/thumbnail/{found['a.jpg']}").content == before


def test_a_changed_file_is_not_kept_under_its_old_version(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    id = ids(client)["a.jpg"]
    (folder / "a.jpg").write_bytes(drawn("JPEG", (64, 64)))
    os.utime(folder / "a.jpg", (1, 1))
    answer = client.get(f"/thumbnail/{id}")
    assert size_of(answer.content) == (64, 64)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", ["picture", "thumbnail"])
def test_a_vanished_picture_is_an_error_in_the_form_asked_for(
    client: TestClient, folder: Path, kind: str
) -> None:
    url = f"/{kind}/{ids(client)['b.png']}"
    (folder / "b.png").unlink()
    assert error(client.get(url), 404)["type"] == "SourceMissingError"
    shown = client.get(url, headers=PICTURE)
    assert shown.status_code == 404
    assert shown.headers["content-type"] == "image/svg+xml"
    assert shown.headers["cache-control"] == "no-store"
    assert "Not found" in client.get(url, headers=HTML).text


@pytest.mark.parametrize("kind", ["picture", "thumbnail"])
def test_bytes_that_are_no_picture_are_never_sent(client: TestClient, kind: str) -> None:
    answer = client.get(f"/{kind}/{ids(client)['d.jpg']}")
    assert error(answer, 415)["type"] == "DecodingError"
    assert "alert(1)" not in answer.text


@pytest.mark.parametrize("kind", ["picture", "thumbnail"])
def test_files_that_can_not_be_shown_are_not_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(FolderSource, "read_within", lambda *_: pytest.fail("it was read"))
    answer = client.get(f"/{kind}/{ids(client)['d.jpg']}")
    assert error(answer, 415)["message"] == "begins with b'<script>'"


@pytest.mark.parametrize("kind", ["picture", "thumbnail"])
def test_pictures_above_the_limits_are_refused(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("VISTADEX_MAX_PIXELS", "1000")
    few_pixels = TestClient(create_app(catalog, tmp_path / "a"), base_url="http://localhost")
    answer = few_pixels.get(f"/{kind}/{ids(few_pixels)['c.tif']}")
    assert "more than the limit" in error(answer, 415)["message"]
    monkeypatch.setenv("VISTADEX_MAX_FILE_BYTES", "100")
    monkeypatch.setattr(FolderSource, "read_within", lambda *_: pytest.fail("it was read"))
    few_bytes = TestClient(create_app(catalog, tmp_path / "b"), base_url="http://localhost")
    answer = few_bytes.get(f"/{kind}/{ids(few_bytes)['a.jpg']}")
    assert "more than the limit of 100" in error(answer, 415)["message"]


@pytest.mark.parametrize("kind", ["picture", "thumbnail"])
def test_a_picture_that_has_grown_above_the_limit_is_refused_unread(
    catalog: Catalog, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("VISTADEX_MAX_FILE_BYTES", "100000")
    with open(folder / "a.jpg", "r+b") as file:
        file.truncate(1 << 40)
    client = TestClient(create_app(catalog, tmp_path / "b"), base_url="http://localhost")
    answer = client.get(f"/{kind}/{ids(client)['a.jpg']}")
    assert "expected 100,000 at most" in error(answer, 415)["message"]


def test_a_manifest_s_picture_is_shown_as_it_was_last_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(drawn("JPEG", (64, 64)))
    (tmp_path / "list.txt").write_text("a.jpg\nftp://no/b.jpg\n")

    def index(only: str) -> None:
        detector = cast(Any, RedSquareDetector())
        vistadex.index(tmp_path / "list.txt", detector=detector, catalog=catalog, only=only)

    with Catalog(str(tmp_path / "catalog.db"), create=True) as catalog:
        index("new")
        client = TestClient(create_app(catalog, tmp_path / "cache"), base_url="http://localhost")
        image = catalog.image(str(tmp_path / "a.jpg"))
        link = picture_href("thumbnail", image.id, image.uri, image.version)
        first = client.get(link)
        assert size_of(first.content) == (64, 64)
        assert first.headers["cache-control"] == "private, no-cache"
        known = {"If-None-Match": first.headers["etag"]}
        assert client.get(link, headers=known).status_code == 304
        (tmp_path / "a.jpg").write_bytes(drawn("JPEG", (32, 32)))
        moved = time.time() + 100
        monkeypatch.setattr(time, "time", lambda: moved)
        index("all")
        again = client.get(link, headers=known)
        assert size_of(again.content) == (32, 32)
        assert again.headers["cache-control"] == "private, no-cache"
        (bad,) = catalog.errors()
        assert bad.reason == "bad_name"
        answer = client.get(f"/thumbnail/{bad.id}")
        assert "ftp:// is unknown" in error(answer, 415)["message"]


def test_the_cache_folder_may_go_while_serving(client: TestClient, tmp_path: Path) -> None:
    found = ids(client)
    for name in ("a.jpg", "b.png"):
        assert client.get(f"/thumbnail/{found[name]}").status_code == 200
        shutil.rmtree(tmp_path / "cache")
    assert client.get(f"/thumbnail/{found['a.jpg']}").status_code == 200
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1


def test_a_source_that_is_gone_breaks_no_page(client: TestClient, folder: Path) -> None:
    found = ids(client)
    folder.rename(folder.with_name("elsewhere"))
    assert client.get("/").status_code == 200
    assert client.get(f"/image/{found['a.jpg']}").status_code == 200
    assert client.get(f"/thumbnail/{found['a.jpg']}").status_code in (404, 502)


def test_the_same_thumbnail_asked_for_at_once_is_made_once(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = Pictures(catalog, Cache(tmp_path / "cache"))
    image = catalog.search("dog").results[0].image
    reads = []
    source = open_source(image.source)
    everyone_waits = threading.Barrier(4)

    def read(key: str, max_bytes: int) -> Any:
        reads.append(key)
        time.sleep(0.2)
        return open_source(image.source).read_within(key, max_bytes)

    monkeypatch.setattr(source, "read_within", read)
    pictures._sources[image.source] = source

    def ask(_: int) -> bytes | None:
        everyone_waits.wait()
        return pictures.thumbnail(image.id).data

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    pictures.close()
    assert len(set(answers)) == 1
    assert reads == ["a.jpg"]


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

"""Originals and thumbnails: what is sent, what is kept, what is refused."""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

import vistadex
from tests.web_catalog import (
    HTML,
    PICTURE,
    asking,
    drawn,
    error,
    filled_catalog,
    ids,
    pictures_folder,
    size_of,
)
from vistadex.catalog import Catalog
from vistadex.sources import open_source
from vistadex.sources.folder import FolderSource
from vistadex.testing import RedSquareDetector
from vistadex.web import create_app
from vistadex.web.cache import Cache
from vistadex.web.metrics import Metrics
from vistadex.web.pictures import Pictures
from vistadex.web.views import picture_href

folder = pytest.fixture(pictures_folder)
catalog = pytest.fixture(filled_catalog)
client = pytest.fixture(asking)


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


def test_a_thumbnail_shown_under_its_tag_needs_neither_catalog_nor_disk(
    client: TestClient, catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    url = f"/thumbnail/{ids(client)['a.jpg']}"
    url += "?v=" + client.get(url).headers["etag"].strip('"')
    before = client.get(url)
    shutil.rmtree(tmp_path / "cache")
    (folder / "a.jpg").unlink()
    asked: list[object] = []
    sa.event.listen(catalog.engine, "before_cursor_execute", lambda *args: asked.append(args))
    again = client.get(url)
    assert (again.content, again.headers) == (before.content, before.headers)
    assert client.get(url, headers={"If-None-Match": before.headers["etag"]}).status_code == 304
    assert asked == []


def test_the_tag_of_another_image_shows_nothing_of_it(client: TestClient) -> None:
    found = ids(client)
    one, other = (f"/thumbnail/{found[name]}" for name in ("a.jpg", "b.png"))
    tag = client.get(one).headers["etag"].strip('"')
    assert client.get(f"{one}?v={tag}").status_code == 200
    answer = client.get(f"{other}?v={tag}")
    assert size_of(answer.content) == (85, 256)
    assert answer.headers["cache-control"] == "private, no-cache"
    assert client.get(f"/thumbnail/999999?v={tag}").status_code == 404


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
    pictures = Pictures(catalog, Cache(tmp_path / "cache"), Metrics())
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

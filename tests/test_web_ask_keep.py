"""Keeping pictures that visitors sent: rows as an index makes them, names, limits, refusals."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image
from starlette.testclient import TestClient

import vistadex
from tests.web_catalog import HTML, error
from tests.web_jobs import asking
from vistadex.catalog import Catalog
from vistadex.errors import SourceError, UsageError
from vistadex.models.store import ModelStore
from vistadex.web import Serving, keeping, serve
from vistadex.web.access import Keys
from vistadex.web.askable import Askable

KEEP = "/api/v1/keep"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> ModelStore:
    found = ModelStore(tmp_path_factory.mktemp("models"))
    weights = shared_data / "weights"
    found.add(weights / "yolox_nano.onnx")
    file = weights / "coral_mobilenet_v2_1.0_224_quant.tflite"
    found.add(file, name="mobilenet", classes=weights / "coral_imagenet_labels.txt")
    return found


@pytest.fixture(autouse=True)
def _models(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTADEX_MODELS", str(store.folder))


@pytest.fixture(scope="session")
def photos(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "coco/images/val").glob("*.jpg"))[:3]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "catalog.db"), create=True) as catalog:
        yield catalog


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where pictures are kept; made by the app."""
    return tmp_path / "kept"


@pytest.fixture
def client(catalog: Catalog, place: Path, tmp_path: Path) -> Iterator[TestClient]:
    with asking(catalog, tmp_path, keep_to=str(place)) as client:
        yield client


def png(color: str = "orange") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(file, "PNG")
    return file.getvalue()


def sent(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", file) for file in files]


def of(paths: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return sent(*((path.name, path.read_bytes()) for path in paths))


def kept(client: TestClient, files: Any, **said: str) -> list[dict[str, Any]]:
    answer = client.post(KEEP, files=files, data=said)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["files"]
    return found


def stored(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def rows(catalog: Catalog) -> dict[str, Any]:
    """All that a catalog says of its images, but when and under which number."""
    found = {}
    for result in catalog.search(limit=100).results:
        image = vistadex.jsonable.image(catalog.image(result.image.id))
        found[image["uri"]] = {
            name: value for name, value in image.items() if name not in ("id", "indexed_at")
        }
    return found


@pytest.mark.parametrize(
    ("model", "chosen"),
    [("detect/yolox_nano", {"detector": "yolox_nano"}), ("mobilenet", {"classifier": "mobilenet"})],
)
def test_what_is_kept_is_what_an_index_of_the_place_finds(
    client: TestClient,
    catalog: Catalog,
    place: Path,
    photos: list[Path],
    tmp_path: Path,
    model: str,
    chosen: dict[str, Any],
) -> None:
    answer = client.post(KEEP, files=of(photos), data={"model": model}).json()
    assert [one["is_new"] for one in answer["files"]] == [True] * 3
    with Catalog(str(tmp_path / "other.db"), create=True) as other:
        vistadex.index(place, catalog=other, **chosen)
        assert rows(catalog) == rows(other)
        assert len(rows(other)) == 3
        (known,) = other.stats().models
        assert answer["model"]["parameters"] == dict(known.parameters)
    done = vistadex.index(place, catalog=catalog, **chosen)
    assert (done.unchanged, done.indexed, done.vanished) == (3, 0, 0)
    assert {path.read_bytes() for path in stored(place)} == {one.read_bytes() for one in photos}
    for one, photo in zip(answer["files"], photos, strict=True):
        assert client.get(f"/picture/{one['image']}").content == photo.read_bytes()


def test_the_same_picture_is_one_file_however_often_it_is_kept(
    client: TestClient, catalog: Catalog, place: Path, photos: list[Path]
) -> None:
    data = photos[0].read_bytes()
    first, again = kept(client, sent(("a.jpg", data), ("b.png", data)))
    (later,) = kept(client, sent(("c.gif", data)))
    assert first["image"] == again["image"] == later["image"]
    assert (first["is_new"], later["is_new"]) == (True, False)
    assert len(stored(place)) == catalog.stats().images == 1


def test_many_visitors_may_keep_the_same_at_once(
    client: TestClient, catalog: Catalog, place: Path, photos: list[Path]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: kept(client, of(photos[:2])), range(6)))
    assert len({one["image"] for answer in found for one in answer}) == 2
    assert sum(one["is_new"] for answer in found for one in answer) == 2
    assert len(stored(place)) == catalog.stats().images == 2


NAMES = ("../../evil.jpg", "/etc/cron.d/x", "C:\\x.exe", ".hidden", "a\0b.jpg", "x" * 2000, "x.php")


def test_nothing_of_a_name_reaches_the_place(
    client: TestClient, place: Path, tmp_path: Path
) -> None:
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(place)}
    for name in NAMES:
        (one,) = kept(client, sent((name, png())))
        assert one["error"] is None
        (path,) = stored(place)
        assert path.relative_to(place).as_posix() == keeping.key_of(png())
        assert path.suffix == ".png"
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(place)}
    assert not {path for path in after - before if "catalog.db" not in path.name}


def test_what_is_no_picture_is_not_stored(
    client: TestClient, place: Path, photos: list[Path], shared_data: Path
) -> None:
    broken = shared_data / "robust" / "truncated_image.png"
    page = ("page.jpg", b"<script>alert(1)</script>")
    found = kept(client, [*of([broken]), *sent(page), *of(photos[:1])])
    assert [one["error"] and one["error"]["reason"] for one in found] == [
        "truncated",
        "not_an_image",
        None,
    ]
    assert [one["image"] is None for one in found] == [True, True, False]
    assert len(stored(place)) == 1


def test_a_place_that_can_not_be_written_is_said_and_its_path_is_not(
    client: TestClient, catalog: Catalog, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = sorted((png("red"), png("blue")), key=keeping.key_of)
    (place / keeping.key_of(bad)[:2]).write_text("in the way")
    with caplog.at_level(logging.ERROR):
        answer = client.post(KEEP, files=sent(("good.png", good), ("bad.png", bad)))
    problem = error(answer, 502)
    assert "the log of this server says why" in problem["message"]
    assert str(place) not in answer.text
    assert str(place) in caplog.text
    assert [one.image.uri for one in catalog.search().results] == [
        str(place / keeping.key_of(good))
    ]
    (place / keeping.key_of(bad)[:2]).unlink()
    again = kept(client, sent(("good.png", good), ("bad.png", bad)))
    assert [one["is_new"] for one in again] == [False, True]


def test_no_more_is_kept_than_the_operator_allows(
    catalog: Catalog,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    red, blue, green = (png(color) for color in ("red", "blue", "green"))
    monkeypatch.setenv("VISTADEX_KEEP_MAX_BYTES", str(len(red) + len(blue) + 1))
    with asking(catalog, tmp_path, keep_to=str(place)) as client:
        kept(client, sent(("red.png", red)))
        answer = client.post(KEEP, files=sent(("blue.png", blue), ("green.png", green)))
        assert "nothing of this request was kept" in error(answer, 413)["message"]
        assert len(stored(place)) == 1
        assert [one["is_new"] for one in kept(client, sent(("a", red), ("b", blue)))] == [False, 1]
        error(client.post(KEEP, files=sent(("green.png", green))), 413)
    assert catalog.stats().images == 2


def test_limits_are_those_of_asking(client: TestClient, place: Path) -> None:
    many = sent(*((f"{i}.png", png()) for i in range(21)))
    assert "more than 20 files" in error(client.post(KEEP, files=many), 413)["message"]
    large = client.post(KEEP, files=sent(("large.jpg", b"\0" * (33 << 20))))
    error(large, 413)
    error(client.post(KEEP, data={"model": "yolox_nano"}), 400)
    assert stored(place) == []


def test_a_picture_that_was_deleted_is_kept_anew(
    client: TestClient, catalog: Catalog, place: Path, photos: list[Path]
) -> None:
    first, other = kept(client, of(photos[:2]))
    Path(catalog.image(first["image"]).uri).unlink()
    assert vistadex.index(place, detector="yolox_nano", catalog=catalog).vanished == 1
    (again,) = kept(client, of(photos[:1]))
    assert (again["image"], again["is_new"]) == (first["image"], True)
    assert {catalog.image(one["image"]).status for one in (again, other)} == {"ok"}


def test_unknown_models_and_labelers_keep_nothing(
    client: TestClient, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = client.post(KEEP, files=sent(("x.png", png())), data={"model": "../yolox_nano"})
    assert "is unknown; there are: detect/yolox_nano" in error(answer, 404)["message"]
    assert stored(place) == []
    monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", "http://127.0.0.1:1")
    askable = Askable(["google-vision"], 5)
    with pytest.raises(UsageError, match="google-vision: pictures are kept with a detector"):
        keeping.offer_of(askable, "label/google-vision")
    askable.close()


def test_a_server_keeps_nothing_unless_it_was_told_where(catalog: Catalog, tmp_path: Path) -> None:
    with asking(catalog, tmp_path) as client:
        answer = client.post(KEEP, files=sent(("x.png", png())))
        assert "--keep-to FOLDER_OR_URL" in error(answer, 404)["message"]
        page = client.get("/ask", headers=HTML).text
        assert "/ask/keep" not in page
        assert "looked at and not kept" in page
    assert catalog.stats().images == 0


@pytest.mark.parametrize("path", [KEEP, "/ask/keep"])
def test_keeping_is_a_change_that_needs_a_key_and_our_own_page(
    catalog: Catalog, place: Path, tmp_path: Path, path: str
) -> None:
    token = "t" * 30
    files = sent(("x.png", png()))
    with asking(catalog, tmp_path, keep_to=str(place), keys=Keys(token=token)) as client:
        error(client.post(path, files=files), 401)
        foreign = {"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer wrong"}
        error(client.post(path, files=files, headers=foreign), 401)
        programs = {"Authorization": f"Bearer {token}"}
        assert client.post(path, files=files, headers=programs).status_code == 200
    with asking(catalog, tmp_path, keep_to=str(place)) as client:
        foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        error(client.post(path, files=files, headers=foreign), 403)
    with asking(catalog, tmp_path, keep_to=str(tmp_path / "not"), read_only=True) as client:
        assert "--read-only" in error(client.post(path, files=files), 403)["message"]
        assert "/ask/keep" not in client.get("/ask", headers=HTML).text
        assert client.post("/api/v1/detect", files=files).status_code == 200
    assert not (tmp_path / "not").exists()
    assert len(stored(place)) == 1


def test_the_form_shows_what_was_kept_and_what_could_not_be(
    client: TestClient, catalog: Catalog, photos: list[Path]
) -> None:
    assert 'formaction="/ask/keep"' in client.get("/ask", headers=HTML).text
    files = [*of(photos[:1]), *sent(("page.jpg", b"<script>"))]
    page = client.post("/ask/keep", files=files, headers=HTML).text
    assert 'Kept as <a href="/image/1">image 1</a>' in page
    assert page.count('class="card"') == 2
    assert page.count("Kept as") == 1
    assert catalog.stats().images == 1


def test_a_place_that_is_none_ends_the_server_before_it_answers(
    catalog: Catalog, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    for place, kind in ((str(file), (UsageError, SourceError)), ("https://x.test/", UsageError)):
        for workers in (1, 2):
            serving = Serving(
                host="127.0.0.1",
                port=0,
                cache=tmp_path / "cache",
                keep_to=place,
                workers=workers,
            )
            with pytest.raises(kind):
                serve(catalog, serving)


def test_pictures_are_kept_in_a_bucket(
    s3_server: str,
    aws: pytest.MonkeyPatch,
    catalog: Catalog,
    photos: list[Path],
    tmp_path: Path,
) -> None:
    bucket = boto3.resource("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(
        Bucket="kept-pictures"
    )
    uri = "s3://kept-pictures/visitors"
    with asking(catalog, tmp_path, keep_to=uri) as client:
        found = kept(client, of(photos[:2]))
        assert client.get(f"/picture/{found[0]['image']}").content == photos[0].read_bytes()
    assert {one.key for one in bucket.objects.all()} == {
        f"visitors/{keeping.key_of(photo.read_bytes())}" for photo in photos[:2]
    }
    done = vistadex.index(uri, detector="yolox_nano", catalog=catalog)
    assert (done.unchanged, done.indexed) == (2, 0)

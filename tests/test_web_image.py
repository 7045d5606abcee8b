"""One image on the web: who says what, what the camera wrote, and the picture with its boxes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from starlette.testclient import TestClient

import vistadex
from tests import web_catalog
from tests.web_catalog import HTML, error, ids
from vistadex.catalog import Catalog
from vistadex.drawing import draw_boxes
from vistadex.testing import RedSquareDetector, scene_jpeg
from vistadex.web.exif import EXIF_IFD, GPS_IFD, MOST_LETTERS, read_exif

KINDS = ("JPEG", "PNG", "WEBP", "TIFF")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return web_catalog.pictures_folder(tmp_path)


@pytest.fixture
def catalog(folder: Path, tmp_path: Path) -> Iterator[Catalog]:
    yield from web_catalog.filled_catalog(folder, tmp_path)


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    yield from web_catalog.asking(catalog, tmp_path)


@pytest.fixture
def said(tmp_path: Path) -> Iterator[TestClient]:
    """A scene that a detector and a person have seen, lying on its side."""
    photos = tmp_path / "photos"
    photos.mkdir()
    block = Image.Exif()
    block[0x0112] = 6
    with Image.open(io.BytesIO(scene_jpeg([("red square", 10, 20, 40)]))) as scene:
        scene.rotate(90, expand=True).save(photos / "ä b.jpg", exif=block, quality=95)
    box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [90, 60, 30, 30]}
    image = {"id": 7, "file_name": "ä b.jpg", "width": 160, "height": 120}
    names = [{"id": 1, "name": "knob"}]
    values = {"images": [image], "annotations": [box], "categories": names}
    (tmp_path / "said.json").write_text(json.dumps(values))
    with Catalog(tmp_path / "said.db", create=True) as catalog:
        vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
        vistadex.import_annotations(
            "coco", tmp_path / "said.json", images=photos, model="ann", catalog=catalog
        )
        yield from web_catalog.asking(catalog, tmp_path)


def block_of(main: dict[int, Any], shot: dict[int, Any], place: dict[int, Any]) -> Image.Exif:
    block = Image.Exif()
    block.update(main)
    block.get_ifd(EXIF_IFD).update(shot)
    block.get_ifd(GPS_IFD).update(place)
    return block


MAIN = {0x010F: "Canon Inc.", 0x0110: "Canon EOS R5"}
SHOT = {
    0x9003: "2024:05:17 18:30:01",
    0x9011: "+02:00",
    0x829A: IFDRational(1, 250),
    0x829D: IFDRational(28, 10),
    0x8827: 400,
    0x920A: IFDRational(50, 1),
    0xA405: 80,
    0x9204: IFDRational(-1, 3),
    0x9209: 16,
    0xA434: "RF50mm F1.8",
}
PLACE = {
    1: "S",
    2: (IFDRational(33), IFDRational(51), IFDRational(36)),
    3: "E",
    4: (IFDRational(151), IFDRational(12), IFDRational(0)),
}


def photo(kind: str = "JPEG", block: Image.Exif | bytes | None = None) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(
        file, kind, exif=block or block_of(MAIN, SHOT, PLACE).tobytes()
    )
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_camera_wrote_is_read_in_every_format(kind: str) -> None:
    found = read_exif(photo(kind))
    assert found["fields"] == {
        "Camera": "Canon EOS R5",
        "Lens": "RF50mm F1.8",
        "Taken": "2024-05-17 18:30:01 +02:00",
        "Exposure": "1/250 s",
        "Aperture": "f/2.8",
        "ISO": "400",
        "Focal length": "50 mm (80 mm on 35 mm film)",
        "Compensation": "-0.33 EV",
        "Flash": "did not fire",
    }
    assert found["position"] == {"latitude": -33.86, "longitude": 151.2}


def test_text_in_utf_8_is_read_as_such() -> None:
    block = block_of({0x013B: "Zoë 猫".encode(), 0x8298: "© Zoë".encode("latin-1")}, {}, {})
    assert read_exif(photo(block=block))["fields"] == {"By": "Zoë 猫", "Copyright": "© Zoë"}


def test_odd_values_are_left_out_and_the_others_stay() -> None:
    odd = {
        0x9003: "0000:00:00 00:00:00",
        0x829A: IFDRational(0, 0),
        0x829D: IFDRational(1, 0),
        0x8827: (100, 200),
        0x920A: "wide",
        0xA434: "L" * 5000,
        0x9204: IFDRational(0, 1),
    }
    place = {1: "N", 2: (IFDRational(0, 0),) * 3, 3: "E", 4: (IFDRational(500),) * 3}
    found = read_exif(photo(block=block_of({0x0110: "A\tB\x07 C"}, odd, place)))
    assert found["fields"] == {
        "Camera": "A B C",
        "Lens": "L" * MOST_LETTERS + "…",
        "ISO": "100",
    }
    assert (found["has_position"], found["position"]) == (False, None)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "raw",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40,
        b"Exif\0\0XX" + bytes(60),
        b"Exif\0\0" + bytes(range(256)) * 8,
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_block_is_no_error(raw: bytes) -> None:
    assert read_exif(photo(block=raw))["fields"] == {}


@pytest.mark.parametrize("data", [b"", b"<script>", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_bytes_that_are_no_picture_say_nothing(data: bytes) -> None:
    assert read_exif(data) == {"fields": {}, "has_position": False, "position": None}


@pytest.mark.filterwarnings("ignore")
def test_files_that_are_odd_or_broken_do_no_harm(shared_data: Path) -> None:
    files = [one for one in (shared_data / "robust").iterdir() if one.suffix != ".csv"]
    assert len(files) > 20
    for file in files:
        json.dumps(read_exif(file.read_bytes()), allow_nan=False)


def test_a_position_is_told_only_to_those_who_ask(folder: Path, client: TestClient) -> None:
    (folder / "a.jpg").write_bytes(photo())
    id = ids(client)["a.jpg"]
    quiet = client.get(f"/api/v1/images/{id}/exif").json()
    assert (quiet["has_position"], quiet["position"]) == (True, None)
    asked = client.get(f"/api/v1/images/{id}/exif?position=true").json()
    assert asked["position"] == {"latitude": -33.86, "longitude": 151.2}
    page = client.get(f"/image/{id}/exif", headers=HTML).text
    assert "Canon EOS R5" in page
    assert "151.2" not in page
    assert "151.2" in client.get(f"/image/{id}/exif?position=true", headers=HTML).text


def test_what_is_not_to_be_read_has_no_camera(client: TestClient) -> None:
    bad = ids(client)["d.jpg"]
    assert error(client.get(f"/api/v1/images/{bad}/exif"), 415)
    assert client.get("/api/v1/images/999/exif").status_code == 404
    empty = client.get(f"/image/{ids(client)['b.png']}/exif", headers=HTML)
    assert "says nothing of a camera" in empty.text


def test_each_class_names_who_says_it(said: TestClient) -> None:
    found = said.get("/api/v1/images/1/origins").json()["classes"]
    assert {(one["class"], one["model"], one["by_people"], one["boxes"]) for one in found} == {
        ("knob", "ann", True, 1),
        ("red square", "red-squares", False, 1),
    }
    page = said.get("/image/1", headers=HTML).text
    assert '<span class="by"><span>ann</span></span>' in page
    assert 'class="human" data-class="knob"' in page
    assert 'class="human" data-class="red square"' not in page


def opened(answer: Any) -> np.ndarray[Any, Any]:
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_drawn_picture_is_upright_and_whole(said: TestClient) -> None:
    answer = said.get("/picture/1/drawn")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-disposition"] == (
        "attachment; filename*=UTF-8''%C3%A4%20b-boxes.jpg"
    )
    assert opened(answer).shape == (120, 160, 3)


def test_only_the_boxes_asked_for_are_drawn(client: TestClient, catalog: Catalog) -> None:
    id = ids(client)["a.jpg"]
    plain = opened(client.get(f"/picture/{id}"))
    image = catalog.image(id)

    def drawn(**asked: Any) -> np.ndarray[Any, Any]:
        return opened(client.get(f"/picture/{id}/drawn", params={"format": "png", **asked}))

    def expected(*numbers: int) -> np.ndarray[Any, Any]:
        return draw_boxes(plain, [image.boxes[i] for i in numbers])

    assert (drawn() == expected(0, 1, 2)).all()
    assert (drawn(min_score=0.6) == expected(0)).all()
    assert (drawn(classes=["cat"]) == expected(2)).all()
    assert (drawn(classes=["cat", "dog"], min_score=0.4) == expected(0, 1)).all()
    assert (drawn(classes=["cat"], models=["drawn"]) == expected(2)).all()
    for nothing in ({"classes": [""]}, {"models": ["human"]}, {"min_score": 1}):
        assert (drawn(**nothing) == plain).all()


def test_a_drawn_picture_has_bounds(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistadex.web.drawn.MOST_SIDE", 320)
    id = ids(client)["a.jpg"]
    assert opened(client.get(f"/picture/{id}/drawn")).shape == (240, 320, 3)
    monkeypatch.setattr(client.app.state.pictures, "max_pixels", 1000)  # type: ignore[attr-defined]
    assert "limit" in error(client.get(f"/picture/{id}/drawn"), 415)["message"]


def test_what_can_not_be_drawn_says_why(client: TestClient) -> None:
    assert error(client.get(f"/picture/{ids(client)['d.jpg']}/drawn"), 415)
    assert client.get("/picture/999/drawn").status_code == 404
    for asked in ("min_score=2", "format=gif", "min_score=x"):
        assert client.get(f"/picture/1/drawn?{asked}").status_code == 400


def test_the_page_offers_downloads_and_what_is_similar(client: TestClient) -> None:
    id = ids(client)["a.jpg"]
    page = client.get(f"/image/{id}", headers=HTML).text
    assert f'href="/picture/{id}/drawn" download' in page
    assert 'download="a.jpg.json"' in page
    assert "--embedder" in page  # nothing to compare yet: what to run


def test_a_failed_image_offers_no_drawing(client: TestClient) -> None:
    page = client.get(f"/image/{ids(client)['d.jpg']}", headers=HTML).text
    assert "/drawn" not in page
    assert "not an image" in page

"""Pages of images that are known from annotations alone: shown from where the user says, or not."""

import csv
import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import vistadex
from vistadex.catalog import Catalog, registering, writing
from vistadex.origins import AnnotationOrigin
from vistadex.records import Detections, ImageEntry, Outcome
from vistadex.testing import scene_jpeg
from vistadex.web import create_app

IMAGE = "0a1b2c3d4e5f6789"
RED = ("red square", 10, 20, 40)


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has one picture."""
    (tmp_path / "site" / "train").mkdir(parents=True)
    (tmp_path / "site" / "train" / f"{IMAGE}.jpg").write_bytes(scene_jpeg([RED]))
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def written(path: Path, *rows: tuple[object, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def imported(tmp_path: Path, image_url: str | None) -> Path:
    """A catalog with one image of Open Images."""
    folder = tmp_path / "open-images"
    folder.mkdir()
    written(folder / "class-descriptions.csv", ("/m/01", "Person"), ("/m/02", "Horse"))
    written(folder / "train-images-with-rotation.csv", ("ImageID", "Rotation"), (IMAGE, "0.0"))
    corners = ("XMin", "XMax", "YMin", "YMax")
    flags = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
    written(
        folder / "train-annotations-bbox.csv",
        ("ImageID", "Source", "LabelName", "Confidence", *corners, *flags),
        (IMAGE, "xclick", "/m/01", 1, 0.25, 0.5, 0.1, 0.9, 0, 1, 0, 0, -1),
    )
    both = [one + end for end in "12" for one in corners]
    written(
        folder / "oidv6-train-annotations-vrd.csv",
        ("ImageID", "LabelName1", "LabelName2", *both, "RelationshipLabel"),
        (IMAGE, "/m/01", "/m/02", *(0.25, 0.5, 0.1, 0.9), *(0.1, 0.8, 0.4, 1), "ride"),
    )
    place = tmp_path / "catalog.db"
    done = vistadex.import_annotations("open-images", folder, image_url=image_url, catalog=place)
    assert (done.imported, done.boxes, done.relations, done.problems) == (1, 1, 1, {})
    return place


def client(catalog: Catalog, tmp_path: Path) -> TestClient:
    app = create_app(catalog, tmp_path / "thumbnails", allow_private_addresses=True)
    return TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False)


def test_a_picture_is_shown_from_the_address_that_the_user_gives(
    tmp_path: Path, pictures: str
) -> None:
    place = imported(tmp_path, pictures + "/{split}/{image_id}.jpg")
    with Catalog(place) as catalog, client(catalog, tmp_path) as web:
        (found,) = web.get("/api/v1/search", params={"q": 'relation:"Person/ride/"'}).json()[
            "results"
        ]
        assert found["status"] == "unseen"
        assert found["image_url"] == f"{pictures}/train/{IMAGE}.jpg"
        for kind in ("picture", "thumbnail"):
            answer = web.get(f"/{kind}/{found['id']}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        page = web.get(f"/image/{found['id']}")
        assert page.status_code == 200
        assert "the picture itself was never read" in page.text
        assert "Person · ride · Horse" in page.text
        assert web.get("/").status_code == 200


def test_without_an_address_all_but_the_picture_works(tmp_path: Path) -> None:
    place = imported(tmp_path, None)
    with Catalog(place) as catalog, client(catalog, tmp_path) as web:
        (found,) = web.get("/api/v1/search", params={"q": "Person"}).json()["results"]
        assert found["image_url"] is None
        answer = web.get(f"/picture/{found['id']}")
        assert answer.status_code == 404
        assert "import again with --image-url, or index it" in answer.text
        assert web.get(f"/image/{found['id']}").status_code == 200
        assert web.get("/?q=Person").status_code == 200


def test_no_address_leads_to_a_file_of_the_server(tmp_path: Path) -> None:
    (tmp_path / f"{IMAGE}.jpg").write_bytes(scene_jpeg([RED]))
    place = imported(tmp_path, f"file://{tmp_path}/{{image_id}}.jpg")
    with Catalog(place) as catalog, client(catalog, tmp_path) as web:
        assert web.get("/picture/1").status_code == 404


def test_boxes_of_an_unknown_frame_are_listed_and_not_drawn(tmp_path: Path) -> None:
    found = Detections(np.array([[100.0, 100, 400, 300]]), np.ones(1), np.zeros(1, np.int64))
    with Catalog(tmp_path / "catalog.db", create=True) as catalog:
        with catalog.writing() as connection:
            source = registering.register_source(connection, "/photos")
            people = AnnotationOrigin("human", "detector", ("Person",), {})
            analyzer = registering.register_analyzer(connection, people)
            outcome = Outcome(ImageEntry("a.jpg", None, ""), 0, 0, (found,), seen=False)
            writing.write_annotations(connection, source, [analyzer], [outcome])
        with client(catalog, tmp_path) as page:
            shown = page.get("/image/1").text
            assert "they are not drawn" in shown
            assert "<rect" not in shown
            grid = page.get("/?q=Person").text.partition('id="grid"')[2]
            assert 'data-id="1"' in grid
            assert "<path" not in grid

"""Similar images in the web app: by image, by a part of it, by an upload; what it says without."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.web_catalog import HTML, asking, error, filled_catalog, ids, pictures_folder
from vistadex import find_similar, index
from vistadex.catalog import Catalog
from vistadex.web import create_app, pictures

folder = pytest.fixture(pictures_folder)
bare = pytest.fixture(filled_catalog)


@pytest.fixture
def catalog(bare: Catalog, folder: Path) -> Catalog:
    """With what has been detected, and colors and layouts."""
    index(folder, embedder="color-layout", catalog=bare)
    return bare


client = pytest.fixture(asking)


@pytest.fixture
def bare_client(bare: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    yield from asking(bare, tmp_path)


def png(color: str = "orange", size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def test_an_image_is_given_what_is_like_it(client: TestClient) -> None:
    known = ids(client)
    page = client.get(f"/api/v1/images/{known['a.jpg']}/similar", params={"limit": 2}).json()
    assert (page["model"], page["by_content"], page["images"]) == ("color-layout", False, 4)
    first, second = page["results"]
    assert first["image"]["id"] == known["c.tif"]
    assert first["similarity"] > 0.99 > second["similarity"]


def test_a_query_narrows_it(client: TestClient) -> None:
    known = ids(client)
    place = f"/api/v1/images/{known['a.jpg']}/similar"
    found = client.get(place, params={"q": "dog"}).json()["results"]
    assert [one["image"]["id"] for one in found] == [known["b.png"]]
    problem = error(client.get(place, params={"q": "dg"}), 400)
    assert (problem["type"], problem["suggestions"]) == ("QueryError", ["dog"])


@pytest.mark.parametrize("name", ["a.jpg", "c.tif"])
def test_a_part_of_an_image_is_compared_alone(client: TestClient, name: str) -> None:
    place = f"/api/v1/images/{ids(client)[name]}/similar"
    whole = client.get(place).json()["results"]
    part = client.get(place, params={"box": "100,50,300,250"}).json()["results"]
    assert len(part) == len(whole) == 3
    assert part[0]["similarity"] < whole[0]["similarity"]


def test_a_part_of_a_picture_larger_than_browsers_are_given_is_cut_at_full_size(
    client: TestClient, catalog: Catalog, folder: Path
) -> None:
    """Browsers get a wide TIFF as a narrower JPEG; boxes are in pixels of the TIFF."""
    wide = Image.new("RGB", (pictures.MAX_SIDE + 900, 64), "steelblue")
    wide.paste("orange", (pictures.MAX_SIDE + 400, 0, pictures.MAX_SIDE + 900, 64))
    wide.save(folder / "wide.tif")
    wide.crop((pictures.MAX_SIDE + 500, 0, pictures.MAX_SIDE + 700, 64)).save(folder / "part.png")
    index(folder, embedder="color-layout", catalog=catalog)
    box = f"{pictures.MAX_SIDE + 500},0,{pictures.MAX_SIDE + 700},64"
    place = f"/api/v1/images/{ids(client)['wide.tif']}/similar"
    answer = client.get(place, params={"box": box, "limit": 1})
    assert answer.status_code == 200, answer.text
    (first,) = answer.json()["results"]
    assert first["image"]["id"] == ids(client)["part.png"]
    assert first["similarity"] > 0.999


def test_a_part_of_a_picture_that_breaks_off_is_compared_where_its_index_took_it(
    client: TestClient, catalog: Catalog, folder: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "broken.jpg")
    whole = (folder / "broken.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    index(folder, embedder="color-layout", catalog=catalog, allow_truncated=True)
    id_ = ids(client)["broken.jpg"]
    answer = client.get(f"/api/v1/images/{id_}/similar", params={"box": "0,0,90,90"})
    assert answer.status_code == 200, answer.text
    assert find_similar(id_, box=(0, 0, 90, 90), catalog=catalog).results


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ("1,2,3", "expected x0,y0,x1,y1"),
        ("9000,9,9900,20", "no area in the picture of 640 x 480"),
        ("nan,0,5,5", "four finite numbers"),
        ("1" * 101, "at most 100"),
    ],
)
def test_a_box_that_is_none_is_refused(client: TestClient, box: str, text: str) -> None:
    for place in ("/api/v1/images/{}/similar", "/similar/{}"):
        answer = client.get(place.format(ids(client)["a.jpg"]), params={"box": box})
        assert text in error(answer, 400)["message"]


def test_an_unknown_image_is_not_found(client: TestClient) -> None:
    for place in ("/api/v1/images/999/similar", "/similar/999"):
        assert error(client.get(place), 404)["type"] == "NotFoundError"


def test_an_upload_is_compared_and_not_kept(client: TestClient, catalog: Catalog) -> None:
    before = catalog.stats()
    for sent in (png(), png("steelblue")):
        answer = client.post("/api/v1/similar", files={"file": ("x.png", sent)}, data={"limit": 3})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["results"]) == 3
    assert catalog.stats() == before


def test_an_upload_may_be_narrowed_and_cut(client: TestClient) -> None:
    said = {"q": "dog", "box": "0,0,10,10", "model": "color-layout"}
    answer = client.post("/api/v1/similar", files={"file": ("x.png", png())}, data=said)
    assert {one["image"]["id"] for one in answer.json()["results"]} == {
        ids(client)["a.jpg"],
        ids(client)["b.png"],
    }


@pytest.mark.parametrize(
    ("data", "said", "status", "text"),
    [
        (b"no picture", {}, 415, "x.png: begins with"),
        (png(), {"limit": "many"}, 400, "limit: input should be a valid integer"),
        (png(), {"limit": "5000"}, 400, "limit: "),
        (png(), {"q": "dg"}, 400, "dg"),
        (png(), {"box": "80,80,90,90"}, 400, "no area in the picture of 64 x 64"),
        (png(), {"model": "other"}, 404, "no embedder is named 'other'"),
        (png(size=(9000, 6000)), {}, 415, "more than the limit of 50.0 million"),
    ],
)
def test_an_upload_that_can_not_be_compared_says_why(
    client: TestClient, data: bytes, said: dict[str, str], status: int, text: str
) -> None:
    answer = client.post("/api/v1/similar", files={"file": ("x.png", data)}, data=said)
    assert text in error(answer, status)["message"]


def test_a_setting_may_allow_fewer_pixels_than_uploads_may_have(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTADEX_MAX_PIXELS", "4000")
    answer = client.post("/api/v1/similar", files={"file": ("x.png", png())})
    assert "64 x 64" in error(answer, 415)["message"]


def test_two_files_at_once_are_refused(client: TestClient) -> None:
    files = [("file", ("x.png", png())), ("file", ("y.png", png()))]
    assert "more than 1 files" in error(client.post("/api/v1/similar", files=files), 413)["message"]


def test_an_upload_from_a_foreign_page_is_refused(client: TestClient) -> None:
    headers = {"Origin": "http://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    for place in ("/api/v1/similar", "/similar"):
        answer = client.post(place, files={"file": ("x.png", png())}, headers=headers)
        assert answer.status_code == 403


def test_the_page_shows_a_grid_and_says_that_colors_were_compared(client: TestClient) -> None:
    known = ids(client)
    text = client.get(f"/similar/{known['a.jpg']}", headers=HTML).text
    assert "Similar to a.jpg" in text
    assert "color and layout" in text
    assert text.count('class="tile"') == 3
    assert f'href="/image/{known["c.tif"]}"' in text
    assert f"/similar/{known['a.jpg']}?box=" in text


def test_the_parts_that_the_page_offers_can_be_looked_for(client: TestClient) -> None:
    place = f"/similar/{ids(client)['a.jpg']}"
    offered = re.findall(r'href="(/similar/\d+\?box=[^"]+)"', client.get(place, headers=HTML).text)
    assert len(offered) == 3
    for href in offered:
        answer = client.get(href, headers=HTML)
        assert answer.status_code == 200
        assert "Similar to a part of a.jpg" in answer.text
        assert "<rect" in answer.text


def test_the_page_takes_an_upload_without_javascript(client: TestClient) -> None:
    start = client.get("/similar", headers=HTML).text
    assert 'action="/similar" method="post" enctype="multipart/form-data"' in start
    answer = client.post("/similar", files={"file": ("<b>.png", png())}, headers=HTML)
    assert answer.status_code == 200
    assert "Similar to &lt;b&gt;.png" in answer.text
    assert answer.text.count('class="tile"') == 4


def test_read_only_takes_an_upload_and_offers_the_form(catalog: Catalog, tmp_path: Path) -> None:
    app = create_app(catalog, tmp_path / "cache", read_only=True)
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        assert 'action="/similar" method="post"' in client.get("/similar", headers=HTML).text
        assert client.post("/similar", files={"file": ("x.png", png())}).status_code == 200


def test_the_page_of_questions_leads_to_the_upload(client: TestClient) -> None:
    assert 'href="/similar"' in client.get("/ask", headers=HTML).text


def test_without_embeddings_the_page_says_what_to_run(bare_client: TestClient) -> None:
    id_ = ids(bare_client)["a.jpg"]
    for place in (f"/similar/{id_}", "/similar"):
        answer = bare_client.get(place, headers=HTML)
        assert answer.status_code == 200
        assert "--embedder color-layout" in answer.text
        assert 'class="tile"' not in answer.text
    answer = bare_client.get(f"/api/v1/images/{id_}/similar")
    assert "--embedder color-layout" in error(answer, 404)["message"]


def test_openapi_says_what_an_upload_holds(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"400", "404", "408", "413", "415", "503"} <= set(
        paths["/api/v1/similar"]["post"]["responses"]
    )
    body = paths["/api/v1/similar"]["post"]["requestBody"]
    fields = body["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(fields) == {"file", "q", "box", "model", "limit"}

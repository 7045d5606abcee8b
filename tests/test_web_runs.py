"""Runs on pages: started, followed by events, stopped; and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.web_catalog import HTML, error
from tests.web_jobs import (
    PHOTOS,
    asking,
    browsing,
    ended,
    indexed_catalog,
    model_store,
    photos_folder,
    wait_for,
)
from vistadex.catalog import Catalog
from vistadex.catalog.runs import Recorder, list_runs
from vistadex.progress import Silent

pytestmark = pytest.mark.timeout(180)
photos = pytest.fixture(photos_folder)
store = pytest.fixture(model_store)
catalog = pytest.fixture(indexed_catalog)
client = pytest.fixture(browsing)
ORDER = {"source": "1", "detector": "yolox_nano", "only": "all"}


def test_a_run_says_what_a_labeler_refused(client: TestClient, catalog: Catalog) -> None:
    for refused, said in ((2, "3 indexed, 0 unchanged, 0 failed, 2 without the labeler"), (0, "")):
        with Recorder(catalog, "index", "photos with google-vision", Silent()) as recorder:
            recorder.summary = {"images": 3, "indexed": 3, "refused": refused}
        sentence = client.get("/api/v1/runs").json()["runs"][0]["sentence"]
        assert said in sentence
        assert ("without the labeler" in sentence) == bool(refused)


def heard(client: TestClient, id: int) -> list[dict[str, object]]:
    """Every event of a run until its stream ends."""
    lines = client.get(f"/api/v1/runs/{id}/events").text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data")]


def test_an_index_of_photographs_is_started_and_followed_to_its_end(client: TestClient) -> None:
    begun = client.post("/api/v1/runs", data=ORDER).json()
    assert (begun["kind"], begun["status"]) == ("index", "running")
    events = heard(client, begun["id"])
    last = events[-1]
    assert last["status"] == "done"
    assert last["failures"] == {"not_an_image": 1}
    assert last["numbers"]["indexed"] == PHOTOS  # type: ignore[index]
    assert str(last["sentence"]).startswith(f"{PHOTOS + 1} images: {PHOTOS} indexed (")
    assert [one["id"] for one in client.get("/api/v1/runs").json()["runs"]] == [2, 1]


def test_a_form_leads_to_the_page_of_its_run(client: TestClient) -> None:
    answer = client.post("/api/v1/runs", data=ORDER, headers=HTML, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/2")
    ended(client, 2)
    page = client.get("/runs/2", headers=HTML).text
    assert 'href="/errors?reason=not_an_image"' in page
    assert "data-live" not in page
    assert "http-equiv" not in page


def test_a_run_is_stopped_and_what_is_committed_stays(client: TestClient, photos: Path) -> None:
    for path in sorted(photos.glob("0*.jpg")):
        for copy in range(20):
            (photos / f"{path.stem}-{copy}.jpg").write_bytes(path.read_bytes())
    begun = client.post("/api/v1/runs", data=ORDER).json()
    wait_for(lambda: (client.get(f"/api/v1/runs/{begun['id']}").json()["done"] or 0) > 0)
    page = client.get(f"/runs/{begun['id']}", headers=HTML).text
    assert f'action="/api/v1/runs/{begun["id"]}/stop"' in page
    assert '<noscript><meta http-equiv="refresh"' in page
    assert client.post(f"/api/v1/runs/{begun['id']}/stop").status_code == 200
    last = ended(client, begun["id"])
    assert last["status"] == "stopped"
    assert 0 < last["done"] < PHOTOS * 21  # type: ignore[operator]
    error(client.post(f"/api/v1/runs/{begun['id']}/stop"), 400)


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"source": "99"}, 404, "the catalog has none of this id"),
        ({"source": "/etc"}, 400, "source"),
        ({"source": ""}, 400, "source"),
        ({"detector": ""}, 400, "no model is chosen"),
        ({"detector": "../../etc/passwd"}, 404, "not installed; there are: yolox_nano"),
        ({"detector": "hf://someone/model.onnx"}, 404, "not installed"),
        ({"classifier": "yolox_nano"}, 404, "there are: none"),
        ({"only": "some"}, 400, "only"),
    ],
)
def test_only_known_sources_and_installed_models_are_started(
    client: TestClient, change: dict[str, str], status: int, said: str
) -> None:
    assert said in error(client.post("/api/v1/runs", data=ORDER | change), status)["message"]
    assert len(client.get("/api/v1/runs").json()["runs"]) == 1


def test_nothing_is_started_or_stopped_when_read_only(catalog: Catalog, tmp_path: Path) -> None:
    with asking(catalog, tmp_path, read_only=True) as client:
        error(client.post("/api/v1/runs", data=ORDER), 403)
        error(client.post("/api/v1/runs/1/stop"), 403)
        error(client.post("/api/v1/datasets", data={"classes": "person"}), 403)
        for path in ("/runs", "/datasets"):
            page = client.get(path, headers=HTML)
            assert page.status_code == 200
            assert 'method="post"' not in page.text


def test_a_run_from_a_terminal_is_followed_but_not_stopped(
    catalog: Catalog, client: TestClient
) -> None:
    with Recorder(catalog, "relate", "all images", Silent()) as recorder:
        recorder.update(listed=1000, listing=False, done=250, failed=0)
        wait_for(lambda: list_runs(catalog)[0].numbers.get("done") == 250)
        page = client.get("/runs/2", headers=HTML).text
        assert 'max="1000" value="250"' in page
        assert "/stop" not in page
        error(client.post("/api/v1/runs/2/stop"), 404)


def test_a_stream_tells_every_change_once(catalog: Catalog, client: TestClient) -> None:
    recorder = Recorder(catalog, "import", "coco from x", Silent())
    with recorder:
        recorder.update(listed=10, listing=True, done=1, failed=0)
        wait_for(lambda: bool(list_runs(catalog)[0].numbers.get("done")))
        recorder.summary = {"imported": 7, "boxes": 5, "relations": 2}
        time.sleep(1)
    events = heard(client, 2)
    assert len(events) == 1  # It has ended: nothing follows.
    assert str(events[0]["sentence"]).startswith("7 images imported with 5 boxes and 2 relations")


def test_a_training_says_what_came_out(catalog: Catalog, client: TestClient) -> None:
    with Recorder(catalog, "train", "detector of 3 classes on x", Silent()) as recorder:
        recorder.summary = {"epochs": 5, "images": 1292, "metrics": {"AP50": 0.81234}}
    said = client.get("/api/v1/runs").json()["runs"][0]["sentence"]
    assert said.startswith("A detector trained for 5 epochs on 1,292 images, AP50 0.812, in ")


def test_a_failed_run_shows_why_without_markup(catalog: Catalog, client: TestClient) -> None:
    with pytest.raises(ValueError, match="alert"), Recorder(catalog, "index", "<b>", Silent()):
        raise ValueError("<script>alert(1)</script>")
    for path in ("/runs", "/runs/2"):
        page = client.get(path, headers=HTML).text
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert" not in page


@pytest.mark.parametrize("path", ["/runs/99", "/api/v1/runs/99", "/api/v1/runs/99/events"])
def test_an_unknown_run_is_a_404(client: TestClient, path: str) -> None:
    error(client.get(path), 404)


@pytest.mark.parametrize("path", ["/runs/x", "/runs/0", "/runs?before=0", "/api/v1/runs?limit=0"])
def test_odd_parameters_are_refused(client: TestClient, path: str) -> None:
    error(client.get(path), 400)


def test_older_runs_are_behind_a_link(catalog: Catalog, client: TestClient) -> None:
    for _ in range(3):
        with Recorder(catalog, "relate", "all images", Silent()):
            pass
    first = client.get("/api/v1/runs?limit=2").json()
    assert [one["id"] for one in first["runs"]] == [4, 3]
    rest = client.get(f"/api/v1/runs?before={first['next']}").json()
    assert [one["id"] for one in rest["runs"]] == [2, 1]
    assert rest["next"] is None

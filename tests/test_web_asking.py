"""Asking models about pictures that are sent: answers as indexing gives them, limits, bad files."""

from __future__ import annotations

import gc
import io
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.labeler_servers import Fault, Script, vision_server
from tests.web_catalog import HTML, error
from vistadex import index
from vistadex.catalog import Catalog
from vistadex.errors import UsageError
from vistadex.models import ModelStore
from vistadex.web import Serving, asking, create_app, serve, uploads
from vistadex.web import askable as module
from vistadex.web.askable import Askable, in_time

ADDRESS = "http://127.0.0.1:8765"
PICTURES = 6


@pytest.fixture(scope="session")
def weights(shared_data: Path) -> Path:
    return shared_data / "weights"


@pytest.fixture(scope="module")
def store_folder(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    store = ModelStore(folder)
    store.add(weights / "yolox_nano.onnx")
    store.add(
        weights / "coral_mobilenet_v2_1.0_224_quant.tflite",
        name="mobilenet",
        classes=weights / "coral_imagenet_labels.txt",
    )
    return folder


@pytest.fixture(autouse=True)
def _models(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTADEX_MODELS", str(store_folder))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "catalog.db"), create=True) as catalog:
        yield catalog


def opened(catalog: Catalog, tmp_path: Path, **options: Any) -> TestClient:
    app = create_app(catalog, tmp_path / "cache", **options)
    return TestClient(app, base_url=ADDRESS, raise_server_exceptions=False)


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    with opened(catalog, tmp_path) as client:
        yield client


@pytest.fixture(scope="session")
def photos(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "coco/images/val").glob("*.jpg"))[:PICTURES]


def png(size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "orange").save(file, "PNG")
    return file.getvalue()


def files(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (path.name, path.read_bytes())) for path in paths]


def asked(client: TestClient, kind: str, sent: Any, **said: object) -> dict[str, Any]:
    answer = client.post(f"/api/v1/{kind}", files=sent, data=said)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("least", [None, 0.25, 0.5])
def test_boxes_are_those_of_indexing_to_the_last_digit(
    client: TestClient, catalog: Catalog, photos: list[Path], tmp_path: Path, least: float | None
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos:
        shutil.copy(photo, folder)
    index(folder, detector="yolox_nano", catalog=catalog, min_score=least or 0.25)
    said = {} if least is None else {"min_score": least}
    found = asked(client, "detect", files(*photos), **said)
    assert sum(len(one["boxes"]) for one in found["files"]) > 10
    results = client.get("/api/v1/search").json()["results"]
    kept = {one["uri"].rpartition("/")[2]: one for one in results}
    assert len(kept) == len(photos)
    for one in found["files"]:
        image = client.get(f"/api/v1/images/{kept[one['name']]['id']}").json()
        for box in image["boxes"]:
            assert box.pop("model") == "yolox_nano"
        assert one["boxes"] == image["boxes"]
        by_name = {c["class"]: c for c in one["classes"]}
        assert by_name == {c["class"]: c for c in image["classes"]}
        assert (one["width"], one["height"]) == (image["width"], image["height"])
    (model,) = client.get("/api/v1/stats").json()["models"]
    assert found["model"] == {key: model[key] for key in ("name", "sha256", "task", "parameters")}


def test_names_of_a_classifier_are_those_of_indexing(
    client: TestClient, catalog: Catalog, photos: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos[0], folder)
    index(folder, classifier="mobilenet", catalog=catalog)
    found = asked(client, "classify", files(photos[0]), model="mobilenet")
    (result,) = client.get("/api/v1/search").json()["results"]
    image = client.get(f"/api/v1/images/{result['id']}").json()
    (one,) = found["files"]
    assert one["boxes"] == []
    assert one["classes"]
    assert {c["class"]: c for c in one["classes"]} == {c["class"]: c for c in image["classes"]}
    scores = [c["score"] for c in one["classes"]]
    assert scores == sorted(scores, reverse=True)


def test_a_bad_file_fails_alone(client: TestClient, shared_data: Path, photos: list[Path]) -> None:
    robust = shared_data / "robust"
    sent = files(robust / "broken.png", photos[0], robust / "decompression_bomb.gif")
    sent += [("files", ("empty.jpg", b"")), ("files", ("page.html", b"<script>alert(1)</script>"))]
    sent += files(robust / "truncated_image.png", robust / "arrow.heic")
    found = asked(client, "detect", sent)["files"]
    assert [one["error"] and one["error"]["reason"] for one in found] == [
        "corrupt",
        None,
        "too_large",
        "empty",
        "not_an_image",
        "truncated",
        None,
    ]
    assert found[1]["boxes"]
    assert (found[6]["width"], found[6]["height"]) == (3024, 4032)
    for one in found:
        assert one["error"] is None or (one["error"]["message"] and not one["boxes"])


def test_a_picture_with_too_many_pixels_is_refused_before_it_takes_memory(
    client: TestClient,
) -> None:
    (one,) = asked(client, "detect", {"files": ("x.png", png((9000, 6000)))})["files"]
    assert one["error"]["reason"] == "too_large"
    assert "limit of 50.0 million" in one["error"]["message"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "C:\\x\\passwd", "..\\passwd", "a\nb/passwd"]
)
def test_a_name_like_a_path_is_only_a_name(client: TestClient, name: str) -> None:
    (one,) = asked(client, "detect", {"files": (name, png())})["files"]
    assert one["name"] == "passwd"


@pytest.mark.parametrize(
    ("kind", "said", "status", "text"),
    [
        ("detect", {"model": "yolox_nan"}, 404, "there are: yolox_nano"),
        ("detect", {"model": "mobilenet"}, 404, "'mobilenet' is unknown; there are: yolox_nano"),
        ("detect", {"model": "/etc/passwd"}, 404, "'/etc/passwd' is unknown"),
        ("detect", {"model": "../yolox_nano.onnx"}, 404, "is unknown"),
        ("label", {}, 404, "--labeler NAME --max-calls N"),
        ("label", {"model": "google-vision"}, 404, "is unknown"),
        ("detect", {"min_score": "2"}, 400, "min_score: "),
        ("detect", {"min_score": "nan"}, 400, "min_score: "),
        ("detect", {"min_score": "many"}, 400, "min_score: "),
        ("detect", {"min_score": "0.01"}, 400, "min_score: 0.01, expected 0.05 to 1"),
    ],
)
def test_a_question_that_can_not_be_answered_says_why(
    client: TestClient, kind: str, said: dict[str, str], status: int, text: str
) -> None:
    answer = client.post(f"/api/v1/{kind}", files={"files": ("x.png", png())}, data=said)
    assert text in error(answer, status)["message"]


def test_the_nearest_names_are_suggested(client: TestClient) -> None:
    sent = {"files": ("x.png", png())}
    answer = client.post("/api/v1/detect", files=sent, data={"model": "yolo_nano"})
    assert error(answer, 404)["suggestions"] == ["yolox_nano"]


def test_no_message_names_a_folder_of_this_machine(client: TestClient, store_folder: Path) -> None:
    sent = {"files": ("x.png", png())}
    for kind in ("detect", "label"):
        answer = client.post(f"/api/v1/{kind}", files=sent, data={"model": "nowhere"})
        assert str(store_folder) not in answer.text


def test_one_of_two_models_must_be_named_unless_one_is_usual(
    client: TestClient, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "store")
    store.add(weights / "yolox_nano.onnx")
    store.add(weights / "yolox_nano.onnx", name="other", optimize=True)
    monkeypatch.setenv("VISTADEX_MODELS", str(store.folder))
    several = Askable()
    with pytest.raises(UsageError, match="expected one of other, yolox_nano"):
        several.find("detect", "")
    monkeypatch.setenv("VISTADEX_DETECTOR", "other")
    assert several.find("detect", "").name == "other"
    several.close()


def test_few_models_stay_loaded(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "store")
    store.add(weights / "yolox_nano.onnx")
    store.add(weights / "yolox_nano.onnx", name="other", optimize=True)
    monkeypatch.setenv("VISTADEX_MODELS", str(store.folder))
    monkeypatch.setattr(module, "MAX_LOADED", 1)
    askable = Askable()
    first, second = (askable.find("detect", name) for name in ("yolox_nano", "other"))
    loaded = askable.ready(first)
    assert askable.ready(first) is loaded
    gone = weakref.ref(loaded.model)  # type: ignore[call-overload,var-annotated]
    del loaded
    askable.ready(second)
    gc.collect()
    assert gone() is None
    askable.close()


# Limits


def test_too_many_or_too_large_files_are_refused(client: TestClient) -> None:
    many = [("files", (f"{i}.png", png())) for i in range(asking.LIMITS.max_files + 1)]
    assert "more than 20 files" in error(client.post("/api/v1/detect", files=many), 413)["message"]
    large = {"files": ("x.png", b"\0" * (asking.LIMITS.max_file_bytes + 1))}
    assert error(client.post("/api/v1/detect", files=large), 413)["type"] == "UploadTooLargeError"


def test_more_requests_than_are_taken_are_told_when_to_come_back(client: TestClient) -> None:
    taken = [uploads._PLACES.acquire(blocking=False) for _ in range(uploads.MAX_REQUESTS)]
    assert all(taken)
    try:
        answer = client.post("/api/v1/detect", files={"files": ("x.png", png())})
        assert error(answer, 503)["type"] == "UploadsBusyError"
        assert int(answer.headers["Retry-After"]) >= 1
    finally:
        for _ in taken:
            uploads._PLACES.release()
    assert client.post("/api/v1/detect", files={"files": ("x.png", png())}).status_code == 200


def test_every_place_is_given_back_whatever_happens(client: TestClient) -> None:
    for _ in range(2 * uploads.MAX_REQUESTS):
        client.post("/api/v1/detect", files={"files": ("x.png", b"no picture")})
        client.post("/api/v1/detect", content=b"x", headers={"Content-Type": "multipart/form-data"})
        client.post("/api/v1/detect", files={"files": ("x.png", png())}, data={"model": "none"})
    assert client.post("/api/v1/detect", files={"files": ("x.png", png())}).status_code == 200


def test_what_is_not_done_in_time_has_no_answer() -> None:
    askable, go = Askable(), threading.Event()
    pool = askable._models
    started = time.monotonic()
    assert in_time(pool, [lambda: 1, lambda: go.wait(10), lambda: 2], 0.3) == [1, None, 2]
    assert time.monotonic() - started < 5
    go.set()
    askable.close()


def test_no_temporary_file_is_left_and_nothing_is_stored(
    client: TestClient, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = catalog.stats(), sorted(tmp_path.rglob("*"))
    large = png() + b"\0" * (3 << 20)
    for sent in (large, b"\0" * (3 << 20)):
        asked(client, "detect", {"files": ("x.png", sent)})
    assert not list(folder.iterdir())
    assert (catalog.stats(), sorted(tmp_path.rglob("*"))) == before


def test_read_only_answers_and_foreign_pages_may_not_ask(catalog: Catalog, tmp_path: Path) -> None:
    with opened(catalog, tmp_path, read_only=True) as client:
        for place in ("/api/v1/detect", "/ask"):
            assert client.post(place, files={"files": ("x.png", png())}).status_code == 200
            foreign = {"Origin": "https://evil.example"}
            answer = client.post(place, files={"files": ("x.png", png())}, headers=foreign)
            assert answer.status_code == 403


# The page


def test_the_page_answers_without_javascript(
    client: TestClient, photos: list[Path], shared_data: Path
) -> None:
    start = client.get("/ask", headers=HTML).text
    assert 'action="/ask" method="post" enctype="multipart/form-data"' in start
    assert '<option value="detect/yolox_nano" selected>' in start
    assert '<option value="classify/mobilenet">' in start
    sent = files(photos[0], shared_data / "robust/broken.png", shared_data / "robust/arrow.heic")
    sent.append(("files", ("<b>.txt", b"no")))
    said = {"model": "detect/yolox_nano", "min_score": "0.4"}
    page = client.post("/ask", files=sent, data=said, headers=HTML)
    assert page.status_code == 200
    assert page.text.count('class="card"') == 4
    assert page.text.count('src="data:image/jpeg;base64,') == 2
    assert "&lt;b&gt;.txt" in page.text
    assert "<b>" not in page.text
    assert page.text.count('class="problem"') == 2
    rows = re.findall(r'<tr data-score="([\d.]+)"( hidden)?>', page.text)
    assert {bool(hidden) for _, hidden in rows} == {True, False}
    assert all((float(score) < 0.4) == bool(hidden) for score, hidden in rows)
    assert page.text.count("<rect") == len(rows)


def test_the_page_names_the_whole_picture_with_a_classifier(
    client: TestClient, photos: list[Path]
) -> None:
    said = {"model": "classify/mobilenet", "min_score": "0.05"}
    page = client.post("/ask", files=files(photos[0]), data=said, headers=HTML).text
    assert "<meter" in page
    assert "<rect" not in page
    assert '<option value="classify/mobilenet" selected>' in page


@pytest.mark.parametrize("model", ["detect/none", "label/yolox_nano", "none", "x/../y", "/"])
def test_the_page_says_that_a_model_is_unknown(client: TestClient, model: str) -> None:
    answer = client.post(
        "/ask", files={"files": ("x.png", png())}, data={"model": model}, headers=HTML
    )
    assert answer.status_code == 404
    assert 'class="problem"' in answer.text


def test_without_a_model_the_page_says_what_to_do(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "none"))
    with opened(catalog, tmp_path) as client:
        page = client.get("/ask", headers=HTML)
        assert page.status_code == 200
        assert "vistadex models add FILE.onnx" in page.text
        answer = client.post("/ask", files={"files": ("x.png", png())}, headers=HTML)
        assert answer.status_code == 404


def test_openapi_says_what_a_question_holds(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for kind in ("detect", "classify", "label"):
        body = paths[f"/api/v1/{kind}"]["post"]["requestBody"]
        fields = body["content"]["multipart/form-data"]["schema"]["properties"]
        assert set(fields) == {"files", "model", "min_score"}


# Labelers


def test_a_labeler_is_asked_within_its_bound(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script()
    with vision_server(script) as address:
        monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", address)
        askable = Askable(["google-vision"], 3)
        with opened(catalog, tmp_path, askable=askable) as client:
            page = client.get("/ask", headers=HTML).text
            assert '<option value="label/google-vision">' in page
            assert "3 more can be sent" in page
            assert script.pictures == 0
            sent = [("files", (f"{i}.png", png((64 + i, 64)))) for i in range(2)]
            found = asked(client, "label", sent, min_score=0.7)
            assert [c["class"] for one in found["files"] for c in one["classes"]] == ["Red"] * 2
            sent += [("files", ("bad.png", b"no picture"))]
            third = asked(client, "label", sent)["files"]
            names = [one["error"] and one["error"]["reason"] for one in third]
            assert sorted(map(str, names)) == ["None", "not_an_image", "unavailable"]
            answer = client.post("/api/v1/label", files={"files": ("x.png", png())})
            assert error(answer, 429)["type"] == "CallsUsedUpError"
            assert script.pictures == 3
            page = client.get("/ask", headers=HTML).text
            assert "0 more can be sent" in page


def test_a_labeler_that_failed_is_asked_again_and_its_calls_stay_counted(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script([Fault(7, "no permission")])
    with vision_server(script) as address:
        monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", address)
        with opened(catalog, tmp_path, askable=Askable(["google-vision"], 2)) as client:
            sent = {"files": ("x.png", png())}
            assert client.post("/api/v1/label", files=sent).status_code == 502
            assert client.post("/api/v1/label", files=sent).status_code == 200
            assert client.post("/api/v1/label", files=sent).status_code == 429
    assert script.pictures == 2


def test_visitors_are_not_told_whose_account_a_labeler_uses(
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script([Fault(7, "no permission for ops@project-123"), Fault(16, "key of ops@x")])
    with vision_server(script) as address:
        monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", address)
        with opened(catalog, tmp_path, askable=Askable(["google-vision"], 9)) as client:
            answer = client.post("/api/v1/label", files={"files": ("x.png", png())})
            said = error(answer, 502)["message"]
            assert "google-vision: the service can't be used now" in said
            page = client.post(
                "/ask",
                files={"files": ("x.png", png())},
                data={"model": "label/google-vision"},
                headers=HTML,
            )
            assert page.status_code == 502
    assert "ops@" not in answer.text + page.text
    assert "no permission for ops@project-123" in caplog.text
    assert "key of ops@x" in caplog.text


def test_credentials_that_are_gone_are_the_operators_business(
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script([Fault(7, "no permission")])
    with vision_server(script) as address:
        monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", address)
        with opened(catalog, tmp_path, askable=Askable(["google-vision"], 9)) as client:
            sent = {"files": ("x.png", png())}
            assert client.post("/api/v1/label", files=sent).status_code == 502
            monkeypatch.delenv("VISTADEX_GOOGLE_VISION_ENDPOINT")
            missing = str(tmp_path / "of-the-operator.json")
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", missing)
            answer = client.post("/api/v1/label", files=sent)
            assert "the service can't be used now" in error(answer, 502)["message"]
            assert str(tmp_path) not in answer.text
    assert "of-the-operator.json" in caplog.text


def test_calls_of_a_labeler_are_not_counted_by_several_processes(
    catalog: Catalog, tmp_path: Path
) -> None:
    serving = Serving(
        host="127.0.0.1",
        port=0,
        cache=tmp_path / "cache",
        workers=2,
        labelers=("google-vision",),
        max_calls=5,
    )
    with pytest.raises(UsageError, match="expected --workers 1"):
        serve(catalog, serving)


@pytest.mark.parametrize(("names", "most"), [(["google-vision"], None), ([], 5), (["none"], 5)])
def test_a_labeler_without_a_bound_or_an_unknown_one_stops_the_start(
    names: list[str], most: int | None
) -> None:
    with pytest.raises(UsageError, match=r"--max-calls|labeler 'none' is unknown"):
        Askable(names, most)

"""The pages of installed models: cards, how they were judged, and what they have seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.web_catalog import HTML, error
from tests.web_jobs import PHOTOS, asking, browsing, indexed_catalog, model_store, photos_folder
from vistadex.catalog import Catalog
from vistadex.errors import ModelError
from vistadex.models.cards import ModelCard
from vistadex.models.evaluations import checked
from vistadex.models.store import ModelStore

photos = pytest.fixture(photos_folder)
store = pytest.fixture(model_store)
catalog = pytest.fixture(indexed_catalog)
client = pytest.fixture(browsing)
JUDGED: dict[str, Any] = {
    "data": "240 pictures of COCO val2017",
    "confusion": {"classes": ["cat", "dog"], "counts": [[90, 10], [4, 96]]},
    "quantization": {"mAP": [0.4, 0.3], "size_bytes": [4_000_000, 1_000_000]},
}


def test_models_say_what_they_have_seen(client: TestClient) -> None:
    (one,) = client.get("/api/v1/models").json()["models"]
    assert (one["name"], one["task"], one["images"]) == ("yolox_nano", "detector", PHOTOS)
    assert len(one["card"]["classes"]) == 80
    page = client.get("/models", headers=HTML).text
    assert f"has seen {PHOTOS} images of this catalog" in page


def test_a_card_is_a_page(client: TestClient) -> None:
    page = client.get("/models/yolox_nano", headers=HTML).text
    assert "416 \u00d7 416" in page
    assert "Apache-2.0" in page
    assert 'href="/?q=person"' in page
    assert "Confusion" not in page


def test_an_evaluation_is_shown(client: TestClient, store: ModelStore) -> None:
    file = store.get("yolox_nano")
    (path,) = [one for one in store.folder.glob("**/*.json") if file.sha256[:8] in one.name]
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"evaluation": JUDGED, "metrics": {"mAP": 0.4}}))
    page = client.get("/models/yolox_nano", headers=HTML).text
    assert "Metrics on 240 pictures of COCO val2017" in page
    assert "cat taken for dog" in page
    assert "4 MB" in page
    assert "1 MB" in page
    assert "0.75" in page


def test_an_unknown_model_is_a_404(client: TestClient) -> None:
    assert "not installed" in error(client.get("/models/none"), 404)["message"]


def test_without_models_the_page_says_how_to_get_one(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "nothing"))
    with asking(catalog, tmp_path) as client:
        assert "vistadex models pull" in client.get("/models", headers=HTML).text
        assert client.get("/runs", headers=HTML).status_code == 200


def test_a_card_with_an_evaluation_reads_back(store: ModelStore) -> None:
    card = store.get("yolox_nano").card.to_dict() | {"evaluation": JUDGED}
    assert ModelCard.from_json(json.dumps(card), "card").to_dict() == card


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([], "evaluation: expected an object"),
        ({"other": 1}, "other: expected one of data"),
        ({"data": 5}, "evaluation.data"),
        ({"confusion": {"classes": ["a"]}}, "evaluation.confusion"),
        ({"confusion": {"classes": [], "counts": []}}, "classes"),
        ({"confusion": {"classes": ["a", "b"], "counts": [[1, 2]]}}, "counts"),
        ({"confusion": {"classes": ["a"], "counts": [[-1]]}}, "whole numbers"),
        ({"confusion": {"classes": ["a"], "counts": [[0.5]]}}, "whole numbers"),
        ({"quantization": {"mAP": [1]}}, "quantization.mAP"),
        ({"quantization": {"mAP": [1, float("nan")]}}, "quantization.mAP"),
        ({"quantization": {"mAP": [True, 1]}}, "quantization.mAP"),
    ],
)
def test_an_evaluation_that_is_none_is_refused(value: object, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        checked(value)

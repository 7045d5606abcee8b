"""A catalog of real photographs with a real model, for tests of what pages start."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import vistadex
from vistadex.catalog import Catalog
from vistadex.models.store import ModelStore
from vistadex.web import create_app

PHOTOS = 24


def wait_for(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until it is so."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


def photos_folder(tmp_path: Path, shared_data: Path) -> Path:
    """Photographs, and a file that is none; for a fixture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((shared_data / "coco/images/val").iterdir())[:PHOTOS]:
        shutil.copy(path, folder)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def model_store(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """A store with YOLOX-nano, as the setting says; for a fixture."""
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "models"))
    store = ModelStore(tmp_path / "models")
    store.add(shared_data / "weights/yolox_nano.onnx")
    return store


def indexed_catalog(tmp_path: Path, photos: Path, store: ModelStore) -> Iterator[Catalog]:
    """A catalog of the photographs; for a fixture."""
    assert store.list()
    with Catalog(str(tmp_path / "catalog.db"), create=True) as catalog:
        vistadex.index(photos, detector="yolox_nano", catalog=catalog)
        yield catalog


def browsing(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    """A client of the app; for a fixture."""
    with asking(catalog, tmp_path) as client:
        yield client


def asking(catalog: Catalog, tmp_path: Path, **options: object) -> TestClient:
    """A client of the app with options."""
    app = create_app(catalog, tmp_path / "cache", **options)  # type: ignore[arg-type]
    return TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False)


def ended(client: TestClient, id: int) -> dict[str, object]:
    """A run's JSON, once it has ended."""
    wait_for(lambda: client.get(f"/api/v1/runs/{id}").json()["status"] != "running")
    found: dict[str, object] = client.get(f"/api/v1/runs/{id}").json()
    return found

"""A catalog with pictures, and a client of the app that shows it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2 as httpx
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from vistadex.catalog import Catalog, registering, writing
from vistadex.records import Analyzer, Detections, Failure, Outcome
from vistadex.sources import open_source
from vistadex.web import create_app

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


def pictures_folder(tmp_path: Path) -> Path:
    """Pictures of several kinds; for a fixture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(drawn("JPEG"))
    (folder / "b.png").write_bytes(drawn("PNG", (300, 900)))
    (folder / "c.tif").write_bytes(drawn("TIFF"))
    (folder / "d.jpg").write_bytes(b"<script>alert(1)</script>")
    (folder / "e <b>.webp").write_bytes(drawn("WEBP", (2000, 100)))
    return folder


def filled_catalog(folder: Path, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog of the folder; for a fixture."""
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


def asking(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    """A client of the app; for a fixture."""
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

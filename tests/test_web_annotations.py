"""The image page of a picture that people have annotated beside a model, in a real browser."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright

import vistadex
from vistadex.catalog import Catalog
from vistadex.testing import RedSquareDetector, scene_jpeg
from vistadex.web import create_app
from vistadex.web.serving import bind

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The image page of a scene that a detector and a person have seen."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(scene_jpeg([("red square", 10, 20, 40)]))
    box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [90, 60, 30, 30], "iscrowd": 1}
    image = {"id": 7, "file_name": "a.jpg", "width": 160, "height": 120, "shot_by": "<b>Ann</b>"}
    names = [{"id": 1, "name": "knob"}]
    values = {"images": [image], "annotations": [box], "categories": names}
    (tmp_path / "said.json").write_text(json.dumps(values))
    with Catalog(tmp_path / "c.db", create=True) as catalog:
        vistadex.index(folder, detector=RedSquareDetector(), catalog=catalog)
        vistadex.import_annotations("coco", tmp_path / "said.json", images=folder, catalog=catalog)
        server = uvicorn.Server(
            uvicorn.Config(create_app(catalog, tmp_path / "cache"), log_level="warning")
        )
        socket = bind("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, args=([socket],))
        thread.start()
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/image/1"
        server.should_exit = True
        thread.join()
        socket.close()


def test_boxes_of_people_look_and_hide_by_themselves(url: str) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        page = browser.new_page()
        page.goto(url)
        human, found = page.locator("rect.human"), page.locator("rect:not(.human)")
        expect(human).to_have_count(1)
        expect(human.locator("title")).to_have_text("knob · human, crowd")
        expect(page.locator(".label", has_text="knob")).to_have_text("knob")
        expect(page.locator("aside dl.said")).to_contain_text("shot_by")
        expect(page.locator("aside dl.said")).to_contain_text("<b>Ann</b>")
        page.get_by_label("human").uncheck()
        expect(human).to_be_hidden()
        expect(found).to_be_visible()
        page.get_by_label("red-squares").uncheck()
        page.get_by_label("human").check()
        expect(human).to_be_visible()
        expect(found).to_be_hidden()
        browser.close()

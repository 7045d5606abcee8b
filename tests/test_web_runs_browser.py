"""Runs and data sets in a real browser: progress that moves, counts that follow the form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.test_web_browser import browser, context, serving
from tests.web_jobs import indexed_catalog, model_store, photos_folder
from vistadex.catalog import Catalog
from vistadex.catalog.runs import Recorder
from vistadex.progress import Silent

__all__ = ["browser", "context"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
photos = pytest.fixture(photos_folder)
store = pytest.fixture(model_store)
catalog = pytest.fixture(indexed_catalog)


@pytest.fixture
def site(catalog: Catalog, tmp_path: Path) -> Iterator[str]:
    with serving(catalog, tmp_path / "cache") as url:
        yield url


@pytest.fixture
def page(context: BrowserContext, site: str) -> Page:
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    return page


def test_progress_moves_without_a_reload(page: Page, site: str, catalog: Catalog) -> None:
    with Recorder(catalog, "relate", "all images", Silent()) as recorder:
        recorder.update(listed=1000, listing=False, done=250, failed=0)
        page.goto(f"{site}/runs")
        page.get_by_role("link", name="relate").click()
        page.evaluate("window.mark = 1")
        expect(page.get_by_text("250 of 1,000 images")).to_be_visible()
        recorder.update(listed=1000, listing=False, done=750, failed=0)
        expect(page.get_by_text("750 of 1,000 images")).to_be_visible()
        recorder.summary = {"relations": 12, "images": 1000}
    expect(page.get_by_text("12 relations in 1,000 images found")).to_be_visible()
    expect(page.locator("progress")).to_have_count(0)
    assert page.evaluate("window.mark") == 1


def test_an_index_is_started_from_the_page(page: Page, site: str) -> None:
    page.goto(f"{site}/runs")
    page.locator("select[name=only]").select_option("all")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("25 images: 24 indexed")).to_be_visible()
    page.get_by_role("link", name="not an image 1").click()
    expect(page.get_by_role("heading", name="1 image could not be read")).to_be_visible()


def test_counts_follow_the_form_and_a_set_is_built(page: Page, site: str) -> None:
    page.goto(f"{site}/datasets")
    expect(page.locator("#plan table")).to_have_count(0)
    page.get_by_label("person").check()
    row = page.locator("#plan tbody tr").first
    expect(row).to_contain_text("person")
    page.get_by_label("Images of each").fill("4")
    expect(row.locator("td").last).to_have_text("4")
    page.get_by_role("button", name="Build").click()
    link = page.get_by_role("link", name="Download zip")
    expect(link).to_be_visible()
    with page.expect_download() as waiting:
        link.click()
    assert waiting.value.suggested_filename.startswith("dataset-")


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("path", ["/runs", "/runs/1", "/models", "/models/yolox_nano"])
def test_pages_fit(page: Page, site: str, path: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(site + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 320])
def test_the_form_of_a_data_set_fits(page: Page, site: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{site}/datasets?q=person")
    assert page.evaluate("document.documentElement.scrollWidth") <= width

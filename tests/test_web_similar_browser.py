"""The page of similar images in a real browser: from an image, a part of it, and a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests import test_web_browser as pages
from tests.test_web_browser import drawn_boxes, fill, serving
from vistadex import index
from vistadex.catalog import Catalog

browser = pages.browser
context = pages.context
page = pages.page
pytestmark = pytest.mark.slow
COLORS = ("red", "darkred", "blue", "navy", "green", "olive")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for i, color in enumerate(COLORS):
        picture = Image.new("RGB", (320, 240), color)
        picture.paste("orange", (80, 60, 160, 180))
        picture.save(folder / f"{i}-{color}.jpg")
    with Catalog(str(tmp_path_factory.mktemp("catalog") / "c.db"), create=True) as catalog:
        fill(catalog, folder, drawn_boxes)
        index(folder, embedder="color-layout", catalog=catalog)
        with serving(catalog, tmp_path_factory.mktemp("cache")) as url:
            yield url


def test_a_person_goes_from_an_image_to_a_part_and_back(page: Page, site: str) -> None:
    page.goto(f"{site}/similar/1")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Similar to 0-red.jpg")
    expect(page.locator(".tile")).to_have_count(5)
    page.locator(".parts").get_by_role("link", name="dog", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Similar to a part of 0-red.jpg")
    expect(page.locator(".like rect")).to_have_count(1)
    page.go_back()
    page.locator(".tile").first.click()
    expect(page).to_have_url(f"{site}/image/2")


def test_a_query_narrows_the_page_and_stays_in_the_address(page: Page, site: str) -> None:
    page.goto(f"{site}/similar/1")
    page.get_by_label("Only images that this query finds").fill("dog>=9")
    page.get_by_role("button", name="Narrow").click()
    expect(page).to_have_url(f"{site}/similar/1?q=dog%3E%3D9")
    expect(page.get_by_text("No image that")).to_be_visible()


def test_a_person_sends_a_picture(page: Page, site: str, tmp_path: Path) -> None:
    Image.new("RGB", (100, 80), "darkblue").save(tmp_path / "mine.png")
    page.goto(f"{site}/similar")
    page.get_by_label("A picture").set_input_files(tmp_path / "mine.png")
    page.get_by_role("button", name="Find similar").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Similar to mine.png")
    expect(page.locator(".tile")).to_have_count(6)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Page, site: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("/similar", "/similar/1", "/similar/1?box=10,10,90,90"):
        page.goto(site + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width

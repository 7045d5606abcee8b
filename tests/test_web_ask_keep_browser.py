"""Keeping pictures from the page Ask in a real browser: one by one, all, and without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests import test_web_browser as pages
from tests.test_web_ask_browser import choose
from tests.test_web_browser import LOUD, serving
from tests.test_web_quality import LOOKS, RULES, SCREENSHOTS
from vistadex.catalog import Catalog
from vistadex.models import ModelStore

browser = pages.browser
context = pages.context
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = ModelStore(tmp_path_factory.mktemp("models"))
    store.add(shared_data / "weights" / "yolox_nano.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISTADEX_MODELS", str(store.folder))
        yield


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def site(models: None, place: Path, tmp_path: Path) -> Iterator[str]:
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        with serving(catalog, tmp_path / "cache", keep_to=str(place)) as url:
            yield url


@pytest.fixture
def page(context: BrowserContext, site: str) -> Iterator[Page]:
    """The page, which fails its test for anything in the console but a refusal."""
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda said: trouble.append(said.text) if said.type in LOUD else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(site + "/ask")
    yield page
    assert [one for one in trouble if "status of 502" not in one] == []


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "coco/images/val").glob("*.jpg"))[:3]


def stored(place: Path) -> int:
    return sum(path.is_file() for path in place.rglob("*"))


def test_a_picture_is_kept_by_its_button_and_shown_by_its_link(
    page: Page, place: Path, photos: list[Path], shared_data: Path
) -> None:
    choose(page, *photos[:2], shared_data / "robust" / "broken.png")
    expect(page.get_by_role("button", name="Keep ")).to_have_count(3)  # two, and all
    assert stored(place) == 0
    card = page.locator(".card").nth(1)
    boxes = card.locator("rect").count()
    card.get_by_role("button", name=f"Keep {photos[1].name}").click()
    link = card.get_by_role("link", name="image 1")
    expect(link).to_be_visible()
    expect(card.locator("rect")).to_have_count(boxes)
    assert stored(place) == 1
    expect(page.locator(".kept button")).to_have_count(1)
    link.click()
    page.wait_for_url("**/image/1")
    expect(page.locator("#picture img")).to_be_visible()


def test_all_are_kept_at_once_and_none_twice(page: Page, place: Path, photos: list[Path]) -> None:
    choose(page, *photos)
    page.get_by_role("button", name="Keep all").click()
    expect(page.locator(".kept a")).to_have_count(3)
    expect(page.locator(".card progress")).to_have_count(0)
    assert stored(place) == 3
    page.get_by_role("button", name="Keep all").click()  # nothing is left: asked and kept again
    expect(page.locator(".card")).to_have_count(6)
    expect(page.locator(".kept a")).to_have_count(6)
    assert stored(place) == 3


def test_a_place_that_fails_is_said_on_the_card(
    page: Page, place: Path, photos: list[Path]
) -> None:
    choose(page, photos[0])
    place.rmdir()
    place.write_text("in the way")
    page.locator(".kept button").click()
    expect(page.locator(".card .problem")).to_contain_text("the log of this server says why")
    expect(page.locator(".card img")).to_have_count(1)


def test_the_form_keeps_without_javascript(
    browser: Browser, site: str, place: Path, photos: list[Path]
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site + "/ask")
    page.locator("input[type=file]").set_input_files(photos)
    page.get_by_role("button", name="Keep all").click()
    expect(page.locator(".kept a")).to_have_count(3)
    assert stored(place) == 3
    context.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_what_is_kept_looks_right(
    browser: Browser, site: str, photos: list[Path], width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(site + "/ask")
    choose(page, *photos[:2])
    page.locator(".kept button").first.click()
    expect(page.locator(".kept a")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page, options=RULES).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"ask-kept-{width}-{scheme}.png", full_page=True)
    context.close()

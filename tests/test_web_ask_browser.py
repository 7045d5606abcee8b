"""The page Ask in a real browser: drops, the slider, what fails, a narrow window."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests import test_web_browser as pages
from tests.test_web_browser import LOUD, eventually, serving
from vistadex.catalog import Catalog
from vistadex.models import ModelStore
from vistadex.web import uploads

browser = pages.browser
context = pages.context
pytestmark = pytest.mark.slow
DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, { type: 'image/jpeg' }));
  const say = (kind) => document.body.dispatchEvent(
    new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
  say('dragover');
  const dropping = 'dropping' in document.documentElement.dataset;
  say('drop');
  return dropping;
}"""


@pytest.fixture(scope="module")
def site(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = ModelStore(tmp_path_factory.mktemp("models"))
    weights = shared_data / "weights"
    store.add(weights / "yolox_nano.onnx")
    labels = weights / "coral_imagenet_labels.txt"
    file = weights / "coral_mobilenet_v2_1.0_224_quant.tflite"
    store.add(file, name="mobilenet", classes=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISTADEX_MODELS", str(store.folder))
        with Catalog(str(tmp_path_factory.mktemp("catalog") / "c.db"), create=True) as catalog:
            with serving(catalog, tmp_path_factory.mktemp("cache")) as url:
                yield url


@pytest.fixture
def page(context: BrowserContext, site: str) -> Iterator[Page]:
    """The page, which fails its test for anything in the console but refusals."""
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda said: trouble.append(said.text) if said.type in LOUD else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(site + "/ask")
    yield page
    assert [one for one in trouble if not re.search("status of (413|503)", one)] == []


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "coco/images/val").glob("*.jpg"))[:3]


def choose(page: Page, *paths: Path) -> None:
    page.locator("input[type=file]").set_input_files(list(paths))
    expect(page.locator(".card progress")).to_have_count(0)


def test_several_files_are_answered_each_for_itself(
    page: Page, photos: list[Path], shared_data: Path
) -> None:
    robust = shared_data / "robust"
    choose(page, photos[0], robust / "broken.png", robust / "arrow.heic", photos[1])
    cards = page.locator(".card")
    expect(cards.locator("h2")).to_have_text(
        [photos[0].name, "broken.png", "arrow.heic", photos[1].name]
    )
    expect(cards.nth(1).locator(".problem")).to_be_visible()
    expect(cards.locator(".problem")).to_have_count(1)
    expect(cards.locator("img")).to_have_count(3)
    assert all(cards.locator("img").evaluate_all("all => all.map(one => one.naturalWidth > 0)"))
    assert cards.nth(0).locator("tr:visible").count() > 0
    expect(page.locator("#said")).to_have_text("")


def test_the_slider_acts_at_once_on_bars_and_boxes(page: Page, photos: list[Path]) -> None:
    requests: list[str] = []
    choose(page, *photos)
    page.on("request", lambda request: requests.append(request.url))
    slider = page.locator("[name=min_score]")
    shown = {}
    for least in ("0.05", "0.6", "1"):
        slider.fill(least)
        expect(page.locator("output")).to_have_text(f"{float(least):.2f}")
        rows = page.locator("tr:not([hidden])").count()
        assert rows == page.locator("rect:not([hidden])").count()
        shown[least] = rows
    assert shown["0.05"] > shown["0.6"] > shown["1"] == 0
    every = page.locator("tr").count()
    assert shown["0.05"] == every
    hidden = [text.partition(" ")[0] for text in page.locator(".below").all_inner_texts()]
    assert sum(map(int, hidden)) == every
    assert requests == []


def test_a_file_is_dropped_anywhere_on_the_page(page: Page, photos: list[Path]) -> None:
    data = b64encode(photos[0].read_bytes()).decode()
    assert page.evaluate(DROP, ["dropped.jpg", data])
    expect(page.locator(".card h2")).to_have_text("dropped.jpg")
    expect(page.locator(".card img")).to_have_count(1)
    assert not page.evaluate("'dropping' in document.documentElement.dataset")


def test_another_model_is_asked_about_the_same_files(page: Page, photos: list[Path]) -> None:
    choose(page, photos[0])
    expect(page.locator(".card rect").first).to_be_attached()
    page.locator("select").select_option("classify/mobilenet")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator(".card progress")).to_have_count(0)
    expect(page.locator(".card").first.locator("p").first).to_contain_text("mobilenet")
    expect(page.locator(".card").first.locator("rect")).to_have_count(0)


def test_a_busy_server_is_asked_again(page: Page, photos: list[Path]) -> None:
    taken = [uploads._PLACES.acquire(blocking=False) for _ in range(uploads.MAX_REQUESTS)]
    try:
        page.locator("input[type=file]").set_input_files(photos[0])
        expect(page.locator(".card progress")).to_have_count(1)
        page.wait_for_timeout(500)
    finally:
        for _ in taken:
            uploads._PLACES.release()
    expect(page.locator(".card img")).to_have_count(1)


def test_a_file_above_the_limit_says_so_on_its_card(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\0" * (33 << 20))
    choose(page, large)
    expect(page.locator(".card .problem")).to_have_count(1)


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("colors", ["light", "dark"])
def test_nothing_is_wider_than_the_window(
    browser: Browser, site: str, photos: list[Path], width: int, colors: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if colors == "dark" else "light",
    )
    page = context.new_page()
    page.goto(site + "/ask")
    choose(page, *photos[:2])
    eventually(page, f"document.documentElement.scrollWidth <= {width}")
    context.close()


def test_the_form_works_without_javascript(browser: Browser, site: str, photos: list[Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site + "/ask")
    page.locator("input[type=file]").set_input_files(photos)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".card img")).to_have_count(len(photos))
    assert page.locator("tr:visible").count() > 0
    context.close()

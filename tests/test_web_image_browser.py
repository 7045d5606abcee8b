"""Looking closely at one image, and at lists of classes and relations, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

import vistadex
from tests.test_web_browser import box_of, browser, context, eventually, serving
from vistadex.catalog import Catalog
from vistadex.testing import RedSquareDetector, scene_jpeg

__all__ = ["browser", "context"]

pytestmark = pytest.mark.slow
NAMES = ["knob", "person", "horse"]
RIDES = {"subject": {"category": 1, "bbox": [10, 50, 10, 50]}, "predicate": 0}
RIDES["object"] = {"category": 2, "bbox": [40, 110, 30, 150]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three scenes that a detector and a person have seen; the first with a relation."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "photos"
    folder.mkdir()
    block = Image.Exif()
    block[0x0110] = "Box Brownie"
    for i in range(3):
        path = folder / f"{i}.jpg"
        path.write_bytes(scene_jpeg([("red square", 10 + 20 * i, 20, 40)]))
        with Image.open(path) as scene:
            scene.save(path, exif=block, quality=95)
    box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [90, 60, 30, 30]}
    image = {"id": 7, "file_name": "0.jpg", "width": 160, "height": 120}
    categories = [{"id": 1, "name": "knob"}]
    values = {"images": [image], "annotations": [box], "categories": categories}
    (home / "said.json").write_text(json.dumps(values))
    vrd = home / "vrd"
    vrd.mkdir()
    (vrd / "annotations_test.json").write_text(json.dumps({"0.jpg": [RIDES]}))
    (vrd / "objects.json").write_text(json.dumps(NAMES))
    (vrd / "predicates.json").write_text(json.dumps(["rides"]))
    with Catalog(home / "c.db", create=True) as catalog:
        vistadex.index(
            folder, detector=RedSquareDetector(), embedder="color-layout", catalog=catalog
        )
        vistadex.import_annotations(
            "coco", home / "said.json", images=folder, model="ann", catalog=catalog
        )
        vistadex.import_annotations("vrd", vrd, images=folder, catalog=catalog)
        with serving(catalog, home / "cache") as url:
            yield url


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that fails its test for anything in the console."""
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda one: trouble.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    yield page
    assert [one for one in trouble if "status of 400" not in one] == []


def scale(page: Page) -> float:
    return float(page.locator("#picture").evaluate("one => one.style.getPropertyValue('--z') || 1"))


def line(page: Page) -> float:
    """Width of a box's line on the screen, in pixels."""
    width = page.locator("#picture rect").first.evaluate(
        "one => parseFloat(getComputedStyle(one).strokeWidth)"
    )
    return float(width) * scale(page)


def test_what_is_under_the_pointer_stays_there_while_zooming(page: Page, site: str) -> None:
    page.goto(f"{site}/image/1")
    rect = page.locator("#picture rect[data-class=knob]")
    x, y, width, height = box_of(rect)
    page.mouse.move(x, y)
    thin = line(page)
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, -100)
    eventually(page, "document.querySelector('.stage').classList.contains('close')")
    assert scale(page) > 1.2
    after = box_of(rect)
    assert (after[0], after[1]) == pytest.approx((x, y), abs=3)
    assert after[2] == pytest.approx(width * scale(page), rel=0.1)
    assert line(page) == pytest.approx(thin, rel=0.05)
    for _ in range(3):
        page.mouse.wheel(0, 100)
    eventually(page, "!document.querySelector('.stage').classList.contains('close')")
    assert box_of(rect) == pytest.approx((x, y, width, height), abs=1)


def test_dragging_moves_and_leaves_no_gap(page: Page, site: str) -> None:
    page.goto(f"{site}/image/1")
    x, y, width, height = box_of(page.locator(".stage"))
    page.mouse.dblclick(x + width / 2, y + height / 2)
    assert scale(page) == 3
    before = box_of(page.locator("#picture"))
    page.mouse.down()
    page.mouse.move(x + width / 2 + 60, y + height / 2 + 40, steps=4)
    page.mouse.up()
    after = box_of(page.locator("#picture"))
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((60, 40), abs=2)
    page.mouse.down()
    page.mouse.move(x + width + 3000, y + height + 3000, steps=4)
    page.mouse.up()
    left, top, *_ = box_of(page.locator("#picture"))
    assert left <= x + 1
    assert top <= y + 1
    page.mouse.dblclick(x + width / 2, y + height / 2)
    assert scale(page) == 1


def test_keys_and_buttons_zoom(page: Page, site: str) -> None:
    page.goto(f"{site}/image/1")
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert scale(page) == pytest.approx(2.25)
    page.keyboard.press("-")
    assert scale(page) == pytest.approx(1.5)
    page.keyboard.press("0")
    assert scale(page) == 1
    page.get_by_role("button", name="Larger").click()
    assert scale(page) == 1.5
    page.get_by_role("button", name="Whole picture").click()
    assert scale(page) == 1
    page.locator("#q").fill("a+")
    page.locator("#q").press("+")
    assert scale(page) == 1


def test_two_fingers_zoom(page: Page, site: str) -> None:
    page.goto(f"{site}/image/1")
    page.locator(".stage").evaluate(
        """stage => {
          const { left, top, width, height } = stage.getBoundingClientRect();
          const [x, y] = [left + width / 2, top + height / 2];
          const say = (type, pointerId, clientX) => stage.dispatchEvent(
            new PointerEvent(type, { pointerId, clientX, clientY: y, bubbles: true }));
          say('pointerdown', 1, x - 50); say('pointerdown', 2, x + 50);
          say('pointermove', 1, x - 100); say('pointermove', 2, x + 100);
          say('pointerup', 1, x - 100); say('pointerup', 2, x + 100);
        }"""
    )
    assert scale(page) == pytest.approx(2, rel=0.05)


def test_a_relation_marks_both_of_its_boxes(page: Page, site: str) -> None:
    page.goto(f"{site}/image/1")
    one = page.locator(".relations li")
    expect(one).to_have_count(1)
    expect(one).to_contain_text("person · rides · horse")
    expect(one).to_contain_text("human")
    one.hover()
    expect(page.locator("#picture")).to_have_class("marked")
    drawn = page.locator("#both").get_attribute("d") or ""
    assert drawn == "M9 9H50V50H9zM29 39H150V110H29z"
    page.locator("h1").hover()
    expect(page.locator("#both")).to_have_attribute("d", "")
    one.locator("a").click()
    page.wait_for_url("**/?q=relation*")
    expect(page.locator(".tile")).to_have_count(1)


def test_what_is_drawn_is_what_is_shown(page: Page, site: str) -> None:
    page.goto(f"{site}/image/1")
    link = page.locator("#drawn")
    expect(link).to_have_attribute("href", re.compile("/picture/1/drawn.min_score=0$"))
    page.locator("#least").fill("0.5")
    page.get_by_label("Show boxes of knob").uncheck()
    href = link.get_attribute("href") or ""
    assert "min_score=0.5" in href
    assert "classes=red+square" in href
    assert "knob" not in href
    for finder in page.locator(".finders input").all():
        finder.uncheck()
    assert (link.get_attribute("href") or "").endswith("&models=")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "0-boxes.jpg"


def test_similar_images_and_the_camera_come_when_looked_at(page: Page, site: str) -> None:
    page.goto(f"{site}/image/1")
    page.locator(".alike").scroll_into_view_if_needed()
    expect(page.locator("#alike .tile")).to_have_count(2)
    page.locator(".parts a").first.hover()
    expect(page.locator("#picture")).to_have_class("marked")
    page.locator("#camera summary").click()
    expect(page.locator("#camera dd")).to_have_text(["Box Brownie"])
    page.locator("#alike .tile").first.click()
    page.wait_for_url(re.compile("/image/[23]"))


def test_classes_follow_the_box_and_show_examples(page: Page, site: str) -> None:
    page.goto(f"{site}/classes")
    expect(page.locator("tbody tr")).to_have_count(4)
    page.locator("[name=contains]").press_sequentially("squ")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.wait_for_url("**/classes?contains=squ")
    page.locator("tbody a").focus()
    expect(page.locator("#about img")).to_have_count(3)
    expect(page.locator("#about h2")).to_have_text("red square")
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Boxes").click()
    page.wait_for_url("**sort=boxes*")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_relations_follow_their_boxes(page: Page, site: str) -> None:
    page.goto(f"{site}/relations")
    expect(page.locator("h1")).to_have_text("1 kind of relation, 1 in all")
    page.get_by_label("Class 1").fill("Per%")
    expect(page.locator("#list")).to_contain_text("No relation is so")
    page.get_by_label("ignore case").check()
    expect(page.locator("h1")).to_have_text("1 kind of relation, 1 in all")
    page.wait_for_url("**ignore_case=true*")
    page.get_by_label("Class 2").fill("hrose")
    expect(page.locator(".problem")).to_contain_text("did you mean horse?")


def test_all_of_it_is_there_without_javascript(browser: Browser, site: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{site}/image/1")
        expect(page.locator("#picture rect").first).to_be_visible()
        expect(page.locator("#zoom")).to_be_hidden()
        page.get_by_text("Camera", exact=True).click()
        page.get_by_role("link", name="What the camera wrote").click()
        expect(page.locator("#exif dd")).to_have_text(["Box Brownie"])
        page.go_back()
        page.get_by_role("link", name="Similar images").click()
        expect(page.locator(".tile")).to_have_count(2)
        page.goto(f"{site}/classes")
        page.locator("[name=contains]").fill("squ")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        page.goto(f"{site}/relations")
        page.get_by_label("Relation", exact=True).fill("r%")
        page.locator("main form button").click()
        page.get_by_role("link", name="All their images").click()
        expect(page.locator(".tile")).to_have_count(1)


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize(
    "path", ["/image/1", "/image/1/exif", "/relations", "/classes/about?name=knob"]
)
def test_no_page_is_wider_than_its_window(
    browser: Browser, site: str, path: str, width: int
) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.goto(site + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_modules_stay_small() -> None:
    folder = Path(cast(Any, vistadex).__file__).parent / "web" / "static"
    assert (folder / "lists.js").stat().st_size <= 1_500
    assert (folder / "image.js").stat().st_size <= 7_500

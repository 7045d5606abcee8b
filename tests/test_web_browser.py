"""The pages in a real browser: what a person does with keyboard and mouse, and what they see."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Route,
    expect,
    sync_playwright,
)

from vistadex.catalog import Catalog, registering, writing
from vistadex.records import Analyzer, Detections, Failure, Outcome
from vistadex.sources import open_source
from vistadex.web import create_app
from vistadex.web.serving import bind

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 30_000
"""Other tests may be using this machine."""
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-quic --no-first-run "
    "--disable-component-update --disable-sync"
).split()
CLASSES = ("dog", "donut", "person", "hot dog", "traffic light")
SIZES = ((320, 240), (240, 320), (480, 200), (300, 300))
PICTURES = 150
LOUD = ("error", "warning")

pytestmark = pytest.mark.slow


def fill(catalog: Catalog, folder: Path, found: Callable[[int, int, int], Detections]) -> None:
    """Registers a folder's pictures with what `found` says for (number, width, height)."""
    analyzer = SimpleNamespace(
        sha256="ab" * 32, name="drawn", task="detector", classes=CLASSES, card={}, parameters={}
    )
    source = open_source(folder)
    entries = [entry for page in source.pages() for entry in page]
    outcomes = []
    for i, entry in enumerate(entries):
        if entry.size_bytes < 100:
            failure = Failure("truncated", "JPEG: breaks off inside its header")
            outcomes.append(Outcome(entry, failure=failure))
            continue
        with Image.open(folder / entry.key) as picture:
            width, height = picture.size
        outcomes.append(Outcome(entry, width, height, (found(i, width, height),)))
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, source.uri)
        registered = registering.register_analyzer(connection, cast(Analyzer, analyzer))
        writing.write_outcomes(connection, source_id, [registered], outcomes)


def drawn_boxes(i: int, width: int, height: int) -> Detections:
    """One dog in each picture, ever surer, and others in some."""
    boxes = [(width / 4, height / 4, width / 2, height * 3 / 4)]
    class_ids, scores = [0], [0.99 - i / 1000]
    for class_id, every in ((1, 10), (2, 3), (3, 30), (4, 50)):
        if i % every == 0:
            boxes.append((0, 0, width / 5, height / 5))
            class_ids.append(class_id)
            scores.append(0.3 + i / 1000)
    order = np.argsort(-np.array(scores))
    return Detections(
        np.array(boxes, np.float32)[order],
        np.array(scores, np.float32)[order],
        np.array(class_ids, np.int64)[order],
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES):
        width, height = SIZES[i % len(SIZES)]
        picture = Image.new("RGB", (width, height), (i, 120, 255 - i))
        picture.paste("orange", (width // 4, height // 4, width // 2, height * 3 // 4))
        picture.save(folder / f"{i:03}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with Catalog(str(tmp_path_factory.mktemp("catalog") / "c.db"), create=True) as catalog:
        fill(catalog, folder, drawn_boxes)
        with serving(catalog, tmp_path_factory.mktemp("cache")) as url:
            yield url


class serving:
    """A real server over a catalog on a free port of this machine."""

    def __init__(self, catalog: Catalog, cache_folder: Path, **options: Any) -> None:
        config = uvicorn.Config(create_app(catalog, cache_folder, **options), log_level="warning")
        self.server = uvicorn.Server(config)
        self.socket = bind("127.0.0.1", 0)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent; apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)  # for every test of this process
    with sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS) as browser:
            yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, site: str) -> Iterator[Page]:
    """A page that fails its test for anything in the console or from another host."""
    page = context.new_page()
    trouble: list[str] = []
    page.on(
        "console",
        lambda message: trouble.append(message.text) if message.type in LOUD else None,
    )
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(site) else trouble.append(request.url),
    )
    yield page
    assert [one for one in trouble if "status of 400" not in one] == []


def results(page: Page, site: str, query: str) -> list[dict[str, Any]]:
    found = page.request.get(f"{site}/api/v1/search?{query}")
    return cast(list[dict[str, Any]], json.loads(found.text())["results"])


def shown_ids(page: Page) -> list[int]:
    return page.locator(".tile").evaluate_all("tiles => tiles.map(tile => +tile.dataset.id)")


def scrolled_to_end(page: Page) -> None:
    for _ in range(20):
        if not page.locator("#more").count():
            return
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(100)
    pytest.fail("the end was never reached")


def eventually(page: Page, condition: str) -> None:
    """Waits for a condition; Playwright's own wait needs the eval that our pages forbid.

    A condition may speak of elements that are not there yet.
    """
    attempt = f"(() => {{ try {{ return {condition}; }} catch {{ return false; }} }})()"
    for _ in range(PATIENCE_MS // 50):
        if page.evaluate(attempt):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {condition}")


def box_of(locator: Locator) -> tuple[float, float, float, float]:
    box = locator.bounding_box()
    assert box is not None
    return box["x"], box["y"], box["width"], box["height"]


def test_the_box_has_focus_and_typing_searches(page: Page, site: str) -> None:
    page.goto(site)
    expect(page.locator(".total")).to_contain_text(f"{PICTURES} images")
    page.keyboard.type("person")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=person")
    expect(page.locator(".total")).to_contain_text("50 images")
    assert shown_ids(page) == [one["id"] for one in results(page, site, "q=person")]
    scores = [float(text) for text in page.locator(".score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)


def test_autocomplete_by_keyboard_after_an_operator(page: Page, site: str) -> None:
    page.goto(site)
    box = page.locator("#q")
    page.keyboard.type("do")
    options = page.get_by_role("option")
    expect(options).to_have_text(["dog 150", "donut 15", "hot dog 5"])
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#choices")).to_be_hidden()
    page.keyboard.press("Control+a")
    page.keyboard.type("dog & tra")
    expect(options).to_have_text(["traffic light 3"])
    page.keyboard.press("ArrowDown")
    expect(box).to_have_attribute("aria-activedescendant", "choice-0")
    expect(options.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    expect(options.first).to_have_attribute("aria-selected", "false")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=dog+%26+traffic+light")
    expect(page.locator(".tile")).to_have_count(3)


def test_autocomplete_recovers_from_a_failed_answer(context: BrowserContext, site: str) -> None:
    page, answers = context.new_page(), [500, 200]

    def answer(route: Route) -> None:
        if answers.pop(0) == 500:
            route.fulfill(status=500, body='{"error": {}}')
        else:
            route.continue_()

    page.route("**/api/v1/complete?*", answer)
    page.goto(site)
    with page.expect_response("**/api/v1/complete?*"):
        page.keyboard.type("d")
    page.keyboard.type("o")
    expect(page.get_by_role("option")).to_have_text(["dog 150", "donut 15", "hot dog 5"])


def test_autocomplete_by_mouse_after_a_minus(page: Page, site: str) -> None:
    page.goto(site)
    page.keyboard.type("dog -per")
    page.get_by_role("option").first.click()
    page.wait_for_url("**/?q=dog+-person")
    expect(page.locator(".total")).to_contain_text("100 images")


def test_scrolling_loads_every_image_once(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    expect(page.locator(".tile").nth(59)).to_be_attached()
    scrolled_to_end(page)
    ids = shown_ids(page)
    assert ids == [one["id"] for one in results(page, site, "q=dog&limit=1000")]
    assert len(ids) == len(set(ids)) == PICTURES


def test_rows_are_justified_and_nothing_jumps(context: BrowserContext, site: str) -> None:
    page = context.new_page()
    page.route("**/thumbnail/**", lambda route: route.abort())
    page.goto(site)
    before = [box_of(page.locator(".tile").nth(i)) for i in range(12)]
    page.unroute("**/thumbnail/**")
    page.reload()
    page.wait_for_load_state("networkidle")
    assert [box_of(page.locator(".tile").nth(i)) for i in range(12)] == before
    first_row = [box for box in before if box[1] == before[0][1]]
    assert max(box[3] for box in first_row) - min(box[3] for box in first_row) < 1
    last = first_row[-1]
    assert last[0] + last[2] == pytest.approx(1280 - 16, abs=1)


def test_back_and_reload_keep_the_place(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    scrolled_to_end(page)
    tile = page.locator(".tile").nth(130)
    tile.scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    assert place > 2000
    tile.click()
    page.wait_for_url("**/image/**")
    page.go_back()
    eventually(page, f"Math.abs(scrollY - {place}) < 2")
    assert len(shown_ids(page)) == PICTURES
    expect(tile).to_be_focused()
    page.reload()
    eventually(page, f"Math.abs(scrollY - {place}) < 2")
    tile.click()
    page.wait_for_url("**/image/**")
    page.keyboard.press("Escape")
    page.wait_for_url("**/?q=dog")
    eventually(page, f"Math.abs(scrollY - {place}) < 2")


def test_boxes_lie_where_the_record_says(page: Page, site: str) -> None:
    record = results(page, site, "q=hot+dog")[0]
    page.goto(f"{site}/image/{record['id']}")
    x, y, width, height = box_of(page.locator("#picture img"))
    assert width / height == pytest.approx(record["width"] / record["height"], rel=0.01)
    scale = width / record["width"]
    rects = page.locator("#picture rect")
    expect(rects).to_have_count(len(record["boxes"]))
    for i, box in enumerate(record["boxes"]):
        x0, y0, x1, y1 = box["box"]
        wanted = (x + x0 * scale, y + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale)
        drawn = rects.nth(i).evaluate(
            "r => { const b = r.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }"
        )
        assert drawn == pytest.approx(wanted, abs=3), box
        expect(rects.nth(i)).to_have_attribute("data-class", box["class"])


def test_boxes_in_the_grid_lie_over_their_objects(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    tile = page.locator(".tile").first
    expect(tile.locator("svg")).to_have_css("opacity", "0")
    tile.hover()
    expect(tile.locator("svg")).to_have_css("opacity", "1")
    x, y, width, height = box_of(tile)
    drawn = tile.locator("path").evaluate(
        "r => { const b = r.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }"
    )
    wanted = (x + width / 4, y + height / 4, width / 4, height / 2)
    assert drawn == pytest.approx(wanted, abs=4)


def test_classes_and_score_hide_boxes_and_link_to_searches(page: Page, site: str) -> None:
    record = results(page, site, "q=hot+dog+%26+person")[0]
    page.goto(f"{site}/image/{record['id']}")
    dog = page.locator('rect[data-class="dog"]')
    person = page.locator('rect[data-class="person"]')
    page.get_by_label("Show boxes of dog").uncheck()
    expect(dog).to_be_hidden()
    expect(person).to_be_visible()
    page.get_by_label("Show boxes of dog").check()
    page.locator("#least").fill("0.9")
    expect(person).to_be_hidden()
    page.locator("h1").click()
    page.keyboard.press("b")
    expect(page.locator("#picture svg")).to_be_hidden()
    page.get_by_role("link", name="hot dog", exact=True).click()
    page.wait_for_url("**/?q=hot+dog")


def test_arrows_walk_the_result_and_escape_returns(page: Page, site: str) -> None:
    ids = [one["id"] for one in results(page, site, "q=dog&limit=100")]
    page.goto(site + "/?q=dog")
    page.locator(".tile").nth(1).click()
    page.wait_for_url(f"**/image/{ids[1]}?**")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/image/{ids[2]}?**")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/image/{ids[1]}?**")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/image/{ids[0]}?**")
    page.go_back()
    page.wait_for_url("**/?q=dog")
    page.locator(".tile").nth(1).click()
    page.wait_for_url(f"**/image/{ids[1]}?**")
    page.keyboard.press("Escape")
    page.wait_for_url("**/?q=dog")


def test_walking_goes_on_behind_what_was_loaded(page: Page, site: str) -> None:
    page.goto(site + "/?q=hot+dog")
    ids = shown_ids(page)
    page.goto(f"{site}/?q=hot+dog&limit=2")
    page.evaluate("document.querySelector('#more')?.remove()")
    first = page.locator(".tile").first
    first.click()
    for id in ids[1:]:
        page.wait_for_load_state()
        page.keyboard.press("ArrowRight")
        page.wait_for_url(f"**/image/{id}?**")
    page.wait_for_load_state()
    expect(page.locator("#next")).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/image/{ids[-2]}?**")


def test_keys_move_over_the_grid(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    page.keyboard.press("ArrowDown")
    tiles = page.locator(".tile")
    expect(tiles.nth(0)).to_be_focused()
    page.keyboard.press("l")
    page.keyboard.press("ArrowRight")
    expect(tiles.nth(2)).to_be_focused()
    page.keyboard.press("h")
    expect(tiles.nth(1)).to_be_focused()
    page.keyboard.press("j")
    expect(tiles.nth(1)).not_to_be_focused()
    page.keyboard.press("k")
    expect(tiles.nth(1)).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    expect(page.locator("#q")).to_have_value("dog")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/image/**")


def test_an_unknown_class_offers_the_nearest(page: Page, site: str) -> None:
    page.goto(site)
    page.keyboard.type("dgo & person")
    page.keyboard.press("Enter")
    expect(page.locator(".problem")).to_contain_text("unknown class 'dgo'")
    expect(page.locator("#q")).to_have_value("dgo & person")
    page.get_by_role("link", name="dog & person", exact=True).click()
    expect(page.locator(".total")).to_contain_text("50 images")


def test_a_chip_takes_its_part_away(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog+%26+person")
    page.get_by_role("link", name="without dog").click()
    page.wait_for_url("**/?q=person")


def test_a_bad_image_is_a_quiet_place(context: BrowserContext, site: str) -> None:
    page = context.new_page()
    page.goto(site + "/errors")
    expect(page.locator("h1")).to_have_text("1 image could not be read")
    page.locator(".bad a").first.click()
    expect(page.locator(".problem")).to_contain_text("breaks off inside its header")
    picture = page.locator("#picture img")
    eventually(page, "document.querySelector('#picture img').complete")
    assert picture.evaluate("picture => picture.naturalWidth") > 0
    page.get_by_role("link", name="truncated").click()
    page.wait_for_url("**/errors?reason=truncated")


def test_everything_can_be_reached_without_javascript(browser: Browser, site: str) -> None:
    context = browser.new_context(
        java_script_enabled=False, viewport={"width": 1280, "height": 800}
    )
    page = context.new_page()
    page.goto(site)
    page.locator("#q").fill("dog")
    page.locator("#q").press("Enter")
    page.wait_for_url("**/?q=dog")
    seen: list[str] = []
    while True:
        hrefs = [link.get_attribute("href") or "" for link in page.locator(".tile").all()]
        seen += [re.sub(r"\?.*", "", href) for href in hrefs]
        if not page.locator("#more").count():
            break
        with page.expect_navigation():
            page.locator("#more").click()
    assert len(seen) == len(set(seen)) == PICTURES
    page.locator(".tile").last.click()
    page.wait_for_url("**/image/**")
    expect(page.locator("#picture rect").first).to_be_visible()
    page.locator("#back").click()
    page.wait_for_url("**/?q=dog")
    page.locator(".tile").first.click()
    page.locator("#next").click()
    page.wait_for_url(f"**{seen[1]}?**")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize(
    "path", ["/", "/?q=dog+%26+person", "/image/1", "/errors", "/classes", "/docs"]
)
def test_no_page_is_wider_than_its_window(
    browser: Browser, site: str, path: str, width: int, scheme: Any, tmp_path: Path
) -> None:
    with browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme
    ) as context:
        page = context.new_page()
        page.goto(site + path)
        assert page.screenshot(path=tmp_path / "page.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness = int(paper.removeprefix("rgb(").split(",")[0])
        assert lightness > 200 if scheme == "light" else lightness < 60


def test_narrow_grid_has_two_columns(browser: Browser, site: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        page.goto(site)
        tiles = [box_of(page.locator(".tile").nth(i)) for i in range(3)]
        assert tiles[0][1] == tiles[1][1] < tiles[2][1]
        assert tiles[0][0] == tiles[2][0]


def test_real_photographs_are_shown(
    context: BrowserContext, shared_data: Path, tmp_path: Path
) -> None:
    def whole(i: int, width: int, height: int) -> Detections:
        box = np.array([[0, 0, width, height]], np.float32)
        return Detections(box, np.array([0.5], np.float32), np.array([0]))

    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        fill(catalog, shared_data / "coco" / "images" / "val", whole)
        with serving(catalog, tmp_path / "cache") as url:
            page = context.new_page()
            page.goto(url)
            page.wait_for_load_state("networkidle")
            sizes = page.locator(".tile img").evaluate_all(
                "all => all.slice(0, 20).map(one => [one.naturalHeight, one.complete])"
            )
            assert all(100 <= height <= 256 and complete for height, complete in sizes)
            page.locator(".tile").nth(3).click()
            eventually(page, "document.querySelector('#picture img').naturalWidth > 300")
            page.close()

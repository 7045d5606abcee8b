"""The search page in a real browser: facets, selection, completion of relations, the theme."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests import test_web_browser as pages
from tests.test_web_browser import drawn_boxes, eventually, fill, serving, shown_ids
from vistadex.catalog import Catalog, registering, writing
from vistadex.records import Analyzer, Outcome, Relation, Relations
from vistadex.sources import open_source

browser = pages.browser
context = pages.context
page = pages.page
pytestmark = pytest.mark.slow
PICTURES = 80


def relate(catalog: Catalog, folder: Path) -> None:
    """In every fifth picture a dog is under something."""
    relater = SimpleNamespace(
        sha256="cd" * 32, name="geometry", task="relater", classes=(), card={}, parameters={}
    )
    source = open_source(folder)
    entries = [entry for page in source.pages() for entry in page][::5]
    found = Relations((Relation("dog", "lies under", "person", score=0.5),))
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, source.uri)
        registered = registering.register_analyzer(connection, cast(Analyzer, relater))
        outcomes = [Outcome(entry, 300, 200, (found,)) for entry in entries]
        writing.write_outcomes(connection, source_id, [registered], outcomes)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES):
        Image.new("RGB", (300, 200), (i, 120, 255 - i)).save(folder / f"{i:03}.jpg")
    with Catalog(str(tmp_path_factory.mktemp("catalog") / "c.db"), create=True) as catalog:
        fill(catalog, folder, drawn_boxes)
        relate(catalog, folder)
        with serving(catalog, tmp_path_factory.mktemp("cache")) as url:
            yield url


def facet(page: Page, name: str) -> str:
    link = page.locator("#facets a", has_text=name).first
    expect(link).to_be_visible()
    return link.inner_text()


def test_a_facet_refines_the_search_to_as_many_images_as_it_says(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    number = re.sub(r"\D", "", facet(page, "person"))
    page.locator("#facets a", has_text="person").first.click()
    page.wait_for_url("**/?q=dog+%26+person")
    expect(page.locator(".total strong")).to_have_text(number)
    page.locator("#facets a", has_text="lies under").click()
    expect(page.locator(".chip").nth(2)).to_contain_text("lies under")
    page.go_back()
    expect(page.locator(".total strong")).to_have_text(number)


def test_a_bar_of_scores_is_a_door(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    bar = page.locator(".bars").first.locator("a[href]").last
    expect(bar).to_be_visible()
    number = re.search(r": (\d+) image", bar.get_attribute("title") or "")
    assert number is not None
    bar.click()
    page.wait_for_url("**score**")
    expect(page.locator(".total strong")).to_have_text(number[1])


def test_the_grid_stays_where_it_is_when_facets_come(page: Page, site: str) -> None:
    waiting = []
    page.route("**/facets?*", lambda route: waiting.append(route))
    page.goto(site + "/?q=dog&min_score=0.01")  # a query whose facets nobody has asked for yet
    tile = page.locator(".tile").nth(3)
    before = tile.bounding_box()
    expect(page.locator(".skeleton")).to_be_attached()
    eventually(page, "document.querySelector('.skeleton.asked') !== null")
    waiting[0].continue_()
    facet(page, "person")
    assert tile.bounding_box() == before


def test_facets_that_do_not_come_leave_the_pictures(browser: Browser, site: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.route("**/facets?*", lambda route: route.abort())
        page.goto(site + "/?q=dog&min_score=0.02")
        expect(page.locator("#facets")).to_have_text("The server did not answer.")
        expect(page.locator(".tile").first).to_be_visible()


def test_below_720_px_facets_are_a_sheet_that_slides_up(browser: Browser, site: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        asked = []
        page.on("request", lambda one: asked.append(one.url) if "/facets?" in one.url else None)
        page.goto(site + "/?q=dog")
        expect(page.locator("#facets")).to_be_hidden()
        assert not asked
        page.locator("#refine").click()
        facet(page, "person")
        page.keyboard.press("Escape")
        expect(page.locator("#facets")).to_be_hidden()
        expect(page.locator("#refine")).to_be_focused()
        page.locator("#refine").click()
        page.locator("#facets a", has_text="person").first.click()
        page.wait_for_url("**/?q=dog+%26+person")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_selected_images_are_what_the_actions_are_for(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    ids = shown_ids(page)
    tiles = page.locator(".tile")
    expect(page.locator("#actions summary")).to_have_text("Use all")
    tiles.nth(1).hover()
    tiles.nth(1).locator(".pick").click()
    tiles.nth(3).click(modifiers=["Shift"])
    expect(page.locator("#actions summary")).to_have_text("3 selected")
    tiles.nth(5).focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator("#actions summary")).to_have_text("4 selected")
    with page.expect_download() as download:
        page.locator("#csv").click()
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == [ids[1], ids[2], ids[3], ids[5]]
    expect(page.locator("#dataset")).to_have_attribute(
        "href", f"/datasets?ids={ids[1]},{ids[2]},{ids[3]},{ids[5]}"
    )
    expect(page.locator("#collect [name=ids]")).to_have_value(
        f"{ids[1]},{ids[2]},{ids[3]},{ids[5]}"
    )
    page.locator("#pick-none").click()
    expect(page.locator("#actions summary")).to_have_text("Use all")
    expect(page.locator("[data-picked]")).to_have_count(0)


def test_a_selection_survives_the_way_to_an_image_and_back(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    page.locator(".tile").nth(2).focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url("**/image/**")
    page.go_back()
    expect(page.locator("[data-picked]")).to_have_count(1)
    page.goto(site + "/?q=dog+sort:newest")
    expect(page.locator("#actions summary")).to_have_text("1 selected")


def test_more_selected_than_an_address_holds_is_still_one_file(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog")
    page.evaluate(
        "sessionStorage.picked = JSON.stringify([...Array(901).keys()].slice(1).map(String))"
    )
    page.reload()
    expect(page.locator("#actions summary")).to_have_text("900 selected")
    expect(page.locator("#dataset")).to_be_hidden()
    with page.expect_download() as download:
        page.locator("#csv").click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    assert [row[0] for row in rows] == ["id", *(str(i + 1) for i in range(PICTURES))]


def test_relations_are_completed_part_by_part(page: Page, site: str) -> None:
    page.goto(site)
    options = page.get_by_role("option")
    page.keyboard.type("lies")
    expect(options).to_have_text(["lies under relation · 16"])
    page.keyboard.press("Control+a")
    page.keyboard.type("relation:do")
    expect(options.first).to_have_text(f"dog {PICTURES}")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#q")).to_have_value('relation:"dog/')
    page.keyboard.type("un")
    expect(options).to_have_text(["lies under relation · 16"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(page.locator("#q")).to_have_value('relation:"dog/lies under/')
    page.keyboard.type("per")
    page.get_by_role("option").first.click()
    page.wait_for_url("**/?q=relation**")
    expect(page.locator(".total strong")).to_have_text("16")


def test_collections_and_words_are_completed(page: Page, site: str) -> None:
    page.request.post(site + "/api/v1/collections", form={"name": "My holiday", "ids": "1,2,3"})
    page.goto(site)
    options = page.get_by_role("option")
    page.keyboard.type("dog Collection:")
    expect(options).to_have_text(["My holiday 3"])
    page.keyboard.type("HOL")
    expect(options).to_have_text(["My holiday 3"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(page.locator("#q")).to_have_value('dog Collection:"My holiday" ')
    page.keyboard.type("sort:")
    expect(options).to_have_count(2)
    page.keyboard.type("n")
    expect(options).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**sort%3Anewest**")
    expect(page.locator(".total strong")).to_have_text("3")


def test_a_selection_is_taken_out_of_a_collection(page: Page, site: str) -> None:
    page.request.post(site + "/api/v1/collections", form={"name": "few", "ids": "4,5,6"})
    page.goto(site + "/?q=collection%3Afew")
    page.locator("#actions summary").click()
    expect(page.get_by_role("button", name="Take out of few")).to_be_hidden()
    page.keyboard.press("Escape")
    page.locator(".tile").first.focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Take out of few").click()
    expect(page.locator(".total strong")).to_have_text("2")
    expect(page.locator("#actions summary")).to_have_text("Use all")
    page.goto(site + "/?q=dog")
    expect(page.get_by_role("button", name="Take out of")).to_have_count(0)


def test_the_theme_is_remembered_and_there_from_the_first(browser: Browser, site: str) -> None:
    with browser.new_context(color_scheme="light") as context:
        page = context.new_page()
        page.goto(site)
        paper = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(paper)
        button = page.locator("#theme")
        expect(button).to_have_attribute("aria-label", "Theme: auto")
        button.click()
        button.click()
        expect(button).to_have_attribute("aria-label", "Theme: dark")
        dark = page.evaluate(paper)
        assert dark != light
        page.goto(site + "/classes", wait_until="commit")
        eventually(page, "document.body !== null")
        assert page.evaluate(paper) == dark
        page.locator("#theme").click()
        assert page.evaluate(paper) == light


def test_all_any_and_the_order_are_switches(page: Page, site: str) -> None:
    page.goto(site + "/?q=dog+%26+person")
    page.get_by_role("link", name="Any", exact=True).click()
    page.wait_for_url("**/?q=dog+%7C+person")
    expect(page.locator(".total strong")).to_have_text(str(PICTURES))
    page.get_by_role("link", name="newest", exact=True).click()
    expect(page.locator("#q")).to_have_value("dog | person sort:newest")
    ids = shown_ids(page)
    assert ids == sorted(ids, reverse=True)

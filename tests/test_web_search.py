"""What stands beside a search: facets as doors, completion, switches, CSV."""

from __future__ import annotations

import csv
import html
import io
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.test_catalog_facets import filled
from tests.web_catalog import HTML, asking, error, filled_catalog, pictures_folder
from vistadex.catalog import Catalog
from vistadex.grammar import WORDS, parse
from vistadex.web import create_app, queries, spreadsheet
from vistadex.web.api import Asked

folder = pytest.fixture(pictures_folder)
catalog = pytest.fixture(filled_catalog)
client = pytest.fixture(asking)
VALUE = re.compile(r'<a href="([^"]*)"><span>([^<]*)</span> <b>([\d,]*)</b>')
FIELD = re.compile(r"(\w+): \[([^\]]*)\]")
"""Of the words that the search box knows."""
BAR = re.compile(r'<a(?: href="([^"]*)")? title="(\w+) from ([\d.]+): ([\d,]+) ')


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[TestClient]:
    """Images of several sources, models and statuses, with relations."""
    with Catalog(str(tmp_path / "mixed.db"), create=True) as catalog:
        filled(catalog, random.Random(7))
        app = create_app(catalog, tmp_path / "cache", hosts=None)
        with TestClient(app) as client:
            yield client


def total(client: TestClient, href: str) -> int:
    answer = client.get("/api/v1/search" + html.unescape(href).removeprefix("/"))
    assert answer.status_code == 200, answer.text
    return int(answer.json()["total"])


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?q=dog",
        "?q=dog+%26+cat",
        "?q=dog+-cat",
        "?q=dog+%7C+cat",
        "?q=dog>=2",
        "?q=relation://",
        "?q=dog+score>=0.3+sort:newest",
        "?q=dog&min_score=0.4&source=/b",
        "?q=size>=0.1&model=second",
        "?q=dog+status:unseen",
    ],
)
def test_every_value_is_a_door_to_as_many_images(mixed: TestClient, query: str) -> None:
    page = mixed.get("/facets" + query, headers=HTML)
    assert page.status_code == 200
    values = VALUE.findall(page.text)
    bars = [one for one in BAR.findall(page.text) if one[0]]
    assert values + bars
    for href, label, number in values:
        assert total(mixed, href) == int(number.replace(",", "")), label
    for href, what, edge, number in bars:
        if what == "score":
            assert total(mixed, href) == int(number.replace(",", "")), edge
        else:  # boxes, of which an image may have several
            assert 0 < total(mixed, href) <= int(number.replace(",", "")), edge


def test_facets_name_all_that_tells_images_apart(mixed: TestClient) -> None:
    page = mixed.get("/facets?q=dog", headers=HTML).text
    titles = re.findall("<h2>([^<]*)</h2>", page)
    assert titles == [
        "Also in these",
        "Relations",
        "Found by",
        "Source",
        "Status",
        "Score",
        "Box size",
    ]
    assert ">dog<" not in page


def test_what_no_query_can_say_is_not_offered(mixed: TestClient) -> None:
    either = mixed.get("/facets?q=dog+%7C+cat", headers=HTML).text
    assert "Also in these" not in either
    assert "<h2>Score</h2>" not in either
    large = mixed.get("/facets?q=dog+size>=0.1", headers=HTML).text
    assert "Also in these" not in large
    assert "<h2>Relations</h2>" in large
    for query in ("dog+-cat", "dog>=2", "dog+%26+cat"):
        assert "<h2>Score</h2>" not in mixed.get(f"/facets?q={query}", headers=HTML).text


def test_bars_below_the_limit_lead_nowhere(mixed: TestClient) -> None:
    page = mixed.get("/facets?q=dog+score>=0.5", headers=HTML).text
    edges = {float(edge): href for href, what, edge, _ in BAR.findall(page) if what == "score"}
    assert not any(href for edge, href in edges.items() if edge <= 0.5)
    assert any(href for edge, href in edges.items() if edge > 0.5)


def test_facets_as_json_are_those_of_the_library(client: TestClient, catalog: Catalog) -> None:
    found = client.get("/api/v1/facets", params={"q": "dog"}).json()
    assert found["images"] == 2
    assert {one["class"]: one["images"] for one in found["classes"]} == {
        "dog": 2,
        "cat": 1,
        "traffic light": 1,
    }
    assert sum(found["scores"]) == 2
    one = client.get("/api/v1/facets", params={"q": "dog", "limit": 1}).json()
    assert one["classes"] == [{"class": "dog", "images": 2}]
    error(client.get("/api/v1/facets", params={"q": "zebra"}), 400)


def test_without_a_script_facets_are_a_part_of_the_page(client: TestClient) -> None:
    plain = client.get("/?q=dog", headers=HTML).text
    assert "Also in these" not in plain
    assert 'href="/?q=dog&amp;facets=1">Refine' in plain
    whole = client.get("/?q=dog&facets=1", headers=HTML).text
    assert "Also in these" in whole
    assert 'href="/?q=dog+%26+cat&amp;facets=1"' in whole


def test_completion_begins_with_whole_names(client: TestClient) -> None:
    def names(**params: str | int) -> list[str]:
        found = client.get("/api/v1/complete", params=params).json()["choices"]
        return [one["name"] for one in found]

    assert names(prefix="t") == ["t-shirt", "traffic light"] or names(prefix="t") == [
        "traffic light",
        "t-shirt",
    ]
    assert names(prefix="LIGHT") == ["traffic light"]
    assert names(prefix="t", limit=1) == names(prefix="t")[:1]
    assert names(prefix="dog", kind="predicate") == []
    assert names(prefix="DoG") == ["dog"]
    assert names(prefix="nothing") == []
    error(client.get("/api/v1/complete", params={"prefix": "d", "kind": "image"}), 400)
    error(client.get("/api/v1/complete"), 400)


def test_completion_knows_collections(client: TestClient, catalog: Catalog) -> None:
    for name in ("My holiday", "holiday", "Größe"):
        catalog.collect(name, query="dog")

    def names(prefix: str) -> list[str]:
        params = {"prefix": prefix, "kind": "collection"}
        return [
            one["name"] for one in client.get("/api/v1/complete", params=params).json()["choices"]
        ]

    assert names("HOL") == ["holiday", "My holiday"]
    assert names("GRÖSSE") == ["Größe"]
    assert sorted(names("")) == ["Größe", "My holiday", "holiday"]
    found = client.get("/api/v1/complete", params={"prefix": "hol"}).json()["choices"]
    assert found == []  # without its kind, a name is a class or a predicate


def test_the_search_box_knows_the_words_of_the_grammar() -> None:
    script = (Path(queries.__file__).parent / "static" / "search.js").read_text(encoding="utf-8")
    (line,) = re.findall(r"^const WORDS = \{(.*)\};$", script, re.MULTILINE)
    found = {name: tuple(re.findall(r"'(\w+)'", some)) for name, some in FIELD.findall(line)}
    assert found == WORDS


def test_completion_knows_predicates(mixed: TestClient) -> None:
    def choices(**params: str) -> list[dict[str, object]]:
        answer = mixed.get("/api/v1/complete", params=params)
        return list(answer.json()["choices"])

    [predicate] = choices(prefix="o", kind="predicate")
    assert (predicate["name"], predicate["kind"]) == ("on", "predicate")
    assert predicate in choices(prefix="o")
    assert not choices(prefix="o", kind="class")


@pytest.mark.parametrize(
    "text",
    [
        "dog status:ok",
        "dog size>=0.35",
        "dog sort:newest",
        'dog | cat status:unseen size>=0.05 score>0.5 sort:newest source:"a b" split:"x"',
        '"size" & "shoe size"',
    ],
)
def test_queries_as_text_say_the_same(text: str) -> None:
    query = parse(text)
    assert parse(queries.query_text(query)) == query


def test_switches_lead_to_any_and_to_the_newest() -> None:
    def shown(text: str) -> list[tuple[str, str, bool]]:
        every = [one for switch in queries.switches(Asked(q=text)) for one in switch.choices]
        return [(one.label, one.href, one.is_on) for one in every]

    assert shown("") == []
    assert shown("dog") == [
        ("best", "/?q=dog", True),
        ("newest", "/?q=dog+sort%3Anewest", False),
    ]
    assert shown("dog | cat")[:2] == [
        ("All", "/?q=dog+%26+cat", False),
        ("Any", "/?q=dog+%7C+cat", True),
    ]


def test_an_order_is_no_chip() -> None:
    labels = [chip.label for chip in queries.chips(Asked(q="dog size>=0.3 status:ok sort:newest"))]
    assert labels == ["dog", "size ≥ 0.3", "ok"]


def test_csv_has_every_image_in_the_order_of_the_search(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreadsheet, "AT_A_TIME", 1)
    answer = client.get("/api/v1/search.csv", params={"q": "dog"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="vistadex.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    found = client.get("/api/v1/search", params={"q": "dog"}).json()["results"]
    assert [int(row["id"]) for row in rows] == [one["id"] for one in found]
    for row, one in zip(rows, found, strict=True):
        assert tuple(row) == spreadsheet.COLUMNS
        assert row["uri"] == one["uri"]
        assert json.loads(row["classes"]) == [kind["class"] for kind in one["classes"]]
        assert json.loads(row["scores"]) == [kind["score"] for kind in one["classes"]]
        assert json.loads(row["boxes"]) == [kind["boxes"] for kind in one["classes"]]
        assert json.loads(row["models"]) == ["drawn"]


def test_csv_of_chosen_images_keeps_their_order(client: TestClient) -> None:
    every = [one["id"] for one in client.get("/api/v1/search").json()["results"]]
    wanted = [every[2], every[0], 999]
    text = client.get("/api/v1/search.csv", params={"ids": ",".join(map(str, wanted))}).text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [int(row["id"]) for row in rows] == wanted[:2]


def test_no_cell_of_a_csv_is_a_formula(client: TestClient) -> None:
    rows = list(csv.reader(io.StringIO(client.get("/api/v1/search.csv").text, newline="")))
    assert len(rows) == 5
    assert any("-minus" in row[6] for row in rows)
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in row)


@pytest.mark.parametrize(
    "query", ["q=zebra", "q=%26", "ids=1,x", "ids=,", "min_score=2", "source=nowhere"]
)
def test_a_csv_that_can_not_be_made_is_refused_before_it_begins(
    client: TestClient, query: str
) -> None:
    error(client.get(f"/api/v1/search.csv?{query}"), 400)


def test_actions_are_for_all_that_the_search_finds(client: TestClient) -> None:
    page = client.get("/?q=dog&min_score=0.8", headers=HTML).text
    assert 'href="/api/v1/search.csv?q=dog&amp;min_score=0.8"' in page
    assert 'name="q" value="dog score&gt;=0.8"' in page


def test_what_changes_something_is_hidden_where_nothing_may_change(
    catalog: Catalog, tmp_path: Path
) -> None:
    app = create_app(catalog, tmp_path / "cache", hosts=None, read_only=True)
    page = TestClient(app).get("/?q=dog", headers=HTML).text
    assert 'id="csv"' in page
    assert 'id="collect"' not in page

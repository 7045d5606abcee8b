"""Relation types and predicates on the web: counts, patterns in three boxes, links to images."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from starlette.testclient import TestClient

import vistadex
from tests import web_catalog
from tests.web_catalog import HTML, error
from vistadex.catalog import Catalog
from vistadex.web.queries import relation_href
from vistadex.web.relations import RelationsAsked, corrected_href, pattern

SAID = {
    "a.jpg": [("person", "rides", "horse"), ("person", "rides", "horse"), ("person", "on", "road")],
    "b.jpg": [("person", "rides", "bike"), ("man/woman", "50%_off", "horse")],
    "c.jpg": [("Person", "on", "road")],
}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    names = sorted({name for some in SAID.values() for one in some for name in (one[0], one[2])})
    predicates = sorted({one[1] for some in SAID.values() for one in some})

    def part(name: str, at: int) -> dict[str, object]:
        return {"category": names.index(name), "bbox": [at, at + 20, at, at + 20]}

    said = {
        key: [
            {
                "subject": part(one[0], 5 * i),
                "predicate": predicates.index(one[1]),
                "object": part(one[2], 50 + 5 * i),
            }
            for i, one in enumerate(some)
        ]
        for key, some in SAID.items()
    }
    folder = tmp_path / "vrd"
    folder.mkdir()
    (folder / "annotations_test.json").write_text(json.dumps(said))
    (folder / "objects.json").write_text(json.dumps(names))
    (folder / "predicates.json").write_text(json.dumps(predicates))
    with Catalog(tmp_path / "c.db", create=True) as catalog:
        vistadex.import_annotations("vrd", folder, catalog=catalog)
        yield catalog


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    yield from web_catalog.asking(catalog, tmp_path)


def kinds(client: TestClient, **asked: str) -> list[tuple[str, str, str]]:
    answer = client.get("/api/v1/relations", params=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()["relations"]
    return [(one["subject"], one["predicate"], one["object"]) for one in found]


def test_every_kind_is_counted(client: TestClient) -> None:
    found = client.get("/api/v1/relations").json()
    assert (found["total"], found["triplets"]) == (5, 6)
    most = next(one for one in found["relations"] if one["predicate"] == "rides")
    assert {"images", "relations"} <= set(most)
    rides = {
        one["object"]: (one["images"], one["relations"])
        for one in found["relations"]
        if one["predicate"] == "rides"
    }
    assert rides == {"horse": (1, 2), "bike": (1, 1)}


def test_predicates_are_counted(client: TestClient) -> None:
    found = client.get("/api/v1/predicates").json()["predicates"]
    assert {one["predicate"]: (one["images"], one["relations"]) for one in found} == {
        "on": (2, 2),
        "rides": (2, 3),
        "50%_off": (1, 1),
    }


def test_wildcards_and_empty_parts_find_anything(client: TestClient) -> None:
    assert len(kinds(client, subject="per%")) == 3
    assert len(kinds(client, subject="_erson")) == 4
    assert kinds(client, predicate="rides", object="b%") == [("person", "rides", "bike")]
    assert kinds(client, object="zebra%") == []


def test_case_counts_unless_it_is_to_be_ignored(client: TestClient) -> None:
    assert len(kinds(client, subject="person")) == 3
    assert len(kinds(client, subject="person", ignore_case="true")) == 4


def test_the_limit_keeps_the_total(client: TestClient) -> None:
    found = client.get("/api/v1/relations?limit=1").json()
    assert (len(found["relations"]), found["total"]) == (1, 5)
    for limit in ("0", "1001", "x"):
        assert "limit" in error(client.get(f"/api/v1/relations?limit={limit}"), 400)["message"]


def test_a_slash_belongs_to_its_part(client: TestClient) -> None:
    assert kinds(client, subject="man/woman") == [("man/woman", "50%_off", "horse")]
    assert kinds(client, subject="man/%", predicate=r"50\%\_off") != []
    assert pattern(RelationsAsked(subject="a\\", predicate="b/c", object=r"d\/e")) == (
        r"a\\/b\/c/d\/e"
    )


def test_an_unknown_name_offers_the_nearest(client: TestClient) -> None:
    problem = error(client.get("/api/v1/relations?subject=persn"), 400)
    assert "unknown class 'persn'" in problem["message"]
    assert "person" in problem["suggestions"]
    page = client.get("/relations?subject=persn&object=horse", headers=HTML)
    assert page.status_code == 400
    assert 'value="persn"' in page.text
    assert 'value="horse"' in page.text
    assert "/relations?subject=person&amp;object=horse" in page.text


def links(client: TestClient, path: str) -> dict[str, str]:
    """Texts of links with their addresses."""
    text = client.get(path, headers=HTML).text
    found = re.findall(r'<a [^>]*?href="([^"]+)"[^>]*>(.*?)</a>', text, re.DOTALL)
    return {
        " ".join(re.sub("<[^>]+>", "", label).split()): html.unescape(href) for href, label in found
    }


def images(client: TestClient, href: str) -> set[str]:
    asked = {name: values[0] for name, values in parse_qs(urlsplit(href).query).items()}
    found = client.get("/api/v1/search", params=asked).json()["results"]
    return {one["uri"].rpartition("/")[2] for one in found}


def test_each_kind_leads_to_its_images(client: TestClient) -> None:
    shown = links(client, "/relations")
    assert images(client, shown["person rides horse"]) == {"a.jpg"}
    assert images(client, shown["man/woman 50%_off horse"]) == {"b.jpg"}


def test_a_whole_pattern_leads_to_its_images(client: TestClient) -> None:
    shown = links(client, "/relations?predicate=r%25")
    assert images(client, shown["All their images"]) == {"a.jpg", "b.jpg"}
    for path in ("/relations?subject=person&ignore_case=true", "/relations?subject=zebra%25"):
        assert "All their images" not in links(client, path)  # no query says as much
    shown = links(client, "/relations?predicate=rides&ignore_case=true")
    assert images(client, shown["All their images"]) == {"a.jpg", "b.jpg"}


def test_both_numbers_of_a_predicate_lead_on(client: TestClient) -> None:
    page = client.get("/relations", headers=HTML).text
    row = re.search(r"<tr><td>50%_off</td>.*?</tr>", page, re.DOTALL)
    assert row
    to_images, to_kinds = (html.unescape(one) for one in re.findall('href="([^"]+)"', row[0]))
    assert images(client, to_images) == {"b.jpg"}
    assert "1 kind of relation, 1 in all" in client.get(to_kinds, headers=HTML).text


def test_no_relation_says_what_to_run(tmp_path: Path) -> None:
    with Catalog(tmp_path / "empty.db", create=True) as catalog:
        for client in web_catalog.asking(catalog, tmp_path):
            assert "vistadex relate" in client.get("/relations", headers=HTML).text


def test_a_suggestion_keeps_how_it_was_asked() -> None:
    asked = RelationsAsked(subject="Persn", object="Horse", ignore_case=True, limit=20)
    href = corrected_href(asked, "Person")
    assert RelationsAsked.model_validate(dict(parse_qsl(urlsplit(href).query))) == (
        asked.model_copy(update={"subject": "Person"})
    )


def test_a_predicate_has_a_link_whatever_its_length() -> None:
    """Quoted, it is longer than what may be typed into a box."""
    quoted = r"\_" * 200
    assert relation_href("", "_" * 200, "") == "/?" + urlencode({"q": f'relation:"/{quoted}/"'})

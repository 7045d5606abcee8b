"""The web app's parts on their own: queries as text, cache, host names, ports, sizes."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from starlette.testclient import TestClient

from vistadex.catalog import Catalog, registering, writing
from vistadex.errors import QueryError, UsageError
from vistadex.grammar import Term, exact, parse
from vistadex.records import Analyzer, Detections, ImageEntry, Outcome
from vistadex.web import app as web_app
from vistadex.web import create_app, queries
from vistadex.web.api import Asked
from vistadex.web.cache import Cache
from vistadex.web.guard import host_name
from vistadex.web.queries import relation_href
from vistadex.web.serving import bind

HTML = {"Accept": "text/html"}


def test_the_cache_removes_the_oldest_at_its_bound(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=1000)
    for i in range(15):
        cache.put(f"{i:02x}ff", bytes(100))
        os.utime(cache._path(f"{i:02x}ff"), (i, i))
    kept = [i for i in range(15) if cache.get(f"{i:02x}ff") is not None]
    assert 1 <= len(kept) <= 10
    assert kept == list(range(15 - len(kept), 15))
    assert not list(tmp_path.rglob("*.part"))


def test_a_cache_folder_may_vanish_while_it_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("01ff", "02ff", "03ff"):
        Cache(tmp_path).put(name, b"old")
    cache, stat = Cache(tmp_path), Path.stat

    def vanish(path: Path, **how: bool) -> os.stat_result:
        if path.name == "ff":
            shutil.rmtree(tmp_path, ignore_errors=True)
        return stat(path, **how)

    with monkeypatch.context() as while_counting:
        while_counting.setattr(Path, "stat", vanish)
        cache.put("04ff", b"new")
    assert cache.get("04ff") is None
    cache.put("05ff", b"new")
    assert cache.get("05ff") == b"new"


def test_what_can_not_be_removed_from_the_cache_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    cache = Cache(tmp_path, max_bytes=10)
    for name in ("01ff", "02ff"):
        cache.put(name, bytes(10))
        assert cache.get(name) == bytes(10)


def test_a_cache_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="VISTADEX_CACHE"):
        Cache(tmp_path / "file")


def test_host_names_are_read_from_headers() -> None:
    assert host_name("Example.org:80") == "example.org"
    assert host_name("[::1]:80") == "::1"
    assert host_name("::1") == "::1"


def test_scripts_and_style_name_no_other_host() -> None:
    static = Path(web_app.__file__).parent / "static"
    for path in static.iterdir():
        assert "http://" not in path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in path.read_text()


def test_an_empty_catalog_says_how_to_fill_it(tmp_path: Path) -> None:
    with Catalog(str(tmp_path / "empty.db"), create=True) as empty:
        client = TestClient(create_app(empty, tmp_path), base_url="http://localhost")
        page = client.get("/", headers=HTML)
        assert page.status_code == 200
        assert "vistadex index" in page.text
        assert client.get("/api/v1/search").json()["total"] == 0
        assert "Every image could be read" in client.get("/errors").text
        assert client.get("/classes").status_code == 200


def test_a_taken_port_is_said_with_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            bind("127.0.0.1", port)
    assert str(caught.value) == f"127.0.0.1:{port}: in use; give another --port"
    with pytest.raises(UsageError, match="from 0 to 65535"):
        bind("127.0.0.1", 99999)
    with pytest.raises(UsageError, match="another --host"):
        bind("192.0.2.1", 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dog & frisbee",
        "dog | cat",
        "car>=3 -person",
        '"-minus" & t-shirt score>0.5',
        "hot dog & traffic light -cell phone score>=0.25",
        'source:"my photos" model:yolox',
        '"a & b">2 score>0.123456',
        '"source:x" -"score>1"',
        '"test score">=2 & "score">1 -"high score" score>0.5',
        'dog & relation:"Person/next to/" -relation://Horse duplicate:near split:train',
        r'cat | relation:"a\/b/100\%/c\_d" | relation:"a\\/%/_"',
        'dog | cat collection:"my best" collection:old -collection:"a & -b"',
        "-collection:worst",
    ],
)
def test_a_query_written_again_asks_the_same(text: str) -> None:
    query = parse(text)
    assert parse(queries.query_text(query)) == query


@pytest.mark.parametrize("text", ["", "dog", "dog | a*c", 'q=* & "a & b" -x*', 'dog source:"q=*"'])
@pytest.mark.parametrize("changes", [{}, {"source": ""}, {"min_score": 0.0, "after": "1.2.3"}])
def test_many_addresses_are_those_that_would_be_made_one_by_one(
    text: str, changes: dict[str, str | float]
) -> None:
    asked = Asked(q=text, min_score=0.25, source="q=%2A & more", limit=7)
    href = queries.search_hrefs(asked, **changes)
    for query in ("*", "a & b", 'relation:"a/%/b"', "ümläut"):
        assert href(query) == queries.search_href(asked, q=query, **changes)
    more = queries.term_hrefs(asked, parse(text))
    for term in (Term("cat"), Term("a & b", min_boxes=2), Term("a*b=c%")):
        query = replace(parse(text), terms=(*parse(text).terms, term))
        assert more(term) == queries.search_href(asked, q=queries.query_text(query))


@pytest.mark.parametrize("name", ["score", "test score", "score board", "highscore", "Score"])
def test_a_class_keeps_its_name_before_a_count(name: str) -> None:
    assert parse(f"{queries.class_text(name)}>=2").terms == (Term(name, 2),)


@pytest.mark.parametrize("name", [r"a/b", r"50%", r"a_b", "a\\", "a\\%", " - & score>1"])
def test_a_relation_s_link_asks_for_its_names_alone(name: str) -> None:
    href = relation_href(name, "on", name)
    assert href is not None
    (asked,) = parse_qs(urlsplit(href).query)["q"]
    (term,) = parse(asked).terms
    assert term.relation is not None
    assert [exact(one) for one in term.relation] == [name.strip(), "on", name.strip()]
    assert relation_href('12" disk', "on", "Table") is None


def test_a_class_with_a_quote_has_no_link() -> None:
    assert queries.class_href('12" disk') is None
    assert queries.class_href("hot dog") == "/?q=hot+dog"


def test_a_chip_takes_one_part_away() -> None:
    asked = Asked(q="dog & cat>=2 -person score>0.5", source="photos")
    links = {chip.label: chip.href for chip in queries.chips(asked)}
    assert list(links) == ["dog", "cat>=2", "not person", "score > 0.5", "source photos"]
    assert links["dog"] == "/?q=cat%3E%3D2+-person+score%3E0.5&source=photos"
    assert links["source photos"].endswith("score%3E0.5")


def test_a_suggestion_replaces_the_class_most_like_it() -> None:
    assert queries.corrected("dgo & person", "dog") == "dog & person"
    assert queries.corrected("person -dgo", "dog") == "person -dog"
    assert queries.corrected('"', "hot dog") == "hot dog"
    with pytest.raises(QueryError):
        parse('"')


def test_twenty_thousand_classes_stay_usable(tmp_path: Path) -> None:
    names = tuple(f"kind {i:05}" for i in range(20_000))
    analyzer = SimpleNamespace(
        sha256="ab" * 32, name="many", task="classifier", classes=names, card={}, parameters={}
    )
    with Catalog(str(tmp_path / "many.db"), create=True) as catalog:
        with catalog.writing() as connection:
            source_id = registering.register_source(connection, "/nowhere")
            registered = registering.register_analyzer(connection, cast(Analyzer, analyzer))
            found = Detections(
                np.zeros((20_000, 4), np.float32),
                np.full(20_000, 0.5, np.float32),
                np.arange(20_000),
            )
            outcome = Outcome(ImageEntry("a.jpg", 1, "v"), 10, 10, (found,))
            writing.write_outcomes(connection, source_id, [registered], [outcome])
        client = TestClient(create_app(catalog, tmp_path), base_url="http://localhost")
        answer = client.get("/api/v1/classes?prefix=kind 1234&limit=8")
        assert len(answer.json()["classes"]) == 8
        assert answer.json()["total"] == 10
        page = client.get("/classes?offset=500")
        assert len(page.content) < 200_000
        assert "offset=1000" in page.text

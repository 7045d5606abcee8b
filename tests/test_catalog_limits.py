"""Searches limited by status and by size of boxes, and in the order of time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.test_catalog_facets import filled
from tests.test_catalog_postings_equal import change
from vistadex.catalog import Catalog, ranking, tables
from vistadex.catalog.scope import STATUSES
from vistadex.errors import QueryError
from vistadex.grammar import SIZE_STEPS, WORDS

TERMS = ("", "dog", "dog & cat", "dog | cat", "dog -cat", "score>0.3", "relation://")
LIMITS = (
    "status:ok",
    "status:failed",
    "status:vanished",
    "status:unseen",
    "size>=0.1",
    "size>=0.5",
    "size>=0.3 status:ok",
    "size>=0.3 score>=0.5 model:second",
    "sort:newest",
    "sort:newest size>=0.1 source:b",
    "sort:newest duplicate:exact",
)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url, create=True) as catalog:
        filled(catalog, random.Random(3))
        yield catalog


def answers(catalog: Catalog, query: str) -> tuple[list[int], list[int], int, object]:
    """Ids page by page and all at once, how many, and what is in them."""
    paged, after = [], None
    while True:
        page = catalog.search(query, limit=7, after=after)
        paged += [one.image.id for one in page.results]
        after = page.next
        if after is None:
            return paged, list(catalog.ids(query)), catalog.count(query), catalog.facets(query)


@pytest.mark.parametrize("terms", TERMS)
def test_posting_lists_and_plain_sql_agree(
    catalog: Catalog, terms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "BLOCK", 16)
    assert catalog.postings is not None
    assert catalog.postings.rebuild()
    change(catalog, random.Random(4), 9)
    url = catalog.engine.url.render_as_string(hide_password=False)
    found = 0
    with Catalog(url, postings=False) as plain:
        for short in (0, 1 << 16):
            monkeypatch.setattr(ranking, "SHORT", short)
            for limit in LIMITS:
                query = f"{terms} {limit}".strip()
                by_lists = answers(catalog, query)
                assert by_lists == answers(plain, query)
                paged, ids, number, _ = by_lists
                assert paged == ids
                assert len(ids) == len(set(ids)) == number
                found += number
    assert found


def test_sorted_by_time_the_same_images_come_newest_first(catalog: Catalog) -> None:
    for terms in TERMS:
        newest = list(catalog.ids(f"{terms} sort:newest"))
        assert newest == sorted(catalog.ids(terms), reverse=True)
        assert newest


def test_a_status_finds_the_images_that_have_it(catalog: Catalog) -> None:
    occurring = set()
    for status in STATUSES:
        query = sa.select(tables.image.c.id).where(tables.image.c.status == status)
        if status != "failed":  # of the others those that a search for nothing finds
            query = query.where((tables.image.c.width > 0) | (status == "unseen"))
        with catalog.reading() as connection:
            expected = sorted(connection.execute(query).scalars(), reverse=True)
        assert list(catalog.ids(f"status:{status}")) == expected
        occurring |= {status} if expected else set()
    assert len(occurring) >= 3


@pytest.mark.parametrize("steps", [1, 2, 6, 19])
@pytest.mark.parametrize("names", [(), ("dog",), ("dog", "cat")])
def test_a_size_finds_images_with_a_box_as_large(
    catalog: Catalog, steps: int, names: tuple[str, ...]
) -> None:
    limit = f" size>={steps / SIZE_STEPS}"
    every = catalog.images(list(catalog.ids(" | ".join(names))))
    expected = set()
    for image in every:
        for one in image.boxes:
            x0, y0, x1, y1 = one.box_xyxy
            share = max(0, x1 - x0) * max(0, y1 - y0) / max(1, image.width * image.height)
            large = math.sqrt(share) * SIZE_STEPS >= steps
            if image.width and large and (not names or one.class_name in names):
                expected.add(image.id)
    assert set(catalog.ids(" | ".join(names) + limit)) == expected
    assert expected or names or steps > 2


def test_a_limit_that_can_not_be_read_says_what_is_expected(catalog: Catalog) -> None:
    for query, words in (
        ("size>=0.33", "steps of 0.05"),
        ("size>=1", "from 0 to 0.95"),
        ("size>=big", "needs a number"),
        ("size>=nan", "steps of 0.05"),
        ("status:lost", "ok or failed or vanished or unseen, not 'lost'"),
        ("sort:oldest", "newest or score, not 'oldest'"),
    ):
        with pytest.raises(QueryError, match=words):
            catalog.search(query)


def test_grammar_and_catalog_know_the_same_statuses() -> None:
    assert WORDS["status"] == STATUSES

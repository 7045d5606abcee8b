"""vistadex.web.pages: what all pages have in common, and errors as pages."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.web_catalog import HTML, asking, error, filled_catalog, ids, pictures_folder
from vistadex.catalog import Catalog
from vistadex.web import create_app
from vistadex.web.access import Keys

URL = "http://127.0.0.1:8765"
TOKEN = "a-token-of-some-length"
folder = pytest.fixture(pictures_folder)


@pytest.fixture
def catalog(folder: Path, tmp_path: Path) -> Iterator[Catalog]:
    yield from filled_catalog(folder, tmp_path)


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path) -> Iterator[TestClient]:
    yield from asking(catalog, tmp_path)


def text_of(client: TestClient, address: str, status: int = 200) -> str:
    answer = client.get(address, headers=HTML)
    assert answer.status_code == status, answer.text
    return unescape(answer.text)


def test_an_error_keeps_the_search_with_its_limits(client: TestClient) -> None:
    text = text_of(client, "/?q=dgo&min_score=0.3&source=photos&model=drawn", 400)
    assert 'value="dgo"' in text
    assert 'name="min_score" value="0.3"' in text
    assert 'name="source" value="photos"' in text
    assert 'name="model" value="drawn"' in text
    assert 'href="/?q=dog&min_score=0.3&source=photos&model=drawn"' in text


def test_an_error_keeps_what_can_be_read(client: TestClient) -> None:
    text = text_of(client, "/?q=dog&min_score=7&source=photos", 400)
    assert 'value="dog"' in text
    assert 'name="min_score"' not in text
    assert 'name="source" value="photos"' in text


def test_the_model_that_compares_is_no_limit_of_a_search(client: TestClient) -> None:
    assert 'name="model"' not in text_of(client, "/similar/999999?model=some", 404)


def test_a_form_that_is_refused_is_answered_with_a_page(client: TestClient) -> None:
    """A person who has sent it must not stand before JSON."""
    same = {"Origin": URL}
    page = client.post("/api/v1/runs", data={"source": "1"}, headers=HTML | same)
    assert page.status_code == 400
    assert page.headers["content-type"].startswith("text/html")
    assert "no model is chosen" in page.text
    assert "/classes" in page.text
    error(client.post("/api/v1/runs", data={"source": "1"}, headers=same), 400)
    error(client.get("/api/v1/runs/999999", headers=HTML), 404)


def test_who_has_signed_in_can_sign_out_on_every_page(catalog: Catalog, tmp_path: Path) -> None:
    app = create_app(catalog, tmp_path / "cache", keys=Keys(token=TOKEN))
    with TestClient(app, base_url=URL) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        for address in ("/", "/classes", "/image/999999"):
            text = client.get(address, headers=HTML).text
            assert '<form action="/logout" method="post">' in text, address


def test_nobody_signs_out_of_an_app_without_keys(client: TestClient) -> None:
    assert "/logout" not in text_of(client, "/")


def test_models_and_errors_are_one_step_from_runs_and_back(client: TestClient) -> None:
    for address in ("/runs", "/models", "/errors"):
        text = text_of(client, address)
        assert f'href="{address}" aria-current="true"' in text
        for other in ("/runs", "/models", "/errors"):
            assert f'class="chip" href="{other}"' in text
        assert '<a href="/runs" aria-current="page">' in text


def test_an_image_names_its_collections(client: TestClient, catalog: Catalog) -> None:
    id = ids(client)["a.jpg"]
    assert "Collections</dt>" not in text_of(client, f"/image/{id}")
    catalog.collect("<i>best & worst", [id])
    page = client.get(f"/image/{id}", headers=HTML).text
    assert "&lt;i&gt;best &amp; worst</a>" in page
    assert "<i>best" not in page
    href = unescape(page).partition("Collections</dt>")[2].partition('href="')[2].partition('"')[0]
    assert "<strong>1</strong> image" in text_of(client, href)


def test_docs_name_the_method_of_each_route(client: TestClient) -> None:
    text = text_of(client, "/docs")
    assert 'GET <a href="/api/v1/search">' in text
    assert "POST /api/v1/similar" in text
    assert "DELETE /api/v1/collections/{id}" in text
    assert "GET /api/v1/collections/{id}" not in text

"""Data sets on pages: counted, built, kept, downloaded, written to a target."""

from __future__ import annotations

import io
import os
import time
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.web_catalog import HTML, error
from tests.web_jobs import asking, browsing, ended, indexed_catalog, model_store, photos_folder
from vistadex.catalog import Catalog
from vistadex.datasets import build_dataset, plan_dataset
from vistadex.web import building
from vistadex.web.building import ABOUT, WHOLE, Shelf
from vistadex.web.jobs import Jobs
from vistadex.web.zipping import zipped

pytestmark = pytest.mark.timeout(180)
photos = pytest.fixture(photos_folder)
store = pytest.fixture(model_store)
catalog = pytest.fixture(indexed_catalog)
client = pytest.fixture(browsing)
ORDER: dict[str, object] = {"classes": ["person", "car"], "per_class": "8", "seed": "3"}


def test_a_set_is_what_was_counted_and_comes_as_a_zip(client: TestClient) -> None:
    plan = client.get("/api/v1/datasets/plan", params=ORDER).json()
    assert plan["exact"]
    begun = client.post("/api/v1/datasets", data=ORDER).json()
    run = ended(client, begun["id"])
    assert run["status"] == "done", run
    numbers = run["numbers"]
    assert isinstance(numbers, dict)
    assert (numbers["counts"], numbers["splits"]) == (plan["counts"], plan["splits"])
    page = client.get(f"/runs/{begun['id']}", headers=HTML).text
    href = page.partition('href="/datasets/2')[2].partition('"')[0]
    answer = client.get("/datasets/2" + href)
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert sum(name.endswith(".jpg") for name in names) == plan["images"]
    assert sum(name.endswith(".json") for name in names) == 3
    assert len({name.partition("/")[0] for name in names}) == 1


def test_a_plan_by_class_is_marked_as_such(catalog: Catalog) -> None:
    wanted = {"classes": ["person"], "per_class": 4, "model": "yolox_nano"}
    exact = plan_dataset(catalog, **wanted)  # type: ignore[arg-type]
    about = plan_dataset(catalog, **wanted, most=1)  # type: ignore[arg-type]
    assert (exact.exact, about.exact) == (True, False)
    assert exact.available == about.available
    assert about.summary.counts == {"person": {"train": 3, "val": 0, "test": 0}}


def test_only_selected_images_are_used(catalog: Catalog, tmp_path: Path) -> None:
    some = [one.image.id for one in catalog.search("person", limit=3).results]
    done = build_dataset(
        tmp_path / "set",
        classes=["person"],
        per_class=100,
        ids=some,
        model="yolox_nano",
        catalog=catalog,
    )
    assert done.images == 3


def test_the_page_is_whole_without_scripts(client: TestClient) -> None:
    page = client.get("/datasets", params={"q": "person | car", "per_class": "5"}, headers=HTML)
    assert 'value="person" checked' in page.text
    assert 'formaction="/api/v1/datasets"' in page.text
    assert "<td>person</td>" in page.text
    selected = client.get("/datasets?ids=1,2,3", headers=HTML).text
    assert "of 3 selected images" in selected
    assert 'name="ids" value="1,2,3"' in selected


def test_what_cannot_be_counted_is_said_in_the_page(client: TestClient) -> None:
    page = client.get("/datasets", params={"more": "unicorn"}, headers=HTML)
    assert page.status_code == 200
    assert "unicorn" in page.text
    assert 'class="problem"' in page.text


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"classes": []}, 400, "no class is chosen"),
        ({"more": '"open'}, 400, "classes"),
        ({"per_class": "0"}, 400, "per_class"),
        ({"per_class": "50000"}, 400, "expected 50,000 images at most"),
        ({"format": "exe"}, 400, "format"),
        ({"pictures": "link"}, 400, "pictures"),
        ({"ids": "1,x"}, 400, "ids"),
        ({"to": "/etc"}, 400, "is no target of this server"),
        ({"to": "s3://somebody/else"}, 400, "is no target of this server"),
        ({"classes": ["unicorn"]}, 400, "unicorn"),
        ({"split": "50/60"}, 400, "split"),
        ({"group_by": "patient"}, 400, "patient"),
        ({"whose": "--catalog=x"}, 400, "no model is named"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    client: TestClient, tmp_path: Path, change: dict[str, object], status: int, said: str
) -> None:
    answer = client.post("/api/v1/datasets", data=ORDER | change)
    if answer.status_code == 200:  # The command itself refuses it.
        run = ended(client, answer.json()["id"])
        assert run["status"] == "failed"
        assert said in str(run["error"])
    else:
        assert said in error(answer, status)["message"]
    assert not list(tmp_path.glob("cache/datasets/*/*/set"))


def test_a_class_with_a_comma_and_a_quote_is_one_value(catalog: Catalog) -> None:
    order = building.DatasetAsked(classes=('a "b", c', "--out=x"), q="person")
    command = building._command(catalog, order, order.classes, "/out")
    assert command[0] == "dataset"
    assert '--classes="a ""b"", c","--out=x"' in command
    assert command[-2:] == ["--", "/out"]


def test_a_named_target_gets_the_set(catalog: Catalog, tmp_path: Path) -> None:
    target = tmp_path / "exports"
    target.mkdir()
    with asking(catalog, tmp_path, export_to=[str(target)]) as client:
        assert str(target) in client.get("/datasets", headers=HTML).text
        begun = client.post("/api/v1/datasets", data=ORDER | {"to": str(target)}).json()
        assert ended(client, begun["id"])["status"] == "done"
    (made,) = target.iterdir()
    assert (made / "annotations").is_dir()
    assert not list(tmp_path.glob("cache/datasets/*/*"))


def kept(shelf: Shelf, name: str, days: float = 0) -> Path:
    """A complete set as if made so long ago."""
    path = shelf.make(name)
    (path / "set").mkdir()
    (path / "set/a.txt").write_text("12345")
    made_at = int(time.time() - days * 24 * 3600)
    (path / "about.json").write_text(f'{{"run": 1, "made_at": {made_at}, "subject": "dog"}}')
    return path


@pytest.fixture
def shelf(catalog: Catalog, tmp_path: Path) -> Shelf:
    return Shelf(catalog, Jobs(catalog, tmp_path / "cache"))


def test_a_kept_set_is_listed_and_removed(client: TestClient, shelf: Shelf) -> None:
    name = "20260101-000000-00000001"
    path = kept(shelf, name)
    assert f'href="/datasets/{name}.zip"' in client.get("/datasets", headers=HTML).text
    assert client.post(f"/api/v1/datasets/{name}/remove").json() == {"removed": name}
    assert not path.exists()
    error(client.post(f"/api/v1/datasets/{name}/remove"), 404)
    error(client.get(f"/datasets/{name}.zip"), 404)


def test_old_and_too_many_sets_go(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "KEPT_SETS", 4)
    names = [f"20260101-00000{i}-0000000{i}" for i in range(6)]
    for name in names:
        kept(shelf, name, days=8 if name == names[-1] else 0)
    shelf.sweep()
    assert [one.name for one in shelf.list()] == names[4:2:-1]


def test_too_large_sets_go_the_oldest_first(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "KEPT_BYTES", 12)
    for i in range(4):
        kept(shelf, f"20260101-00000{i}-0000000{i}")
    shelf.sweep()
    assert [one.name[14] for one in shelf.list()] == ["3", "2"]


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "20260101-000000-0000000g", "x", "..%2f..%2fcatalog"]
)
def test_names_that_are_none_reach_no_file(client: TestClient, name: str) -> None:
    assert client.get(f"/datasets/{name}.zip").status_code in (400, 404)
    assert client.post(f"/api/v1/datasets/{name}/remove").status_code in (400, 404, 405)


def test_a_zip_holds_every_file_and_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/ä b.bin").write_bytes(os.urandom(700_000))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "link").symlink_to("/etc/passwd")
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(folder, "top")))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["top/empty.txt", "top/sub/ä b.bin"]
        assert archive.read("top/sub/ä b.bin") == (folder / "sub/ä b.bin").read_bytes()


def test_a_zip_takes_no_more_memory_than_its_parts(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(20_000_000))
    assert max(map(len, zipped(tmp_path, "top"))) < 600_000


def test_no_name_in_an_archive_leads_out_of_its_folder(tmp_path: Path) -> None:
    """A backslash is a letter here, and the border of a folder elsewhere."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "..\\..\\a.jpg").write_bytes(b"a")
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(folder, "top")))) as archive:
        assert archive.namelist() == ["top/.._.._a.jpg"]


def test_a_file_older_than_archives_can_say_is_sent_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"a")
    os.utime(path, (0, 0))
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(tmp_path, "top")))) as archive:
        assert archive.read("top/a.jpg") == b"a"


def test_what_a_set_is_stays_known_where_it_is_listed_before_it_is_described(shelf: Shelf) -> None:
    name = "20260101-000000-00000000"
    path = shelf.make(name)
    (path / WHOLE).mkdir()
    (path / WHOLE / "a.jpg").write_bytes(b"abc")
    assert [one.size_bytes for one in shelf.list()] == [3]
    assert not (path / ABOUT).exists()


def test_a_page_shows_no_set_that_is_too_old(client: TestClient, shelf: Shelf) -> None:
    kept(shelf, "20260101-000000-00000000", days=8)
    assert "20260101-000000-00000000" not in client.get("/datasets", headers=HTML).text

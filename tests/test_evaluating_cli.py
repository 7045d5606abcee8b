"""`vistadex evaluate` is the library: the same names, a table to read, exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

import vistadex
from tests.test_annotated import RED_BOX, Rows, write_coco
from tests.test_cli import options_of
from tests.web_catalog import HTML
from tests.web_jobs import asking
from vistadex import cli, cli_evaluate
from vistadex.catalog import Catalog
from vistadex.models import ModelStore
from vistadex.testing import RedSquareDetector

PERSON: Rows = [(7, RED_BOX, {})]
NAMES = ("--names", "red square=stop sign", "--names", "blue square=tv", "--names", "zebra=zebra")


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def place(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with said.json, photos and a store with YOLOX-nano."""
    write_coco(tmp_path, {"a.jpg": PERSON, "b.jpg": PERSON})
    ModelStore(tmp_path / "models").add(shared_data / "weights" / "yolox_nano.onnx")
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Ran:
    monkeypatch.setattr(sys, "argv", ["vistadex", "evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return Ran(int(ended.value.code or 0), captured.out, captured.err)


def test_evaluate_has_the_names_and_defaults_of_the_library() -> None:
    more = {"out_", "draw", "card"}
    options = options_of(cli_evaluate.evaluate)
    assert {name: one for name, one in options.items() if name not in more} == options_of(
        vistadex.evaluate
    )


def test_the_table_says_what_a_person_asks(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(monkeypatch, capsys, "yolox_nano", "said.json", "--images", "photos", *NAMES)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "yolox_nano on said.json: 2 images judged"
    assert lines[1].split()[0] == "AP"
    assert any(line.split()[:3] == ["red", "square", "2"] for line in lines)
    assert "errors with a score of 0.25 or more:" in lines
    assert "ms for a picture in one thread" in done.out
    assert "3.66 MB" in done.out


def test_the_report_the_grid_and_the_card_are_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("yolox_nano", "said.json", "--images", "photos", *NAMES)
    done = run(monkeypatch, capsys, *asked, "--out", "r", "--draw", "2", "--card", "--json")
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert values["images"] == 2
    assert (place / "r" / "report.html").exists()
    assert (place / "r" / "yolox_nano.first-2.png").exists()
    assert json.loads((place / "r" / "evaluation.json").read_text())["model"] == "yolox_nano"
    card = ModelStore(place / "models").get("yolox_nano").card
    assert card.metrics["AP"] == pytest.approx(values["metrics"]["AP"])
    with Catalog(place / "c.db", create=True) as catalog, asking(catalog, place) as client:
        page = client.get("/models/yolox_nano", headers=HTML).text
    assert "Metrics on said.json, 2 images" in page
    assert "<dt>AP50</dt>" in page
    assert "background" in page


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nothing", "said.json", "--images", "photos"), 3, "there is no model 'nothing'"),
        (("yolox_nano", "gone.json", "--images", "photos"), 4, "gone.json"),
        (("yolox_nano", "said.json"), 2, "add --images"),
        (("yolox_nano", "said.json", "--images", "photos"), 2, "does not know 1 of its classes"),
        (("yolox_nano", "said.json", "--images", "photos", "--names", "x"), 2, "DATA=MODEL"),
        (("yolox_nano", "said.json", "--metric", "best"), 2, "--metric"),
        (("yolox_nano", "photos"), 8, "no annotations are recognized"),
        (("gone.onnx", "said.json", "--images", "photos"), 3, "gone.onnx"),
    ],
)
def test_what_does_not_work_is_said_with_an_exit_code(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = run(monkeypatch, capsys, *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_show_draws_people_and_models_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_coco(tmp_path, {"a.jpg": PERSON})
    store = Catalog(tmp_path / "c.db", create=True)
    vistadex.index(tmp_path / "photos", detector=RedSquareDetector(), catalog=store)
    vistadex.import_annotations("coco", path, images=tmp_path / "photos", catalog=store)
    monkeypatch.chdir(tmp_path)
    shown = ["vistadex", "show", "photos/a.jpg", "--catalog", "c.db", "--apart", "-o", "x.jpg"]
    monkeypatch.setattr(sys, "argv", shown)
    with pytest.raises(SystemExit):
        cli.main()
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.size == (2 * 160 + 8, 120)

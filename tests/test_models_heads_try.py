"""Looking what an unknown model finds in one picture, before it is stored."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vistadex import cli, models
from vistadex.errors import DecodingError, ModelError, ModelQuestionError, NotFoundError
from vistadex.models import analyzers, runtimes
from vistadex.models.looking import look
from vistadex.models.tiny import mean_color, named_outputs
from vistadex.records import Classification, Detections


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    outputs = {
        "boxes": np.array([[8, 16, 24, 64], [0, 0, 32, 32]], np.float32),
        "labels": np.array([2, 1], np.int64),
        "scores": np.array([0.5, 0.9], np.float32),
    }
    inputs = {"images": ("float32", [1, 3, 64, 64])}
    return named_outputs(tmp_path / "m.onnx", inputs, outputs)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((128, 128, 3), 90, np.uint8))
    return path


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("background\nant\nbee\n")
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["vistadex", "models", "add", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def stored(store: Path) -> list[str]:
    return [path.name for path in store.glob("*")]


def test_a_look_prints_and_draws_boxes_and_stores_nothing(
    detector: Path,
    picture: Path,
    names: Path,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = [detector, "--head", "torchvision", "--classes", names, "--try", picture]
    code, out, err = run(monkeypatch, capsys, *said, "--models", tmp_path / "store")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["ant", "0.900", "0.0", "0.0", "64.0", "64.0"],
        ["bee", "0.500", "16.0", "32.0", "48.0", "128.0"],
    ]
    assert "2 boxes, drawn into m.boxes.jpg; nothing is stored" in err
    assert stored(tmp_path / "store") == []
    drawn = cv2.imread(str(here / "m.boxes.jpg"))
    assert drawn.shape == (128, 128, 3)
    assert (np.abs(drawn.astype(int) - 90).max(axis=2) > 40).any()
    before = (here / "m.boxes.jpg").read_bytes()
    _, out, err = run(monkeypatch, capsys, *said, "--models", tmp_path / "store", "--json")
    assert "drawn into m.boxes-2.jpg" in err
    assert (here / "m.boxes.jpg").read_bytes() == before
    first = json.loads(out.splitlines()[0])
    assert (first["class"], first["box"]) == ("ant", [0, 0, 64, 64])


def test_an_unknown_file_shows_its_signature_and_the_heads_that_could_fit(
    detector: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    code, out, err = run(monkeypatch, capsys, detector, "--try", picture, "--models", store)
    assert (code != 0, out) == (True, "")
    for line in (
        "input: images float32 [1, 3, 64, 64]",
        "output: boxes float32 [2, 4]",
        "output: labels int64 [2]",
        "heads that could fit: torchvision\n",
        f"Answer with: vistadex models add {detector} --head torchvision --classes names.txt",
    ):
        assert line in err


def test_a_classifier_says_its_classes(picture: Path, tmp_path: Path) -> None:
    path = mean_color(tmp_path / "c.onnx", np.eye(3, dtype=np.float32), softmax=True)
    store = models.ModelStore(tmp_path / "store")
    found = look(store, path, picture, classes=["a", "b", "c"], preset="stretch")
    assert isinstance(found.result, Classification)
    assert (found.card.head, len(found.result.scores)) == ("probabilities", 3)
    assert stored(store.folder) == []


def test_an_embedder_is_an_embedder(
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = mean_color(tmp_path / "e.onnx", np.eye(3, dtype=np.float32))
    said = [path, "--head", "embedding", "--preset", "stretch", "--try", picture]
    code, out, err = run(monkeypatch, capsys, *said, "--models", tmp_path / "store")
    assert (code, out) == (0, "")
    assert "an embedder that works" in err


def test_a_look_leaves_no_session_behind(detector: Path, picture: Path, tmp_path: Path) -> None:
    before = set(runtimes._sessions), set(analyzers._loaded)
    store = models.ModelStore(tmp_path / "store")
    look(store, detector, picture, head="torchvision", classes=["none", "ant", "bee"])
    assert (set(runtimes._sessions), set(analyzers._loaded)) == before


def test_a_look_knows_the_card_that_the_store_holds(
    detector: Path, picture: Path, tmp_path: Path
) -> None:
    store = models.ModelStore(tmp_path / "store")
    store.add(detector, head="torchvision", classes=["none", "ant", "bee"], name="mine")
    found = look(store, detector, picture)
    assert isinstance(found.result, Detections)
    assert (found.card.name, len(found.result.scores)) == ("mine", 2)
    assert [file.card.name for file in store.list()] == ["mine"]


def test_what_can_not_be_looked_at_says_why(detector: Path, picture: Path, tmp_path: Path) -> None:
    store = models.ModelStore(tmp_path / "store")
    with pytest.raises(ModelQuestionError, match="head, classes"):
        look(store, detector, picture)
    with pytest.raises(ModelError, match="choose another --head"):
        look(store, detector, picture, head="yolox", classes=["a"])
    with pytest.raises(NotFoundError, match=r"nothing\.png: no such file; expected a picture"):
        look(store, detector, tmp_path / "nothing.png", head="torchvision", classes=["a"])
    with pytest.raises(DecodingError, match=r"m\.onnx: "):
        look(store, detector, detector, head="torchvision", classes=["a"])

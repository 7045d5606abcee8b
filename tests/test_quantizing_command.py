"""`vistadex quantize`: the table, the gate, the stored model, and what it refuses."""

import inspect
import json
import typing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.small_networks import color_classifier, color_folders
from tests.training_scenes import red_squares
from vistadex import cli, cli_models, cli_quantize
from vistadex.converting import export_model
from vistadex.errors import AccuracyDropError, ModelError, SourceError, UsageError
from vistadex.models import ModelStore
from vistadex.quantizing import Quantization, quantize
from vistadex.quantizing.pictures import read


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of colors, pictures to calibrate with and others to judge on."""
    folder = tmp_path_factory.mktemp("quantize")
    color_classifier(folder)
    color_folders(folder / "train", 6)
    color_folders(folder / "val", 5, first=50)
    return folder


def made(place: Path, store: Path, **more: Any) -> Quantization:
    options: dict[str, Any] = {"calibrate": str(place / "train"), "evaluate": str(place / "val")}
    options |= {"format": "imagefolder", "pictures": 12, "models": store}
    return quantize(str(place / "colors.onnx"), **(options | more))


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("static", "colors-int8"),
        ("weights-float16", "colors-float16"),
        ("weights-int8", "colors-int8"),
        ("dynamic", "colors-int8"),
    ],
)
def test_every_method_ends_in_a_stored_model_that_works(
    place: Path, tmp_path: Path, method: str, name: str
) -> None:
    done = made(place, tmp_path, method=method, calibration="percentile")
    assert done.measure == "accuracy"
    assert [row.value for row in done.rows] == [1.0, 1.0]
    if method != "dynamic":  # its one small product does not outweigh the new nodes
        assert done.rows[1].size_bytes < done.rows[0].size_bytes
    assert done.rows[1].agreement > 0.9
    assert all(row.p50_ms > 0 and row.peak_mib > 20 for row in done.rows)
    stored = ModelStore(tmp_path).get(name)
    assert stored.sha256 == done.need_stored().sha256
    card = stored.card
    assert card.derived_from == ModelStore(tmp_path).get(name).card.derived_from != stored.sha256
    assert card.derived_with.startswith("quantize: ")
    assert "12 pictures of" in card.derived_with
    assert card.evaluation["quantization"]["accuracy"] == [1.0, 1.0]
    sizes = card.evaluation["quantization"]["size_bytes"]
    assert sizes == [row.size_bytes for row in done.rows]


def test_static_tries_all_ranges_and_marks_one(place: Path, tmp_path: Path) -> None:
    done = made(place, tmp_path)
    names = {row.name for row in done.rows}
    assert names == {"float", "static min-max", "static entropy", "static percentile"}
    assert [row.name for row in done.rows if row.chosen] != ["float"]
    assert sum(row.chosen for row in done.rows) == 1
    assert "3 pairs equalized" in done.how


def black(folder: Path) -> Path:
    """Pictures that say nothing of any activation: calibrating with them breaks a model."""
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((32, 32, 3), np.uint8))
    return folder


def test_the_gate_keeps_a_model_that_lost_too_much_out_of_the_store(
    place: Path, tmp_path: Path
) -> None:
    bad = str(black(tmp_path / "black"))
    done = made(place, tmp_path / "store", calibrate=bad, calibration="min-max")
    assert done.rows[1].value < 0.9
    assert done.stored is None
    assert "accuracy falls from 1.0" in done.refusal
    with pytest.raises(AccuracyDropError, match=r"allowed is a drop of 0\.01; nothing was stored"):
        done.need_stored()
    assert ModelStore(tmp_path / "store").list() == []
    forced = made(
        place, tmp_path / "store", calibrate=bad, calibration="min-max", force=True, name="bad"
    )
    assert ModelStore(tmp_path / "store").get("bad").sha256 == forced.need_stored().sha256
    assert any("stored as forced" in note for note in forced.notes)


def test_the_command_prints_the_table_and_refuses_with_its_own_exit_code(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = black(tmp_path / "black")
    line = ["vistadex", "quantize", str(place / "colors.onnx"), "--format", "imagefolder"]
    line += ["--evaluate", str(place / "val"), "--models", str(tmp_path / "store")]
    line += ["--calibration", "min-max"]
    monkeypatch.setattr("sys.argv", [*line, "--calibrate", str(bad)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 10
    printed = capsys.readouterr()
    assert [one.split()[0] for one in printed.out.splitlines()] == ["accuracy", "float", "static"]
    assert "nothing was stored" in printed.err
    ran = CliRunner().invoke(cli.app, [*line[1:], "--calibrate", str(place / "train"), "--json"])
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    assert found["stored"]["name"] == "colors-int8"
    assert len(found["rows"]) == 2
    assert found["refusal"] == ""


def test_a_taken_name_is_refused_before_any_work(place: Path, tmp_path: Path) -> None:
    made(place, tmp_path, method="weights-float16", name="mine")
    lines: list[str] = []
    with pytest.raises(ModelError, match="the name 'mine' is taken"):
        made(place, tmp_path, name="mine", say=lines.append)
    assert lines == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magic"}, UsageError, "method 'magic' is unknown; expected static"),
        ({"calibration": "guess"}, UsageError, "calibration 'guess' is unknown; expected auto"),
        ({"pictures": 0}, UsageError, "pictures 0"),
        ({"max_drop": -1.0}, UsageError, "max_drop -1.0"),
        ({"qat": "x"}, UsageError, "colors: a classifier; qat trains detectors"),
    ],
)
def test_wrong_options_are_named(
    place: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made(place, tmp_path, **({"calibration": "min-max"} | options))


def test_bad_pictures_are_replaced_and_counted(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    color_folders(folder, 2)
    (folder / "broken.png").write_bytes((folder / "red" / "0.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    found = read(str(folder), 7, seed=3)
    assert len(found.images) == 6
    assert found.listed == 8
    assert sum(found.failures.values()) == 1
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError, match="no picture in it can be used"):
        read(str(tmp_path / "none"), 3)


def test_the_seed_chooses_the_pictures(place: Path) -> None:
    def chosen(seed: int) -> list[bytes]:
        return [i.pixels.tobytes() for i in read(str(place / "train"), 5, seed=seed).images]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_a_tflite_file_is_refused(place: Path, tmp_path: Path) -> None:
    shared = place / "x.tflite"
    shared.write_bytes(b"")
    with pytest.raises(ModelError):
        quantize(str(shared), calibrate=str(place), evaluate=str(place), models=tmp_path)


def test_dynamic_is_refused_where_there_is_no_matrix_product(
    place: Path, shared_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no matrix product"):
        quantize(
            str(shared_data / "weights" / "yolox_nano.onnx"),
            calibrate=str(place / "train"),
            evaluate=str(place / "val"),
            format="imagefolder",
            method="dynamic",
            pictures=2,
            models=tmp_path,
        )


@pytest.mark.slow
def test_training_with_rounding_is_a_form_of_its_own(tmp_path: Path) -> None:
    train_detector = pytest.importorskip("vistadex.training").train_detector
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    red_squares(scenes, 12)
    data = {"format": "coco", "images": str(scenes)}
    how = {"size": 64, "batch": 4, "epochs": 1, "workers": 0, "devices": "cpu"}
    first = train_detector(str(scenes / "coco.json"), tmp_path / "float", **data, **how)
    done = quantize(
        str(first.model),
        calibrate=str(scenes),
        evaluate=str(scenes / "coco.json"),
        **data,
        method="weights-float16",
        qat=str(scenes / "coco.json"),
        qat_images=str(scenes),
        qat_epochs=1,
        max_drop=1.0,
        name="squares",
        models=tmp_path / "store",
    )
    assert [row.name for row in done.rows] == ["float", "weights-float16", "qat"]
    qat = done.rows[2]
    assert qat.size_bytes < 0.5 * done.rows[0].size_bytes
    assert ModelStore(tmp_path / "store").get("squares").sha256 == done.need_stored().sha256


@pytest.mark.slow
def test_yolox_nano_keeps_its_boxes_in_int8(shared_data: Path, tmp_path: Path) -> None:
    done = quantize(
        str(shared_data / "weights" / "yolox_nano.onnx"),
        calibrate=str(shared_data / "coco" / "images" / "train"),
        evaluate=str(shared_data / "coco" / "instances_val.json"),
        images=str(shared_data / "coco" / "images" / "val"),
        method="weights-int8",
        models=tmp_path,
        pictures=16,
    )
    before, after = done.rows
    assert done.measure == "AP"
    assert after.value > before.value - 0.01
    assert after.size_bytes < 1_010_000
    assert typing.cast("float", done.need_stored().card.metrics["AP"]) == after.value


def test_the_commands_have_the_names_and_defaults_of_the_library() -> None:
    def options(function: typing.Callable[..., object]) -> dict[str, object]:
        found = inspect.signature(function).parameters.values()
        return {p.name.rstrip("_"): p.default for p in found if p.name not in ("json_", "say")}

    assert options(cli_quantize.quantize) == options(quantize)
    assert options(cli_models.models_export) == options(export_model)

"""Runs of training: exact resume, processes, what is written, and what is refused."""

import copy
import csv
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vistadex
from tests.training_scenes import red_squares
from vistadex.annotated import AnnotatedSet
from vistadex.catalog import Catalog
from vistadex.catalog.runs import list_runs
from vistadex.errors import ModelError, UsageError
from vistadex.models import ModelStore
from vistadex.training import EpochReport, checkpoints, train_detector
from vistadex.training.distributed import Place, joined, share_normalization
from vistadex.training.networks import ARCHITECTURES, build_network
from vistadex.training.optimizing import Schedule
from vistadex.training.validating import card_of
from vistadex.training.writing import to_onnx

torch.set_num_threads(1)


@pytest.fixture
def squares(tmp_path: Path) -> AnnotatedSet:
    (tmp_path / "scenes").mkdir()
    return red_squares(tmp_path / "scenes", 12)


@pytest.fixture
def scenes(squares: AnnotatedSet, tmp_path: Path) -> dict[str, Any]:
    """Arguments of a run that takes a second or two."""
    folder = tmp_path / "scenes"
    return {
        "data": str(folder / "coco.json"),
        "images": str(folder),
        "models": tmp_path / "models",
        "size": 64,
        "batch": 4,
        "epochs": 3,
        "workers": 0,
        "devices": "cpu",
        "warm_up_epochs": 1,
    }


def weights(out: Path) -> Mapping[str, Any]:
    return checkpoints.load(out / "last.pt")


def equal(a: Any, b: Any) -> bool:
    """Whether two states are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def losses(out: Path) -> list[list[float]]:
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[float(row[name]) for name in row if name.startswith(("loss", "AP"))] for row in rows]


@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_was_not(
    scenes: dict[str, Any], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_detector(out=whole, **scenes)

    def interrupt(report: EpochReport) -> None:
        if report.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train_detector(out=parts, on_epoch=interrupt, **scenes)
    assert not (parts / "model.onnx").exists()
    stopped = weights(parts)
    assert stopped["step"] == 3  # one step into the second epoch
    train_detector(out=parts, resume=True, **scenes)
    one, other = weights(whole), weights(parts)
    for name in ("network", "average", "optimizer", "step", "best", "best_epoch", "tally"):
        assert equal(one[name], other[name]), name
    assert losses(whole) == losses(parts)
    assert (whole / "model.onnx").stat().st_size == (parts / "model.onnx").stat().st_size


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(scenes: dict[str, Any], tmp_path: Path) -> None:
    scenes |= {"epochs": 1, "warm_up_epochs": 0, "batch": 10, "lr": 1e-3}
    train_detector(out=tmp_path / "one", **scenes)
    train_detector(out=tmp_path / "two", **scenes | {"devices": "cpu:2"})
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one["step"] == two["step"] == 1
    assert np.allclose(losses(tmp_path / "one")[0][:5], losses(tmp_path / "two")[0][:5], rtol=1e-4)
    same = everywhere = 0
    for name, value in one["network"].items():
        other = two["network"][name]
        if "running" in name:
            assert torch.allclose(value, other, rtol=1e-3, atol=1e-4), name
        same += int((value - other).abs().le(1e-5).sum())
        everywhere += value.numel()
    # Adam's first step has the sign of the gradient: where that is rounding alone, it may differ.
    assert same > 0.995 * everywhere
    for key, state in one["optimizer"]["state"].items():
        gradient, other = state["exp_avg"], two["optimizer"]["state"][key]["exp_avg"]
        # Sixty layers make of rounding a hundredth; a share that were left out would be a half.
        assert (gradient - other).norm() <= 0.05 * gradient.norm() + 1e-7, key


def test_normalization_over_all_processes_is_that_of_torch_in_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = torch.nn.BatchNorm2d(5, eps=1e-3, momentum=0.03)
    torch.nn.init.uniform_(plain.weight)
    shared = copy.deepcopy(plain)
    share_normalization(shared)
    inputs = [(torch.randn(4, 5, 3, 2) * 3 + 7).requires_grad_(True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    weight = torch.randn(4, 5, 3, 2)
    with joined(Place("cpu", 0, 1, (tmp_path / "meeting").as_uri())):
        for norm, x in zip((plain, shared), inputs, strict=True):
            for _ in range(2):  # the second time the running mean is not zero
                (norm(x) * weight).sum().backward()
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, shared.state_dict()[name], atol=1e-5), name
    for one, other in ((inputs[0], inputs[1]), (plain.weight, shared.weight)):
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


@pytest.mark.slow
def test_a_trained_detector_finds_things_in_a_catalog(
    scenes: dict[str, Any], tmp_path: Path
) -> None:
    summary = train_detector(
        out=tmp_path / "out",
        name="squares",
        catalog=None,
        **scenes | {"epochs": 60, "size": 96, "mosaic": 0.3, "validate_every": 60},
    )
    assert summary.metrics["AP50"] > 0.8
    assert summary.onnx_difference < 1e-3
    card = ModelStore(tmp_path / "models").get("squares").card
    assert card.classes == ("red square",)
    assert card.input.dynamic
    assert card.metrics["AP50"] == pytest.approx(summary.metrics["AP50"], abs=1e-6)
    catalog = Catalog(str(tmp_path / "catalog.db"), create=True)
    done = vistadex.index(
        str(tmp_path / "scenes"),
        detector=str(tmp_path / "out" / "model.onnx"),
        catalog=catalog,
        min_score=0.3,
    )
    assert done.indexed == 12
    assert len(catalog.search("red square", limit=20).results) >= 10
    catalog.close()


def test_a_run_leaves_a_table_events_and_a_model_with_its_card(
    scenes: dict[str, Any], tmp_path: Path
) -> None:
    reports: list[EpochReport] = []
    told: list[int] = []

    class Told:
        def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
            assert (listed, listing, failed) == (24, False, 0)
            told.append(done)

    scenes["epochs"] = 3
    out = tmp_path / "out"
    summary = train_detector(
        out=out, progress=Told(), on_epoch=reports.append, name="tiny", license="CC0", **scenes
    )
    assert told == [4, 8, 12, 16, 20, 24]
    assert [one.epoch for one in reports] == [1, 2, 3]
    assert (summary.images, summary.boxes, summary.validation_images) == (11, 11, 1)
    assert "held out" in summary.validation
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert {"lr", "loss_total", "loss_box", "AP50", "waited"} <= rows[0].keys()
    assert list((out / "tensorboard").glob("events*"))
    stored = ModelStore(tmp_path / "models").get("tiny")
    assert stored.sha256 == summary.sha256
    assert stored.card.license == "CC0"
    assert stored.card.source == "trained by Vistadex on coco.json, from random weights"
    assert json.loads((out / "recipe.json").read_text())["size"] == 64
    assert not (out / "decoded").exists()
    assert not list(out.glob("*.part"))


def test_bad_pictures_and_boxes_are_listed_and_the_run_goes_on(
    scenes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "scenes"
    data = (folder / "03.jpg").read_bytes()
    (folder / "03.jpg").write_bytes(data[: len(data) // 2])
    (folder / "04.jpg").unlink()
    summary = train_detector(out=tmp_path / "out", **scenes | {"epochs": 2, "validate_split": None})
    lines = (tmp_path / "out" / "problems.txt").read_text().splitlines()
    assert summary.bad["bad-picture"] == len(lines) == 2
    assert any("03.jpg" in line for line in lines)
    assert any("04.jpg" in line for line in lines)


def test_weights_of_a_file_are_the_start_and_new_classes_are_said(
    scenes: dict[str, Any], tmp_path: Path, shared_data: Path
) -> None:
    file = shared_data / "weights" / "yolox_nano.onnx"
    summary = train_detector(out=tmp_path / "out", init=str(file), **scenes | {"epochs": 1})
    assert summary.new_classes == ("red square",)
    card = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert card["init"] == str(file)
    assert checkpoints.load(tmp_path / "out" / "last.pt")["architecture"].count('"silu"') == 1


@pytest.mark.slow
def test_fine_tuning_with_a_teacher_keeps_what_was_known(tmp_path: Path, shared_data: Path) -> None:
    """Two epochs on a few pictures of COCO's training set, with small steps."""
    file = shared_data / "weights" / "yolox_nano.onnx"
    from vistadex.annotated import open_annotated

    coco = shared_data / "coco"
    learned = open_annotated(
        str(coco / "instances_train.json"), images=str(coco / "images" / "train")
    ).subset(range(24))
    measured = open_annotated(
        str(coco / "instances_val.json"), images=str(coco / "images" / "val")
    ).subset(range(40))
    summary = train_detector(
        learned,
        tmp_path / "out",
        validate=measured,
        init=str(file),
        teacher=str(file),
        epochs=2,
        size=256,
        batch=8,
        workers=0,
        models=tmp_path / "models",
        lr=2e-5,
        devices="cpu",
    )
    assert summary.new_classes == ()
    assert summary.metrics["AP50"] > 0.25


@pytest.mark.slow
def test_a_network_that_knows_int8_is_trained_and_its_ranges_are_written(
    scenes: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    start = tmp_path / "float.onnx"
    start.write_bytes(to_onnx(build_network(ARCHITECTURES["nano"], 1)))
    card = card_of("float", ("red square",), 64)
    (tmp_path / "float.onnx.json").write_text(card.to_json())
    summary = train_detector(
        out=tmp_path / "int8", init=str(start), fake_quantize=True, **scenes | {"epochs": 1}
    )
    ranges = json.loads((tmp_path / "int8" / "input_ranges.json").read_text())
    assert "backbone.stem.conv" not in ranges
    assert "heads.0.classes" not in ranges
    assert all(low <= 0 <= high for low, high in ranges.values())
    assert len(ranges) == 103
    assert summary.onnx_difference < 1e-3


def test_a_run_on_a_catalog_is_in_its_table_of_runs(scenes: dict[str, Any], tmp_path: Path) -> None:
    catalog = Catalog(str(tmp_path / "catalog.db"), create=True)
    vistadex.import_annotations("coco", scenes["data"], images=scenes["images"], catalog=catalog)
    options = {**scenes, "data": "catalog", "images": None, "epochs": 1}
    summary = train_detector(out=tmp_path / "out", catalog=catalog, **options)
    assert summary.images == 11
    (first, *_) = list_runs(catalog)
    catalog.close()
    assert (first.kind, first.status) == ("train", "done")
    assert first.subject == "detector of 1 class on catalog"
    assert first.numbers["steps"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "size 100: expected a multiple of 32"),
        ({"batch": 3, "devices": "cpu:2"}, "batch 3: can't be shared by 2 processes"),
        ({"devices": "tpu"}, "devices 'tpu': expected auto, cpu, cpu:2"),
        ({"devices": "cuda:64"}, "GPUs are there, expected 64"),
        ({"network": "huge"}, "network 'huge' is unknown; expected one of nano"),
        ({"fake_quantize": True}, "add --init FILE"),
        ({"mosaic": 2.0}, "mosaic 2.0: expected 0 to 1"),
        ({"epochs": 0}, "epochs 0: expected 1 or more"),
        ({"precision": "f64"}, "precision f64: expected auto, f32, bf16, f16"),
        ({"workers": -1}, "workers -1: expected 0 or more"),
        ({"resume": True}, "there is no checkpoint, expected one of an interrupted run"),
    ],
)
def test_what_can_not_be_is_refused_before_the_first_step(
    scenes: dict[str, Any], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train_detector(out=tmp_path / "out", **{**scenes, **options})
    assert not (tmp_path / "out" / "last.pt").exists()


def test_another_run_or_another_recipe_is_not_mixed_in(
    scenes: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    train_detector(out=out, **scenes | {"epochs": 1})
    with pytest.raises(UsageError, match="holds a run already; go on with --resume"):
        train_detector(out=out, **scenes | {"epochs": 1})
    with pytest.raises(UsageError, match="was made with --epochs 1, not 3"):
        train_detector(out=out, resume=True, **scenes)


def test_a_taken_name_is_refused_before_the_first_step(
    scenes: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "other.onnx"
    file.write_bytes(to_onnx(build_network(ARCHITECTURES["nano"], 1)))
    (tmp_path / "other.onnx.json").write_text(card_of("taken", ("cat",), 64).to_json())
    ModelStore(tmp_path / "models").add(file)
    with pytest.raises(ModelError, match="the name 'taken' is taken"):
        train_detector(out=tmp_path / "out", name="taken", **scenes)
    assert not (tmp_path / "out" / "last.pt").exists()


def test_a_damaged_checkpoint_is_said_to_be_one(scenes: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match=r"last.pt: not a checkpoint of ours"):
        train_detector(out=out, resume=True, **scenes)


def test_the_rate_rises_and_falls() -> None:
    schedule = Schedule(1.0, 100, 10)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.02)

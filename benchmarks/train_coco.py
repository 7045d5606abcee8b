"""YOLOX-nano's weights trained on with a subset of COCO: what is kept, and what is won.

    python benchmarks/train_coco.py ../shared/data/coco yolox_nano.onnx runs/coco

trains on instances_train.json with the starting file as the teacher, and measures both files on
instances_val.json in the same way. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vistadex.annotated import open_annotated
from vistadex.training import EpochReport, train_detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with instances_*.json and images/")
    parser.add_argument("start", help="the ONNX file to begin with")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--no-teacher", action="store_true")
    parser.add_argument("--devices", default="auto")
    said = parser.parse_args()
    measured = open_annotated(said.data / "instances_val.json", images=said.data / "images" / "val")
    summary = train_detector(
        said.data / "instances_train.json",
        said.out,
        images=str(said.data / "images" / "train"),
        validate=measured,
        init=said.start,
        teacher=None if said.no_teacher else said.start,
        epochs=said.epochs,
        size=said.size,
        lr=said.lr,
        devices=said.devices,
        resume=(said.out / "last.pt").exists(),
        on_epoch=show,
    )
    for name in ("AP", "AP50"):
        print(f"{name} {summary.metrics[name]:.4f} (best epoch {summary.best_epoch})")
    print(f"measure {said.start} beside it: vistadex evaluate {said.start} …")


def show(report: EpochReport) -> None:
    """A line for each epoch."""
    ap = report.metrics.get("AP", float("nan"))
    sys.stderr.write(
        f"{report.epoch:3} {report.seconds:6.0f} s loss {report.losses['total']:6.3f} AP {ap:.4f} "
        f"{report.images_per_s:6.1f} images/s, {report.waited:.1%} waiting\n"
    )


if __name__ == "__main__":
    main()

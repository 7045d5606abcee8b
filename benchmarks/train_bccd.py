"""BCCD from random weights: how good after how long, on this machine.

    python benchmarks/train_bccd.py ../shared/data/bccd/BCCD runs/bccd

trains on the splits train and val, and measures on test at the end alone. The aim: AP50 of 0.80 in
under 40 minutes on two cores. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vistadex.training import EpochReport, train_detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="the folder with Annotations/, JPEGImages/ and ImageSets/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=240)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--network", default="nano")
    parser.add_argument("--devices", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure-every", type=int, default=None, help="epochs; at the end alone")
    said = parser.parse_args()
    summary = train_detector(
        said.data,
        said.out,
        split="trainval",
        validate_split="test",
        network=said.network,
        epochs=said.epochs,
        size=said.size,
        flip_vertical=0.5,
        devices=said.devices,
        seed=said.seed,
        validate_every=said.measure_every or said.epochs,
        resume=(said.out / "last.pt").exists(),
        on_epoch=show,
    )
    for name in ("AP", "AP50"):
        print(f"{name} {summary.metrics[name]:.4f} on {summary.validation}")
    waited = f"{summary.waited:.1%} waiting"
    print(f"{summary.images_per_s:.1f} images/s, {waited}, {summary.seconds:.0f} s")


def show(report: EpochReport) -> None:
    """A line for each epoch."""
    measured = f" AP50 {report.metrics['AP50']:.4f}" if report.metrics else ""
    sys.stderr.write(
        f"{report.epoch:4} {report.seconds:6.0f} s loss {report.losses['total']:6.3f}{measured} "
        f"{report.images_per_s:6.1f} images/s, {report.waited:.1%} waiting\n"
    )


if __name__ == "__main__":
    main()

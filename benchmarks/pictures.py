"""Makes the photographs that the benchmarks read: COCO's, enlarged, in folders that are reused."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import measuring
import numpy as np

QUALITY = 90


def photographs(
    work: Path, number: int, *, long_side: int = 0, megapixels: float = 0, grain: float = 0
) -> Path:
    """A folder with so many JPEGs, made where it is not there yet.

    Proportions are those of the originals. More than there are originals begin again with the
    first, with one pixel row less each time so that no two files are alike.

    Args:
        long_side: pixels of the long side.
        megapixels: instead of long_side, million pixels of the picture.
        grain: standard deviation of noise added to the pixels, as a sensor's: enlarged pictures are
            smooth, and so quicker to decode than those of a camera.
    """
    size = f"{megapixels:g}mp" if megapixels else f"{long_side}px"
    folder = work / f"photographs-{size}-{number}" / (f"grain-{grain:g}" if grain else "smooth")
    mark = folder.parent / f"{folder.name}.json"
    if mark.exists():
        return folder
    originals = _originals()
    folder.mkdir(parents=True, exist_ok=True)
    measuring.note(f"making {number:,} photographs in {folder}")

    def make(i: int) -> int:
        pixels = cv2.imread(str(originals[i % len(originals)]), cv2.IMREAD_COLOR)
        pixels = pixels[i // len(originals) :]
        height, width = pixels.shape[:2]
        factor = long_side / max(height, width)
        if megapixels:
            factor = (megapixels * 1e6 / (height * width)) ** 0.5
        size_wh = round(width * factor), round(height * factor)
        pixels = cv2.resize(pixels, size_wh, interpolation=cv2.INTER_CUBIC)
        if grain:
            noise = np.random.default_rng(i).normal(0, grain, pixels.shape).astype(np.float32)
            pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        path = folder / f"{i:06d}.jpg"
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return path.stat().st_size

    with ThreadPoolExecutor(2) as pool:
        sizes = list(pool.map(make, range(number)))
    mark.write_text(json.dumps({"files": number, "mean_kb": round(sum(sizes) / number / 1e3, 1)}))
    return folder


def describe(folder: Path) -> dict[str, float]:
    """Number and mean size of the files that photographs() made."""
    found: dict[str, float] = json.loads((folder.parent / f"{folder.name}.json").read_text())
    return found


def repeated(folder: Path, work: Path, number: int) -> Path:
    """A folder with so many hard links to a folder's files, a subfolder for each repetition."""
    target = work / f"repeated-{number}-{folder.parent.name}"
    files = sorted(folder.iterdir())
    mark = work / f"{target.name}.done"
    if mark.exists():
        return target
    for i in range(number):
        turn, which = divmod(i, len(files))
        place = target / f"{turn:05d}"
        if which == 0:
            place.mkdir(parents=True, exist_ok=True)
        if not (place / files[which].name).exists():
            os.link(files[which], place / files[which].name)
    mark.touch()
    return target


def warm(folder: Path) -> None:
    """Reads every file once, so that all contestants find them in the page cache."""
    for path in folder.rglob("*.jpg"):
        path.read_bytes()


def _originals() -> list[Path]:
    root = measuring.SHARED_DATA / "coco" / "images"
    found = [
        path for part in ("val", "train", "unlabelled") for path in (root / part).glob("*.jpg")
    ]
    if not found:
        sys.exit(f"{root}: no pictures there; set VISTADEX_TEST_DATA to the folder of test data")
    return sorted(found, key=lambda path: path.name)

"""Rival: Daft with a class UDF over file paths; the work on a picture is the loop's.

A batch method: rows of a plain method stay together in one worker until there are more than
131,072 of them, so that only one core would work.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import daft
from daft import DataType

RESULT = DataType.struct(
    {
        "boxes": DataType.list(DataType.list(DataType.float32())),
        "began": DataType.float64(),
        "ended": DataType.float64(),
        "worker": DataType.int64(),
    }
)
BATCH_SIZE = 32


class Detect:
    """Loads the model once for each worker."""

    def __init__(self, weights: str, threads: int, folder: str) -> None:
        """folder: of this file; the workers are processes that would not look there."""
        sys.path.insert(0, folder)
        from yolox_numpy import Yolox

        if threads:
            import cv2

            cv2.setNumThreads(threads)
        self.detector = Yolox(weights, threads)

    @daft.method.batch(return_dtype=RESULT, batch_size=BATCH_SIZE)
    def detect(self, paths: daft.Series) -> list[dict[str, Any]]:
        """The boxes of the pictures in files."""
        results = []
        for path in paths.to_pylist():
            began = time.monotonic()
            boxes = self.detector.detect(path)
            ended = time.monotonic()
            results.append({"boxes": boxes, "began": began, "ended": ended, "worker": os.getpid()})
        return results


def main() -> None:
    """Prints images and the seconds from the first read to the last result, as JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("weights", type=Path)
    options.add_argument("--threads", type=int, default=0, help="of onnxruntime and cv2, a worker")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--no-process", action="store_true", help="workers are threads")
    chosen = options.parse_args()
    daft.set_runner_native()
    wrap = daft.cls(max_concurrency=chosen.workers, use_process=not chosen.no_process)
    folder = str(Path(__file__).parent)
    detect = wrap(Detect)(str(chosen.weights), chosen.threads, folder)
    paths = sorted(str(path) for path in chosen.folder.rglob("*.jpg"))
    frame = daft.from_pydict({"path": paths})
    frame = frame.with_column("found", detect.detect(daft.col("path")))
    rows = frame.collect().to_pydict()["found"]
    seconds = max(row["ended"] for row in rows) - min(row["began"] for row in rows)
    number = sum(len(row["boxes"]) for row in rows)
    workers = len({row["worker"] for row in rows})
    summary = {"images": len(rows), "boxes": number, "seconds": seconds, "workers": workers}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

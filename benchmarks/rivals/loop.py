"""Rival: a plain loop over a folder, cv2 + onnxruntime, results in a list."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from yolox_numpy import Yolox


def main() -> None:
    """Prints images and the seconds from the first read to the last result, as JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("weights", type=Path)
    options.add_argument("--threads", type=int, default=0, help="intra_op_num_threads")
    options.add_argument("--boxes", type=Path, help="JSON file for the boxes, written at the end")
    chosen = options.parse_args()
    detector = Yolox(chosen.weights, chosen.threads)
    paths = sorted(str(path) for path in chosen.folder.rglob("*.jpg"))
    results = []
    started = time.monotonic()
    for path in paths:
        results.append((path, detector.detect(path)))
    seconds = time.monotonic() - started
    if chosen.boxes:
        found = {str(Path(path).relative_to(chosen.folder)): boxes for path, boxes in results}
        chosen.boxes.write_text(json.dumps(found))
    number = sum(len(boxes) for _, boxes in results)
    print(json.dumps({"images": len(results), "boxes": number, "seconds": seconds}))


if __name__ == "__main__":
    main()

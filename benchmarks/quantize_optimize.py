"""What `models add --optimize` gains: CPU time of the network alone, in turns on real pictures.

python -m benchmarks.quantize_optimize MODEL.onnx PICTURES [--count 16] [--rounds 20]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vistadex.models import ModelStore
from vistadex.models.sessions import open_session
from vistadex.quantizing.pictures import Feeds, choose


def main() -> None:
    """Prints the median ratio of times, and the largest difference of the raw outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        given = store.add(asked.model, name="given")
        faster = store.add(asked.model, name="faster", optimize=True)
        feeds = list(Feeds(given, choose(asked.pictures, asked.count, given).images))
        both = [open_session(file.path) for file in (given, faster)]
        spent: list[list[float]] = [[], []]
        difference = 0.0
        for number in range(asked.rounds + 1):
            for feed in feeds:
                outputs = []
                for session, seconds in zip(both, spent, strict=True):
                    begun = time.thread_time()
                    outputs.append(session.run(None, feed))
                    if number:
                        seconds.append(time.thread_time() - begun)
                for one, other in zip(*outputs, strict=True):
                    difference = max(difference, float(np.abs(one - other).max()))
        before, after = (np.array(one) for one in spent)
        print(f"{asked.model.name}, {len(feeds)} pictures, {asked.rounds} rounds, one thread")
        print(f"median {1000 * np.median(before):.2f} ms -> {1000 * np.median(after):.2f} ms")
        print(f"median of ratios in turns {np.median(before / after):.3f}")
        print(f"largest difference of an output {difference:.2g}")


if __name__ == "__main__":
    main()

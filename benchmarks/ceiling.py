"""What this machine allows: cores over the sum of the stages' times, each alone on one core.

Stages are Vistadex's own functions. Each is timed by itself over a few pictures at a time, which
then still lie in the processor's caches as they do at work: read, decode, preprocess, model,
postprocess (NMS and back to the picture's pixels), commit (in shards as large as indexing's).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import measuring
import numpy as np
import pictures
import tables

from vistadex.catalog import Catalog
from vistadex.decoding import decode, use_one_thread
from vistadex.engines.local import cores
from vistadex.models import ModelAnalyzer, ModelStore, analyzer
from vistadex.models.detectors import Detector
from vistadex.models.heads import HEADS
from vistadex.models.network import Network, wire
from vistadex.models.preprocessing import Preprocessor
from vistadex.models.sessions import open_session
from vistadex.planning import Run
from vistadex.progress import Silent
from vistadex.records import DecodedImage, ImageEntry, Outcome
from vistadex.registry import lookup
from vistadex.shards import LARGEST_SHARD, Limits, Shard
from vistadex.sources import Source, open_source

T = TypeVar("T")
STAGES = ("read", "decode", "preprocess", "model", "postprocess", "commit")
GROUP = 8
"""Pictures at a time: 7 MB of pixels."""


class Replay:
    """A session that gives outputs which are there already: all of analyze() but the network."""

    def __init__(self, session: Any) -> None:
        self.get_inputs = session.get_inputs
        self.outputs: list[Any] = []

    def run(self, _names: object, _feed: object) -> Any:
        """The next outputs."""
        return self.outputs.pop(0)


class Stages:
    """The pipeline taken apart."""

    def __init__(self, chosen: ModelAnalyzer, source: Source) -> None:
        card = chosen.file.card
        self.source = source
        self.session = open_session(chosen.file.path)
        self.input = self.session.get_inputs()[0].name
        self.preprocessor = Preprocessor(card.input, chosen.size_wh, rectangular=chosen.rectangular)
        self.replay = Replay(self.session)
        head = lookup(HEADS, card.head, "model head")()
        wiring = wire(self.session, card, head, card.name)
        self.detector = Detector(
            Network(self.replay, self.preprocessor, wiring, 1, card.name),
            head,
            len(card.classes),
            min_score=chosen.options.min_score,
            nms_iou=chosen.options.nms_iou,
            max_boxes=chosen.options.max_boxes,
        )
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, stage: str, function: Callable[..., T], *arguments: Any) -> list[T]:
        """The function's results over the arguments, its time added to the stage's."""
        started = time.perf_counter()
        results = [function(*each) for each in zip(*arguments, strict=True)]
        self.seconds[stage] += time.perf_counter() - started
        return results

    def decode(self, data: bytes) -> DecodedImage:
        """Decoded as indexing does."""
        long, short = self.preprocessor.min_sides
        return decode(data, min_long_side=long, min_short_side=short)

    def preprocess(self, image: DecodedImage) -> np.ndarray:
        """The network's input."""
        placement = self.preprocessor.place(image.width, image.height)
        width, height = placement.canvas_wh
        blob = self.blob[: 3 * height * width].reshape(1, 3, height, width)
        self.preprocessor.write(image.pixels, placement, blob[0])
        return blob

    def model(self, blob: np.ndarray) -> Any:
        """The network's outputs."""
        return self.session.run(None, {self.input: blob})

    @property
    def blob(self) -> np.ndarray:
        """One block for all inputs, as Network has it for each thread."""
        if not hasattr(self, "_blob"):
            self._blob = np.empty(3 * max(self.preprocessor.size_wh) ** 2, np.float32)
        return self._blob

    def group(self, entries: Sequence[ImageEntry]) -> list[Outcome]:
        """A few pictures through all stages but the last, one stage after the other."""
        content = self.timed("read", lambda entry: self.source.read(entry.key).data, entries)
        decoded = self.timed("decode", self.decode, content)
        self.timed("preprocess", self.preprocess, decoded)
        self.replay.outputs = [
            self.timed("model", self.model, [self.preprocess(i)])[0] for i in decoded
        ]
        results = self.timed(
            "postprocess", lambda image: self.detector.analyze([image])[0], decoded
        )
        return [
            Outcome(entry, image.width, image.height, (result,))
            for entry, image, result in zip(entries, decoded, results, strict=True)
        ]


def commits(chosen: ModelAnalyzer, source: Source, outcomes: list[Outcome]) -> float:
    """Seconds to commit the outcomes into a fresh catalog, in shards of the largest size."""
    limits = Limits(max_pixels=1 << 30, max_file_bytes=1 << 30, read_ahead_bytes=0)
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(str(Path(folder) / "catalog.db"), create=True)
        with catalog:
            run = Run(catalog, (chosen,), limits, "new", prune=False, progress=Silent())
            run.register([source])
            started = time.perf_counter()
            for i in range(0, len(outcomes), LARGEST_SHARD):
                part = outcomes[i : i + LARGEST_SHARD]
                entries = tuple(outcome.entry for outcome in part)
                run.commit(Shard(source.uri, entries, (chosen,), limits), part)
            return time.perf_counter() - started


def threads_model(stages: Stages, images: Sequence[bytes], rounds: int) -> float:
    """Images per second of the shared session alone, with a thread on each core."""
    blobs = [stages.preprocess(stages.decode(data)).copy() for data in images]
    work = [blobs[i % len(blobs)] for i in range(rounds)]
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(stages.model, work[: 2 * cores()]))
        started = time.perf_counter()
        list(pool.map(stages.model, work))
        return len(work) / (time.perf_counter() - started)


def measure(chosen: ModelAnalyzer, folder: Path, sample: int) -> dict[str, float]:
    """Milliseconds an image of each stage, and the ceilings that follow."""
    use_one_thread()
    source = open_source(folder)
    entries = [entry for page in source.pages() for entry in page]
    entries = entries[:: max(1, len(entries) // sample)][:sample]
    stages = Stages(chosen, source)
    stages.group(entries[:GROUP])
    stages.seconds.clear()
    outcomes: list[Outcome] = []
    for i in range(0, len(entries), GROUP):
        outcomes += stages.group(entries[i : i + GROUP])
    # What analyze() does without its network is preprocessing too.
    stages.seconds["postprocess"] -= stages.seconds["preprocess"]
    stages.seconds["commit"] = commits(chosen, source, outcomes)
    ms = {f"{stage}_ms": 1e3 * stages.seconds[stage] / len(entries) for stage in STAGES}
    some = [source.read(entry.key).data for entry in entries[:: max(1, len(entries) // 40)]]
    return {
        **ms,
        "ceiling_per_s": 1e3 * cores() / sum(ms.values()),
        "model_alone_per_s": 1e3 * cores() / ms["model_ms"],
        "model_threads_per_s": threads_model(stages, some, len(entries)),
    }


def main() -> None:
    """Measures both forms of input, or prints one of them as JSON for index_speed.py."""
    parser = measuring.parser(__doc__)
    parser.add_argument(
        "--photographs", type=Path, help="folder; made in the work folder if absent"
    )
    parser.add_argument("--number", type=int, default=2000, help="photographs to make")
    parser.add_argument("--sample", type=int, default=600, help="photographs to measure with")
    parser.add_argument("--square", action="store_true", help="with --json: square input")
    parser.add_argument("--json", action="store_true", help="one form; the work folder has models")
    options = parser.parse_args()
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        if not options.json:
            measuring.add_models(work)
        made = options.photographs or pictures.photographs(work, options.number, long_side=640)
        store, found = ModelStore(work / "models"), {}
        for square in (True, False) if not options.json else (options.square,):
            file = store.get("yolox-nano-static" if square else "yolox-nano")
            chosen = analyzer(file, rectangular=not square, device="cpu")
            found["square" if square else "rectangular"] = measure(chosen, made, options.sample)
    if options.json:
        print(json.dumps(next(iter(found.values()))))
        return
    rows = [[name, *values.values()] for name, values in found.items()]
    tables.show("Ceiling", ["", *found["square"]], rows)
    measuring.write_json(options, here, found)


if __name__ == "__main__":
    main()

"""Nearest vectors: how long a search takes, what share of the true nearest it finds, what it needs.

Vectors are synthetic clusters, and real embeddings of the test pictures: these are projected to the
length by chance and spread to the number by mixing three at a time, since there are not so many
pictures: neighbors are harder to find so than among real ones. Of wall clock and processor time the
second hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import tables
from numpy.typing import NDArray

from vistadex import neighbors
from vistadex.decoding import decode
from vistadex.errors import DecodingError
from vistadex.models.store import ModelStore
from vistadex.neighbors import Vectors, nearest, unit
from vistadex.records import Embedding, FloatArray

EXTRACTOR = "coral_mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
AT_A_TIME = 50_000
LIMIT = 50
SHARES = (0.001, 0.01, 0.1, 0.5)

Make = Callable[[int, np.random.Generator], FloatArray]


def clusters(number: int, length: int, rng: np.random.Generator) -> Make:
    """Rows around one of so many centers that each has a few hundred."""
    centers = rng.standard_normal((max(8, number // 500), length), dtype=np.float32)

    def make(rows: int, rng: np.random.Generator) -> FloatArray:
        picked = centers[rng.integers(0, len(centers), rows)]
        return unit(picked + 0.8 * rng.standard_normal((rows, length), dtype=np.float32))

    return make


def real(length: int, pictures: int, work: Path, rng: np.random.Generator) -> Make:
    """Mixes of three real embeddings in any proportion, with a little noise."""
    seen = embeddings(pictures, work)
    projected = unit(seen @ rng.standard_normal((seen.shape[1], length)))
    measuring.note(f"{len(projected):,} pictures embedded")

    def make(rows: int, rng: np.random.Generator) -> FloatArray:
        shares = rng.dirichlet((1, 1, 1), rows).astype(np.float32)
        mixed = rng.standard_normal((rows, length), dtype=np.float32) * (0.3 / length**0.5)
        for share in shares.T:
            mixed += share[:, None] * projected[rng.integers(0, len(projected), rows)]
        return unit(mixed)

    return make


def embeddings(pictures: int, work: Path) -> NDArray[np.float32]:
    """Of the test pictures by a MobileNet, less their mean: their cosines would be alike."""
    from vistadex import models

    kept = work / f"embeddings-{pictures}.npy"
    if kept.exists():
        return np.asarray(np.load(kept))
    store = ModelStore(work / "models")
    file = store.add(measuring.SHARED_DATA / "weights" / EXTRACTOR, head="embedding", name="e")
    model = models.analyzer(file).load()
    folders = (measuring.SHARED_DATA / "imagenette", measuring.SHARED_DATA / "coco/images")
    found = []
    for path in [one for folder in folders for one in sorted(folder.rglob("*.[jJ]*[gG]"))]:
        try:
            picture = decode(path.read_bytes(), min_short_side=model.min_short_side)
        except DecodingError:
            continue
        (result,) = model.analyze([picture])
        assert isinstance(result, Embedding)
        found.append(result.vector)
        if len(found) == pictures:
            break
    rows = np.stack(found)
    np.save(kept, rows - rows.mean(axis=0))
    return np.asarray(np.load(kept))


def filled(path: Path, number: int, length: int, make: Make) -> FloatArray:
    """The vectors in a file that is mapped, as the catalog's are; rounded to float16 before."""
    rng = np.random.default_rng(7)
    with path.open("wb") as file:
        for start in range(0, number, AT_A_TIME):
            rows = make(min(AT_A_TIME, number - start), rng)
            file.write(unit(rows.astype(np.float16)).tobytes())
    return np.asarray(np.memmap(path, np.float32, "r")).reshape(number, length)


def timed(calls: Iterator[Callable[[], Any]]) -> dict[str, float]:
    """Median and 95th percentile of wall clock, least wall clock, mean processor time, in ms."""
    wall, cpu = [], []
    for call in calls:
        before, started = time.process_time(), time.perf_counter()
        call()
        wall.append((time.perf_counter() - started) * 1000)
        cpu.append((time.process_time() - before) * 1000)
    return {
        "p50_ms": float(np.median(wall)),
        "p95_ms": float(np.percentile(wall, 95)),
        "least_ms": min(wall),
        "cpu_ms": float(np.median(cpu)),
    }


def truth(rows: FloatArray, query: FloatArray) -> set[int]:
    """The nearest by a plain product of everything, in float64 where it is close."""
    scores = np.concatenate(
        [rows[at : at + AT_A_TIME] @ query for at in range(0, len(rows), AT_A_TIME)]
    )
    close = np.argpartition(-scores, min(len(rows) - 1, 4 * LIMIT))[: 4 * LIMIT]
    exact = np.vecdot(rows[close].astype(np.float64), query.astype(np.float64))
    return set(close[np.lexsort((close, -exact))[:LIMIT]].tolist())


def recall(
    vectors: Vectors, queries: FloatArray, expected: list[set[int]], *, exact: bool
) -> float:
    """Share of the true nearest that is found."""
    shared = [
        len(one & set(nearest(vectors, query, LIMIT, exact=exact).ids.tolist())) / len(one)
        for one, query in zip(expected, queries, strict=True)
    ]
    return float(np.mean(shared))


def in_lists(vectors: Vectors, path: Path) -> tuple[Vectors, float]:
    """The same vectors in lists, and the seconds that took."""
    started = time.perf_counter()
    with path.open("wb") as file:
        lists, order = neighbors.grouped(vectors, lambda rows: file.write(rows.tobytes()))
    seconds = time.perf_counter() - started
    row_of = np.empty(order.size, np.int64)
    row_of[order] = np.arange(order.size)
    rows = np.asarray(np.memmap(path, np.float32, "r")).reshape(vectors.rows.shape)
    return Vectors(vectors.ids, rows, row_of, vectors.ids[order], lists), seconds


def measure(rows: FloatArray, queries: FloatArray, path: Path) -> dict[str, dict[str, float]]:
    """Every way of searching, by name."""
    vectors = Vectors(np.arange(len(rows)), rows)
    expected = [truth(rows, query) for query in queries]
    found: dict[str, dict[str, float]] = {}

    def add(name: str, searched: Vectors, **options: Any) -> None:
        found[name] = timed(
            (lambda query=query: nearest(searched, query, LIMIT, **options)) for query in queries
        )
        measuring.note(f"{name}: done")

    add("exact", vectors)
    found["exact"]["recall"] = recall(vectors, queries, expected, exact=True)
    rng = np.random.default_rng(3)
    for share in SHARES:
        allowed = np.sort(rng.choice(len(rows), max(1, int(len(rows) * share)), replace=False))
        add(f"exact, {share:.1%} allowed", vectors, allowed=allowed)
    grouped, seconds = in_lists(vectors, path)
    add("lists", grouped)
    found["lists"] |= {
        "recall": recall(grouped, queries, expected, exact=False),
        "build_s": seconds,
    }
    for share in SHARES[1:]:
        allowed = np.sort(rng.choice(len(rows), max(1, int(len(rows) * share)), replace=False))
        add(f"lists, {share:.1%} allowed", grouped, allowed=allowed)
    return found


def main() -> None:
    """Prints a table for each kind of vectors."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=4000, help="to embed for the real vectors")
    options = parser.parse_args()
    here = measuring.machine()
    rng = np.random.default_rng(0)
    results: dict[str, Any] = {}
    with measuring.work_folder(options.work) as work:
        makers = {
            "synthetic clusters": clusters(options.vectors, options.length, rng),
            "spread from real embeddings": real(options.length, options.pictures, work, rng),
        }
        for name, make in makers.items():
            rows = filled(work / "rows", options.vectors, options.length, make)
            queries = make(options.queries, np.random.default_rng(11))
            results[name] = measure(rows, queries, work / "grouped")
            show(f"{options.vectors:,} x {options.length}, {name}", results[name], rows.nbytes)
    measuring.write_json(options, here, results)


def show(title: str, found: dict[str, dict[str, float]], size_bytes: int) -> None:
    """One line for each way of searching."""
    columns = ("p50_ms", "p95_ms", "least_ms", "cpu_ms", "recall", "build_s")
    lines = [[name, *(one.get(column) for column in columns)] for name, one in found.items()]
    shown = [["" if cell is None else cell for cell in line] for line in lines]
    load = os.getloadavg()[0]
    tables.show(f"{title}; {size_bytes / 1e6:,.0f} MB, load {load:.1f}", ["", *columns], shown)


if __name__ == "__main__":
    main()

"""Reading and indexing photographs in archives, against the same files in a folder."""

from __future__ import annotations

import json
import random
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

import measuring
import pictures
import processes
import tables

from vistadex.sources import open_source, read_images

FOLDER = "folder"
ARCHIVES = {
    "zip, stored": "stored.zip",
    "zip, deflated": "deflated.zip",
    "tar": "sorted.tar",
    "tar.gz": "sorted.tar.gz",
    "tar.gz, names in no order": "shuffled.tar.gz",
}


def make(folder: Path, path: Path) -> Path:
    """The archive with a folder's files, made where it is not there yet."""
    if path.exists():
        return path
    files = sorted(folder.iterdir())
    if "shuffled" in path.name:
        random.Random(1).shuffle(files)
    measuring.note(f"packing {path.name}")
    part = path.with_name("part")
    if path.suffix == ".zip":
        method = zipfile.ZIP_STORED if "stored" in path.name else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(part, "w", method) as made:
            for file in files:
                made.write(file, file.name)
    else:
        with tarfile.open(part, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for file in files:
                tar.add(file, file.name)
    return part.rename(path)


def read(source: str) -> None:
    """Lists and reads a source twice, and says as JSON how long each part took."""
    found: dict[str, float] = {}
    for turn in ("first", "again"):
        started = time.perf_counter()
        opened = open_source(source)
        entries = [entry for page in opened.pages() for entry in page]
        listed = time.perf_counter()
        size = 0
        for _, data in read_images(opened, entries):
            assert isinstance(data, bytes)
            size += len(data)
        found[f"{turn}_list_s"] = listed - started
        found[f"{turn}_read_per_s"] = len(entries) / (time.perf_counter() - listed)
        found["mb_per_s"] = size / 1e6 / (time.perf_counter() - listed)
    print(json.dumps(found))


def one_run(work: Path, source: Path, options: Any) -> dict[str, float]:
    """Reading in one process and `vistadex index` in another, both without a cache."""
    for path in (work / "cache" / "archives").glob("*"):
        path.unlink()
    env = measuring.environment(work)
    reading = processes.run([sys.executable, __file__, "--read", source], env)
    for path in (work / "cache" / "archives").glob("*"):
        path.unlink()
    catalog = measuring.remove_catalog(work / "archive.db")
    indexing = processes.run(measuring.index_command(source, catalog), env)
    if indexing.json["indexed"] != options.number:
        raise SystemExit(f"{source}: {indexing.json['indexed']} indexed")
    return {
        "list_s": reading.json["first_list_s"],
        "read_per_s": reading.json["first_read_per_s"],
        "mb_per_s": reading.json["mb_per_s"],
        "read_peak_mib": reading.peak_mib,
        "index_per_s": options.number / indexing.wall_s,
        "index_cpu_s": indexing.cpu_s,
        "index_peak_mib": indexing.peak_mib,
    }


def main() -> None:
    """Compares archives and their folder in interleaved rounds."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=2000, help="photographs of about 640x480")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", help="only read this source, and print JSON")
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        measuring.add_models(work)
        folder = pictures.photographs(work, options.number, long_side=640)
        sources = {FOLDER: folder} | {
            name: make(folder, work / f"{options.number}-{file}") for name, file in ARCHIVES.items()
        }
        pictures.warm(folder)
        found = measuring.interleaved(
            {
                name: lambda source=source: one_run(work, source, options)
                for name, source in sources.items()
            },
            options.rounds,
        )
        title = f"{options.number:,} photographs of {pictures.describe(folder)['mean_kb']} KB"
    show(found, title)
    measuring.write_json(options, here, {"rounds": found})


def show(found: dict[str, list[dict[str, float]]], title: str) -> None:
    """Medians of all rounds, and ratios to the folder within each."""
    columns = list(found[FOLDER][0])
    rows = [
        [
            name,
            *(median(one[key] for one in runs) for key in columns),
            *(
                measuring.ratio([one[key] for one in runs], [one[key] for one in found[FOLDER]])
                for key in ("read_per_s", "index_per_s", "index_cpu_s")
            ),
        ]
        for name, runs in found.items()
    ]
    ratios = ["read / folder", "index / folder", "cpu / folder"]
    headers = ["", *(key.replace("_", " ") for key in columns), *ratios]
    tables.show(title, headers, rows)


if __name__ == "__main__":
    main()

"""Indexing a bucket whose every answer comes late, against indexing the same files from a folder.

The server runs on the same cores; its processor time is measured, and shown beside the rate.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import measuring
import pictures
import processes
import tables

FOLDER, BUCKET = "folder", "bucket"


@contextmanager
def server(folder: Path, latency_ms: float) -> Iterator[tuple[int, int]]:
    """Process id and port of s3_server.py over a folder."""
    command = measuring.python("s3_server.py", folder, "--latency-ms", str(latency_ms))
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


def one_run(
    work: Path, source: str | Path, port: int, server_pid: int, options: Any
) -> dict[str, float]:
    """One `vistadex index` into a fresh catalog."""
    catalog = measuring.remove_catalog(work / "s3.db")
    env = measuring.environment(
        work,
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AWS_ACCESS_KEY_ID="benchmark",
        AWS_SECRET_ACCESS_KEY="benchmark",
        AWS_REGION="us-east-1",
        AWS_CONFIG_FILE="/dev/null",
        AWS_SHARED_CREDENTIALS_FILE="/dev/null",
    )
    before = processes.cpu_seconds(server_pid)
    command = measuring.index_command(source, catalog, square=options.square)
    done = processes.run(command, env)
    if done.json["indexed"] != options.number:
        raise SystemExit(f"{source}: {done.json['indexed']} indexed, expected {options.number}")
    return {
        "own_per_s": done.json["images_per_s"],
        "wall_per_s": options.number / done.wall_s,
        "peak_mib": done.peak_mib,
        "cpu_s": done.cpu_s,
        "server_cpu_s": processes.cpu_seconds(server_pid) - before,
    }


def main() -> None:
    """Compares bucket and folder in interleaved rounds."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=2000, help="photographs of about 640x480")
    parser.add_argument("--latency-ms", type=float, default=20, help="added to every request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--square", action="store_true", help="square input, not rectangular")
    options = parser.parse_args()
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        measuring.add_models(work)
        folder = pictures.photographs(work, options.number, long_side=640)
        pictures.warm(folder)
        with server(folder, options.latency_ms) as (pid, port):
            found = measuring.interleaved(
                {
                    FOLDER: lambda: one_run(work, folder, port, pid, options),
                    BUCKET: lambda: one_run(work, "s3://photographs", port, pid, options),
                },
                options.rounds,
            )
    columns = list(found[FOLDER][0])
    rows = [
        [name, *(median(one[key] for one in runs) for key in columns)]
        for name, runs in found.items()
    ]
    title = f"{options.number:,} photographs, {options.latency_ms:g} ms added to every request"
    tables.show(title, ["", *(key.replace("_", " ") for key in columns)], rows)
    goals = [
        (f"bucket / folder, {what}", measuring.ratio(*rates(found, key)), ">=", 0.85)
        for what, key in (("its own rate", "own_per_s"), ("whole command", "wall_per_s"))
    ]
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(goals))
    measuring.write_json(options, here, {"rounds": found, "goals": goals})


def rates(found: dict[str, list[dict[str, float]]], key: str) -> tuple[list[float], list[float]]:
    """One figure of bucket and folder in each round."""
    return [one[key] for one in found[BUCKET]], [one[key] for one in found[FOLDER]]


if __name__ == "__main__":
    main()

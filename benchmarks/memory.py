"""Peak memory of `vistadex index` over few and over many images: it must not grow with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import measuring
import pictures
import processes
import tables


def peak(work: Path, folder: Path, *, square: bool) -> dict[str, Any]:
    """One run over a folder into a fresh catalog."""
    catalog = measuring.remove_catalog(work / "memory.db")
    done = processes.run(
        measuring.index_command(folder, catalog, square=square), measuring.environment(work)
    )
    return {
        "images": done.json["indexed"],
        "peak_mib": done.peak_mib,
        "own_peak_mib": done.json["peak_rss_bytes"] / processes.MIB,
        "per_s": done.json["images_per_s"],
        "wall_s": done.wall_s,
        "catalog_mib": catalog.stat().st_size / processes.MIB,
    }


def main() -> None:
    """Measures the small and the large collection, and a second run over the large one."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=2000, help="photographs of about 640x480")
    parser.add_argument("--large", type=int, default=50_000, help="files: the same, hard-linked")
    parser.add_argument("--square", action="store_true", help="square input, not rectangular")
    options = parser.parse_args()
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        measuring.add_models(work)
        folder = pictures.photographs(work, options.number, long_side=640)
        numbers = (options.number, options.large)
        sizes = {number: pictures.repeated(folder, work, number) for number in numbers}
        found = []
        for number, place in sizes.items():
            measuring.note(f"indexing {number:,} images")
            found.append(peak(work, place, square=options.square))
        env = measuring.environment(work)
        again = processes.run(
            measuring.index_command(
                sizes[options.large], work / "memory.db", square=options.square
            ),
            env,
        )
    rows = [list(one.values()) for one in found]
    tables.show("Memory", [key.replace("_", " ") for key in found[0]], rows)
    print(f"\nSecond run over {options.large:,} unchanged: {again.peak_mib:.0f} MiB")
    goals = [
        ("peak, MiB (200 MB)", max(one["peak_mib"] for one in found), "<=", 200e6 / processes.MIB),
        ("many / few", found[-1]["peak_mib"] / found[0]["peak_mib"], "<=", 1.05),
    ]
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(goals))
    results = {"runs": found, "unchanged_peak_mib": again.peak_mib, "goals": goals}
    measuring.write_json(options, here, results)


if __name__ == "__main__":
    main()

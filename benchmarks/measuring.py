"""What every benchmark needs: command lines, models, interleaved rounds, the machine, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from processes import run

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("VISTADEX_TEST_DATA", ROOT.parent / "shared" / "data"))
WEIGHTS = SHARED_DATA / "weights" / "yolox_nano.onnx"


def vistadex(*arguments: str | Path) -> list[str | Path]:
    """The command line of `vistadex` in this interpreter's environment."""
    script = Path(sys.executable).parent / "vistadex"
    start: list[str | Path] = [script] if script.exists() else [sys.executable, "-m", "vistadex"]
    return [*start, *arguments]


def python(script: str, *arguments: str | Path) -> list[str | Path]:
    """The command line of a script of this folder."""
    return [sys.executable, Path(__file__).parent / script, *arguments]


def environment(work: Path, **more: str) -> dict[str, str]:
    """This environment without settings of Vistadex, its folders below the work folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VISTADEX_")}
    own = {"VISTADEX_MODELS": str(work / "models"), "VISTADEX_CACHE": str(work / "cache")}
    return kept | own | more


def index_command(
    source: str | Path, catalog: Path, *options: str, square: bool = False
) -> list[str | Path]:
    """`vistadex index` with YOLOX-nano at 416: the rewritten graph, static or dynamic."""
    model = ["yolox-nano-static", "--square"] if square else ["yolox-nano", "--rectangular"]
    place: list[str | Path] = ["index", source, "--catalog", catalog, "--json"]
    return vistadex(*place, "--detector", *model, *options)


def add_models(work: Path) -> None:
    """Puts YOLOX-nano into the store below the work folder, rewritten: static and dynamic."""
    if not WEIGHTS.exists():
        sys.exit(f"{WEIGHTS}: not there; set VISTADEX_TEST_DATA to the folder of test data")
    env = environment(work)
    run(
        vistadex("models", "add", WEIGHTS, "--name", "yolox-nano", "--dynamic-size", "--optimize"),
        env,
    )
    run(vistadex("models", "add", WEIGHTS, "--name", "yolox-nano-static", "--optimize"), env)


def remove_catalog(path: Path) -> Path:
    """The path, with no catalog there."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return path


def interleaved(
    contestants: Mapping[str, Callable[[], T]], rounds: int, show: Callable[[T], str] = str
) -> dict[str, list[T]]:
    """Every contestant once per round; each round begins with the next one of them."""
    found: dict[str, list[T]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(contestants[name]())
            note(f"round {number + 1}/{rounds}, {name}: {show(found[name][-1])}")
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios within each round, so that slow minutes of the machine cancel."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def note(text: str) -> None:
    """A line about the progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = (
        *("numpy", "opencv-python-headless", "onnxruntime", "openvino", "sqlalchemy", "obstore"),
        "daft",
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--out", type=Path, help="JSON file to write")
    made.add_argument("--work", type=Path, help="folder to keep and reuse; else a temporary one")
    return made


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder to work in: the given one is kept, a temporary one is removed at the end."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="vistadex-bench-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_json(options: argparse.Namespace, here: dict[str, Any], results: Any) -> None:
    """Writes the results with the machine and the options to --out, if that is given.

    Args:
        here: machine(), as it was before the work.
    """
    if options.out is None:
        return
    chosen = {key: value for key, value in vars(options).items() if key not in ("out", "work")}
    record = {
        "benchmark": Path(sys.argv[0]).stem,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here,
        "options": {key: str(v) if isinstance(v, Path) else v for key, v in chosen.items()},
        "results": results,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    note(f"written to {options.out}")

"""Commands run to their end, with time, processor time and memory of the whole process tree.

From /proc: Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
SAMPLE_S = 0.05
"""How often memory is looked at: what is taken and given back within this time is not seen."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One command that has ended."""

    wall_s: float
    cpu_s: float
    """Of the process and of its children that it has waited for."""
    peak_mib: float
    """Largest sum of resident memory of the process tree; pages that are shared count for each."""
    stdout: str

    @property
    def json(self) -> Any:
        """The last line of stdout as JSON."""
        return json.loads(self.stdout.strip().splitlines()[-1])


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Measured:
    """Runs a command to its end.

    Raises: SystemExit with its stderr where it fails.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen(list(map(str, command)), env=env, stdout=out, stderr=err)
        peak = _PeakMemory(process.pid)
        peak.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        peak.finish()
        out.seek(0)
        err.seek(0)
        if process.returncode:
            message = err.read().decode(errors="replace")[-4000:]
            sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{message}")
        text = out.read().decode()
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak.bytes / MIB, text)


class _PeakMemory(threading.Thread):
    """Watches a process tree.

    wait4's ru_maxrss would do for one process, but it starts at what the parent had at the fork.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.bytes = pid, 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Looks until finish() is called."""
        while not self._ended.wait(SAMPLE_S):
            now = sum(_status_bytes(pid, "VmRSS") for pid in tree(self.pid))
            # The root's own high-water mark shows what lay between two looks.
            self.bytes = max(self.bytes, now, _status_bytes(self.pid, "VmHWM"))

    def finish(self) -> None:
        """Ends the watch."""
        self._ended.set()
        self.join()


def tree(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/children").read_text()
            for child in text.split():
                yield from tree(int(child))
    except OSError:
        return


def _status_bytes(pid: int, field: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = text.partition(f"{field}:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else 0


def cpu_seconds(pid: int) -> float:
    """Processor time that a running process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory that a running process has now; pages that it shares count, too."""
    return _status_bytes(pid, "VmRSS") / MIB

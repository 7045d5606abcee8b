"""Commands that a page starts: processes of their own, few at a time, which outlive the server.

What runs is known from files alone, so every worker sees the same, and the next server too: a job
holds the lock of its slot's file as long as it lives, and the file says which process it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from vistadex import settings
from vistadex.catalog import Catalog
from vistadex.catalog.runs import RecordedRun, run_of
from vistadex.errors import BusyError, NotFoundError, UsageError

AT_ONCE = 1
"""Jobs of one catalog on this machine."""
TRIES = 3
"""For each slot."""
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vistadex.cli import main
main()
"""
"""The command, to be stopped by SIGINT also where the server ignores it: shells have their
background processes do so, and theirs inherit it."""
BEGINNING_S = 30.0
"""What is waited for a job's first sign of life."""
MOST_SAID = 2000
"""Bytes of what a job said that are shown where it could not begin."""


@dataclass(frozen=True, slots=True)
class Job:
    """A process that a page has started."""

    pid: int
    started_at: int
    """Unix seconds."""
    place: str
    """What it makes, where that is a folder of the server; else empty."""


class Jobs:
    """The jobs of one catalog. Safe in threads, and beside other processes with the same folder."""

    def __init__(self, catalog: Catalog, cache_folder: Path, at_once: int = AT_ONCE) -> None:
        """Args:
        cache_folder: below it lie the slots' files, and what jobs have said.
        """
        self.catalog = catalog
        self.address = catalog.engine.url.render_as_string(hide_password=False)
        key = hashlib.sha256(self.address.encode()).hexdigest()[:16]
        self.cache_folder, self.folder = cache_folder, cache_folder / "jobs" / key
        self.at_once = at_once

    def start(self, arguments: Sequence[str], place: str = "") -> RecordedRun:
        """Starts a command of this program, and waits until its run is in the catalog.

        The catalog's address goes by the environment, as it may hold a password.

        Args:
            place: the folder of the server that it makes.
        Raises: UsageError where there are as many as may be, or with what the command said where
            it ended before it began.
        """
        with self._free_slot() as slot:
            said = Path(slot.name).with_suffix(".log")
            with said.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", INTERRUPTIBLE, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=settings.environment(catalog=self.address, cache=str(self.cache_folder)),
                    pass_fds=[slot.fileno()],  # With it, the lock is the job's until it ends.
                    start_new_session=True,
                )
            job = Job(process.pid, int(time.time()), place)
            slot.truncate(0)
            slot.write(json.dumps(asdict(job)).encode())
        threading.Thread(target=process.wait, name="job", daemon=True).start()
        return self._begun(process, job, said)

    def _begun(self, process: subprocess.Popen[bytes], job: Job, said: Path) -> RecordedRun:
        until = time.monotonic() + BEGINNING_S
        while time.monotonic() < until:
            ended = process.poll()  # Asked first: what ends just now has written its row.
            run = run_of(self.catalog, job.pid, job.started_at - 1)
            if run is not None:
                return run
            if ended is not None:
                text = said.read_bytes()[-MOST_SAID:].decode(errors="replace").strip()
                raise UsageError(f"the command ended before it began: {text or ended}")
            time.sleep(0.1)
        raise UsageError(f"the command has not begun after {BEGINNING_S:.0f} s; look at /runs")

    def running(self) -> list[Job]:
        """The jobs that live."""
        found = []
        for path in sorted(self.folder.glob("slot-*")):
            with path.open("rb") as file:
                if _lock(file.fileno()):
                    continue  # Nobody holds it.
                text = file.read()
            if text:  # Else it is just being started.
                found.append(Job(**json.loads(text)))
        return found

    def has(self, process: tuple[str, int]) -> bool:
        """Whether a job that lives is this process, given by host and number."""
        host, pid = process
        return host == socket.gethostname() and any(job.pid == pid for job in self.running())

    def stop(self, process: tuple[str, int]) -> None:
        """Interrupts a job as Ctrl-C does: what is committed stays.

        Raises: NotFoundError where no job of this catalog is this process.
        """
        if not self.has(process):
            raise NotFoundError("this run was not started here, or has ended; nothing to stop")
        os.killpg(process[1], signal.SIGINT)

    def _free_slot(self) -> BinaryIO:
        """A slot's file with its lock.

        Raises: UsageError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for number in range(TRIES * self.at_once):
                slot = (self.folder / f"slot-{number % self.at_once}").open("ab")
                if _lock(slot.fileno()):
                    return slot
                slot.close()
                time.sleep(0.02)  # Who only looks holds the lock for a moment, too.
        except OSError as error:
            raise UsageError(f"{self.folder}: {error.strerror}; see --cache") from error
        raise BusyError(
            f"what a page has started is at work already, {self.at_once} at a time;"
            " wait for its end, or stop it"
        )


def _lock(file: int) -> bool:
    """Whether nobody held the lock; then it is ours until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""The state of training on disk: written whole or not at all, and read without running code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from vistadex.errors import UsageError

LAST, BEST = "last.pt", "best.pt"
State: TypeAlias = Mapping[str, Any]


def save(state: State, path: Path) -> None:
    """Writes a checkpoint so that a file of that name is always a whole one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> State:
    """A checkpoint.

    Raises: UsageError if there is none, or it can't be read.
    """
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        what = "there is no checkpoint, expected one of an interrupted run"
        raise UsageError(f"{path}: {what}; leave out --resume to begin") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        first = str(error).partition("\n")[0][:200]
        raise UsageError(f"{path}: not a checkpoint of ours ({first}); begin anew") from error
    return state

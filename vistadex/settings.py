"""The table of settings, and the only reader of the environment and of vistadex.toml."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vistadex.errors import UsageError

T = TypeVar("T", str, int)
FILE_NAME = "vistadex.toml"
_ORT_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime's own variable; 0 lets it report."""
PLACES = {"catalog", "models", "cache"}
"""Settings that are files or folders: a leading ~ is the home folder."""


def _folder(variable: str, fallback: str) -> str:
    """A folder of the XDG standard, below which ours lies."""
    return str(Path(os.environ.get(variable) or Path.home() / fallback) / "vistadex")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    default: str | int
    help: str


def table() -> tuple[Setting, ...]:
    """Every setting with its default on this machine."""
    data = _folder("XDG_DATA_HOME", ".local/share")
    return (
        Setting("catalog", f"{data}/catalog.db", "file or SQLAlchemy URL of the catalog"),
        Setting("models", f"{data}/models", "folder of the model store"),
        Setting(
            "cache",
            _folder("XDG_CACHE_HOME", ".cache"),
            "folder of what can be made again: thumbnails, lists of what archives hold",
        ),
        Setting("detector", "", "model that finds objects; empty: the only detector in the store"),
        Setting("threads", 0, "images in work at a time; 0: one per core"),
        Setting("max_pixels", 200_000_000, "pictures with more pixels are refused"),
        Setting("max_file_bytes", 1 << 30, "files with more bytes are refused"),
        Setting("read_ahead_bytes", 64 << 20, "bytes read ahead from a bucket"),
        Setting("keep_max_bytes", 20 << 30, "bytes that `serve --keep-to` keeps at most"),
        Setting("hf_endpoint", "https://huggingface.co", "where hf:// files are"),
        Setting("hf_token", "", "secret for Hugging Face files that are not public"),
        Setting(
            "google_vision_endpoint",
            "vision.googleapis.com",
            "host that answers for the labeler google-vision, as eu-vision.googleapis.com",
        ),
        Setting("host", "127.0.0.1", "address on which `vistadex serve` answers"),
        Setting("port", 8765, "port on which `vistadex serve` answers"),
    )


def value(name: str, given: T | None, kind: type[T]) -> T:
    """A setting's value: given (a flag or argument) > VISTADEX_<NAME> > vistadex.toml > default.

    Raises: UsageError naming the place where a value can't be read.
    """
    found = _found(name, given, kind)
    if isinstance(found, str) and name in PLACES and "://" not in found:
        return kind(str(Path(found).expanduser()))
    return found


def environment(**changes: str) -> dict[str, str]:
    """The environment for another process of this program, with other values of settings."""
    return {**os.environ, **{f"VISTADEX_{name.upper()}": text for name, text in changes.items()}}


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Within it ONNX Runtime is imported without its telemetry, unless the user wants it.

    Otherwise its makers learn of every session, and a number for this machine is kept in the home
    folder.
    """
    os.environ.setdefault(_ORT_TELEMETRY, "1")
    yield


def hf_token() -> str:
    """The secret for Hugging Face: the setting, else HF_TOKEN as its own tools have it.

    Raises: UsageError that does not show it, if it can't be a token.
    """
    token = (value("hf_token", None, str) or os.environ.get("HF_TOKEN", "")).strip()
    if not all(" " < letter < "\x7f" for letter in token):
        raise UsageError("HF_TOKEN: not a token, expected letters and digits; set it again")
    return token


def torchrun() -> Mapping[str, int] | None:
    """rank, world and local_rank of a process that torchrun has started; None for another."""
    names = {"rank": "RANK", "world": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
    if not {"MASTER_ADDR", "MASTER_PORT", *names.values()} <= os.environ.keys():
        return None
    return {key: _convert(os.environ[name], int, name) for key, name in names.items()}


def _found(name: str, given: T | None, kind: type[T]) -> T:
    if given is not None:
        return given
    default = next(setting.default for setting in table() if setting.name == name)
    variable = f"VISTADEX_{name.upper()}"
    if variable in os.environ:
        return _convert(os.environ[variable], kind, variable)
    from_file = _file_values()
    if name in from_file:
        return _convert(from_file[name], kind, f"{FILE_NAME}: {name}")
    return kind(default)


def _file_values() -> Mapping[str, object]:
    path = Path(FILE_NAME)
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.resolve()}: not readable as TOML: {error}") from error
    known = {setting.name for setting in table()}
    for name in values:
        if name not in known:
            raise UsageError(
                f"{path.resolve()}: unknown setting {name!r}; known are: {', '.join(sorted(known))}"
            )
    return values


def _convert(raw: object, kind: type[T], place: str) -> T:
    wanted = "a whole number" if kind is int else "text"
    if kind is int and isinstance(raw, str):
        try:
            return kind(raw)
        except ValueError as error:
            raise UsageError(f"{place}: {raw!r} is not {wanted}") from error
    if isinstance(raw, kind) and not isinstance(raw, bool):
        return raw
    raise UsageError(f"{place}: {raw!r} is not {wanted}")

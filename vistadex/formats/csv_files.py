"""Several CSV files of a new folder, each begun when its first row comes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from vistadex.errors import FormatError
from vistadex.formats.files import created


def make_folder(out: Path) -> None:
    """Makes a folder with those above it.

    Raises: FormatError.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"{error.strerror or error}, expected to make the folder"
        raise FormatError(f"{out}: {what}; choose another place") from error


class CsvFiles:
    """The files; they are at their places once all are complete."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder.

        Raises: FormatError where it can't be made.
        """
        make_folder(folder)
        self._folder = folder
        self._write: dict[str, Callable[[Sequence[str]], None]] = {}
        self._stack = ExitStack()

    def add(self, name: str, row: Sequence[str], header: Sequence[str] = ()) -> None:
        """Puts a row at the end of a file.

        Args:
            header: the first row of the file; nothing for none.
        Raises: FormatError where it can't be written.
        """
        try:
            if name not in self._write:
                self.begin(name)
                if header:
                    self._write[name](header)
            self._write[name](row)
        except OSError as error:
            what = f"{error.strerror or error}, expected to write the annotations"
            raise FormatError(f"{self._folder / name}: {what}; choose another place") from error
        except UnicodeEncodeError as error:
            what = f"{error.object[:60]!r} is no text, expected names in UTF-8"
            raise FormatError(f"{self._folder / name}: {what}; rename it") from error

    def begin(self, name: str) -> None:
        """Begins a file that is there even if no row comes.

        Raises: FormatError where it can't be written.
        """
        file = self._stack.enter_context(created(self._folder / name))
        plain = csv.writer(file, lineterminator="\n")
        quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

        def write(row: Sequence[str]) -> None:
            # A carriage return ends a row, too, but is not quoted by itself.
            (quoting if any("\r" in value for value in row) else plain).writerow(row)

        self._write[name] = write

    def __enter__(self) -> CsvFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

"""The catalog in one transaction, so that all a page says is of one state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vistadex.catalog import Catalog, Connection, IndexedImage


class _Snapshot(Catalog):
    """A catalog whose questions are all asked on one connection."""

    def __init__(self, catalog: Catalog, connection: Connection) -> None:
        self.__dict__.update(vars(catalog))
        self._connection = connection
        self._read: dict[int | str, IndexedImage] = {}

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """The connection of the snapshot."""
        yield self._connection

    def image(self, reference: int | str) -> IndexedImage:
        """One image, read once."""
        if reference not in self._read:
            self._read[reference] = super().image(reference)
        return self._read[reference]


@contextmanager
def snapshot(catalog: Catalog) -> Iterator[Catalog]:
    """The catalog as it is now, for questions of one thread.

    Raises: CatalogError if it can't be read.
    """
    with catalog.reading() as connection:
        yield _Snapshot(catalog, connection)

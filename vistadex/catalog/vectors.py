"""The catalog's embeddings as arrays in files beside it, as new as the catalog, and searched.

Everything here is derived: the folder may be deleted at any time. A snapshot holds the vectors of
one analyzer in float32, ready to be multiplied, in the order of the images' ids or list by list.
What has changed since is read again into memory, and the snapshot's own rows of it do not count.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex import neighbors
from vistadex.catalog import postings, postings_building, tables
from vistadex.catalog.counting import slices
from vistadex.catalog.following import changed_images, is_past
from vistadex.catalog.postings import HEADER, Array, Folder, Identity, Memory
from vistadex.errors import CatalogError
from vistadex.neighbors import Found, Lists, Mask, Vectors
from vistadex.records import FloatArray, IntArray

FORMAT = 1
MOST_CHANGED = 50_000
"""Images changed since the snapshot, beyond which it is made anew; a tenth of it, if more."""
KEPT_VIEWS = 3
"""For readers whose transaction began a little earlier than that of the newest reader."""
AT_A_TIME = 8192
PATIENCE_S = 60.0
"""How long another process that builds is waited for, before the vectors are read into memory."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The vectors of one analyzer as they are at one revision of the catalog."""

    identity: Identity
    base: Vectors
    covers: IntArray
    """Rising ids of the images that have changed since the snapshot."""
    dead: Mask | None
    """(N,) rows of base that no longer count."""
    changed: Vectors
    """What the changed images have now."""

    @property
    def number(self) -> int:
        """How many vectors there are."""
        gone = 0 if self.dead is None else int(np.count_nonzero(self.dead))
        return int(self.base.ids.size) - gone + int(self.changed.ids.size)

    def nearest(
        self,
        query: FloatArray,
        limit: int,
        *,
        allowed: IntArray | None = None,
        exact: bool = False,
    ) -> Found:
        """The images most like a vector; arguments as in neighbors.nearest.

        Raises: CatalogError if the vector has another number of values.
        """
        parts = []
        for vectors, dead in ((self.base, self.dead), (self.changed, None)):
            if not vectors.ids.size:
                continue
            if vectors.rows.shape[1] != query.size:
                raise CatalogError(
                    f"a vector of {query.size} values: the catalog's have "
                    f"{vectors.rows.shape[1]}; take one of the same model"
                )
            parts.append(
                neighbors.nearest(vectors, query, limit, allowed=allowed, dead=dead, exact=exact)
            )
        return neighbors.merged(parts, limit) if parts else neighbors.NOTHING


class KnownVectors:
    """Keeps the vectors of each analyzer as new as the catalog. Safe in threads."""

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[sa.Connection]],
        folder: Path,
        *,
        most_changed: int = MOST_CHANGED,
        exact_rows: int = neighbors.EXACT_ROWS,
    ) -> None:
        """Reads nothing yet.

        Args:
            reading: gives a connection in a transaction that sees one state of the catalog.
            folder: where snapshots are kept, below one folder for each analyzer.
            most_changed: see MOST_CHANGED.
            exact_rows: with more vectors, lists are made.
        """
        self.reading, self.folder = reading, folder
        self.most_changed, self.exact_rows = most_changed, exact_rows
        self.background = False
        self._lock = threading.Lock()
        self._kept: dict[int, _Analyzer] = {}

    def current(self, connection: sa.Connection, analyzer_id: int) -> View:
        """An analyzer's vectors as this transaction sees the catalog.

        Raises: CatalogError if they can't be read.
        """
        kept = self._of(analyzer_id)
        view = kept.current(connection)
        if self.background and kept.wants_lists():
            threading.Thread(target=kept.part_quietly, name="vectors", daemon=True).start()
        return view

    def refresh(self, analyzer_ids: Sequence[int]) -> None:
        """Makes snapshots anew where they are missing or far behind, with lists where these help;
        vectors that can't be used are logged.
        """
        for analyzer_id in analyzer_ids:
            kept = self._of(analyzer_id)
            try:
                with self.reading() as connection:
                    kept.current(connection)
            except CatalogError as error:
                log.warning("%s: %s", self.folder, error)
                continue
            if kept.wants_lists():
                kept.part_quietly()

    def _of(self, analyzer_id: int) -> _Analyzer:
        with self._lock:
            if analyzer_id not in self._kept:
                folder = self.folder / str(analyzer_id)
                self._kept[analyzer_id] = _Analyzer(
                    analyzer_id, folder, self.most_changed, self.exact_rows
                )
            return self._kept[analyzer_id]


class _Analyzer:
    """The vectors of one analyzer."""

    def __init__(self, id_: int, folder: Path, most_changed: int, exact_rows: int) -> None:
        self.id, self.folder = id_, folder
        self.most_changed, self.exact_rows = most_changed, exact_rows
        self._views: list[View] = []
        """The newest first."""
        self._opened = ""
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        self._parting = threading.Lock()
        self._warned = False

    def current(self, connection: sa.Connection) -> View:
        """See KnownVectors.current."""
        now = postings_building.identity(connection)
        with self._lock:
            self._look_for_snapshot(now)
            view = self._followed(connection, now)
            if view is None:
                view = self._made(connection, now)
            self._views = [view, *(one for one in self._views if one is not view)][:KEPT_VIEWS]
            return view

    def wants_lists(self) -> bool:
        """Whether there are so many vectors that lists help, and none yet."""
        with self._lock:
            base = self._views[0].base if self._views else None
        return base is not None and base.lists is None and base.ids.size > self.exact_rows

    def part_quietly(self) -> None:
        """Puts the newest snapshot in lists; what prevents it is logged once."""
        if not self._parting.acquire(blocking=False):
            return
        try:
            with postings.locked(self.folder) as free:
                newest = next(iter(postings.snapshots(self.folder)), None)
                if free and newest is not None:
                    _part(newest, self.folder)
        except (OSError, ValueError) as error:
            self._warn(error)
        finally:
            self._parting.release()

    def _look_for_snapshot(self, now: Identity) -> None:
        """Opens the newest snapshot if there is another than before."""
        for path in postings.snapshots(self.folder):
            if path.name == self._opened:
                return
            if path.name in self._refused:
                continue
            try:
                identity, vectors = opened(path)
                if identity.uuid != now.uuid:
                    raise ValueError(f"of another catalog, {identity.uuid}")
            except (OSError, ValueError) as error:
                log.info("%s: these vectors are not used: %s", path, error)
                self._refused.add(path.name)
                continue
            self._views = [_fresh(identity, vectors), *self._views[:1]]
            self._opened = path.name
            return

    def _followed(self, connection: sa.Connection, now: Identity) -> View | None:
        """A view brought to the state that the transaction sees; None: there is none to begin."""
        for view in self._views:
            one = view.identity
            if one == now:
                return view
            if one.revision > now.revision or one.uuid != now.uuid:
                continue
            if not is_past(connection, one):
                continue
            most = max(self.most_changed, view.base.ids.size // 10)
            ids = changed_images(connection, one.revision, now.revision, most)
            if ids is None:
                return None
            covers = postings.distinct(np.concatenate((view.covers, ids)))
            return None if covers.size > most else self._newer(connection, view, now, ids, covers)
        return None

    def _newer(
        self,
        connection: sa.Connection,
        view: View,
        now: Identity,
        ids: IntArray,
        covers: IntArray,
    ) -> View:
        """A view of a later state, in which these images have changed."""
        again = Memory()
        _read(connection, self.id, again, ids)
        found = _plain(again)
        if view.changed.ids.size:
            stays = ~np.isin(view.changed.ids, ids, assume_unique=True)
            kept_ids, kept_rows = view.changed.ids[stays], view.changed.rows[stays]
            rows = [one for one in (kept_rows, found.rows) if len(one)]
            all_ids = np.concatenate((kept_ids, found.ids))
            order = np.argsort(all_ids)
            found = Vectors(all_ids[order], np.concatenate(rows)[order] if rows else found.rows)
        dead = np.zeros(view.base.ids.size, np.bool_)
        dead[view.base.rows_of(covers)] = True
        return View(now, view.base, covers, dead, found)

    def _made(self, connection: sa.Connection, now: Identity) -> View:
        """A view of all vectors: of a new snapshot, or of one that another process has just made;
        where neither can be, in memory.
        """
        until = time.monotonic() + PATIENCE_S
        try:
            while True:
                with postings.locked(self.folder) as free:
                    if free:
                        self._look_for_snapshot(now)
                        found = self._followed(connection, now)
                        return found or _fresh(now, self._build(connection, now))
                if time.monotonic() >= until:
                    raise TimeoutError(f"another process has been building for {PATIENCE_S:g} s")
                time.sleep(0.05)
        except OSError as error:
            self._warn(error)
        memory = Memory()
        _read(connection, self.id, memory, None)
        return _fresh(now, _plain(memory))

    def _build(self, connection: sa.Connection, now: Identity) -> Vectors:
        """All vectors in a new snapshot; the caller has the lock."""
        with postings.making(self.folder) as store:
            _read(connection, self.id, store, None)
            store.finish({"identity": asdict(now), "vectors": FORMAT})
            path = postings.publish(store, self.folder)
        self._opened = path.name
        return opened(path)[1]

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "%s: no vectors can be kept here (%s); each process reads them anew; give another "
                "folder with the setting `cache`",
                self.folder,
                error,
            )


def vector_of(connection: sa.Connection, image_id: int, analyzer_id: int) -> FloatArray | None:
    """An image's vector of unit length; None where the analyzer has not seen it."""
    table = tables.embedding
    query = sa.select(table.c.vector).where(
        table.c.image_id == image_id, table.c.analyzer_id == analyzer_id
    )
    found = connection.execute(query).scalar()
    return None if found is None else neighbors.unit(np.frombuffer(found, "<f2"))


def opened(folder: Path) -> tuple[Identity, Vectors]:
    """The snapshot in a folder.

    Raises: OSError or ValueError where there is none that can be used.
    """
    try:
        header = json.loads((folder / HEADER).read_bytes())
        if header["vectors"] != FORMAT:
            raise ValueError(f"{folder}: format {header['vectors']}, expected {FORMAT}")
        arrays = {
            name: _mapped(folder / name, np.dtype(dtype), int(length))
            for name, (dtype, length) in header["arrays"].items()
        }
        return Identity(**header["identity"]), _assembled(arrays)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder}: not a snapshot: {error!r}") from error


def _assembled(arrays: dict[str, Array]) -> Vectors:
    """Raises: KeyError if something is missing; ValueError if lengths contradict."""
    ids = arrays["ids"]
    if "starts" not in arrays:
        return Vectors(ids, arrays["rows"].reshape(ids.size, -1) if ids.size else _no_rows())
    lists = arrays["starts"].size - 1
    found = Vectors(
        ids,
        arrays["grouped"].reshape(ids.size, -1),
        arrays["row_of"],
        arrays["id_of"],
        Lists(arrays["centers"].reshape(lists, -1), arrays["starts"]),
    )
    if not ids.size == arrays["row_of"].size == arrays["id_of"].size == arrays["starts"][-1]:
        raise ValueError("the lengths of arrays contradict each other")
    return found


def _mapped(path: Path, dtype: np.dtype[Any], length: int) -> Array:
    """A file as an array; what is mapped stays readable when the file is deleted.

    Raises: ValueError if the file has another size.
    """
    size = path.stat().st_size
    if size != length * dtype.itemsize:
        raise ValueError(f"{path}: {size} bytes, expected {length} x {dtype.itemsize}")
    return np.asarray(np.memmap(path, dtype, "r")) if size else np.empty(0, dtype)


def _part(path: Path, folder: Path) -> None:
    """Puts a snapshot in lists, as a new snapshot in its place; the caller has the lock."""
    identity, vectors = opened(path)
    if vectors.lists is not None:
        return
    with postings.making(folder) as store:
        lists, order = neighbors.grouped(
            vectors, lambda rows: store.append("grouped", rows.ravel())
        )
        row_of = np.empty(order.size, np.int64)
        row_of[order] = np.arange(order.size)
        store.append("ids", vectors.ids)
        store.append("row_of", row_of)
        store.append("id_of", vectors.ids[order])
        store.append("centers", lists.centers.ravel())
        store.append("starts", lists.starts)
        store.finish({"identity": asdict(identity), "vectors": FORMAT})
        postings.publish(store, folder)


def _fresh(identity: Identity, vectors: Vectors) -> View:
    none = np.empty(0, np.int64)
    return View(identity, vectors, none, None, Vectors(none, _no_rows()))


def _no_rows() -> FloatArray:
    return np.empty((0, 0), np.float32)


def _plain(memory: Memory) -> Vectors:
    ids = memory.column("ids")
    return Vectors(ids, memory.column("rows").reshape(ids.size, -1) if ids.size else _no_rows())


def _read(
    connection: sa.Connection, analyzer_id: int, store: Memory | Folder, ids: IntArray | None
) -> None:
    """Puts an analyzer's vectors into a store by rising image id; None: of all images.

    Raises: CatalogError if they are of unequal length.
    """
    store.append("ids", np.empty(0, "<i8"))
    store.append("rows", np.empty(0, "<f4"))
    length = 0
    for part in _parts(connection, analyzer_id, ids):
        bytes_each = {len(vector) for _, vector in part} | ({length} if length else set())
        length = max(bytes_each)
        if len(bytes_each) > 1 or not length or length % 2:
            raise CatalogError(
                f"embeddings of analyzer {analyzer_id}: {sorted(bytes_each)} bytes long, expected "
                "one length; index again with --embedder and --only all"
            )
        rows = np.frombuffer(b"".join(vector for _, vector in part), "<f2")
        store.append("ids", np.array([image_id for image_id, _ in part], "<i8"))
        store.append("rows", neighbors.unit(rows.reshape(len(part), -1)).ravel())


def _parts(
    connection: sa.Connection, analyzer_id: int, ids: IntArray | None
) -> Iterator[list[tuple[int, bytes]]]:
    """Image ids and vectors by rising id, some at a time, never none."""
    table = tables.embedding
    query = sa.select(table.c.image_id, table.c.vector).order_by(table.c.image_id)
    query = query.where(table.c.analyzer_id == analyzer_id)
    if ids is None:
        with connection.execute(query.execution_options(yield_per=AT_A_TIME)) as rows:
            for part in rows.partitions():
                yield [(image_id, vector) for image_id, vector in part]
        return
    for some in slices(ids.tolist()):
        found = connection.execute(query.where(table.c.image_id.in_(some))).all()
        if found:
            yield [(image_id, vector) for image_id, vector in found]

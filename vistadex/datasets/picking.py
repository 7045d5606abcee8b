"""Picks random images of each class; one that can't be used is replaced by the next in line."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from vistadex.assembling import Assembler, Refusal, note
from vistadex.catalog import Connection, IndexedImage, choosing
from vistadex.datasets.layouts import Layout, labels, restricted
from vistadex.datasets.pictures import Gathering, Looks
from vistadex.errors import FormatError, SourceError
from vistadex.formats import Problems
from vistadex.progress import Progress
from vistadex.records import AnnotatedImage, IntArray, stored_score
from vistadex.splitting import SPLITS, choose, ranks

AT_A_TIME = 200
"""Images that are looked at together."""
THREADS = 8
_MOST_UNREADABLE = 100
"""Pictures that may be unreadable, beside as many as are readable: above that, something is wrong
with the whole source."""


@dataclass(slots=True)
class Picked:
    """An image of the data set."""

    id: int
    at: int
    """Its position among the candidates."""
    labels: tuple[int, ...]
    """Positions of its classes among those asked for."""
    name: str
    """Of the picture, without folders."""
    mark: str
    """Tells its name apart from another's."""
    group: str | None
    """The value that it is grouped by, as JSON; None where it has none."""
    content: bytes | None
    perceptual: int | None
    width: int
    """Of the picture, where it had to be looked at; else 0."""
    height: int


class Picking:
    """Chooses from the catalog; see run()."""

    def __init__(
        self,
        assembler: Assembler,
        layout: Layout,
        gathering: Gathering,
        problems: Problems,
        progress: Progress,
    ) -> None:
        self.assembler, self.layout, self.gathering = assembler, layout, gathering
        self.problems, self.progress = problems, progress
        self.ids: IntArray = np.zeros(0, np.int64)
        self.ranks = np.zeros(0, np.uint64)
        self.members: list[IntArray] = []
        """For each class the positions of its images among ids."""
        self.picked: dict[int, Picked] = {}
        self.refused = 0
        """Images that were chosen and can't be used: others are in their places."""
        self.attributes: set[str] = set()
        """Names of attributes that images have."""

    def run(
        self,
        classes: Sequence[str],
        per_class: int,
        seed: int,
        query: str,
        group_by: str | None,
        ids: Sequence[int] | None = None,
    ) -> list[Picked]:
        """The images, by name.

        Args:
            classes: as the catalog writes them.
            query: only images that this finds; "" for all.
            group_by: the attribute whose value goes into Picked.group.
            ids: only these images; None: all.
        Raises: QueryError; SourceError where hardly a picture can be read.
        """
        self._find(classes, seed, query, ids)
        while True:
            chosen = choose(self.ranks, self.members, per_class)
            wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *chosen]))
            new = [at for at in wanted.tolist() if at not in self.picked]
            if not new:
                break
            for start in range(0, len(new), AT_A_TIME):
                self._look(new[start : start + AT_A_TIME], chosen, classes, group_by)
                done = len(self.picked)
                self.progress.update(
                    listed=len(wanted), listing=False, done=done, failed=self.refused
                )
        kept = set(wanted.tolist())
        return _named([one for at, one in self.picked.items() if at in kept])

    def available(self, classes: Sequence[str], query: str, ids: Sequence[int] | None) -> list[int]:
        """How many images of each class there are to choose from, gone ones included."""
        with self.assembler.catalog.reading() as connection:
            return [len(some) for some in self._with(connection, classes, query, ids)]

    def _with(
        self,
        connection: Connection,
        classes: Sequence[str],
        query: str,
        ids: Sequence[int] | None,
    ) -> list[IntArray]:
        """For each class the rising ids of its images."""
        tasks = self.assembler.analyzer_ids("detector")
        if self.layout.holds != "boxes":
            tasks += self.assembler.analyzer_ids("classifier")
        min_score = stored_score(self.assembler.min_score)
        some = [choosing.with_class(connection, name, tasks, min_score) for name in classes]
        if query:
            found = choosing.found_by(connection, query)
            some = [np.intersect1d(one, found, assume_unique=True) for one in some]
        if ids is not None:
            some = [np.intersect1d(one, np.array(ids, np.int64)) for one in some]
        return some

    def _find(
        self, classes: Sequence[str], seed: int, query: str, ids: Sequence[int] | None
    ) -> None:
        """Learns which images have each class, and where chance puts them."""
        with self.assembler.catalog.reading() as connection:
            some = self._with(connection, classes, query, ids)
            every = np.unique(np.concatenate(some))
            known: list[int] = []

            def names() -> Iterator[tuple[str, str]]:
                for id_, source, key in choosing.names_of(connection, every.tolist()):
                    known.append(id_)
                    yield source, key

            unordered = ranks(names(), seed)
        unsorted = np.array(known, np.int64)
        order = np.argsort(unsorted)
        self.ids, self.ranks = unsorted[order], unordered[order]
        kept = [one[np.isin(one, self.ids, assume_unique=True)] for one in some]
        self.members = [np.searchsorted(self.ids, one) for one in kept]

    def _look(
        self,
        positions: Sequence[int],
        chosen: Sequence[IntArray],
        classes: Sequence[str],
        group_by: str | None,
    ) -> None:
        """Takes these images, or takes them out of those to choose from."""
        place = {int(self.ids[at]): at for at in positions}
        lost = set(positions)
        without: list[list[int]] = [[] for _ in classes]
        usable = list(self._usable(self.assembler.catalog.images(list(place)), classes))
        with ThreadPoolExecutor(THREADS, "pictures") as pool:
            taken = list(pool.map(self.gathering.take, [one for one, _ in usable]))
        for (one, image), looks in zip(usable, taken, strict=True):
            if isinstance(looks, Refusal):
                self._refuse(one, looks)
                continue
            at = place[one.id]
            lost.remove(at)
            has = labels(image, self.layout.holds)
            own = tuple(i for i, name in enumerate(classes) if name in has)
            self.picked[at] = _picked(one, at, own, image, group_by, looks)
            self.attributes |= set(one.attributes)
            # The catalog has the classes of older parameters of a model too.
            for i in set(range(len(classes))) - set(own):
                without[i].append(at)
        for i, some in enumerate(without):
            wrong = np.intersect1d([*some, *lost], chosen[i])
            if len(wrong):
                self.members[i] = self.members[i][~np.isin(self.members[i], wrong)]

    def _usable(
        self, found: Sequence[IndexedImage], classes: Sequence[str]
    ) -> Iterator[tuple[IndexedImage, AnnotatedImage]]:
        """Those of the images that the format can hold, with what it will say of them."""
        for one, made in self.assembler.each(found):
            if isinstance(made, Refusal):
                self._refuse(one, made)
            elif made is not None:
                image = restricted(made, classes, self.layout.holds)
                refusal = self._unwritable(image)
                if refusal is None:
                    yield one, image
                else:
                    self._refuse(one, refusal)

    def _unwritable(self, image: AnnotatedImage) -> Refusal | None:
        name = posixpath.basename(image.file_name)
        attributes = {**image.attributes, "split": SPLITS[0]}
        try:
            self.layout.place(replace(image, file_name=name, attributes=attributes))
        except FormatError as error:
            return Refusal("not-writable", str(error))
        return None

    def _refuse(self, found: IndexedImage, why: Refusal) -> None:
        """Notes an image that can't be used.

        Raises: SourceError where they are too many.
        """
        note(self.problems, found, why)
        self.refused += 1
        unreadable = self.problems.counts["unreadable"]
        if unreadable > _MOST_UNREADABLE + len(self.picked):
            what = f"{unreadable:,} of {unreadable + len(self.picked):,} pictures can't be read"
            first = f"the last: {why.what}"
            raise SourceError(f"{what}, {first}; check the source, or use --pictures reference")


def _picked(
    found: IndexedImage,
    at: int,
    own: tuple[int, ...],
    image: AnnotatedImage,
    group_by: str | None,
    looks: Looks,
) -> Picked:
    name = posixpath.basename(image.file_name)
    mark = hashlib.blake2b(f"{found.source}\0{found.key}".encode(), digest_size=4).hexdigest()
    group = None if group_by is None else found.attributes.get(group_by)
    text = None if group is None else json.dumps(group, sort_keys=True)
    return Picked(found.id, at, own, name, mark, text, *looks)


def _named(picked: Iterable[Picked]) -> list[Picked]:
    """The images by name, each with one of its own, also where capitals and extensions don't count.

    Formats name files after pictures, without their extensions.
    """
    picked = list(picked)
    stems: dict[str, int] = {}
    for one in picked:
        stem = posixpath.splitext(one.name)[0].casefold()
        stems[stem] = stems.get(stem, 0) + 1
    for one in picked:
        stem, extension = posixpath.splitext(one.name)
        if stems[stem.casefold()] > 1:
            one.name = f"{stem}-{one.mark}{extension}"
    return sorted(picked, key=lambda one: (one.name, one.mark))

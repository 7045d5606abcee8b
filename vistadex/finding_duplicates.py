"""Finding copies: groups of images with the same bytes or the same looks, the best copy first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from vistadex.catalog import Catalog, hashes
from vistadex.catalog.hashes import CopyGroups
from vistadex.catalog.runs import Recorder
from vistadex.errors import UsageError
from vistadex.progress import Silent

Kind: TypeAlias = Literal["exact", "near"]

IMAGES_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class DuplicateImage:
    """One image of a group of copies."""

    id: int
    uri: str
    width: int
    height: int
    size_bytes: int
    distance: int | None
    """Bits that differ from the looks of the group's best copy; 0: the same bytes or looks. More
    than was asked for where it is near to another copy, not to the best; None: unknown, it has the
    bytes of another copy."""
    same_bytes: bool
    """Whether its bytes are those of the best copy."""


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """CopyGroups of one picture, two at least."""

    kind: Kind
    """exact: all have the same bytes."""
    images: tuple[DuplicateImage, ...]
    """The best first: the most pixels, then the most bytes, then the lowest id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """All groups that were found; images are read as they are gone through, a page at a time."""

    groups: int
    copies: int
    """Images that could go: all but the best of each group."""
    bytes: int
    """That they take."""
    older: int
    """Images without hashes, as an older Vistadex indexed them: not looked at."""
    unseen: int
    """Images that are known from annotations alone: not looked at."""
    _catalog: str | Path | Catalog | None = field(repr=False)
    _found: CopyGroups = field(repr=False)

    def __iter__(self) -> Iterator[DuplicateGroup]:
        """The groups, largest first. Images that were removed since are left out, and so are
        groups of which only one is left."""
        found = self._found
        ends = np.append(found.starts[1:], len(found.ids))[: len(found.starts)]
        borders = zip(found.starts.tolist(), ends.tolist(), strict=True)
        with ExitStack() as stack:
            catalog = _opened(self._catalog, stack)
            for page in _pages(borders):
                images = _images(catalog, found, page[0][0], page[-1][1])
                for start, end in page:
                    group = tuple(images[i] for i in range(start, end) if i in images)
                    if len(group) > 1:
                        exact = all(one.same_bytes for one in group)
                        yield DuplicateGroup("exact" if exact else "near", group)


def find_duplicates(
    *,
    exact: bool = True,
    near: int | None = None,
    query: str = "",
    catalog: str | Path | Catalog | None = None,
) -> Duplicates:
    """Groups of images that are copies of each other.

    Near copies form chains: a is near to b and b to c, so the three are one group, although a and c
    may differ in more bits than asked for; each image says how far it is from the best copy.

    Args:
        exact: images with the same bytes are copies.
        near: bits of the perceptual hash, 0 to 12, in which pictures that look alike may differ;
            None: looks do not count.
        query: only among images that this finds; see vistadex.grammar.
        catalog: file name or URL; None: the setting.
    Raises: UsageError, QueryError or CatalogError where nothing can be found.
    """
    if not exact and near is None:
        raise UsageError("neither exact nor near copies are asked for; give a distance for near")
    with ExitStack() as stack:
        opened = _opened(catalog, stack)
        recorder = stack.enter_context(
            Recorder(opened, "duplicates", query or "all images", Silent())
        )
        ids = np.array(opened.ids(query), np.int64) if query.strip() else None
        with opened.reading() as connection:
            found = hashes.copy_groups(connection, exact=exact, near=near, ids=ids)
            without = hashes.unhashed(connection, ids)
        spare = ~found.is_best
        recorder.summary = {"groups": len(found.starts), "copies": int(spare.sum())}
    return Duplicates(
        groups=len(found.starts),
        copies=int(spare.sum()),
        bytes=int(found.sizes_bytes[spare].sum()),
        older=without.older,
        unseen=without.unseen,
        _catalog=catalog,
        _found=found,
    )


def _opened(catalog: str | Path | Catalog | None, stack: ExitStack) -> Catalog:
    if isinstance(catalog, Catalog):
        return catalog
    return stack.enter_context(Catalog(catalog))


def _pages(borders: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Groups together as long as they are few images; a large group is a page of its own."""
    page: list[tuple[int, int]] = []
    for border in borders:
        if page and border[1] - page[0][0] > IMAGES_AT_A_TIME:
            yield page
            page = []
        page.append(border)
    if page:
        yield page


def _images(catalog: Catalog, found: CopyGroups, start: int, end: int) -> dict[int, DuplicateImage]:
    """Images by their place in what was found."""
    ids = found.ids[start:end].tolist()
    with catalog.reading() as connection:
        known = hashes.places(connection, ids)
    return {
        start + i: DuplicateImage(
            id=id_,
            uri=known[id_].uri,
            width=known[id_].width,
            height=known[id_].height,
            size_bytes=known[id_].size_bytes,
            distance=None if distance == hashes.UNKNOWN else distance,
            same_bytes=same,
        )
        for i, (id_, distance, same) in enumerate(
            zip(
                ids,
                found.distances[start:end].tolist(),
                found.same_bytes[start:end].tolist(),
                strict=True,
            )
        )
        if id_ in known
    }

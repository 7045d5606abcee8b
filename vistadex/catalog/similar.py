"""Images most like another: whose vectors are compared, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import images, reading, tables
from vistadex.catalog.images import IndexedImage
from vistadex.catalog.registering import KnownAnalyzer, all_analyzers
from vistadex.catalog.vectors import KnownVectors, vector_of
from vistadex.errors import NotFoundError, UsageError
from vistadex.models import color_layout
from vistadex.neighbors import unit
from vistadex.records import FloatArray, IntArray, Json

WHAT_TO_RUN = (
    "run `vistadex index SOURCE --embedder MODEL`; or with --embedder color-layout, which needs no "
    "model and compares colors and their layout"
)


@dataclass(frozen=True, slots=True)
class SimilarResult:
    """One image that is like the one asked for."""

    image: IndexedImage
    similarity: float
    """The cosine of the two vectors: 1 for the same, 0 for nothing in common."""


@dataclass(frozen=True, slots=True)
class SimilarPage:
    """The images most like another, most similar first, equally similar ones by rising id."""

    query: str
    model: str
    """Whose vectors were compared."""
    by_content: bool
    """False: by colors and their layout alone, whatever the pictures show."""
    images: int
    """How many images have such a vector."""
    results: tuple[SimilarResult, ...]


@dataclass(frozen=True, slots=True)
class Embedder:
    """A model that has made the vectors of images."""

    analyzer_id: int
    name: str
    sha256: str
    parameters: Mapping[str, Json]
    """What it ran with."""

    @property
    def by_content(self) -> bool:
        """Whether its vectors say what is in a picture, and not its colors alone."""
        return self.sha256 != color_layout.SHA256


def embedders(connection: sa.Connection, place: str, model: str | None = None) -> list[Embedder]:
    """The embedders of a catalog, those that see content first, then the newest first.

    Args:
        place: how errors call the catalog.
        model: only this one, by name or SHA-256 prefix.
    Raises: NotFoundError if there is none, or none of that name.
    """
    every = [one for one in all_analyzers(connection) if one.task == "embedder"]
    if not every:
        raise NotFoundError(f"{place}: no image has an embedding to compare; {WHAT_TO_RUN}")
    found = [
        Embedder(one.id, one.name, one.sha256, _parameters(connection, one.id))
        for one in every
        if _is(one, model)
    ]
    if not found:
        known = ", ".join(sorted({one.name for one in every}))
        raise NotFoundError(f"{place}: no embedder is named {model!r}; there are: {known}")
    return sorted(found, key=lambda one: (not one.by_content, -one.analyzer_id))


def _parameters(connection: sa.Connection, analyzer_id: int) -> Mapping[str, Json]:
    table = tables.analyzer
    query = sa.select(table.c.parameters).where(table.c.id == analyzer_id)
    found: Mapping[str, Json] = json.loads(connection.execute(query).scalar_one())
    return found


def _is(one: KnownAnalyzer, model: str | None) -> bool:
    return model is None or one.name == model or (len(model) >= 6 and one.sha256.startswith(model))


def query_vector(
    connection: sa.Connection,
    among: Sequence[Embedder],
    image: int | FloatArray,
    place: str,
) -> tuple[Embedder, FloatArray]:
    """The vector to compare with, and whose it is: the first embedder's that has seen the image.

    Raises: NotFoundError for an unknown image, or one without a vector; UsageError for a vector
        that is none.
    """
    if not isinstance(image, int):
        vector = np.asarray(image)
        if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
            raise UsageError(
                f"a vector of shape {vector.shape}: expected one row of finite values, as "
                "Embedding.vector is"
            )
        return among[0], unit(vector)
    if reading.find_image(connection, str(image)) is None:
        raise NotFoundError(f"{image}: no such image in {place}; give the id of one")
    for one in among:
        found = vector_of(connection, image, one.analyzer_id)
        if found is not None:
            return one, found
    names = ", ".join(dict.fromkeys(one.name for one in among))
    raise NotFoundError(
        f"image {image}: {names} has not looked at it, so that nothing can be compared; "
        f"index its source again with --embedder {among[0].name}"
    )


def similar(
    connection: sa.Connection,
    vectors: KnownVectors,
    asked: tuple[Embedder, FloatArray],
    limit: int,
    *,
    query: str,
    without: int | None,
    allowed: IntArray | None,
    exact: bool,
) -> SimilarPage:
    """The images most like a vector of one embedder.

    Args:
        without: an image that is not to be found: the one that the vector is of.
        allowed: rising ids; no others are found.
    """
    embedder, vector = asked
    view = vectors.current(connection, embedder.analyzer_id)
    more = limit + (without is not None)
    found = view.nearest(vector, more, allowed=allowed, exact=exact)
    pairs = [
        (id_, similarity)
        for id_, similarity in zip(found.ids.tolist(), found.similarity.tolist(), strict=True)
        if id_ != without
    ][:limit]
    by_id = {one.id: one for one in images.images(connection, [id_ for id_, _ in pairs])}
    results = tuple(
        SimilarResult(by_id[id_], similarity) for id_, similarity in pairs if id_ in by_id
    )
    return SimilarPage(query, embedder.name, embedder.by_content, view.number, results)

"""Images like any picture: one of the catalog, a box in it, or a file that it does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vistadex import models, settings
from vistadex.assembling import Pictures, Refusal
from vistadex.catalog import Catalog
from vistadex.decoding import decode
from vistadex.errors import DecodingError, ModelError, NotFoundError, SourceError, UsageError
from vistadex.models import color_layout
from vistadex.models.store import ModelStore
from vistadex.records import DecodedImage, Embedding, FloatArray

if TYPE_CHECKING:
    from vistadex.catalog import Embedder, SimilarPage
    from vistadex.records import Analyzer

Box = tuple[float, float, float, float]


def find_similar(
    image: int | str | Path,
    *,
    box: Box | None = None,
    query: str = "",
    limit: int = 50,
    model: str | None = None,
    exact: bool = False,
    catalog: str | Path | Catalog | None = None,
) -> SimilarPage:
    """The images of a catalog that are most like a picture, most similar first.

    Args:
        image: id, path or URI of an image of the catalog; else a file of this machine.
        box: x0, y0, x1, y1 in pixels of the upright picture: only this part of it is compared.
        query: only images that it finds, as in Catalog.search().
        limit: results, 1 to 1000.
        model: whose vectors to compare, by name or SHA-256 prefix; None: see Catalog.similar().
        exact: look at every vector, also where lists of neighbors would be quicker.
        catalog: file name or URL; None: the setting.
    Raises: NotFoundError where there is no such image or file, or nothing to compare with;
        ModelError where a box or a file is to be compared and the model is gone; DecodingError,
        SourceError, UsageError, QueryError.
    """
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
    try:
        known = _known(store, image)
        if known is not None and box is None:
            return store.similar(known, query=query, limit=limit, model=model, exact=exact)
        embedder = store.embedders(model)[0]
        data = _file_bytes(Path(str(image))) if known is None else _bytes(store, known)
        broken = known is not None and bool(store.image(known).warning)
        vector = embedded(embedder, data, box=box, place=str(image), allow_truncated=broken)
        return store.similar(
            vector, query=query, limit=limit, model=embedder.sha256, exact=exact, without=known
        )
    finally:
        if store is not catalog:
            store.close()


def embedded(
    embedder: Embedder,
    data: bytes,
    *,
    box: Box | None = None,
    place: str = "picture",
    max_pixels: int | None = None,
    allow_truncated: bool = False,
) -> FloatArray:
    """The vector that the catalog's embedder gives a picture, or a part of it.

    Args:
        data: the picture's file.
        box: as in find_similar().
        place: how errors call the picture.
        max_pixels: larger pictures are refused; None: the setting.
        allow_truncated: take the readable part of a picture that breaks off.
    Raises: DecodingError; UsageError for a box outside of the picture; ModelError where the model
        is gone or was changed.
    """
    running = analyzer_of(embedder).load()
    long, short = (running.min_long_side, running.min_short_side) if box is None else (0, 0)
    try:
        picture = decode(
            data,
            min_long_side=long,
            min_short_side=short,
            max_pixels=settings.value("max_pixels", max_pixels, int),
            allow_truncated=allow_truncated,
        )
    except DecodingError as error:
        raise DecodingError(error.reason, f"{place}: {error}") from error
    if box is not None:
        picture = cropped(picture, box, place)
    result = running.analyze([picture])[0]
    assert isinstance(result, Embedding)
    return result.vector


def cropped(picture: DecodedImage, box: Box, place: str = "picture") -> DecodedImage:
    """The part of a picture at full size that a box covers, to whole pixels.

    Raises: UsageError if the box has no area in the picture.
    """
    rows, columns = picture.pixels.shape[:2]
    if not np.isfinite(box).all():
        raise UsageError(f"{place}: box {_text(box)}: expected four finite numbers")
    x0, y0 = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    x1, y1 = min(columns, int(np.ceil(box[2]))), min(rows, int(np.ceil(box[3])))
    if x0 >= x1 or y0 >= y1:
        raise UsageError(
            f"{place}: box {_text(box)} has no area in the picture of {columns} x {rows} pixels; "
            "expected x0,y0,x1,y1 with x0 < x1 and y0 < y1"
        )
    part = np.ascontiguousarray(picture.pixels[y0:y1, x0:x1])
    return DecodedImage(part, x1 - x0, y1 - y0)


def read_box(text: str) -> Box:
    """A box as people write it: "x0,y0,x1,y1".

    Raises: UsageError if it is none.
    """
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError as error:
        what = "expected x0,y0,x1,y1 in pixels, as 10,20,110,220"
        raise UsageError(f"box {text!r}: {what}") from error
    return x0, y0, x1, y1


def analyzer_of(embedder: Embedder) -> Analyzer:
    """What made the catalog's vectors, ready to make more of the same kind.

    Raises: ModelError where its model is not in the store, or runs otherwise than it did.
    """
    if embedder.sha256 == color_layout.SHA256:
        return color_layout.ColorLayout()
    store = ModelStore(Path(settings.value("models", None, str)))
    file = store.find(embedder.sha256)
    if file is None:
        raise ModelError(
            f"{embedder.name}: the model that made the catalog's embeddings "
            f"({embedder.sha256[:12]}) is not in {store.folder}; add its file with "
            "vistadex models add FILE"
        )
    wanted = embedder.parameters
    size = wanted.get("size")
    made = models.analyzer(
        file,
        runtime=str(wanted.get("runtime", "onnxruntime")),
        precision=str(wanted.get("precision", "auto")),
        size=size if isinstance(size, int) else None,
    )
    if json.loads(json.dumps(made.parameters)) != wanted:
        raise ModelError(
            f"{embedder.name}: its card or preprocessing was changed since the catalog's "
            "embeddings were made; index again with --embedder, or restore the card"
        )
    return made


def _known(catalog: Catalog, image: int | str | Path) -> int | None:
    """The id of an image of the catalog; None where it is a file that the catalog lacks."""
    try:
        return catalog.image(image if isinstance(image, int) else str(image)).id
    except NotFoundError:
        if isinstance(image, int) or not _is_file(Path(image)):
            raise
    absolute = str(Path(image).resolve())
    try:
        return catalog.image(absolute).id
    except NotFoundError:
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name that a file can have, or a folder that may not be looked into
        return False


def _bytes(catalog: Catalog, image_id: int) -> bytes:
    data = Pictures().read(catalog.image(image_id))
    if isinstance(data, Refusal):
        raise SourceError(f"image {image_id}: {data.what}")
    return data


def _file_bytes(path: Path) -> bytes:
    most = settings.value("max_file_bytes", None, int)
    try:
        if path.stat().st_size > most:
            raise DecodingError(
                "too_large", f"{path}: more than {most} bytes; raise the setting max_file_bytes"
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror})") from error


def _text(box: Box) -> str:
    return ",".join(f"{value:g}" for value in box)

"""The catalog's pictures by id: originals, and thumbnails made on demand and kept on disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Query, Request
from fastapi.responses import Response
from PIL import Image

from vistadex import settings
from vistadex.catalog import Catalog, IndexedImage
from vistadex.decoding import decode, encode_jpeg, format_of
from vistadex.errors import DecodingError, SourceMissingError, SourceTooLargeError
from vistadex.records import NOMINAL_SIDE, DecodedImage
from vistadex.sources import Content, Source, open_source
from vistadex.sources.contract import NO_VERSION
from vistadex.sources.places import Places
from vistadex.web import problems
from vistadex.web.api import ImageId
from vistadex.web.cache import Cache
from vistadex.web.metrics import Metrics
from vistadex.web.remembering import Memory

T = TypeVar("T")
THUMBNAIL_HEIGHT = 256
THUMBNAIL_WIDTH = 1024
"""A panorama is thumbed to this width instead."""
MAX_SIDE = 8192
"""Of a picture encoded anew, because browsers do not show its own format."""
UNREAD_REASONS = frozenset({"not_an_image", "too_large", "bad_name", "empty"})
"""What failed so has no picture to show, and may be of any size; the row says why."""
MEMORY_BYTES = 32 << 20
"""Of the thumbnails shown last: what an image has shown under a tag, it shows forever."""
MAX_READS = 8
MAX_DECODES = 2

BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WebP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
}

DOCUMENTED: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "The picture",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in BROWSER_TYPES.values()
            },
        },
        304: {"description": "The picture that If-None-Match names is still the same"},
        **problems.documented(400, 404, 415, 502),
    },
}

Tag = Annotated[
    str, Query(max_length=64, description="the picture's tag: with it the answer may be kept")
]


@dataclass(frozen=True, slots=True)
class Picture:
    """Bytes for a browser; None where those it has are still right."""

    data: bytes | None
    media_type: str
    tag: str


def picture_tag(uri: str, version: str) -> str:
    """Identity of a picture's bytes, for links and ETags."""
    return sha256(f"{uri}\0{version}".encode()).hexdigest()[:24]


class Pictures:
    """Reads pictures of the catalog in threads of its own, at most MAX_DECODES of them at work."""

    def __init__(
        self, catalog: Catalog, cache: Cache, counted: Metrics, *, public_only: bool = True
    ) -> None:
        """With public_only, addresses in imported metadata lead to no private network."""
        self._catalog = catalog
        self._cache = cache
        self._counted = counted
        self._public_only = public_only
        self.max_pixels = settings.value("max_pixels", None, int)
        self._max_file_bytes = settings.value("max_file_bytes", None, int)
        self._threads = ThreadPoolExecutor(MAX_READS, "pictures")
        self.decoding = threading.Semaphore(MAX_DECODES)
        """Held by whoever decodes a picture."""
        self._lock = threading.Lock()
        self._sources: dict[str, Source] = {}
        self._places = Places(local=False, public_only=public_only)
        self._making: dict[str, Future[Picture]] = {}
        self._shown = Memory[Picture](MEMORY_BYTES)

    def close(self) -> None:
        """Waits for the pictures in work and lets the threads go."""
        self._threads.shutdown(cancel_futures=True)

    async def respond(
        self, show: Callable[[int, str], Picture], id: int, request: Request, tag: str
    ) -> Response:
        """The answer to a request for a picture; `show` is `original` or `thumbnail`."""
        known = request.headers.get("if-none-match", "")
        is_thumbnail = show == self.thumbnail
        picture = self._shown.get((id, tag)) if is_thumbnail else None
        if picture is None:
            picture = await self.in_thread(lambda: show(id, known))
            if is_thumbnail and picture.data and picture.tag == tag:
                self._shown.put((id, tag), picture, len(picture.data))
        elif picture.tag in known:
            picture = replace(picture, data=None)
        else:
            self._counted.count_thumbnail("cached")
        unchanging = tag == picture.tag
        keep = "private, max-age=31536000, immutable" if unchanging else "private, no-cache"
        headers = {"ETag": f'"{picture.tag}"', "Cache-Control": keep}
        if picture.data is None:
            return Response(None, 304, headers)
        return Response(picture.data, 200, headers, picture.media_type)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What `work` returns, done in a thread that reads pictures."""
        return await asyncio.wrap_future(self._threads.submit(work))

    def content(self, id: int) -> Content:
        """The file of an image as its source has it.

        Raises: NotFoundError, SourceError; DecodingError where it is not to be read.
        """
        return self._read(self._catalog.image(id))

    def original(self, id: int, known_tags: str = "") -> Picture:
        """The picture as its source has it, or as JPEG where browsers do not show its format.

        Raises: NotFoundError, SourceError; DecodingError if it is of no picture format or too
            large.
        """
        image = self._catalog.image(id)
        tag = _tag(image, image.version)
        if tag in known_tags:
            return Picture(None, "", tag)
        content = self._read(image)
        tag = _tag(image, content.version)
        media_type = BROWSER_TYPES.get(format_of(content.data) or "")
        if media_type:
            return Picture(content.data, media_type, tag)
        with self.decoding:
            decoded = decode(
                content.data,
                max_pixels=self.max_pixels,
                allow_truncated=bool(image.warning),
            )
            return Picture(_jpeg(decoded, MAX_SIDE, MAX_SIDE, 92), "image/jpeg", tag)

    def thumbnail(self, id: int, known_tags: str = "") -> Picture:
        """The picture as a JPEG of at most THUMBNAIL_WIDTH x THUMBNAIL_HEIGHT.

        Raises: NotFoundError, SourceError; DecodingError if it can't be read.
        """
        image = self._catalog.image(id)
        tag = _tag(image, image.version)
        if tag in known_tags:
            return Picture(None, "", tag)
        size = f"{THUMBNAIL_WIDTH}x{THUMBNAIL_HEIGHT}"
        name = sha256(f"{tag}\0{size}".encode()).hexdigest()
        kept = self._cache.get(name)
        if kept is not None:
            self._counted.count_thumbnail("cached")
            return Picture(kept, "image/jpeg", tag)
        return self._once(name, lambda: self._make(name, image))

    def _once(self, name: str, make: Callable[[], Picture]) -> Picture:
        """What `make` gives, made by the first of those who ask for it at the same time."""
        mine: Future[Picture] = Future()
        with self._lock:
            future = self._making.setdefault(name, mine)
        if future is not mine:
            return future.result()
        try:
            mine.set_result(make())
        except BaseException as error:
            mine.set_exception(error)
        finally:
            with self._lock:
                del self._making[name]
        return mine.result()

    def _make(self, name: str, image: IndexedImage) -> Picture:
        content = self._read(image)
        with self.decoding:
            long, short = _needed(image)
            decoded = decode(
                content.data,
                min_long_side=long,
                min_short_side=short,
                max_pixels=self.max_pixels,
                allow_truncated=bool(image.warning),
            )
            data = _jpeg(decoded, THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT, 82)
        if content.version == image.version:
            self._cache.put(name, data)
        self._counted.count_thumbnail("made")
        return Picture(data, "image/jpeg", _tag(image, content.version))

    def _read(self, image: IndexedImage) -> Content:
        if image.status == "failed" and image.reason in UNREAD_REASONS:
            raise DecodingError(image.reason, image.error or image.reason)
        if image.size_bytes > self._max_file_bytes:
            raise DecodingError(
                "too_large",
                f"{image.uri}: {image.size_bytes} bytes, more than the limit of "
                f"{self._max_file_bytes}; raise the setting max_file_bytes",
            )
        source, key = self._place(image)
        try:
            content = source.read_within(key, self._max_file_bytes)
        except SourceTooLargeError as error:
            advice = "raise the setting max_file_bytes"
            raise DecodingError("too_large", f"{error}; or {advice}") from error
        if image.status == "unseen":
            return replace(content, version=image.version)
        # A manifest's picture has the version that the manifest says, which the catalog knows.
        return content if content.version else replace(content, version=image.version)

    def _place(self, image: IndexedImage) -> tuple[Source, str]:
        """Where an image's picture is read: in its source, or where it is shown from."""
        if image.status == "unseen":
            if image.image_url is None:
                why = "known from annotations alone; import again with --image-url, or index it"
                raise SourceMissingError(f"{image.uri}: {why}")
            return self._places.locate(image.image_url)
        with self._lock:
            source = self._sources.get(image.source)
        if source is None:
            source = open_source(image.source)
            if self._public_only:
                source.only_public()
            with self._lock:
                source = self._sources.setdefault(image.source, source)
        return source, image.key


def _tag(image: IndexedImage, version: str) -> str:
    """Identity of the bytes of a picture's version; where none is known, of the last indexing.

    Links are made of the version alone, so that browsers ask again for a picture without one.
    """
    known = f"{version} {image.indexed_at}" if version == NO_VERSION else version
    return picture_tag(image.uri, known)


def _fitted(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """Width and height within bounds, in proportion, never enlarged."""
    scale = min(1.0, max_width / width, max_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _needed(image: IndexedImage) -> tuple[int, int]:
    """Long and short side that its thumbnail needs; a failed image's size is not known."""
    if not (image.width and image.height) or image.width == NOMINAL_SIDE:
        return THUMBNAIL_HEIGHT, THUMBNAIL_HEIGHT
    size = _fitted(image.width, image.height, THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT)
    return max(size), min(size)


def _jpeg(decoded: DecodedImage, max_width: int, max_height: int, quality: int) -> bytes:
    rows, columns = decoded.pixels.shape[:2]
    size = _fitted(columns, rows, max_width, max_height)
    if size == (columns, rows):
        return encode_jpeg(decoded.pixels, quality)
    picture = Image.fromarray(decoded.pixels).resize(size, Image.Resampling.LANCZOS)
    return encode_jpeg(np.asarray(picture), quality)


async def original(request: Request, id: ImageId, v: Tag = "") -> Response:
    """The picture itself, as JPEG where browsers do not show its own format."""
    pictures: Pictures = request.app.state.pictures
    return await pictures.respond(pictures.original, id, request, v)


async def thumbnail(request: Request, id: ImageId, v: Tag = "") -> Response:
    """The picture as a small JPEG."""
    pictures: Pictures = request.app.state.pictures
    return await pictures.respond(pictures.thumbnail, id, request, v)

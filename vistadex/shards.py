"""THE PIPELINE for one shard: read, decode, analyze. The file to read first."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from vistadex.decoding import content_hash, decode, perceptual_hash, use_one_thread
from vistadex.errors import DecodingError, LabelerError, VistadexError
from vistadex.records import Analyzer, DecodedImage, Failure, ImageEntry, Model, Outcome, Result
from vistadex.sources import Source, open_source, read_images

FIRST_SHARD = 5
"""Images in the first shards: the first results are committed within a moment."""
LARGEST_SHARD = 64
"""Images in a shard once the run is under way: half a second of work for a thread."""
SHARD_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What reading and decoding may take."""

    max_pixels: int
    """Pictures with more pixels are refused before memory is taken for them."""
    max_file_bytes: int
    """Files with more bytes are refused unread."""
    read_ahead_bytes: int
    """Bytes that one shard reads ahead from a bucket."""
    allow_truncated: bool = False
    """Take the readable part of pictures that break off, and say so."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of work that any process can do: picklable, and complete in itself."""

    source_uri: str
    entries: tuple[ImageEntry, ...]
    analyzers: tuple[Analyzer, ...]
    limits: Limits


@lru_cache(maxsize=64)
def _source(uri: str) -> Source:
    return open_source(uri)


def process_shard(shard: Shard) -> Generator[Outcome, None, None]:
    """The outcome of every image of a shard, in order; never raises for an image.

    Raises: ModelError, LabelerError or SourceError where a model, a labeling service or the whole
        source can't be used; what was labeled and paid for is given before.
    """
    use_one_thread()
    loaded = [analyzer.load() for analyzer in shard.analyzers]
    batch_size = max(model.batch_size for model in loaded)
    images = read_images(
        _source(shard.source_uri),
        shard.entries,
        budget_bytes=shard.limits.read_ahead_bytes,
        max_file_bytes=shard.limits.max_file_bytes,
    )
    batch: list[_Picture] = []
    for entry, content in images:
        picture = _decode(entry, content, loaded, shard.limits)
        if isinstance(picture, Outcome):
            yield picture
            continue
        batch.append(picture)
        if len(batch) >= batch_size:
            yield from _analyze(batch, loaded)
            batch = []
    yield from _analyze(batch, loaded)


def look_at(entry: ImageEntry, data: bytes, loaded: Sequence[Model], limits: Limits) -> Outcome:
    """The outcome of one image whose bytes are at hand, as process_shard gives it.

    Raises: LabelerError where a labeling service can't be used.
    """
    picture = _decode(entry, data, loaded, limits)
    return picture if isinstance(picture, Outcome) else next(_analyze([picture], loaded))


@dataclass(frozen=True, slots=True)
class _Picture:
    """One image between reading and analyzing: its bytes are no longer held."""

    entry: ImageEntry
    decoded: DecodedImage
    content_hash: bytes
    perceptual_hash: int | None


def _decode(
    entry: ImageEntry, data: bytes | Failure, loaded: Sequence[Model], limits: Limits
) -> _Picture | Outcome:
    """The picture, or the outcome of an image that is none."""
    if isinstance(data, Failure):
        return Outcome(entry, failure=data)
    content = content_hash(data)
    try:
        decoded = decode(
            data,
            min_long_side=max(model.min_long_side for model in loaded),
            min_short_side=max(model.min_short_side for model in loaded),
            max_pixels=limits.max_pixels,
            allow_truncated=limits.allow_truncated,
        )
        # The missing part of a broken picture is grey: all of them look alike there.
        looks = None if decoded.damage else perceptual_hash(decoded.pixels)
    except DecodingError as error:
        failure = Failure(error.reason, str(error))
    except Exception as error:  # the shard's border: one image must not stop the others
        failure = _internal(error)
    else:
        return _Picture(entry, decoded, content, looks)
    return Outcome(entry, failure=failure, content_hash=content)


def _analyze(batch: Sequence[_Picture], loaded: Sequence[Model]) -> Iterator[Outcome]:
    """Outcomes of decoded images; where a batch fails, each image is tried alone."""
    if not batch:
        return
    pictures = [one.decoded for one in batch]
    try:
        by_model = [model.analyze(pictures) for model in loaded]
    except LabelerError:
        yield from _until_it_ends(batch, loaded)
        raise
    except Exception as error:  # the shard's border: one image must not stop the others
        if len(batch) == 1:
            yield _outcome(batch[0], failure=_internal(error))
            return
        for one in batch:
            yield from _analyze([one], loaded)
        return
    for i, one in enumerate(batch):
        found = [results[i] for results in by_model]
        refusals = [result for result in found if isinstance(result, Failure)]
        if len(refusals) == len(found):
            yield _outcome(one, failure=refusals[0])
            continue
        results = tuple(None if isinstance(result, Failure) else result for result in found)
        yield _outcome(one, results=results, refusals=refusals)


def _until_it_ends(batch: Sequence[_Picture], loaded: Sequence[Model]) -> Iterator[Outcome]:
    """Outcomes of those images of a batch that a service has labeled, or still may."""
    for one in batch if len(batch) > 1 else ():
        with suppress(LabelerError):
            yield from _analyze([one], loaded)


def _outcome(
    picture: _Picture,
    *,
    results: tuple[Result | None, ...] = (),
    failure: Failure | None = None,
    refusals: Sequence[Failure] = (),
) -> Outcome:
    """What is known of a picture: a failed one has no size, as its results are missing too.

    Args:
        refusals: of those models that have no result; the others' are kept.
    """
    decoded = picture.decoded
    said = [decoded.damage, *(f"{one.reason}: {one.message}" for one in refusals)]
    return Outcome(
        picture.entry,
        width=0 if failure else decoded.width,
        height=0 if failure else decoded.height,
        results=results,
        failure=failure,
        warning="" if failure else "; ".join(filter(None, said)),
        content_hash=picture.content_hash,
        perceptual_hash=picture.perceptual_hash,
    )


def _internal(error: Exception) -> Failure:
    return Failure("internal", f"{type(error).__name__}: {error}")


def cut(
    pages: Iterator[Sequence[ImageEntry]], first: int = FIRST_SHARD, threads: int = 2
) -> Iterator[tuple[ImageEntry, ...]]:
    """Entries in tuples that grow to LARGEST_SHARD, and shrink so that all threads end together.

    A page's entries are given before the page after the next is drawn, however few they are, and
    before an error that ended the listing is raised.
    """
    size, given = first, 0
    page = next(pages, None)
    while page is not None:
        following, broken = None, None
        try:
            following = next(pages, None)
        except VistadexError as error:
            broken = error  # in its turn: what was listed before is work to do
        waiting = deque(page)
        while waiting:
            ending = max(4, len(waiting) // (2 * threads)) if following is None else size
            taken: list[ImageEntry] = []
            weight = 0
            while waiting and len(taken) < min(size, ending) and weight < SHARD_BYTES:
                taken.append(waiting.popleft())
                weight += taken[-1].size_bytes or 0
            yield tuple(taken)
            given += 1
            if given % (2 * threads) == 0:
                size = min(LARGEST_SHARD, size * 2)
        if broken is not None:
            raise broken
        page = following

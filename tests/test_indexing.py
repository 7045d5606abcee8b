"""vistadex.indexing: the plan, the commits, bad images, resuming."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import vistadex
from vistadex import shards
from vistadex.catalog import Catalog, tables
from vistadex.errors import ModelError, SourceError, SourceMissingError, UsageError
from vistadex.indexing import peak_rss_bytes
from vistadex.planning import Run
from vistadex.progress import Progress, Silent
from vistadex.records import FAILURE_REASONS, ImageEntry, Outcome
from vistadex.shards import Limits, Shard, cut, process_shard
from vistadex.testing import MemorySource, RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 90, 60, 30)
LIMITS = Limits(max_pixels=10**8, max_file_bytes=10**9, read_ahead_bytes=10**7)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url) as opened:
        yield opened


@pytest.fixture
def files(request: pytest.FixtureRequest) -> dict[str, bytes]:
    """Forty scenes, of which every fourth has a blue square."""
    return {
        f"{i % 3}/{i:02}.jpg": scene_jpeg([RED, BLUE] if i % 4 == 0 else [RED]) for i in range(40)
    }


def run(catalog: Catalog, **options: object) -> vistadex.Summary:
    options = {"detector": RedSquareDetector(), **options}
    return vistadex.index("memory://photos", catalog=catalog, **options)


def everything(catalog: Catalog) -> dict[str, list[tuple[object, ...]]]:
    """All rows of a catalog by their meaning, whatever ids they have."""
    image, klass, box, ranked = tables.image.c, tables.klass.c, tables.box.c, tables.image_class.c
    analysis, analyzer, count = tables.analysis, tables.analyzer, tables.class_count
    of_box = tables.box.join(tables.image, image.id == box.image_id)
    of_class = tables.image_class.join(tables.image, image.id == ranked.image_id)
    queries = {
        "images": sa.select(
            image.key, image.version, image.width, image.height, image.status, image.reason
        ),
        "boxes": sa.select(
            image.key, klass.name, box.score, box.ordinal, box.x0, box.y0, box.x1, box.y1
        ).select_from(of_box.join(tables.klass, klass.id == box.class_id)),
        "classes": sa.select(image.key, klass.name, ranked.score, ranked.boxes).select_from(
            of_class.join(tables.klass, klass.id == ranked.class_id)
        ),
        "analyses": sa.select(image.key, analysis.c.version, analyzer.c.parameters)
        .join_from(analysis, tables.image, image.id == analysis.c.image_id)
        .join(analyzer, analyzer.c.id == analysis.c.analyzer_id),
        "counts": sa.select(
            klass.name, count.c.analyzer_id, count.c.images, count.c.boxes
        ).join_from(count, tables.klass, klass.id == count.c.class_id),
    }
    with catalog.reading() as connection:
        return {
            name: sorted(map(tuple, connection.execute(query)), key=repr)
            for name, query in queries.items()
        }


def test_every_image_is_indexed_and_found(catalog: Catalog, files: dict[str, bytes]) -> None:
    MemorySource.create("photos", files)
    summary = run(catalog)
    assert (summary.images, summary.indexed, summary.unchanged, summary.failed) == (40, 40, 0, 0)
    assert summary.images_per_s > 0
    assert summary.peak_rss_bytes > 10**6
    assert catalog.count("red square") == 40
    assert catalog.count("blue square") == 10
    box = catalog.search("blue square").results[0].image.boxes[-1]
    assert box.box_xyxy == pytest.approx((90, 60, 120, 90), abs=3)


def test_a_second_run_does_nothing(catalog: Catalog, files: dict[str, bytes]) -> None:
    MemorySource.create("photos", files | {"bad.jpg": b"nothing"})
    run(catalog)
    before = everything(catalog)
    summary = run(catalog)
    assert (summary.indexed, summary.unchanged, summary.failed) == (0, 41, 0)
    assert everything(catalog) == before


def test_a_changed_file_is_analyzed_again(catalog: Catalog, files: dict[str, bytes]) -> None:
    source = MemorySource.create("photos", files)
    run(catalog)
    source.files["0/00.jpg"] = scene_jpeg([], (80, 60))
    summary = run(catalog)
    assert (summary.indexed, summary.unchanged) == (1, 39)
    image = catalog.image("memory://photos/0/00.jpg")
    assert (image.width, image.height, image.boxes) == (80, 60, ())
    assert catalog.count("blue square") == 9


def test_a_vanished_file_is_marked_and_comes_back(
    catalog: Catalog, files: dict[str, bytes]
) -> None:
    source = MemorySource.create("photos", files)
    run(catalog)
    gone = {key: source.files.pop(key) for key in ("0/00.jpg", "2/38.jpg")}
    assert run(catalog).vanished == 2
    assert catalog.image("memory://photos/2/38.jpg").status == "vanished"
    assert catalog.stats().vanished == 2
    assert run(catalog).vanished == 2
    source.files.update(gone)
    summary = run(catalog)
    assert (summary.vanished, summary.indexed, summary.unchanged) == (0, 0, 40)
    assert catalog.image("memory://photos/2/38.jpg").status == "ok"


def test_prune_removes_what_has_vanished(catalog: Catalog, files: dict[str, bytes]) -> None:
    source = MemorySource.create("photos", files)
    run(catalog)
    del source.files["0/00.jpg"]
    summary = run(catalog, prune=True)
    assert (summary.vanished, summary.pruned) == (1, 1)
    assert catalog.stats().images == 39
    assert catalog.count("blue square") == 9


def test_an_empty_source_is_an_error_and_marks_nothing(
    catalog: Catalog, files: dict[str, bytes]
) -> None:
    source = MemorySource.create("photos", files)
    run(catalog)
    source.files.clear()
    with pytest.raises(SourceMissingError, match=r"no files found; nothing was changed"):
        run(catalog, prune=True)
    assert catalog.stats().images == 40
    assert catalog.stats().vanished == 0


def test_an_empty_source_beside_a_full_one_costs_the_full_one_nothing(
    catalog: Catalog, files: dict[str, bytes]
) -> None:
    MemorySource.create("photos", files)
    MemorySource.create("nothing", {})
    with pytest.raises(SourceMissingError, match="memory://nothing: no files found"):
        vistadex.index(
            "memory://photos", "memory://nothing", detector=RedSquareDetector(), catalog=catalog
        )
    assert catalog.stats().images == 40


def test_other_parameters_are_another_analysis_beside_the_first(
    catalog: Catalog, files: dict[str, bytes]
) -> None:
    MemorySource.create("photos", files)
    run(catalog)
    summary = run(catalog, detector=RedSquareDetector(min_score=0.1))
    assert summary.indexed == 40
    assert [model.images for model in catalog.stats().models] == [40, 40]
    assert run(catalog).unchanged == 40


def test_bad_images_become_rows_and_stop_nothing(catalog: Catalog, files: dict[str, bytes]) -> None:
    whole = scene_jpeg([RED])
    bad = {
        "a/empty.jpg": b"",
        "a/text.jpg": b"just words",
        "a/cut.jpg": whole[: len(whole) // 2],
        "b/huge.png": huge_png(),
    }
    MemorySource.create("photos", files | bad)
    summary = run(catalog)
    assert (summary.indexed, summary.failed) == (40, 4)
    reasons = {"empty": 1, "not_an_image": 1, "truncated": 1, "too_large": 1}
    assert dict(summary.failures) == reasons
    assert {b.uri.removeprefix("memory://photos/"): b.reason for b in catalog.errors()} == {
        "a/empty.jpg": "empty",
        "a/text.jpg": "not_an_image",
        "a/cut.jpg": "truncated",
        "b/huge.png": "too_large",
    }
    assert set(reasons) <= set(FAILURE_REASONS)


def huge_png() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        chunks += struct.pack(">I", len(data)) + name + data + checksum
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_only_failed_tries_the_failed_ones_again(catalog: Catalog, files: dict[str, bytes]) -> None:
    whole = scene_jpeg([RED])
    source = MemorySource.create("photos", files | {"x.jpg": whole[:300], "y.jpg": b"no"})
    run(catalog)
    source.files["x.jpg"] = whole
    summary = run(catalog, only="failed")
    assert (summary.images, summary.indexed, summary.failed) == (2, 1, 1)
    assert catalog.image("memory://photos/x.jpg").status == "ok"


def test_only_all_analyzes_everything_again_to_the_same_end(
    catalog: Catalog, files: dict[str, bytes]
) -> None:
    MemorySource.create("photos", files)
    run(catalog)
    before = everything(catalog)
    assert run(catalog, only="all").indexed == 40
    assert everything(catalog) == before


def test_a_model_that_breaks_on_one_image_costs_that_image_alone(
    catalog: Catalog, files: dict[str, bytes]
) -> None:
    MemorySource.create("photos", files | {"wide.jpg": scene_jpeg([RED], (333, 100))})
    for batch_size in (1, 8):
        detector = RedSquareDetector(fail_on_width=333, batch_size=batch_size)
        summary = run(catalog, detector=detector, only="all")
        assert (summary.indexed, dict(summary.failures)) == (40, {"internal": 1})
    assert "the model broke" in catalog.errors()[0].message
    assert run(catalog).indexed == 1


def test_a_file_that_could_not_be_read_is_tried_again(
    catalog: Catalog, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vistadex.errors import SourceDeniedError

    MemorySource.create("photos", files)
    read = MemorySource.read

    def denied(self: MemorySource, key: str) -> object:
        if key == "0/00.jpg":
            raise SourceDeniedError(f"{key}: access denied")
        return read(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(MemorySource, "read", denied)
        assert dict(run(catalog).failures) == {"unreadable": 1}
    summary = run(catalog)
    assert (summary.indexed, summary.unchanged) == (1, 39)


def test_pictures_below_an_unreadable_entry_do_not_count_as_vanished(
    catalog: Catalog, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vistadex.records import Failure

    source = MemorySource.create("photos", files)
    run(catalog)
    before = sum(key.startswith("1/") for key in files)
    for key in list(source.files):
        if key.startswith("1/"):
            del source.files[key]
    pages = MemorySource.pages

    def with_hidden(self: MemorySource, after: str | None = None) -> Iterator[list[ImageEntry]]:
        hidden = ImageEntry("1/", 0, "", Failure("unreadable", "permission denied"))
        for page in pages(self, after):
            yield sorted([*page, hidden], key=lambda entry: entry.key)

    monkeypatch.setattr(MemorySource, "pages", with_hidden)
    summary = run(catalog, prune=True)
    assert (summary.vanished, summary.failed) == (0, 1)
    assert sum("/1/" in r.image.uri for r in catalog.search(limit=100).results) == before


def test_a_file_that_can_not_be_reached_any_more_keeps_its_results(
    tmp_path: Path, catalog: Catalog
) -> None:
    folder, disk = tmp_path / "photos", tmp_path / "disk"
    for place in (folder, disk / "inner"):
        place.mkdir(parents=True)
    (disk / "a.jpg").write_bytes(scene_jpeg([RED]))
    (disk / "inner" / "b.jpg").write_bytes(scene_jpeg([RED]))
    (folder / "a.jpg").symlink_to(disk / "a.jpg")
    (folder / "ext").symlink_to(disk / "inner")
    (folder / "z.jpg").write_bytes(scene_jpeg([BLUE]))
    detector = RedSquareDetector()
    assert vistadex.index(folder, detector=detector, catalog=catalog).indexed == 3
    disk.rename(tmp_path / "unmounted")
    summary = vistadex.index(folder, detector=detector, catalog=catalog, prune=True)
    assert (summary.vanished, dict(summary.failures)) == (0, {"unreadable": 2})
    assert catalog.count("red square") == 2
    (tmp_path / "unmounted").rename(disk)
    summary = vistadex.index(folder, detector=detector, catalog=catalog)
    assert (summary.failed, catalog.stats().failed, catalog.count("red square")) == (0, 0, 2)


def test_only_failed_reads_what_was_empty_before(catalog: Catalog) -> None:
    source = MemorySource.create("photos", {"a.jpg": b"", "b.jpg": scene_jpeg([RED])})
    run(catalog)
    source.files["a.jpg"] = scene_jpeg([RED])
    assert run(catalog, only="failed").indexed == 1


def test_a_listing_out_of_order_is_an_error_that_marks_nothing(
    catalog: Catalog, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    MemorySource.create("photos", files)
    run(catalog)
    pages = MemorySource.pages

    def shuffled(self: MemorySource, after: str | None = None) -> Iterator[list[ImageEntry]]:
        for page in pages(self, after):
            yield page[::-1]

    monkeypatch.setattr(MemorySource, "pages", shuffled)
    with pytest.raises(SourceError, match="expected rising keys"):
        run(catalog, prune=True)
    assert catalog.stats().images == 40


def test_a_corrected_name_of_a_model_is_taken_over(
    catalog: Catalog, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    MemorySource.create("photos", files)
    run(catalog)
    monkeypatch.setattr(RedSquareDetector, "name", "renamed")
    run(catalog)
    assert catalog.search("red square", model="renamed").results


def test_a_failed_file_that_vanishes_is_no_picture(catalog: Catalog) -> None:
    source = MemorySource.create("photos", {"a.jpg": b"no", "b.jpg": scene_jpeg([RED])})
    run(catalog)
    del source.files["a.jpg"]
    run(catalog)
    assert [one.image.key for one in catalog.search().results] == ["b.jpg"]
    assert catalog.count() == 1


def test_a_folder_of_real_files_works_like_any_source(tmp_path: Path, catalog: Catalog) -> None:
    folder = tmp_path / "my photos, 100 % größe"
    (folder / "deep" / "er").mkdir(parents=True)
    for name in ("a b.jpg", "deep/ü.jpg", "deep/er/100%.JPG", "deep/er/no extension"):
        (folder / name).write_bytes(scene_jpeg([RED]))
    (folder / "notes.txt").write_text("words")
    summary = vistadex.index(folder, detector=RedSquareDetector(), catalog=catalog)
    assert (summary.indexed, dict(summary.failures)) == (4, {"not_an_image": 1})
    uris = {result.image.uri for result in catalog.search("red square").results}
    assert uris == {str(path) for path in folder.rglob("*") if path.is_file()} - {
        str(folder / "notes.txt")
    }
    os.utime(folder / "a b.jpg", (1, 1))
    assert vistadex.index(folder, detector=RedSquareDetector(), catalog=catalog).indexed == 1
    shutil.rmtree(folder / "deep")
    assert vistadex.index(folder, detector=RedSquareDetector(), catalog=catalog).vanished == 3


def test_several_sources_fill_one_catalog(tmp_path: Path, catalog: Catalog) -> None:
    MemorySource.create("one", {"a.jpg": scene_jpeg([RED])})
    MemorySource.create("two", {"a.jpg": scene_jpeg([BLUE])})
    summary = vistadex.index(
        "memory://one",
        "memory://two",
        "memory://one",
        detector=RedSquareDetector(),
        catalog=catalog,
    )
    assert summary.images == 2
    assert catalog.search("source:two").results[0].image.classes[0].class_name == "blue square"


def test_progress_hears_of_everything_once_it_is_done(
    catalog: Catalog, files: dict[str, bytes]
) -> None:
    class Recorder(Progress):
        states: list[tuple[int, bool, int, int]] = []

        def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
            self.states.append((listed, listing, done, failed))

    MemorySource.create("photos", files | {"bad.jpg": b"?"})
    recorder = Recorder()
    run(catalog, progress=recorder)
    assert recorder.states[-1] == (41, False, 41, 1)
    assert [done for _, _, done, _ in recorder.states] == sorted(
        done for _, _, done, _ in recorder.states
    )


def test_no_source_and_no_model_are_errors_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("VISTADEX_DETECTOR", raising=False)
    place = tmp_path / "c.db"
    with pytest.raises(UsageError, match="no source"):
        vistadex.index(detector=RedSquareDetector(), catalog=str(place))
    with pytest.raises(SourceMissingError):
        vistadex.index(tmp_path / "nowhere", detector=RedSquareDetector(), catalog=str(place))
    with pytest.raises(ModelError, match="vistadex models add"):
        vistadex.index(tmp_path, catalog=str(place))
    assert not place.exists()


def test_a_shard_is_picklable_and_its_work_pure(files: dict[str, bytes]) -> None:
    import pickle

    source = MemorySource.create("photos", files)
    entries = tuple(entry for page in source.pages() for entry in page)
    shard = Shard("memory://photos", entries, (RedSquareDetector(),), LIMITS)
    again = pickle.loads(pickle.dumps(shard))
    assert again == shard

    def meaning(outcome: Outcome) -> object:
        result = outcome.results[0]
        return outcome.entry, [np.asarray(getattr(result, n)).tolist() for n in result.__slots__]

    first = [meaning(outcome) for outcome in process_shard(shard)]
    assert first == [meaning(outcome) for outcome in process_shard(again)]
    assert [entry for entry, _ in first] == list(entries)


def pages_of(entries: list[ImageEntry]) -> Iterator[list[ImageEntry]]:
    for start in range(0, len(entries), 1000):
        yield entries[start : start + 1000]


def test_shards_begin_small_grow_and_end_small() -> None:
    entries = [ImageEntry(f"{i}", 1, "v") for i in range(2000)]
    parts = list(cut(pages_of(entries), threads=2))
    sizes = [len(part) for part in parts]
    assert sizes[:20] == [5] * 4 + [10] * 4 + [20] * 4 + [40] * 4 + [64] * 4
    assert max(sizes) == 64
    assert sizes[-1] <= 8
    assert [entry for part in parts for entry in part] == entries


def test_shards_are_bounded_in_bytes() -> None:
    entries = [ImageEntry(f"{i}", shards.SHARD_BYTES // 2, "v") for i in range(100)]
    assert {len(part) for part in cut(pages_of(entries))} <= {1, 2}


def test_what_one_page_needs_is_begun_long_before_the_listing_ends() -> None:
    drawn = 0

    def pages() -> Iterator[list[ImageEntry]]:
        nonlocal drawn
        for i in range(1000):
            drawn += 1
            yield [ImageEntry("new", 1, "v")] if i == 0 else []

    assert next(cut(pages()))[0].key == "new"
    assert drawn <= 2


class LongListing(MemorySource):
    """So many keys that were never in memory together."""

    number = 0

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        for start in range(0, self.number, 1000):
            yield [ImageEntry(f"{i:09}.jpg", 1, "v") for i in range(start, start + 1000)]


def planned(catalog: Catalog, source: MemorySource) -> int:
    """How many entries the plan of a run holds, drawn one shard after the other."""
    detector = RedSquareDetector()
    run_ = Run(catalog, (detector,), LIMITS, "new", False, Silent())
    run_.register([source])
    return sum(len(shard.entries) for shard in run_.shards([source]))


@pytest.mark.slow
def test_ten_million_keys_are_planned_in_flat_memory(tmp_path: Path) -> None:
    import tracemalloc

    catalog = Catalog(tmp_path / "catalog.db", create=True)

    MemorySource.create("long", {})
    source = LongListing("memory://long")

    def peak(number: int) -> int:
        source.number = number
        tracemalloc.start()
        assert planned(catalog, source) == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    source.number = 1000
    planned(catalog, source)  # imports and caches
    small = peak(10_000)
    tracemalloc.stop()
    source.number = 10_000_000
    before = peak_rss_bytes()
    assert planned(catalog, source) == 10_000_000
    assert peak_rss_bytes() - before < 30e6
    assert peak(200_000) < small + 1e6


def test_a_large_gap_of_vanished_images_is_passed_in_steps(catalog: Catalog) -> None:
    one = scene_jpeg([RED], (32, 24))
    names = ["a.jpg", *(f"gone/{i:04}.jpg" for i in range(2500)), "z.jpg"]
    source = MemorySource.create("photos", dict.fromkeys(names, one))
    run(catalog)
    for name in names[1:-1]:
        del source.files[name]
    summary = run(catalog)
    assert (summary.vanished, summary.unchanged) == (2500, 2)
    summary = run(catalog, prune=True)
    assert (summary.pruned, catalog.stats().images) == (2500, 2)


def test_an_unchanged_collection_is_planned_fast(catalog: Catalog) -> None:
    one = scene_jpeg([RED], (32, 24))
    MemorySource.create("photos", {f"{i:05}.jpg": one for i in range(3000)})
    run(catalog)
    begun = time.monotonic()
    assert run(catalog).unchanged == 3000
    assert time.monotonic() - begun < 3  # a wide bound: benchmarks/ measures the rate


def test_a_source_that_fails_does_not_keep_the_others_from_being_indexed(
    tmp_path: Path, catalog: Catalog
) -> None:
    scene = scene_jpeg([("red square", 10, 20, 40)])
    for name in ("first", "last"):
        MemorySource.create(name, {"a.jpg": scene})
    for name in ("empty", "bare"):
        MemorySource.create(name, {})
    sources = [f"memory://{name}" for name in ("empty", "first", "bare", "last")]
    both = r"memory://empty: no files(.|\n)*memory://bare: no files"
    with pytest.raises(SourceError, match=both):
        vistadex.index(*sources, detector=RedSquareDetector(), catalog=catalog)
    assert catalog.stats().images == 2
    with pytest.raises(SourceMissingError, match="memory://empty: no files"):
        vistadex.index(*sources[:2], detector=RedSquareDetector(), catalog=catalog)

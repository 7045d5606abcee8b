"""Sliding windows: small objects in large pictures, found once each, also on seams."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vistadex
from vistadex import models
from vistadex.boxes import box_iou
from vistadex.decoding import decode, encode_jpeg
from vistadex.errors import ModelError
from vistadex.models import tiling
from vistadex.models.tiling import FULL_SIZE, TiledDetector, Window, view, windows_of
from vistadex.models.tiny import constant_output, grid_detector
from vistadex.records import DecodedImage, Detections, FloatArray, Result
from vistadex.testing import RedSquareDetector

WIDTH, HEIGHT = 4000, 3000
RED, BLUE = (220, 20, 20), (20, 20, 220)


@dataclass
class NearSighted:
    """Finds squares as a network with an input of 512 pixels does: none below 8 of its pixels."""

    batch_size: int = 1
    min_long_side: int = 512
    min_short_side: int = 0
    batches: list[list[tuple[int, ...]]] = field(default_factory=list)

    def analyze(self, images: list[DecodedImage]) -> list[Result]:
        self.batches.append([image.pixels.shape for image in images])
        return [self._look(image) for image in images]

    def _look(self, image: DecodedImage) -> Detections:
        scale = min(1.0, 512 / max(image.width, image.height))
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        small = cv2.resize(image.pixels, size, interpolation=cv2.INTER_NEAREST)
        found = RedSquareDetector().analyze([DecodedImage(small, image.width, image.height)])[0]
        assert isinstance(found, Detections)
        sides = found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]
        seen = (sides * scale >= 8).all(axis=1)
        return Detections(found.boxes_xyxy[seen], found.scores[seen], found.class_ids[seen])


def scene(squares: list[tuple[int, int, int]], wh: tuple = (WIDTH, HEIGHT)) -> DecodedImage:
    """A gray picture with squares of (x, y, side)."""
    pixels = np.full((wh[1], wh[0], 3), 128, np.uint8)
    for x, y, side in squares:
        pixels[y : y + side, x : x + side] = RED
    return DecodedImage(pixels, *wh)


def tiled(detector: object = None, **options: float) -> TiledDetector:
    given = {"tile": 1024, "overlap": 0.2, "nms_iou": 0.65, "max_boxes": 300, **options}
    return TiledDetector(detector or NearSighted(), **given)


def look(model: TiledDetector, image: DecodedImage) -> Detections:
    found = model.analyze([image])[0]
    assert isinstance(found, Detections)
    return found


def expect_once(found: Detections, squares: list[tuple[int, int, int]], within: float) -> None:
    """Each square has one box, and each box is a square's."""
    truth = np.array([[x, y, x + s, y + s] for x, y, s in squares], np.float32)
    assert len(found.boxes_xyxy) == len(squares)
    far = np.abs(np.asarray(found.boxes_xyxy, np.float32)[:, None] - truth[None]).max(axis=2)
    assert sorted(far.argmin(axis=1)) == list(range(len(squares)))
    assert far.min(axis=1).max(initial=0) <= within


SEAMS = (819, 1024, 1638, 1843, 2457, 2662, 2976)
"""Columns where windows of 1024 with an overlap of 0.2 begin and end in a picture of 4000."""


def test_small_squares_are_found_where_they_are_and_once_each() -> None:
    squares = [(x, y, 40) for y in (100, 1500, 2700) for x in (60, 500, 1333, 2222, 3901)]
    image = scene(squares)
    assert len(NearSighted().analyze([image])[0].scores) == 0
    expect_once(look(tiled(), image), squares, 4)


def test_squares_on_seams_are_found_whole_and_once() -> None:
    squares = [(x - 20, 300, 40) for x in SEAMS]
    squares += [(x - 39, 1200, 40) for x in SEAMS]
    squares += [(x - 1, 2000, 40) for x in SEAMS]
    squares += [(200, y - 15, 40) for y in (819, 1024, 1638, 1843, 1976)]
    expect_once(look(tiled(), scene(squares)), squares, 4)


def test_objects_larger_than_a_window_are_found_whole_by_the_whole_picture() -> None:
    squares = [(300, 200, 1500), (2200, 900, 1700)]
    expect_once(look(tiled(), scene(squares)), squares, 16)


def test_large_and_small_objects_are_found_together() -> None:
    squares = [(1000, 700, 1600), (100, 100, 40), (3000, 2800, 40), (3939, 20, 50)]
    expect_once(look(tiled(), scene(squares)), squares, 16)


def test_a_piece_that_nothing_completes_remains() -> None:
    """Without overlap and too small for the whole picture: both halves are kept."""
    found = look(tiled(overlap=0.0), scene([(1004, 100, 40)]))
    boxes = sorted(np.asarray(found.boxes_xyxy).round().tolist())
    assert [box[0] for box in boxes] == [1004, 1024]
    assert [box[2] for box in boxes] == [1024, 1044]


@settings(max_examples=12, deadline=None)
@given(
    cells=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=8),
    shift=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    side=st.integers(24, 60),
)
def test_squares_anywhere_are_found_once_each(
    cells: set[tuple[int, int]], shift: tuple[int, int], side: int
) -> None:
    squares = [(i * 150 + shift[0], j * 150 + shift[1], side) for i, j in cells]
    image = scene(squares, wh=(1600, 1300))
    expect_once(look(tiled(tile=512, overlap=0.25), image), squares, 3)


def test_classes_do_not_suppress_each_other() -> None:
    image = scene([(1000, 500, 60)])
    image.pixels[500:560, 1030:1060] = BLUE
    found = look(tiled(), image)
    assert sorted(found.class_ids.tolist()) == [0, 1]


def test_the_rectangle_between_windows_is_covered() -> None:
    for width, height, tile, overlap in (
        (4000, 3000, 1024, 0.2),
        (1025, 90, 1024, 0.0),
        (100, 7000, 640, 0.89),
        (2048, 2048, 1024, 0.0),
    ):
        seen = np.zeros((height, width), bool)
        windows = list(windows_of(width, height, tile, overlap))
        for x0, y0, x1, y1 in windows:
            assert (x1 - x0, y1 - y0) == (min(tile, width), min(tile, height))
            seen[y0:y1, x0:x1] = True
        assert seen.all()
        assert len(set(windows)) == len(windows)
        assert max(w.x1 for w in windows) == width
        assert max(w.y1 for w in windows) == height


def test_windows_are_those_that_were_asked_for() -> None:
    columns = [w.x0 for w in windows_of(4000, 1000, 1024, 0.2)]
    assert columns == [0, 819, 1638, 2457, 2976]
    assert list(windows_of(300, 200, 1024, 0.2)) == [Window(0, 0, 300, 200)]


def test_a_window_is_a_view_and_copies_nothing() -> None:
    image = scene([])
    part = view(image, Window(100, 200, 1124, 1224))
    assert part.pixels.base is image.pixels
    assert (part.width, part.height, part.pixels.shape) == (1024, 1024, (1024, 1024, 3))


def test_a_picture_that_was_decoded_smaller_keeps_its_coordinates() -> None:
    squares = [(1000, 700, 160), (3000, 2700, 160)]
    full = scene(squares)
    half = DecodedImage(np.ascontiguousarray(full.pixels[::2, ::2]), WIDTH, HEIGHT)
    expect_once(look(tiled(), half), squares, 4)


def test_a_picture_no_larger_than_a_window_goes_through_once() -> None:
    model = NearSighted()
    squares = [(10, 10, 100)]
    image = scene(squares, wh=(1024, 800))
    expect_once(look(tiled(model), image), squares, 3)
    assert model.batches == [[(800, 1024, 3)]]


def test_windows_go_through_in_batches() -> None:
    model = NearSighted(batch_size=8)
    assert tiled(model).batch_size == 8
    look(tiled(model), scene([]))
    assert [len(batch) for batch in model.batches] == [8, 8, 5]
    assert model.batches[-1][-1] == (HEIGHT, WIDTH, 3)


def test_images_keep_their_order_and_empty_ones_have_no_boxes() -> None:
    images = [scene([(700, 700, 60)]), scene([]), scene([(5, 5, 40)], wh=(300, 200))]
    found = tiled().analyze(images)
    counts = [len(one.scores) for one in found if isinstance(one, Detections)]
    assert counts == [1, 0, 1]
    assert found[1].boxes_xyxy.shape == (0, 4)


def test_the_best_boxes_are_kept_and_come_first() -> None:
    squares = [(100 + 300 * i, 100 + 300 * j, 40) for i in range(10) for j in range(8)]
    found = look(tiled(max_boxes=7), scene(squares))
    assert len(found.scores) == 7
    assert (np.diff(found.scores) <= 0).all()


class Scripted:
    """A detector that says given boxes of the whole picture and of each window, by call."""

    batch_size = 1
    min_long_side = min_short_side = 0

    def __init__(self, *boxes: list[list[float]]) -> None:
        self.boxes = list(boxes)

    def analyze(self, images: list[DecodedImage]) -> list[Result]:
        rows = np.array(self.boxes.pop(0), np.float32).reshape(-1, 5)
        return [Detections(rows[:, :4], rows[:, 4], np.zeros(len(rows), np.int64)) for _ in images]


def scripted(
    whole: list[list[float]], first: list[list[float]], second: list[list[float]]
) -> list[list[float]]:
    """What is left of a picture of 180 x 100: of the whole, and of windows at 0 and at 80."""
    image = DecodedImage(np.zeros((100, 180, 3), np.uint8), 180, 100)
    found = look(tiled(Scripted(first, second, whole), tile=100), image)
    return np.asarray(found.boxes_xyxy).tolist()


def test_a_whole_box_goes_before_a_better_piece() -> None:
    piece, whole = [60, 10, 100, 50, 0.9], [60, 10, 120, 50, 0.5]
    assert scripted([whole], [piece], []) == [[60, 10, 120, 50]]


def test_boxes_of_one_window_do_not_take_each_other_away() -> None:
    """The detector has already decided between them."""
    a, b = [10, 10, 50, 50, 0.9], [10, 10, 50, 46, 0.8]
    assert len(scripted([], [a, b], [])) == 2


def test_of_two_whole_boxes_of_different_windows_the_better_remains() -> None:
    assert scripted([[81, 10, 98, 50, 0.5]], [], [[2, 10, 18, 50, 0.8]]) == [[82, 10, 98, 50]]


def test_a_small_whole_box_does_not_take_a_large_piece_away() -> None:
    piece, small = [40, 10, 100, 90, 0.5], [50, 20, 60, 30, 0.9]
    assert len(scripted([small], [piece], [])) == 2


def test_of_two_pieces_of_one_object_the_better_remains() -> None:
    left, right = [70, 10, 100, 50, 0.6], [0, 10, 25, 50, 0.7]
    assert scripted([], [left], [right]) == [[80, 10, 105, 50]]


def test_the_edge_of_the_picture_cuts_nothing() -> None:
    at_edge, beside = [0, 10, 30, 50, 0.9], [0, 10, 90, 50, 0.8]
    assert len(scripted([at_edge], [beside], [])) == 2


# Many boxes


def one_by_one(found: tiling._Found, iou: float) -> tiling._Found:
    """The rules of TiledDetector as they are written: each box against all that are left."""
    left = found.at(np.lexsort((-found.scores, found.cut)))
    kept = [left.at(slice(0))]
    while len(left.scores):
        best, rest = left.at(np.zeros(len(left.scores) - 1, int)), left.at(slice(1, None))
        kept.append(left.at(slice(1)))
        same = (best.class_ids == rest.class_ids) & (best.windows != rest.windows)
        left = rest.at(np.flatnonzero(~(same & tiling._same_object(best, rest, iou))))
    return tiling._joined(kept)


def boxes_at_random(
    seed: int, count: int, extent: int, sides: tuple[int, int], classes: int, windows: int
) -> tiling._Found:
    dice = np.random.default_rng(seed)
    corners = dice.integers(0, extent, (count, 2))
    boxes = np.hstack([corners, corners + dice.integers(*sides, (count, 2))]).astype(np.float32)
    return tiling._Found(
        boxes,
        dice.integers(1, 50, count).astype(np.float32) / 50,
        dice.integers(0, classes, count),
        dice.integers(0, windows, count),
        dice.random(count) < 0.3,
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(0, 120),
    extent=st.sampled_from([1, 40, 300, 5000]),
    side=st.sampled_from([2, 60, 1000]),
    classes=st.integers(1, 3),
    windows=st.integers(1, 6),
    iou=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_boxes_merge_as_if_each_was_compared_with_all(
    seed: int, count: int, extent: int, side: int, classes: int, windows: int, iou: float
) -> None:
    found = boxes_at_random(seed, count, extent, (1, side), classes, windows)
    expected, merged = one_by_one(found, iou), tiling._merged(found, iou)
    for one, other in zip(expected, merged, strict=True):
        assert one.tolist() == other.tolist()


def test_of_many_boxes_few_are_compared() -> None:
    """All with all were 200 million pairs."""
    found = boxes_at_random(0, 20_000, 10_000, (20, 60), 1, 500)
    pairs = np.concatenate(list(tiling._neighbors(found)), axis=1)
    assert len(np.unique(pairs, axis=1).T) == pairs.shape[1] < 2_000_000
    assert len(tiling._merged(found, 0.5).scores) > 10_000


def test_an_absurd_number_of_windows_is_refused() -> None:
    model = NearSighted()
    image = scene([], wh=(7000, 7000))
    message = r"7000 x 7000 pixels: 47,524 windows of 64 with an overlap of 0\.5.* larger --tile"
    with pytest.raises(ModelError, match=message):
        look(tiled(model, tile=64, overlap=0.5), image)
    assert model.batches == []


# The analyzer


@pytest.fixture
def tiny(tmp_path: Path) -> models.ModelFile:
    path = grid_detector(tmp_path / "m.onnx", classes=2)
    return models.ModelStore(tmp_path / "store").add(path, head="yolox", classes=["a", "b"])


def test_tile_and_overlap_belong_to_the_analysis_of_a_detector(tiny: models.ModelFile) -> None:
    plain = models.analyzer(tiny).parameters
    assert not {"tile", "overlap"} & set(plain)
    assert models.analyzer(tiny, overlap=0.5).parameters == plain
    windows = models.analyzer(tiny, tile=1024).parameters
    assert windows == {**plain, "tile": 1024, "overlap": 0.2}


def test_the_nms_threshold_counts_in_windows_also_where_the_network_suppresses(
    tmp_path: Path,
) -> None:
    path = constant_output(tmp_path / "e.onnx", np.zeros((3, 6), np.float32))
    file = models.ModelStore(tmp_path / "store").add(path, head="end-to-end", classes=["a", "b"])
    assert "nms_iou" not in models.analyzer(file).parameters
    assert models.analyzer(file, tile=256, nms_iou=0.3).parameters["nms_iou"] == 0.3


def test_large_pictures_come_at_full_size(tiny: models.ModelFile) -> None:
    model = models.analyzer(tiny, tile=256).load()
    assert (model.min_long_side, model.min_short_side) == (FULL_SIZE, 0)
    jpeg = encode_jpeg(np.zeros((3000, 4000, 3), np.uint8))
    assert decode(jpeg, min_long_side=model.min_long_side).pixels.shape == (3000, 4000, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 63}, "tile 63: expected 64 pixels or more"),
        ({"tile": 0}, "tile 0: expected 64"),
        ({"overlap": 0.9}, r"overlap 0\.9: expected 0 to below 0\.9"),
        ({"overlap": -0.1}, r"overlap -0\.1: expected 0"),
        ({"overlap": float("nan")}, "overlap nan: expected 0"),
    ],
)
def test_windows_that_can_not_be_are_refused(
    options: dict[str, float], message: str, tiny: models.ModelFile
) -> None:
    with pytest.raises(ModelError, match=message):
        models.analyzer(tiny, **options)


# Real pictures


@pytest.fixture(scope="module")
def yolox(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> models.ModelFile:
    store = models.ModelStore(tmp_path_factory.mktemp("store"))
    return store.add(shared_data / "weights" / "yolox_nano.onnx")


def mosaic(shared_data: Path) -> tuple[DecodedImage, FloatArray, list[str]]:
    """Nine COCO pictures with most to see as one, with its boxes and their classes."""
    truth = json.loads((shared_data / "coco" / "instances_val.json").read_text())
    names = {one["id"]: one["name"] for one in truth["categories"]}
    by_image: dict[int, list] = {}
    for one in truth["annotations"]:
        if not one["iscrowd"]:
            by_image.setdefault(one["image_id"], []).append(one)
    chosen = sorted(truth["images"], key=lambda one: one["id"])[:9]
    pixels = np.full((3 * 640, 3 * 640, 3), 114, np.uint8)
    boxes, classes = [], []
    for i, entry in enumerate(chosen):
        image = decode((shared_data / "coco" / "images" / "val" / entry["file_name"]).read_bytes())
        x, y = 640 * (i % 3) + (640 - image.width) // 2, 640 * (i // 3) + (640 - image.height) // 2
        pixels[y : y + image.height, x : x + image.width] = image.pixels
        for one in by_image.get(entry["id"], []):
            left, top, w, h = one["bbox"]
            boxes.append([x + left, y + top, x + left + w, y + top + h])
            classes.append(names[one["category_id"]])
    return DecodedImage(pixels, 1920, 1920), np.array(boxes, np.float32), classes


def found_of(found: Detections, boxes: FloatArray, names: list[str], known: tuple) -> int:
    """How many of the true boxes have one of their class with IoU > 0.5."""
    iou = box_iou(boxes, np.asarray(found.boxes_xyxy, np.float32))
    same = np.array([[known[c] == name for c in found.class_ids.tolist()] for name in names])
    return int(((iou > 0.5) & same).any(axis=1).sum())


def test_windows_find_what_the_whole_picture_hides(
    yolox: models.ModelFile, shared_data: Path
) -> None:
    """Measured: 7 of 52 objects whole, 27 in windows of 640."""
    image, boxes, names = mosaic(shared_data)
    known = yolox.card.classes
    counts = {}
    for tile in (None, 640):
        found = models.analyzer(yolox, tile=tile).load().analyze([image])[0]
        assert isinstance(found, Detections)
        counts[tile] = found_of(found, boxes, names, known)
    assert counts[None] < 10
    assert counts[640] >= 24


def test_an_index_run_takes_windows(
    yolox: models.ModelFile, shared_data: Path, tmp_path: Path
) -> None:
    image, _, _ = mosaic(shared_data)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "large.jpg").write_bytes(encode_jpeg(image.pixels))
    catalog = tmp_path / "c.db"
    weights = str(yolox.path)
    for tile in (None, 640):
        done = vistadex.index(folder, detector=weights, catalog=catalog, tile=tile)
        assert (done.indexed, done.failed) == (1, 0)
    with vistadex.Catalog(catalog) as opened:
        boxes = opened.image(1).boxes
    assert len(boxes) > 20
    assert max(box.box_xyxy[2] for box in boxes) > 1300

"""Samples and batches: boxes stay on their objects, and nothing depends on who prepares them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training_scenes import red_squares
from vistadex.annotated import AnnotatedSet
from vistadex.errors import UsageError
from vistadex.testing import RedSquareDetector
from vistadex.training.augmenting import Augmentation, Truth, augmented, fitted
from vistadex.training.loading import Batch, Loader, Plan, SampleKey, Samples
from vistadex.training.pictures import Pictures


@pytest.fixture
def squares(tmp_path: Path) -> AnnotatedSet:
    return red_squares(tmp_path, 9)


def pictures_of(data: AnnotatedSet, tmp_path: Path, max_bytes: int = 1 << 30) -> Pictures:
    return Pictures(data, 160, tmp_path / "decoded", max_bytes)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a[:5], b[:5], strict=True))


def is_red(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = (pixels[..., i].astype(int) for i in range(3))
    return (red > 120) & (red - green > 70) & (red - blue > 70)


@pytest.mark.parametrize(
    "how",
    [
        Augmentation(mosaic=0, flip=0, scale=(0.7, 0.7), color=(0, 0, 0)),
        Augmentation(mosaic=1, flip=0.5, flip_vertical=0.5, color=(0, 0, 0)),
        Augmentation(mosaic=0, flip=1, flip_vertical=1, scale=(1.2, 1.5), color=(0, 0.1, 0.1)),
    ],
    ids=["small", "mosaic", "large and turned"],
)
def test_boxes_stay_on_their_objects(
    squares: AnnotatedSet, tmp_path: Path, how: Augmentation
) -> None:
    pictures = pictures_of(squares, tmp_path)
    seen = 0
    for i in range(40):
        random = np.random.default_rng(i)
        first = pictures.get(i % len(pictures))
        sample = augmented(first, lambda i=i: pictures.get(i % 5), 128, how, random)
        assert sample.pixels.shape == (128, 128, 3)
        covered = np.zeros((128, 128), bool)
        for x0, y0, x1, y1 in sample.boxes.round().astype(int):
            inside = is_red(sample.pixels[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1])
            assert inside.size == 0 or inside.mean() > 0.85
            covered[max(0, y0 - 2) : y1 + 2, max(0, x0 - 2) : x1 + 2] = True
            seen += 1
        # Only what was cut off too far has no box.
        assert is_red(sample.pixels)[~covered].sum() < 400
    assert seen >= 20


def test_mixup_lays_two_samples_over_each_other(squares: AnnotatedSet, tmp_path: Path) -> None:
    pictures = pictures_of(squares, tmp_path)
    how = Augmentation(mosaic=0, mixup=1, flip=0, scale=(1, 1), color=(0, 0, 0))
    sample = augmented(pictures.get(0), lambda: pictures.get(1), 160, how, np.random.default_rng(0))
    assert len(sample.boxes) == 2
    for x0, y0, x1, y1 in sample.boxes.round().astype(int):
        red = sample.pixels[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3, 0].mean()
        assert 130 < red < 205  # of 220 in the square and 114 around the other picture


def test_a_fitted_picture_lies_as_in_use(squares: AnnotatedSet, tmp_path: Path) -> None:
    picture = pictures_of(squares, tmp_path).get(0)
    sample = fitted(picture, 96)
    assert sample.pixels.shape == (96, 96, 3)
    assert (sample.pixels[72:] == 114).all()
    assert np.allclose(sample.boxes, picture.boxes * 0.6)


def test_a_picture_without_boxes_is_a_sample(tmp_path: Path) -> None:
    empty = Truth(
        np.zeros((40, 60, 3), np.uint8),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros(0, np.float32),
    )
    sample = augmented(empty, lambda: empty, 64, Augmentation(), np.random.default_rng(0))
    assert sample.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mosaic": 1.5}, "mosaic 1.5: expected 0 to 1"),
        ({"scale": (2.0, 1.0)}, "scale 2.0 to 1.0: expected"),
    ],
)
def test_impossible_augmentation_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augmentation(**values)


@pytest.mark.slow
def test_batches_are_the_same_however_many_processes_make_them(
    squares: AnnotatedSet, tmp_path: Path
) -> None:
    samples = Samples(pictures_of(squares, tmp_path), Augmentation(mixup=0.5), 7)
    plan = Plan(len(squares), 7, 4, 96, 2, 1, 1)
    alone = list(Loader(samples, plan))
    several = list(Loader(samples, plan, workers=2))
    assert len(alone) == len(several) == 4
    assert all(same(a, b) for a, b in zip(alone, several, strict=True))
    assert not same(alone[0], alone[2])  # another epoch


def test_a_later_start_gives_the_later_batches(squares: AnnotatedSet, tmp_path: Path) -> None:
    samples = Samples(pictures_of(squares, tmp_path), Augmentation(), 7)
    plan = Plan(len(squares), 7, 4, 96, 3, 1)
    whole = list(Loader(samples, plan))
    rest = list(Loader(samples, plan, start=(1, 1)))
    assert len(rest) == 3
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_two_processes_share_the_batch_of_one(squares: AnnotatedSet, tmp_path: Path) -> None:
    samples = Samples(pictures_of(squares, tmp_path), Augmentation(), 7)
    plan = Plan(len(squares), 7, 4, 96, 1, 0)
    whole = list(Loader(samples, plan))
    halves = [list(Loader(samples, plan, rank=rank, world=2)) for rank in (0, 1)]
    for one, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(one.images, torch.cat([left.images, right.images]))
        assert torch.equal(one.boxes, torch.cat([left.boxes, right.boxes]))
        assert torch.equal(one.sample, torch.cat([left.sample, right.sample + 2]))


def test_kept_pictures_are_those_that_are_decoded(squares: AnnotatedSet, tmp_path: Path) -> None:
    kept = Samples(pictures_of(squares, tmp_path), Augmentation(), 7)
    never = Samples(pictures_of(squares, tmp_path / "none", max_bytes=0), Augmentation(), 7)
    plan = Plan(len(squares), 7, 4, 96, 2, 0)
    for a, b in zip(Loader(kept, plan), Loader(never, plan), strict=True):
        assert same(a, b)
    assert list((tmp_path / "decoded").glob("*.npy"))
    assert not (tmp_path / "none").exists()


def test_a_bad_picture_is_told_once_and_replaced(tmp_path: Path) -> None:
    data = red_squares(tmp_path, 6, broken=2)
    assert len(data) == 8  # the headers are sound
    samples = Samples(pictures_of(data, tmp_path), Augmentation(), 0)
    bad = [one for batch in Loader(samples, Plan(8, 0, 4, 96, 3, 0)) for one in batch.bad]
    assert sorted(image for image, _ in bad) == [6, 7]
    assert all("breaks off" in why or "truncated" in why for _, why in bad)


def test_sizes_vary_by_32_pixels_and_the_last_epochs_are_plain() -> None:
    plan = Plan(20, 0, 4, 128, 10, 3, 2)
    sizes = {plan.size_of(epoch, step) for epoch in range(10) for step in range(5)}
    assert sizes == {64, 96, 128, 160, 192}
    keys = [plan.keys(epoch, 0)[0] for epoch in range(10)]
    assert [key.plain for key in keys] == [False] * 7 + [True] * 3
    images = [key.image for step in range(5) for key in plan.keys(4, step)]
    assert sorted(images) == list(range(20))  # each once
    assert isinstance(keys[0], SampleKey)


def test_red_squares_are_found_by_the_fake_detector(squares: AnnotatedSet) -> None:
    """The scenes are what the other tests take them for."""
    from vistadex.decoding import decode

    image = decode(squares.read(0))
    (found,) = RedSquareDetector().analyze([image])
    assert np.allclose(found.boxes_xyxy[0], squares.images[0].boxes[0], atol=3)

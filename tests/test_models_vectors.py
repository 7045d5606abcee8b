"""Classifiers and embedders on graphs whose outputs are known."""

from pathlib import Path

import numpy as np
import pytest

from vistadex import models
from vistadex.errors import ModelError, ModelQuestionError
from vistadex.models.cards import PRESETS, ModelCard, file_sha256, preprocessing_from_dict
from vistadex.models.tiny import constant_output, mean_color
from vistadex.records import Classification, DecodedImage, Embedding, Pixels

COLORS = np.eye(3, dtype=np.float32) * 4
NAMES = ["reddish", "greenish", "bluish"]


def picture(pixels: Pixels) -> DecodedImage:
    return DecodedImage(pixels, pixels.shape[1], pixels.shape[0])


def plain(color: tuple[int, int, int], width: int = 40, height: int = 60) -> DecodedImage:
    return picture(np.full((height, width, 3), color, np.uint8))


def test_a_classifier_that_ends_in_softmax_ranks_its_classes(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "c.onnx", COLORS, softmax=True)
    store = models.ModelStore(tmp_path / "store")
    file = store.add(path, classes=NAMES, preset="ultralytics", resize="stretch")
    assert (file.card.task, file.card.head) == ("classifier", "probabilities")
    found = models.analyzer(file).load().analyze([plain((0, 255, 128))])[0]
    assert isinstance(found, Classification)
    powers = np.exp([0, 4, 4 * 128 / 255])
    expected = powers / powers.sum()
    assert found.class_ids.tolist() == [1, 2, 0]
    np.testing.assert_allclose(found.scores, expected[[1, 2, 0]], rtol=1e-4)
    assert found.scores.dtype == np.float32


def test_logits_get_a_softmax_only_where_the_card_says_logits(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "c.onnx", COLORS)
    store = models.ModelStore(tmp_path / "store")
    for head, top in (("logits", np.exp(4) / (np.exp(4) + 2)), ("probabilities", 1.0)):
        file = store.add(path, head=head, classes=NAMES, preset="ultralytics", resize="stretch")
        found = models.analyzer(file).load().analyze([plain((255, 0, 0))])[0]
        assert isinstance(found, Classification)
        assert found.scores[0] == pytest.approx(top, rel=1e-4)


def test_a_classifier_says_its_best_classes(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(0, 1, (3, 20)).astype(np.float32)
    path = mean_color(tmp_path / "c.onnx", weights, softmax=True)
    file = models.ModelStore(tmp_path / "store").add(
        path, classes=[f"c{i}" for i in range(20)], preset="imagenet"
    )
    found = models.analyzer(file).load().analyze([plain((255, 0, 0))])[0]
    assert isinstance(found, Classification)
    assert len(found.scores) == 5
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("head", ["probabilities", "logits", "embedding"])
def test_an_output_with_nan_is_an_error(head: str, tmp_path: Path) -> None:
    path = constant_output(tmp_path / "c.onnx", np.array([0.5, np.nan, 0.1], np.float32))
    how = preprocessing_from_dict({**PRESETS["ultralytics"], "size_wh": [64, 64]})
    task = "embedder" if head == "embedding" else "classifier"
    classes = () if head == "embedding" else tuple(NAMES)
    card = ModelCard(name="nan", task=task, head=head, classes=classes, input=how)
    model = models.analyzer(models.ModelFile(path, file_sha256(path), card)).load()
    with pytest.raises(ModelError, match="not finite"):
        model.analyze([plain((0, 0, 0))])


def test_an_embedding_has_unit_length(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "e.onnx", COLORS)
    store = models.ModelStore(tmp_path / "store")
    file = store.add(path, head="embedding", preset="ultralytics", resize="stretch")
    assert file.card.classes == ()
    found = models.analyzer(file).load().analyze([plain((0, 30, 40)), plain((0, 0, 0))])
    assert isinstance(found[0], Embedding)
    np.testing.assert_allclose(found[0].vector, [0, 0.6, 0.8], rtol=1e-5)
    assert isinstance(found[1], Embedding)
    assert found[1].vector.tolist() == [0, 0, 0]


def test_the_center_crop_sees_the_center_and_bgr_swaps_channels(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "e.onnx", COLORS)
    store = models.ModelStore(tmp_path / "store")
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 110:190, 0] = 200
    how = {"color": "BGR", "scale": 1.0, "resize": "resize-shorter-center-crop", "crop": 0.75}
    file = store.add(path, head="embedding", **how)
    model = models.analyzer(file).load()
    assert (model.min_long_side, model.min_short_side) == (0, 43)
    found = model.analyze([picture(pixels)])[0]
    assert isinstance(found, Embedding)
    np.testing.assert_allclose(found.vector, [0, 0, 1])


def test_mean_and_std_are_those_of_each_channel(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "e.onnx", np.eye(3, dtype=np.float32))
    file = models.ModelStore(tmp_path / "store").add(
        path,
        head="embedding",
        color="RGB",
        scale=0.5,
        mean=(1, 2, 3),
        std=(1, 2, 4),
        resize="stretch",
    )
    found = models.analyzer(file).load().analyze([plain((10, 20, 30))])[0]
    assert isinstance(found, Embedding)
    expected = np.array([4, 4, 3])
    np.testing.assert_allclose(found.vector, expected / np.linalg.norm(expected), rtol=1e-5)


def test_a_classifier_is_asked_for_head_classes_and_preprocessing(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "c.onnx", COLORS)
    store = models.ModelStore(tmp_path / "store")
    with pytest.raises(ModelQuestionError, match="head, classes") as asked:
        store.add(path)
    assert "heads that could fit: logits (3 classes), probabilities (3 classes), embedding" in str(
        asked.value
    )
    with pytest.raises(ModelQuestionError, match=r"its preprocessing.*--preset"):
        store.add(path, head="logits", classes=NAMES)
    with pytest.raises(ModelError, match="has 3 classes, the card names 2"):
        store.add(path, head="logits", classes=NAMES[:2], preset="imagenet")


def test_rectangular_input_is_for_letterboxes(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "e.onnx", COLORS)
    store = models.ModelStore(tmp_path / "store")
    file = store.add(path, head="embedding", preset="imagenet")
    with pytest.raises(ModelError, match="needs a letterbox"):
        models.analyzer(file, rectangular=True)
    assert set(models.analyzer(file).parameters) == {"head", "size", "preprocessing"}

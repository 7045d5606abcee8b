"""Real networks on COCO pictures: NanoDet equal to an independent decode, and mAPs."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from vistadex import models
from vistadex.boxes import nms, xyxy_to_xywh
from vistadex.models.coco import COCO_CATEGORY_IDS, COCO_CLASSES
from vistadex.records import DecodedImage, Detections, FloatArray, IntArray

MEAN = np.array([103.53, 116.28, 123.675], np.float32)
STD = np.array([57.375, 57.12, 58.395], np.float32)


@pytest.fixture(scope="module")
def file(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> models.ModelFile:
    store = models.ModelStore(tmp_path_factory.mktemp("store"))
    return store.add(shared_data / "weights" / "nanodet_m_416.onnx")


def read(path: Path) -> DecodedImage:
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return DecodedImage(pixels, pixels.shape[1], pixels.shape[0])


def independent(
    session: onnxruntime.InferenceSession, image: DecodedImage, min_score: float
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Boxes, scores and classes, cell by cell as the paper of GFL describes them."""
    ratio = 416 / max(image.width, image.height)
    w, h = int(image.width * ratio), int(image.height * ratio)
    padded = np.full((416, 416, 3), 114, np.uint8)
    padded[:h, :w] = cv2.resize(np.ascontiguousarray(image.pixels[..., ::-1]), (w, h))
    blob = ((padded - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"input.1": blob}), strict=True))
    boxes, scores, class_ids = [], [], []
    for stride in (8, 16, 32):
        cells = zip(
            outputs[f"cls_pred_stride_{stride}"][0],
            outputs[f"dis_pred_stride_{stride}"][0],
            strict=True,
        )
        for i, (classes, logits) in enumerate(cells):
            if classes.max() < min_score:
                continue
            row, column = divmod(i, 416 // stride)
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            bins = np.exp(logits.reshape(4, 8).astype(np.float64))
            left, top, right, bottom = (bins @ np.arange(8)) / bins.sum(axis=1) * stride
            boxes.append([x - left, y - top, x + right, y + bottom])
            scores.append(classes.max())
            class_ids.append(classes.argmax())
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    best, ids = np.array(scores, np.float32), np.array(class_ids, np.int64)
    kept: list[int] = []
    for class_id in range(80):
        mine = np.flatnonzero(ids == class_id)
        kept += mine[nms(corners[mine], best[mine], 0.65)].tolist()
    order = np.array(sorted(kept, key=lambda i: -best[i]), np.int64)
    size = [image.width, image.height, image.width, image.height]
    found = corners[order] * (np.array(size) / np.array([w, h, w, h]))
    return np.clip(found, 0, size), best[order], ids[order]


def test_detections_equal_an_independent_decode(file: models.ModelFile, shared_data: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file.path), options)
    model = models.analyzer(file, min_score=0.15).load()
    count = 0
    for path in sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:12]:
        image = read(path)
        found = model.analyze([image])[0]
        assert isinstance(found, Detections)
        boxes, scores, class_ids = independent(session, image, 0.15)
        assert found.class_ids.tolist() == class_ids.tolist()
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=1e-2)
        count += len(scores)
    assert count > 60


def test_nanodet_is_known_by_its_hash(file: models.ModelFile) -> None:
    card = file.card
    assert (card.name, card.head, card.license) == ("nanodet_m_416", "nanodet", "Apache-2.0")
    assert card.classes == COCO_CLASSES


def coco_map(file: models.ModelFile, shared_data: Path, category_ids: Sequence[int]) -> float:
    """mAP on the 240 pictures, by pycocotools.

    Args:
        category_ids: official ids by class index.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    model = models.analyzer(file, min_score=0.01).load()
    rows = []
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(shared_data / "coco" / "instances_val.json"))
        for image_id, entry in truth.imgs.items():
            image = read(shared_data / "coco" / "images" / "val" / entry["file_name"])
            found = model.analyze([image])[0]
            assert isinstance(found, Detections)
            boxes = xyxy_to_xywh(found.boxes_xyxy).tolist()
            ids = [category_ids[class_id] for class_id in found.class_ids]
            rows += [
                {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
                for box, score, category in zip(boxes, found.scores.tolist(), ids, strict=True)
            ]
        run = COCOeval(truth, truth.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


@pytest.mark.slow
def test_the_map_of_nanodet_is_that_of_the_network(
    file: models.ModelFile, shared_data: Path
) -> None:
    """Measured .252. An independent decode gave .225 stretched, .240 in a centered letterbox."""
    assert coco_map(file, shared_data, COCO_CATEGORY_IDS) >= 0.245


@pytest.mark.slow
def test_the_map_of_a_tflite_ssd_says_that_its_classes_are_right(
    shared_data: Path, tmp_path: Path
) -> None:
    """Measured .204, of at most ten boxes for a picture."""
    weights = shared_data / "weights" / "ssd_mobilenet_v1_coco_quant_detect.tflite"
    file = models.ModelStore(tmp_path).add(weights, classes="coco-90")
    assert file.card.head == "tensorflow"
    assert coco_map(file, shared_data, range(1, 91)) >= 0.195

"""YOLOX-nano on COCO pictures: equal to an independent decode, and its mAP."""

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from vistadex import models
from vistadex.boxes import nms
from vistadex.models.coco import COCO_CATEGORY_IDS, COCO_CLASSES
from vistadex.records import DecodedImage, Detections, FloatArray, IntArray


@pytest.fixture(scope="module")
def store(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> models.ModelStore:
    store = models.ModelStore(tmp_path_factory.mktemp("store"))
    weights = shared_data / "weights" / "yolox_nano.onnx"
    store.add(weights)
    store.add(weights, name="free", dynamic_size=True)
    return store


def read(path: Path) -> DecodedImage:
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return DecodedImage(pixels, pixels.shape[1], pixels.shape[0])


def yolox_demo(
    session: onnxruntime.InferenceSession, image: DecodedImage, min_score: float
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Boxes, scores and classes as the demo of the YOLOX project computes them, slowly."""
    bgr, h, w = image.pixels[..., ::-1], image.height, image.width
    ratio = min(416 / h, 416 / w)
    new_w, new_h = int(w * ratio), int(h * ratio)
    padded = np.full((416, 416, 3), 114, np.uint8)
    padded[:new_h, :new_w] = cv2.resize(np.ascontiguousarray(bgr), (new_w, new_h))
    blob = padded.transpose(2, 0, 1)[None].astype(np.float32)
    output = session.run(None, {"images": blob})[0][0]
    row = 0
    for stride in (8, 16, 32):
        for y in range(416 // stride):
            for x in range(416 // stride):
                output[row, 0] = (output[row, 0] + x) * stride
                output[row, 1] = (output[row, 1] + y) * stride
                output[row, 2:4] = np.exp(output[row, 2:4]) * stride
                row += 1
    assert row == len(output)
    half = output[:, 2:4] / 2
    boxes = np.hstack([output[:, :2] - half, output[:, :2] + half])
    class_ids, scores = output[:, 5:].argmax(1), output[:, 5:].max(1) * output[:, 4]
    kept: list[int] = []
    for class_id in range(80):
        mine = np.flatnonzero((class_ids == class_id) & (scores >= min_score))
        kept += mine[nms(boxes[mine], scores[mine], 0.65)].tolist()
    order = np.array(sorted(kept, key=lambda i: -scores[i]), np.int64)
    boxes = boxes[order] * (np.array([w, h, w, h]) / np.array([new_w, new_h, new_w, new_h]))
    return np.clip(boxes, 0, [w, h, w, h]), scores[order], class_ids[order]


def test_detections_equal_an_independent_decode(
    store: models.ModelStore, shared_data: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    weights = shared_data / "weights" / "yolox_nano.onnx"
    session = onnxruntime.InferenceSession(str(weights), options)
    model = models.analyzer(store.get("yolox_nano"), min_score=0.1).load()
    count = 0
    for path in sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:20]:
        image = read(path)
        found = model.analyze([image])[0]
        assert isinstance(found, Detections)
        boxes, scores, class_ids = yolox_demo(session, image, 0.1)
        assert found.class_ids.tolist() == class_ids.tolist()
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=1e-2)
        count += len(scores)
    assert count > 100


def test_batches_of_three_equal_batches_of_one(store: models.ModelStore, shared_data: Path) -> None:
    paths = sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:12]
    images = [read(path) for path in paths]
    single, triple = (
        models.analyzer(store.get("free"), batch_size=size).load().analyze(images)
        for size in (1, 3)
    )
    for one, three in zip(single, triple, strict=True):
        assert isinstance(one, Detections)
        assert isinstance(three, Detections)
        assert one.class_ids.tolist() == three.class_ids.tolist()
        np.testing.assert_allclose(one.scores, three.scores, atol=1e-4)
        np.testing.assert_allclose(one.boxes_xyxy, three.boxes_xyxy, atol=0.05)


def test_yolox_nano_is_known_by_its_hash(store: models.ModelStore, shared_data: Path) -> None:
    weights = shared_data / "weights" / "yolox_nano.onnx"
    empty = models.ModelStore(store.folder / "empty")
    card = models.resolve(str(weights), task="detector", store=empty).card
    assert (card.license, card.classes, card.head) == ("Apache-2.0", COCO_CLASSES, "yolox")
    assert store.get("free").card.derived_from == store.get("yolox_nano").sha256


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolox_nano", "free"])
def test_coco_map_is_that_of_the_network(
    name: str, store: models.ModelStore, shared_data: Path
) -> None:
    """An independent decode, one class for each box as YOLOX does, gives .281."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    analyzer = models.analyzer(store.get(name), min_score=0.01)
    assert analyzer.rectangular == (name == "free")
    model = analyzer.load()
    rows = []
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(shared_data / "coco" / "instances_val.json"))
        for image_id, entry in truth.imgs.items():
            image = read(shared_data / "coco" / "images" / "val" / entry["file_name"])
            assert (image.width, image.height) == (entry["width"], entry["height"])
            found = model.analyze([image])[0]
            assert isinstance(found, Detections)
            rows += [
                {
                    "image_id": image_id,
                    "category_id": COCO_CATEGORY_IDS[class_id],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": score,
                }
                for (x0, y0, x1, y1), score, class_id in zip(
                    found.boxes_xyxy.tolist(),
                    found.scores.tolist(),
                    found.class_ids.tolist(),
                    strict=True,
                )
            ]
        run = COCOeval(truth, truth.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert run.stats[0] >= 0.275

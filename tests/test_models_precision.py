"""What a runtime and its precision cost in mAP, measured as docs/runtimes.md says."""

import contextlib
import io
import logging
from pathlib import Path

import pytest

from vistadex import models
from vistadex.boxes import xyxy_to_xywh
from vistadex.decoding import decode
from vistadex.models.coco import COCO_CATEGORY_IDS
from vistadex.records import Detections

RUNS = {
    "ONNX Runtime f32": {},
    "OpenVINO f32": {"runtime": "openvino"},
    "OpenVINO bf16": {"runtime": "openvino", "precision": "bf16"},
}


def mean_average_precision(file: models.ModelFile, shared_data: Path, **options: str) -> float:
    """COCO's mAP on its 240 pictures, of boxes with a score above 0.01, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    model = models.analyzer(file, min_score=0.01, **options).load()
    with contextlib.redirect_stdout(io.StringIO()):
        truth, rows = COCO(str(shared_data / "coco" / "instances_val.json")), []
        for number, entry in truth.imgs.items():
            path = shared_data / "coco" / "images" / "val" / entry["file_name"]
            found = model.analyze([decode(path.read_bytes())])[0]
            assert isinstance(found, Detections)
            boxes = xyxy_to_xywh(found.boxes_xyxy).tolist()
            rows += [
                {"image_id": number, "category_id": COCO_CATEGORY_IDS[c], "bbox": b, "score": s}
                for b, s, c in zip(boxes, found.scores.tolist(), found.class_ids, strict=True)
            ]
        measured = COCOeval(truth, truth.loadRes(rows), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return float(measured.stats[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "dynamic", "expected"),
    [("yolox_nano", False, 0.281), ("yolox_nano", True, 0.277), ("nanodet_m_416", False, 0.252)],
)
def test_openvino_keeps_the_map_of_onnx_runtime(
    weights: str, dynamic: bool, expected: float, shared_data: Path, tmp_path: Path
) -> None:
    from vistadex.models.openvino import openvino

    store = models.ModelStore(tmp_path / "store")
    file = store.add(shared_data / "weights" / f"{weights}.onnx", dynamic_size=dynamic)
    bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = {
        name: mean_average_precision(file, shared_data, **options)
        for name, options in RUNS.items()
        if bf16 or options.get("precision") != "bf16"
    }
    logging.getLogger(__name__).info("%s %s %s", weights, "dynamic" if dynamic else "square", found)
    assert found["ONNX Runtime f32"] == pytest.approx(expected, abs=0.002)
    assert found["OpenVINO f32"] == pytest.approx(found["ONNX Runtime f32"], abs=0.001)
    if bf16:
        assert found["OpenVINO bf16"] == pytest.approx(found["OpenVINO f32"], abs=0.006)

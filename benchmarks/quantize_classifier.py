"""A small classifier to quantize: the backbone of YOLOX-nano, and a last layer learned here.

python -m benchmarks.quantize_classifier YOLOX_NANO.onnx PICTURES OUT

PICTURES are named CLASS_anything.JPEG, as imagenette's are. Half of them, by turns, teach the last
layer; OUT gets classifier.onnx with its card, and the folders train and val, a folder for each
class, of which val is the other half.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx.utils
from onnx import TensorProto, helper, numpy_helper

from vistadex.decoding import decode
from vistadex.errors import DecodingError
from vistadex.models import ModelStore
from vistadex.models.cards import PRESETS, preprocessing_from_dict
from vistadex.models.preprocessing import Preprocessor
from vistadex.models.sessions import open_session
from vistadex.records import FloatArray

SIDE = 160
RIDGE = 0.02
HOW = {**PRESETS["yolox"], "size_wh": [SIDE, SIDE], "resize": "resize-shorter-center-crop"}


def split(pictures: Path, out: Path) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """Two halves as (picture, class), linked into folders for each class."""
    halves: tuple[list[tuple[Path, str]], list[tuple[Path, str]]] = ([], [])
    for number, path in enumerate(sorted(pictures.glob("n*_*.JPEG"))):
        try:
            decode(path.read_bytes())
        except DecodingError:
            continue
        name, half = path.name.partition("_")[0], number % 2
        folder = out / ("train", "val")[half] / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / path.name).exists():
            os.symlink(path.resolve(), folder / path.name)
        halves[half].append((path, name))
    return halves


def backbone(weights: Path, folder: Path) -> Any:
    """The network up to its deepest feature map, its mean the only output, `features`."""
    store = ModelStore(folder / "store")
    dynamic = store.add(weights, name="dynamic", dynamic_size=True).path
    graph = onnx.load(dynamic).graph
    makers = {name: node for node in graph.node for name in node.output}
    node = next(one for one in graph.node if one.op_type == "Resize")
    while node.op_type != "Conv":
        node = makers[node.input[0]]
    last = node.input[0]
    cut = folder / "cut.onnx"
    model = onnx.load(dynamic)
    model.graph.value_info.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
    onnx.save(model, cut)
    onnx.utils.extract_model(str(cut), str(cut), ["images"], [last], check_model=False)
    model = onnx.load(cut)
    del model.graph.output[:]
    model.graph.node.append(helper.make_node("GlobalAveragePool", [last], ["mean"]))
    model.graph.node.append(helper.make_node("Flatten", ["mean"], ["features"]))
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, 3, SIDE, SIDE), strict=True):
        dim.Clear()
        dim.dim_value = size
    return model


def features(model: Any, pictures: list[tuple[Path, str]]) -> FloatArray:
    """(N, D) of each picture."""
    session = open_session(model.SerializeToString())
    fitting = Preprocessor(preprocessing_from_dict(HOW), (SIDE, SIDE), rectangular=False)
    rows = []
    for path, _ in pictures:
        image = decode(path.read_bytes())
        blob = np.empty((1, 3, SIDE, SIDE), np.float32)
        fitting.write(image.pixels, fitting.place(image.width, image.height), blob[0])
        rows.append(session.run(None, {"images": blob})[0][0])
    return np.stack(rows)


def main() -> None:
    """Writes the classifier, its card and the folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("weights", "pictures", "out"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    train, _ = split(asked.pictures, asked.out)
    classes = sorted({name for _, name in train})
    with TemporaryDirectory() as folder:
        model = backbone(asked.weights, Path(folder))
    known = features(model, train)
    mean, spread = known.mean(0), known.std(0) + 1e-6
    truth = np.array([[name == one for one in classes] for _, name in train], np.float64)
    scaled = np.hstack([(known - mean) / spread, np.ones((len(known), 1))]).astype(np.float64)
    square = scaled.T @ scaled + RIDGE * len(scaled) * np.eye(scaled.shape[1])
    solved = 10 * np.linalg.solve(square, scaled.T @ truth)
    matrix = (solved[:-1] / spread[:, None]).astype(np.float32)
    bias = (solved[-1] - mean @ matrix).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "last_weights"))
    model.graph.initializer.append(numpy_helper.from_array(bias, "last_bias"))
    last = ["features", "last_weights", "last_bias"]
    model.graph.node.append(helper.make_node("Gemm", last, ["logits"]))
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=1))
    del model.graph.output[:]
    value = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(classes)])
    model.graph.output.append(value)
    path = asked.out / "classifier.onnx"
    onnx.save(model, path)
    card = {"name": "classifier", "task": "classifier", "head": "probabilities", "input": HOW}
    text = json.dumps({**card, "classes": classes})
    path.with_name("classifier.onnx.json").write_text(text, encoding="utf-8")
    print(f"{path}: {len(classes)} classes, learned from {len(train)} pictures")


if __name__ == "__main__":
    main()

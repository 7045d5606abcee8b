"""Small networks with convolutions for tests of quantization and export, and pictures for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from vistadex.models.sessions import open_session

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
SIDE = 32


def picture(name: str, seed: int) -> np.ndarray[Any, Any]:
    """(SIDE, SIDE, 3) RGB: noise, tinted by a color."""
    noise = np.random.default_rng(seed).integers(0, 120, (SIDE, SIDE, 3))
    tint = np.array(COLORS[name]) * 0.5
    pixels: np.ndarray[Any, Any] = (noise + tint).clip(0, 255).astype(np.uint8)
    return pixels


def color_folders(folder: Path, count: int, first: int = 0) -> Path:
    """An imagefolder with so many pictures of each color."""
    for name in COLORS:
        (folder / name).mkdir(parents=True)
        for number in range(first, first + count):
            path = folder / name / f"{number}.png"
            cv2.imwrite(str(path), picture(name, number)[..., ::-1])
    return folder


def color_network(activation: str = "Relu", *, opset: int = 13) -> Any:
    """Stem, depthwise, pointwise, pooling and a last layer that knows the three colors."""
    chance = np.random.default_rng(0)
    weights = {
        "w0": chance.normal(0.02, 0.05, (8, 3, 3, 3)),
        "w1": chance.normal(0.3, 0.3, (8, 1, 3, 3)) * np.geomspace(0.1, 10, 8)[:, None, None, None],
        "w2": chance.normal(0.1, 0.3, (16, 8, 1, 1)),
        "w3": chance.normal(0.1, 0.3, (32, 16, 3, 3)),
    }
    nodes, name = [], "images"
    for i in range(4):
        size = weights[f"w{i}"].shape[2]
        how = {"kernel_shape": [size] * 2, "pads": [size // 2] * 4, "group": 8 if i == 1 else 1}
        how["strides"] = [2, 2] if i == 3 else [1, 1]
        nodes.append(helper.make_node("Conv", [name, f"w{i}", f"b{i}"], [f"c{i}"], **how))
        weights[f"b{i}"] = chance.normal(0, 0.1, len(weights[f"w{i}"]))
        nodes.append(helper.make_node(activation, [f"c{i}"], [f"a{i}"]))
        name = f"a{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["features"]))
    known = _model(nodes, weights, "features", 32, opset)
    session = open_session(known.SerializeToString())
    rows, truth = [], []
    for place, color in enumerate(COLORS):
        for seed in range(100, 110):
            pixels = picture(color, seed).transpose(2, 0, 1)[None].astype(np.float32)
            rows.append(np.append(session.run(None, {"images": pixels})[0][0], 1))
            truth.append(np.eye(3)[place])
    solved = 20 * np.linalg.lstsq(np.array(rows), np.array(truth), rcond=1e-6)[0]
    weights |= {"last": solved[:-1], "last_bias": solved[-1]}
    nodes.append(helper.make_node("Gemm", ["features", "last", "last_bias"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=1))
    return _model(nodes, weights, "scores", 3, opset)


def color_classifier(folder: Path, activation: str = "Relu") -> Path:
    """The network as a file with its card."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "colors.onnx"
    save(color_network(activation), path)
    how = {"size_wh": [SIDE, SIDE], "color": "RGB", "resize": "stretch"}
    card = {"name": "colors", "task": "classifier", "head": "probabilities", "input": how}
    text = json.dumps({**card, "classes": list(COLORS)})
    path.with_name("colors.onnx.json").write_text(text, encoding="utf-8")
    return path


def _model(nodes: list[Any], weights: dict[str, Any], output: str, size: int, opset: int) -> Any:
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

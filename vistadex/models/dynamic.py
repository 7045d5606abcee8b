"""A graph of fixed size rewritten to take any; accepted only if it computes the same.

Three things fix a size in an export: the declared shapes, the shapes of Reshape, and constants
computed from the size (grids, anchors). The first two are rewritten here; the third can't be, shows
when the new graph runs at other sizes, and is the reason why it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.models.cards import ModelCard
from vistadex.models.graphs import CARD_KEY, load_onnx
from vistadex.models.sessions import ORT_ERRORS
from vistadex.models.trials import Trial, random_pictures

_TOLERANCE = 1e-5


def make_dynamic(path: Path, card: ModelCard) -> bytes:
    """The ONNX file with batch, height and width left open.

    At the original size it gives the same outputs within 1e-5, and it runs at three others.

    Raises: ModelError with the reason if the graph does not allow it.
    """
    if card.input.dynamic:
        raise ModelError(f"{path}: takes inputs of any size already; leave out --dynamic-size")
    model = load_onnx(path)
    before = Trial(path)
    _open_shapes(model)
    try:
        after = Trial(model.SerializeToString(deterministic=True))
    except ModelError as error:
        raise _refused(path, str(error)) from error
    shapes = _compare(before, after, card, path)
    _name_outputs(model, shapes)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _compare(
    before: Trial, after: Trial, card: ModelCard, path: Path
) -> list[list[tuple[int, ...]]]:
    """Shapes of the new graph's outputs in each trial: as it was, batch 2, taller, wider."""
    width, height = card.input.size_wh
    step = max(card.input.stride, 32)
    sizes = [(1, height, width), (2, height, width)]
    sizes += [(1, height + step, width), (1, height, width + 2 * step)]
    shapes = []
    for count, h, w in sizes:
        images = random_pictures(card, count, h, w)
        try:
            outputs = after(images)
        except ORT_ERRORS as error:
            reason = str(error).partition("\n")[0][:300]
            raise _refused(path, f"it fails at {count} x {w}x{h}: {reason}") from error
        if (h, w) == (height, width):
            _need_same(outputs, [before(images[i : i + 1]) for i in range(count)], path)
        shapes.append([output.shape for output in outputs])
    return shapes


def _need_same(outputs: list[NDArray[Any]], singles: list[list[NDArray[Any]]], path: Path) -> None:
    for i, output in enumerate(outputs):
        expected = np.concatenate([single[i] for single in singles])
        if output.shape != expected.shape:
            raise _refused(path, f"its output becomes {output.shape}, was {expected.shape}")
        if not np.allclose(output, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            off = float(np.abs(output - expected).max())
            raise _refused(path, f"its output changes by {off:.2g}")


def _open_shapes(model: Any) -> None:
    """Leaves batch, height and width open in the declared shapes and in every Reshape."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = {n.output[0]: n for n in graph.node if n.op_type == "Constant"}
    image = next(v for v in graph.input if v.name not in weights)
    _name_dims(image, {0: "batch", 2: "height", 3: "width"})
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in {*weights, *constants}:
            _open_reshape(graph, node, weights, constants)
    for entry in [p for p in model.metadata_props if p.key == CARD_KEY]:
        model.metadata_props.remove(entry)


def _open_reshape(graph: Any, node: Any, weights: Any, constants: Any) -> None:
    """[1, 85, -1] becomes [0, 85, -1], and [1, 85, 2704] likewise; others stay."""
    from onnx import numpy_helper

    name = node.input[1]
    tensor = weights[name] if name in weights else constants[name].attribute[0].t
    shape = numpy_helper.to_array(tensor).copy()
    if len(shape) < 2 or shape[0] != 1:
        return
    shape[0] = 0
    if -1 not in shape and len(shape) > 2:
        shape[-1] = -1
    renamed = f"{name}_dynamic_{node.output[0]}"
    graph.initializer.append(numpy_helper.from_array(shape, renamed))
    node.input[1] = renamed


def _name_outputs(model: Any, trials: list[list[tuple[int, ...]]]) -> None:
    """Declares the outputs: axes that differed between trials are open."""
    for i, output in enumerate(model.graph.output):
        shapes = [trial[i] for trial in trials]
        for axis, size in enumerate(shapes[0]):
            dim = output.type.tensor_type.shape.dim.add()
            if axis == 0:
                dim.dim_param = "batch"
            elif len({shape[axis] for shape in shapes}) > 1:
                dim.dim_param = f"{output.name}_{axis}"
            else:
                dim.dim_value = size


def _name_dims(value: Any, names: dict[int, str]) -> None:
    for axis, name in names.items():
        value.type.tensor_type.shape.dim[axis].dim_param = name


def _refused(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path}: can't be made dynamic, {reason}; export the network with dynamic axes instead"
    )

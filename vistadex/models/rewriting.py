"""A graph rewritten into a faster one that computes the same, checked before it is accepted.

Two rewrites, both exact but for rounding (YOLOX-nano on CPU: 1.13 and 1.09 times as fast):
- Focus (four strided slices of the picture, stacked) and its 3x3 convolution become one 6x6
  convolution of stride 2 with the same weights in another order;
- max-pools of growing size over one input, as in SPP, become a chain of small ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from vistadex.errors import ModelError
from vistadex.models.cards import ModelCard
from vistadex.models.graphs import CARD_KEY
from vistadex.models.preprocessing import Preprocessor
from vistadex.models.trials import Trial, random_pictures
from vistadex.records import DecodedImage, FloatArray

Node: TypeAlias = Any
TOLERANCE = 1e-4
"""How far an output may change, as a share of its largest number (or of 1, if that is more): what
float32 itself is off by in such networks."""
_RANDOM = 2


class Faster(NamedTuple):
    """A rewritten file, and how it was found to compute the same."""

    data: bytes
    max_difference: float
    """Largest change of any number of the outputs."""


def make_faster(
    data: bytes, card: ModelCard, place: Path, images: Sequence[DecodedImage] = ()
) -> Faster:
    """The ONNX file with every rewrite that applies.

    Args:
        place: the file, for errors.
        images: decoded pictures on which both must compute the same; without, random pixels.
    Raises: ModelError if no rewrite applies, or the outputs change by more than rounding.
    """
    import onnx

    model = onnx.load_from_string(data)
    if fuse_focus(model.graph) + chain_pools(model.graph) == 0:
        raise ModelError(f"{place}: nothing to optimize here; leave out --optimize")
    for entry in [p for p in model.metadata_props if p.key == CARD_KEY]:
        model.metadata_props.remove(entry)
    del model.graph.value_info[:]
    faster: bytes = model.SerializeToString(deterministic=True)
    one, other = Trial(data), Trial(faster)
    largest = 0.0
    for picture in _prepared(card, images):
        for before, after in zip(one(picture), other(picture), strict=True):
            change = float(np.abs(before - after).max(initial=0))
            if not change <= TOLERANCE * max(1.0, float(np.abs(before).max(initial=0))):
                raise ModelError(
                    f"{place}: can't be optimized, its output would change by {change:.2g}; leave "
                    "out --optimize"
                )
            largest = max(largest, change)
    return Faster(faster, largest)


def _prepared(card: ModelCard, images: Sequence[DecodedImage]) -> Iterator[FloatArray]:
    """(1, 3, H, W) of each picture, fitted to the card's size; of random pixels without any."""
    width, height = card.input.size_wh
    if not images:
        pixels = random_pictures(card, _RANDOM, height, width)
        yield from (pixels[i : i + 1] for i in range(_RANDOM))
    fitting = Preprocessor(card.input, (width, height), rectangular=False)
    for image in images:
        out = np.empty((1, 3, height, width), np.float32)
        fitting.write(fitting.reduced(image), fitting.place(image.width, image.height), out[0])
        yield out


def fuse_focus(graph: Any) -> int:
    """Turns each Focus with its convolution into one convolution; returns how many."""
    from onnx import helper, numpy_helper

    producers = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = _Constants(graph)
    fused = 0
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        stack = producers.get(conv.input[0])
        if stack is None or conv.input[1] not in weights or not _is_plain_3x3(conv):
            continue
        offsets = _focus_offsets(stack, producers, constants)
        if offsets is None or len(_users(graph, stack.output[0])) != 1:
            continue
        picture, places = offsets
        old = numpy_helper.to_array(weights[conv.input[1]])
        channels = old.shape[1] // 4
        new = np.zeros((old.shape[0], channels, 6, 6), old.dtype)
        for block, (y, x) in enumerate(places):
            new[:, :, y::2, x::2] = old[:, block * channels : (block + 1) * channels]
        name = f"{conv.input[1]}_focus"
        graph.initializer.append(numpy_helper.from_array(new, name))
        conv.input[0], conv.input[1] = picture, name
        del conv.attribute[:]
        how = {"kernel_shape": [6, 6], "strides": [2, 2], "pads": [2, 2, 2, 2]}
        conv.attribute.extend(helper.make_attribute(key, value) for key, value in how.items())
        fused += 1
    _remove_unused(graph)
    return fused


def chain_pools(graph: Any) -> int:
    """Turns max-pools of growing size over one input into a chain; returns how many changed."""
    from onnx import helper

    pools: dict[str, list[tuple[int, Node]]] = {}
    for node in graph.node:
        size = _same_pool_size(node)
        if size:
            pools.setdefault(node.input[0], []).append((size, node))
    changed = 0
    for group in pools.values():
        group.sort(key=lambda one: one[0])
        for (small, first), (large, second) in pairwise(group):
            step = large - small + 1
            if step < 3 or step >= large or step % 2 == 0:
                continue
            second.input[0] = first.output[0]
            del second.attribute[:]
            how = {"kernel_shape": [step] * 2, "strides": [1, 1], "pads": [step // 2] * 4}
            second.attribute.extend(helper.make_attribute(k, value) for k, value in how.items())
            changed += 1
    sort_nodes(graph)
    return changed


class _Constants:
    """Integer lists that a graph holds as initializers or Constant nodes."""

    def __init__(self, graph: Any) -> None:
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.tensors[node.output[0]] = node.attribute[0].t

    def get(self, name: str) -> list[int] | None:
        from onnx import numpy_helper

        if name not in self.tensors:
            return None
        values: list[int] = numpy_helper.to_array(self.tensors[name]).reshape(-1).tolist()
        return values


def _focus_offsets(
    stack: Node, producers: dict[str, Node], constants: _Constants
) -> tuple[str, list[tuple[int, int]]] | None:
    """The sliced input and the (row, column) at which each stacked part begins; None: no Focus."""
    if stack.op_type != "Concat" or len(stack.input) != 4 or _attributes(stack) != {"axis": 1}:
        return None
    pictures, places = set(), []
    for name in stack.input:
        start = {2: -1, 3: -1}
        while (node := producers.get(name)) is not None and node.op_type == "Slice":
            cut = _step_of_two(node, constants)
            if cut is None or start.get(cut[0]) != -1:
                return None
            start[cut[0]] = cut[1]
            name = node.input[0]
        pictures.add(name)
        places.append((start[2], start[3]))
    if len(pictures) != 1 or sorted(places) != [(0, 0), (0, 1), (1, 0), (1, 1)]:
        return None
    return pictures.pop(), places


def _step_of_two(node: Node, constants: _Constants) -> tuple[int, int] | None:
    """Axis and start of a Slice that takes every second row or column to the end; None: another."""
    if len(node.input) != 5:
        return None
    starts, ends, axes, steps = (constants.get(name) for name in node.input[1:])
    if steps != [2] or not starts or not ends or not axes or ends[0] < 2**31 - 1:
        return None
    return (axes[0], starts[0]) if len(axes) == len(starts) == 1 and starts[0] in (0, 1) else None


def _attributes(node: Node) -> dict[str, Any]:
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _is_plain_3x3(conv: Node) -> bool:
    how: dict[str, Any] = {"strides": [1, 1], "dilations": [1, 1], "group": 1}
    how |= {"auto_pad": b"NOTSET"} | _attributes(conv)
    return bool(
        how.get("kernel_shape") == [3, 3]
        and how.get("pads") == [1, 1, 1, 1]
        and how["strides"] == how["dilations"] == [1, 1]
        and how["group"] == 1
        and how["auto_pad"] == b"NOTSET"
    )


def _same_pool_size(node: Node) -> int:
    """The side of a square max-pool of stride 1 that keeps its input's size; 0: another node."""
    if node.op_type != "MaxPool" or len(node.output) != 1:
        return 0
    how: dict[str, Any] = {"strides": [1, 1], "dilations": [1, 1], "auto_pad": b"NOTSET"}
    how |= _attributes(node)
    size: int = how["kernel_shape"][0]
    same = (
        how["kernel_shape"] == [size, size]
        and how.get("pads") == [size // 2] * 4
        and size % 2 == 1
        and how["strides"] == how["dilations"] == [1, 1]
        and how["auto_pad"] == b"NOTSET"
    )
    return size if same else 0


def _users(graph: Any, name: str) -> list[Node]:
    return [node for node in graph.node if name in node.input]


def _remove_unused(graph: Any) -> None:
    """Removes nodes and weights that nothing reads, from the end to the beginning."""
    wanted = Counter(output.name for output in graph.output)
    for node in reversed(list(graph.node)):
        if any(wanted[name] for name in node.output):
            wanted.update(node.input)
        else:
            graph.node.remove(node)
    for tensor in list(graph.initializer):
        if not wanted[tensor.name]:
            graph.initializer.remove(tensor)


def sort_nodes(graph: Any) -> None:
    """Puts every node behind those whose outputs it reads, else in the old order."""
    inside = {name for node in graph.node for name in node.output}
    waiting, ready, done = list(graph.node), [], set[str]()
    while waiting:
        first = next(
            node for node in waiting if all(i in done or i not in inside for i in node.input)
        )
        waiting.remove(first)
        ready.append(first)
        done.update(first.output)
    del graph.node[:]
    graph.node.extend(ready)

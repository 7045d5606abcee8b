"""What an ONNX file says about itself: inputs, outputs, metadata, and the card inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistadex.errors import ModelError
from vistadex.models.cards import ModelCard
from vistadex.models.ports import Port, Shape, Signature

CARD_KEY = "vistadex_card"
"""The key of the ONNX metadata that holds a card as JSON."""
_PASSIVE = {"Identity", "Reshape", "Flatten", "Squeeze", "Cast"}


@dataclass(frozen=True, slots=True)
class Graph:
    """The outside of a network."""

    signature: Signature
    metadata: Mapping[str, str]
    last_op: str
    """Operation that computes the first output, e.g. Softmax."""


def read_graph(path: Path) -> Graph:
    """The outside of the network in an ONNX file.

    Raises: ModelError if the file is not ONNX or keeps its weights in another file.
    """
    model = load_onnx(path)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    return Graph(
        signature=Signature(
            tuple(_port(v) for v in graph.input if v.name not in weights),
            tuple(_port(v) for v in graph.output),
        ),
        metadata={p.key: p.value for p in model.metadata_props},
        last_op=_last_op(graph),
    )


def load_onnx(path: Path) -> Any:
    """The onnx.ModelProto in a file.

    Raises: ModelError if the file is not ONNX or keeps its weights in another file.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not an ONNX model, or cut short ({error})") from error
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from error
    if not model.graph.output or not model.ir_version:
        raise ModelError(f"{path}: not an ONNX model; expected a file written by an ONNX export")
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        raise ModelError(
            f"{path}: the weights lie in a second file, expected one file; "
            "merge them with onnx.save(onnx.load(file), new_file)"
        )
    return model


def embedded_card(path: Path, graph: Graph) -> ModelCard | None:
    """The card in the ONNX metadata; None if there is none.

    Raises: ModelError if there is a card that can't be used.
    """
    text = graph.metadata.get(CARD_KEY)
    return None if text is None else ModelCard.from_json(text, f"{path} metadata {CARD_KEY}")


def embed_card(model: Any, card: ModelCard) -> None:
    """Writes the card into the metadata of an onnx.ModelProto, in place of an older one."""
    kept = [(p.key, p.value) for p in model.metadata_props if p.key != CARD_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (CARD_KEY, card.to_json())]:
        model.metadata_props.add(key=key, value=value)


def _port(value: Any) -> Port:
    from onnx import helper

    tensor = value.type.tensor_type
    if tensor.elem_type not in helper.get_all_tensor_dtypes():
        return Port(value.name, "unknown", _shape(tensor))
    kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return Port(value.name, kind, _shape(tensor))


def _shape(tensor: Any) -> Shape:
    dims = tensor.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def _last_op(graph: Any) -> str:
    """The operation behind the first output, passing those that only reshape."""
    makers = {name: node for node in graph.node for name in node.output}
    name, op = graph.output[0].name, ""
    for _ in range(len(graph.node)):
        if name not in makers:
            break
        op = makers[name].op_type
        if op not in _PASSIVE:
            break
        name = makers[name].input[0]
    return op

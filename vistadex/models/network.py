"""A network at work: pictures in, raw outputs out, one at a time or in batches of one shape."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.models.cards import ModelCard, Preprocessing
from vistadex.models.heads import ExtraInput, Fit, Head
from vistadex.models.ports import PictureInput, Port, Signature, shape_text
from vistadex.models.preprocessing import Placement, Preprocessor
from vistadex.models.sessions import ORT_ERRORS
from vistadex.records import DecodedImage, FloatArray

_PICTURE_TYPES = ("float32", "float16", "uint8")
_TYPES = {"float": "float32", "double": "float64"}
"""What ONNX Runtime calls otherwise than NumPy."""


class Extra(NamedTuple):
    """An input beside the picture."""

    port: Port
    kind: ExtraInput

    def values(self, count: int, canvas_wh: tuple[int, int]) -> NDArray[Any]:
        """What it is given for that many pictures."""
        width, height = canvas_wh
        if self.kind == "ones":
            open_shape = (count, height, width)
            shape = [size or own for size, own in zip(self.port.shape, open_shape, strict=True)]
            return np.ones(shape, self.port.type)
        size = canvas_wh if self.kind == "size_wh" else (height, width)
        return np.array([size] * count, self.port.type)


@dataclass(frozen=True, slots=True)
class Wiring:
    """How pictures enter a session, and which of its outputs the head reads."""

    picture: PictureInput
    extras: tuple[Extra, ...]
    fit: Fit

    @property
    def batched(self) -> bool:
        """Whether several pictures can go through at a time."""
        return self.fit.batched and self.picture.batched


class Output(NamedTuple):
    """What the network says of one picture."""

    image: int
    """Index of the picture among those that were handed over."""
    placement: Placement
    tensors: list[FloatArray]
    """The outputs without their batch axis."""


class Network:
    """A session together with how pictures enter it. Safe to share between threads."""

    def __init__(
        self,
        session: Any,
        preprocessor: Preprocessor,
        wiring: Wiring,
        batch_size: int,
        place: str,
    ) -> None:
        self.preprocessor = preprocessor
        self.batch_size = batch_size
        self._session = session
        self._place = place
        self._wiring = wiring
        self._local = threading.local()

    def run(self, images: Sequence[DecodedImage]) -> Iterator[Output]:
        """The network's outputs for each picture, those of one input shape together."""
        order, batched = self._wiring.fit.order, self._wiring.fit.batched
        placements = [self.preprocessor.place(i.width, i.height) for i in images]
        for indices in self._batches(placements):
            canvas_wh = placements[indices[0]].canvas_wh
            blob = self._blob(len(indices), *canvas_wh)
            for row, i in enumerate(indices):
                pixels = self.preprocessor.reduced(images[i])
                self.preprocessor.write(pixels, placements[i], blob[row])
            try:
                tensors = self._session.run(None, self._feed(blob, canvas_wh))
            except ORT_ERRORS as error:
                raise ModelError(f"{self._place}: the network failed: {error}") from error
            for row, i in enumerate(indices):
                mine = [tensors[k][row] if batched else tensors[k] for k in order]
                yield Output(i, placements[i], [np.asarray(t, np.float32) for t in mine])

    def _feed(self, blob: FloatArray, canvas_wh: tuple[int, int]) -> dict[str, NDArray[Any]]:
        """The inputs for (N, 3, H, W) prepared pictures."""
        picture = self._wiring.picture
        pixels: NDArray[Any] = blob.transpose(0, 2, 3, 1) if picture.channels_last else blob
        pixels = pixels if picture.batched else pixels[0]
        feed = {picture.port.name: np.ascontiguousarray(pixels, picture.port.type)}
        for extra in self._wiring.extras:
            feed[extra.port.name] = extra.values(len(blob), canvas_wh)
        return feed

    def _batches(self, placements: list[Placement]) -> Iterator[list[int]]:
        """Indices of pictures that go through the network together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for i, placement in enumerate(placements):
            group = groups.setdefault(placement.canvas_wh, [])
            group.append(i)
            if len(group) == self.batch_size:
                yield groups.pop(placement.canvas_wh)
        yield from groups.values()

    def _blob(self, count: int, width: int, height: int) -> NDArray[np.float32]:
        """This thread's input tensor, a view of one block for all shapes."""
        if not hasattr(self._local, "block"):
            side = max(self.preprocessor.size_wh)
            self._local.block = np.empty(self.batch_size * 3 * side * side, np.float32)
        block: FloatArray = self._local.block[: count * 3 * height * width]
        return block.reshape(count, 3, height, width)


def check_finite(what: str, *arrays: FloatArray) -> None:
    """Refuses what can't be compared, sorted or stored.

    Raises: ModelError if an array holds NaN or an infinity.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise ModelError(f"the output has {what} that are not finite; the model or its card is bad")


def wire(session: Any, card: ModelCard, head: Head, place: str) -> Wiring:
    """How a session takes pictures and gives results, as its card says.

    Raises: ModelError that says where they disagree.
    """
    signature = signature_of(session)
    try:
        picture = signature.picture()
    except ValueError as error:
        raise ModelError(f"{place}: {error}") from error
    _check_input(picture, card.input, place)
    extras = _extras(signature, picture, head, card, place)
    try:
        fit = head.fit(signature)
    except ValueError as error:
        raise ModelError(f"{place}: {error}; choose another --head") from error
    count = fit.class_count
    if count is not None and card.classes and count != len(card.classes):
        raise ModelError(
            f"{place}: the graph has {count} classes, the card names {len(card.classes)}; "
            "give the right names with --classes"
        )
    return Wiring(picture, extras, fit)


def signature_of(session: Any) -> Signature:
    """The inputs and outputs of a session."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return Signature(tuple(map(_port, inputs)), tuple(map(_port, outputs)))


def batch_size(wiring: Wiring, wanted: int | None, *, cuda: bool, place: str) -> int:
    """How many pictures go through the network at a time: as wanted, or 1 on CPU and 16 on CUDA.

    On a CPU, batches were slower (8: 220 images/s, 32: 173, against 287) and took 9 times the
    memory.

    Raises: ModelError if the graph's own batch is fixed at another number.
    """
    fixed = wiring.picture.port.shape[0] if wiring.batched else 1
    if fixed is None:
        return wanted or (16 if cuda else 1)
    if fixed != (wanted or 1) or fixed != 1:
        tflite = place.lower().endswith(".tflite")
        cure = "make its size dynamic with vistadex models add FILE --dynamic-size, or export it so"
        raise ModelError(
            f"{place}: the graph is fixed at batches of {fixed}, wanted are {wanted or 1}; "
            f"{f'export it with batches of {wanted or 1}' if tflite else cure}"
        )
    return 1


def _check_input(picture: PictureInput, how: Preprocessing, place: str) -> None:
    """Refuses an input that the card's preprocessing does not fit."""
    port = picture.port
    if port.type not in _PICTURE_TYPES:
        raise ModelError(f"{place}: input of {port.type}, expected {', '.join(_PICTURE_TYPES)}")
    plain = how.scale == 1 and set(how.mean) == {0} and set(how.std) == {1}
    if port.type == "uint8" and not plain:
        raise ModelError(
            f"{place}: the input takes whole numbers from 0 to 255, the card says scale "
            f"{how.scale:.4g}, mean {how.mean}, std {how.std}; expected 1, 0, 0, 0 and 1, 1, 1"
        )
    width, height = how.size_wh
    if how.dynamic and (picture.width or picture.height):
        fixed = shape_text(port.shape)
        raise ModelError(f"{place}: the card says dynamic, the graph is fixed at {fixed}")
    if picture.width not in (width, None) or picture.height not in (height, None):
        raise ModelError(
            f"{place}: input of {picture.width}x{picture.height} pixels, "
            f"the card says {width}x{height}"
        )


def _extras(
    signature: Signature, picture: PictureInput, head: Head, card: ModelCard, place: str
) -> tuple[Extra, ...]:
    """The inputs beside the picture, each known to the head."""
    others = [port for port in signature.inputs if port != picture.port]
    for port in others:
        ranks = {"ones": 3}.get(head.extra_inputs.get(port.name, ""), 2)
        if port.name not in head.extra_inputs or len(port.shape) != ranks:
            known = ", ".join(head.extra_inputs) or "none beside the picture"
            raise ModelError(
                f"{place}: input {port} is not known to head {card.head}; expected {known}"
            )
    return tuple(Extra(port, head.extra_inputs[port.name]) for port in others)


def _port(value: Any) -> Port:
    """A session's input or output; `tensor(float)` is float32."""
    name = str(value.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(d if isinstance(d, int) and d > 0 else None for d in value.shape)
    return Port(value.name, _TYPES.get(name, name), shape)

"""A network at work: pictures in, raw outputs out, one at a time or in batches of one shape."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.models.cards import ModelCard
from vistadex.models.heads import Head, Shape
from vistadex.models.preprocessing import Placement, Preprocessor
from vistadex.models.sessions import ORT_ERRORS
from vistadex.records import DecodedImage, FloatArray

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


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
        self, session: Any, preprocessor: Preprocessor, batch_size: int, place: str
    ) -> None:
        self.preprocessor = preprocessor
        self.batch_size = batch_size
        self._session = session
        self._place = place
        self._input = session.get_inputs()[0].name
        self._dtype = _DTYPES[session.get_inputs()[0].type]
        self._local = threading.local()

    def run(self, images: Sequence[DecodedImage]) -> Iterator[Output]:
        """The network's outputs for each picture, those of one input shape together."""
        placements = [self.preprocessor.place(i.width, i.height) for i in images]
        for indices in self._batches(placements):
            width, height = placements[indices[0]].canvas_wh
            blob = self._blob(len(indices), width, height)
            for row, i in enumerate(indices):
                self.preprocessor.write(images[i].pixels, placements[i], blob[row])
            feed = {self._input: blob.astype(self._dtype, copy=False)}
            try:
                tensors = self._session.run(None, feed)
            except ORT_ERRORS as error:
                raise ModelError(f"{self._place}: the network failed: {error}") from error
            for row, i in enumerate(indices):
                each = [np.asarray(t[row], np.float32) for t in tensors]
                yield Output(i, placements[i], each)

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


def check_session(session: Any, card: ModelCard, head: Head, place: str) -> None:
    """Finds out whether a session agrees with its card.

    Raises: ModelError that says where they disagree.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = _shape(inputs[0])
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None):
        raise ModelError(f"{place}: inputs {[_shape(i) for i in inputs]}, expected [N, 3, H, W]")
    if inputs[0].type not in _DTYPES:
        raise ModelError(f"{place}: input of {inputs[0].type}, expected {' or '.join(_DTYPES)}")
    width, height = card.input.size_wh
    if card.input.dynamic and (shape[2] or shape[3]):
        raise ModelError(f"{place}: the card says dynamic, the graph is fixed at {shape[2:]}")
    if shape[2] not in (height, None) or shape[3] not in (width, None):
        raise ModelError(
            f"{place}: input of {shape[3]}x{shape[2]} pixels, the card says {width}x{height}"
        )
    try:
        count = head.class_count(_shape(outputs[0]))
    except ValueError as error:
        raise ModelError(f"{place}: {error}; choose another --head") from error
    if count is not None and card.classes and count != len(card.classes):
        raise ModelError(
            f"{place}: the graph has {count} classes, the card names {len(card.classes)}; "
            "give the right names with --classes"
        )


def batch_size(session: Any, wanted: int | None, *, cuda: bool, place: str) -> int:
    """How many pictures go through the network at a time: as wanted, or 1 on CPU and 16 on CUDA.

    On a CPU, batches were slower (8: 220 images/s, 32: 173, against 287) and took 9 times the
    memory.

    Raises: ModelError if the graph's own batch is fixed at another number.
    """
    fixed = _shape(session.get_inputs()[0])[0]
    if fixed is None:
        return wanted or (16 if cuda else 1)
    if fixed != (wanted or 1) or fixed != 1:
        raise ModelError(
            f"{place}: the graph is fixed at batches of {fixed}, wanted are {wanted or 1}; "
            "make its size dynamic with vistadex models add FILE --dynamic-size, or export it so"
        )
    return 1


def _shape(value: Any) -> Shape:
    return tuple(d if isinstance(d, int) and d > 0 else None for d in value.shape)

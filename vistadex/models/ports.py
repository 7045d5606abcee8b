"""What enters and leaves a network: names, types and shapes, and where the picture enters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Shape: TypeAlias = tuple[int | None, ...]
"""A tensor's shape as the graph states it, batch first; None where it is not fixed."""

INTEGERS = ("int64", "int32", "uint8", "int8", "int16", "uint16", "uint32", "uint64")


class Port(NamedTuple):
    """One input or output of a network."""

    name: str
    type: str
    """Of its numbers, as NumPy calls it: float32, uint8, int64, …"""
    shape: Shape

    def __str__(self) -> str:
        return f"{self.name} {self.type} {shape_text(self.shape)}"


class PictureInput(NamedTuple):
    """The input that takes the picture."""

    port: Port
    width: int | None
    height: int | None
    channels_last: bool
    """Whether it is [N, H, W, 3], not [N, 3, H, W]."""
    batched: bool
    """Whether it has a batch axis."""


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a network."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def picture(self) -> PictureInput:
        """The input that takes the picture.

        Raises: ValueError if there is none, or more than one.
        """
        found = [p for port in self.inputs if (p := _as_picture(port))]
        if len(found) != 1:
            texts = ", ".join(map(str, self.inputs))
            raise ValueError(
                f"inputs {texts}; expected one for pictures, "
                "[N, 3, height, width] or [N, height, width, 3]"
            )
        return found[0]

    @property
    def size_wh(self) -> tuple[int | None, int | None]:
        """Width and height of the pictures it takes; None where any.

        Raises: ValueError if it takes none.
        """
        picture = self.picture()
        return picture.width, picture.height


def _as_picture(port: Port) -> PictureInput | None:
    """A port as the picture's input; None where its shape is another.

    [N, 3, H, W], also where all four are open, [N, H, W, 3] and [3, H, W].
    """
    shape = port.shape
    if len(shape) == 4 and shape[3] == 3 and shape[1] != 3:
        return PictureInput(port, shape[2], shape[1], channels_last=True, batched=True)
    if len(shape) == 4 and shape[1] in (3, None):
        return PictureInput(port, shape[3], shape[2], channels_last=False, batched=True)
    if len(shape) == 3 and shape[0] == 3 and port.type.startswith("float"):
        return PictureInput(port, shape[2], shape[1], channels_last=False, batched=False)
    return None


def shape_text(shape: Shape) -> str:
    """A shape as people write it: [1, 3, ?, ?]."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def stem(name: str) -> str:
    """A tensor's own name in lower case: `Call/detection_boxes:0` is detection_boxes."""
    return name.rpartition("/")[2].partition(":")[0].lower()


def only(outputs: Sequence[Port], expected: str, fits: Callable[[Port], bool]) -> int:
    """Index of the one output that fits.

    Args:
        expected: how an error calls such an output.
    Raises: ValueError if none fits, or more than one.
    """
    found = [i for i, port in enumerate(outputs) if fits(port)]
    if len(found) == 1:
        return found[0]
    several = "more than one could be that" if found else "none is that"
    texts = "; ".join(map(str, outputs))
    raise ValueError(f"outputs {texts}: expected {expected}, {several}")


def named(outputs: Sequence[Port], *names: str) -> int | None:
    """Index of the one output whose own name is one of these; None if there is no such."""
    found = [i for i, port in enumerate(outputs) if stem(port.name) in names]
    return found[0] if len(found) == 1 else None


def could_be(shape: Shape, *expected: int | None) -> bool:
    """Whether a shape has that rank and, where both say one, these sizes."""
    return len(shape) == len(expected) and all(
        want is None or size in (want, None) for size, want in zip(shape, expected, strict=True)
    )

"""What travels between the parts: frozen, typed records without I/O.

Boxes are xyxy, float32, absolute pixels, half-open, in the upright image (EXIF orientation
applied).
Shape letters: N boxes, D embedding values, H and W rows and columns of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
Pixels: TypeAlias = NDArray[np.uint8]
Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
Flags: TypeAlias = Mapping[str, bool]
"""What is said of a box, by names of FLAGS; a name that is absent is unknown."""
Task: TypeAlias = Literal["detector", "classifier", "embedder", "relater"]
TASKS: tuple[Task, ...] = ("detector", "classifier", "embedder")
"""What models of pictures do; relations come from boxes or from people."""

SCORE_SCALE = 1_000_000
"""Scores are stored as whole millionths: exact to compare, and three bytes instead of eight."""


def stored_score(score: float) -> int:
    """A score in [0, 1] as it stands in the catalog."""
    return round(score * SCORE_SCALE)


NOMINAL_SIDE = 1_000_000
"""Width and height of an image that was never read and whose boxes are fractions of its sides:
they stand in the catalog as millionths."""

FLAGS = ("crowd", "difficult", "truncated", "occluded", "depiction", "inside")
"""What annotation files say of a box with yes or no. crowd: COCO's iscrowd, Open Images' IsGroupOf.
The order is that of the bits in the catalog: new names go to the end."""


def image_address(source_uri: str, key: str) -> str:
    """What users see and can open: the path or address of one image of a source."""
    if not is_address(source_uri, key):
        return f"{source_uri.rstrip('/')}/{key}"
    return shown_address(key)


def shown_address(address: str) -> str:
    """An address as people write it: a file of this machine by its path."""
    is_file = address.startswith("file://")
    return unquote(address[len("file://") :]) if is_file else address


def is_address(source_uri: str, key: str) -> bool:
    """Whether a key is a whole address: those of manifests are, whatever others look like."""
    return _MANIFEST.search(source_uri) is not None and _ADDRESS.match(key) is not None


_MANIFEST = re.compile(r"\.(txt|csv|tsv|jsonl|parquet)(\?.*)?$", re.IGNORECASE)
_ADDRESS = re.compile(r"(https?|s3|gs|az|file)://")

FAILURE_REASONS: Mapping[str, str] = {
    "empty": "the file has no bytes",
    "not_an_image": "the bytes are of no picture format that is read here",
    "unsupported": "of a known format, but this kind is not read here or needs an extra",
    "truncated": "the picture breaks off before its end",
    "corrupt": "the picture's bytes contradict its format",
    "too_large": "more pixels or bytes than the limit allows",
    "unreadable": "the source did not give the bytes (permission, network, disk)",
    "bad_name": "the name is no text (UTF-8), or a row of a manifest names no picture",
    "refused": "a labeling service does not take the picture",
    "internal": "an error in a model or in Vistadex; please report it",
}
"""Why an image may have a row without results. `unreadable` may pass by itself,
`unsupported` when something is installed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image has no results."""

    reason: str
    """One of FAILURE_REASONS."""
    message: str


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image as a source's listing names it."""

    key: str
    """The name below the source's root, with forward slashes; in a manifest the whole address."""
    size_bytes: int | None
    """None where the listing does not say."""
    version: str
    """Changes whenever the bytes do: the ETag, or size and modification time."""
    failure: Failure | None = None
    """Set where the listing already shows that the entry can't be read."""
    attributes: Mapping[str, Json] | None = None
    """What a manifest says about the image beside its address; None where nothing can."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright picture, possibly decoded at a smaller scale than it was stored."""

    pixels: Pixels
    """(H, W, 3) RGB."""
    width: int
    """Columns of the upright picture at full size; pixels.shape[1] <= width."""
    height: int
    damage: str = ""
    """What is missing, where the readable part of a broken picture was taken on request."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one image, by falling score, or what people marked in it."""

    boxes_xyxy: FloatArray | DoubleArray
    """(N, 4) pixels of the upright image at full size."""
    scores: FloatArray | DoubleArray
    """(N,) in [0, 1]."""
    class_ids: IntArray
    """(N,) indices into the model card's classes."""
    flags: Sequence[Flags] = ()
    """One for each box, or none at all."""
    attributes: Sequence[Mapping[str, Json]] = ()
    """One for each box, or none at all."""
    names: tuple[str, ...] = ()
    """What class_ids point into where the analyzer has no list of classes."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier says of one image, by falling score."""

    scores: FloatArray
    """(N,) in [0, 1]."""
    class_ids: IntArray
    """(N,) indices into the model card's classes."""
    names: tuple[str, ...] = ()
    """What class_ids point into where the analyzer has no list of classes."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """An image as a vector."""

    vector: FloatArray
    """(D,), unit length."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One box that an annotation file says."""

    class_name: str
    box_xyxy: tuple[float, float, float, float]
    """Pixels, half-open; fractions of the picture's sides where the image says `relative`."""
    score: float = 1.0
    flags: Flags = field(default_factory=dict)
    attributes: Mapping[str, Json] = field(default_factory=dict)
    """What else the file says of the box: id, area, pose."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A triplet in one image: the subject does something to the object, as `Person, rides, Horse`.

    An attribute is the object of "is": `Table, is, Wooden`, with the same box twice.
    """

    subject: str
    """A class name."""
    predicate: str
    object: str
    """A class name."""
    subject_xyxy: tuple[float, float, float, float] | None = None
    """Like Annotation.box_xyxy; None where only the classes are known."""
    object_xyxy: tuple[float, float, float, float] | None = None
    score: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedImage:
    """What an annotation file says of one image."""

    file_name: str
    """The picture's name below the folder, bucket or archive with the pictures."""
    place: str
    """Where it stands: the file, and the line where there are lines; for messages."""
    width: int | None = None
    """Of the picture as the file states it; None where it does not."""
    height: int | None = None
    relative: bool = False
    """Whether the boxes are fractions of the picture's sides instead of pixels."""
    boxes: tuple[Annotation, ...] | None = None
    """None where the file says nothing about boxes; () where it says that there are none."""
    classes: tuple[str, ...] | None = None
    """Names of the whole image; None where the file says nothing about that."""
    class_scores: tuple[float, ...] = ()
    """One for each of classes, or none at all where each is 1; 0: it was looked for, and is not
    there."""
    relations: tuple[Relation, ...] | None = None
    """None where the file says nothing about relations."""
    origin: str = ""
    """Whose this is, where a file tells several apart: "machine"; "" for the one the user names."""
    attributes: Mapping[str, Json] = field(default_factory=dict)
    """What else the file says of the image: id, split, license."""


@dataclass(frozen=True, slots=True)
class Relations:
    """How things in one image relate to each other, by falling score."""

    relations: tuple[Relation, ...]


Result: TypeAlias = Detections | Classification | Embedding | Relations


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image after the pipeline: results of each analyzer, or a failure."""

    entry: ImageEntry
    """As it was read: its version is that of the bytes analyzed."""
    width: int = 0
    height: int = 0
    results: tuple[Result | None, ...] = ()
    """One for each of the shard's analyzers, in their order; empty where failure is set; None for
    annotations where the file says nothing of that kind, and for one that refuses the picture."""
    failure: Failure | None = None
    warning: str = ""
    """What is wrong with an image that has results all the same: only a part was readable."""
    seen: bool = True
    """Whether the picture itself was there; if not, only annotations tell of it."""
    content_hash: bytes | None = None
    """BLAKE2b of the file's bytes, 16 bytes long."""
    perceptual_hash: int | None = None
    """64 bits of what the picture looks like, as a signed number."""


class Model(Protocol):
    """A network that is loaded and ready."""

    min_long_side: int
    """The long side that a picture needs at least, in pixels; 0 for no need."""
    min_short_side: int
    batch_size: int
    """How many pictures to hand over at a time: 1 on CPU."""

    def analyze(self, images: Sequence[DecodedImage]) -> Sequence[Result | Failure]:
        """One result for each image, in their order, or why it has none.

        Raises: LabelerError where a labeling service can't be used; anything else is taken as an
            error about one of the images.
        """
        ...


class Analyzer(Protocol):
    """What looks at images: a model and the parameters it runs with. Picklable."""

    @property
    def sha256(self) -> str:
        """Identity of the model."""
        ...

    @property
    def name(self) -> str: ...

    @property
    def task(self) -> Task: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by index; empty for an embedder, and where results carry names."""
        ...

    @property
    def card(self) -> Mapping[str, Json]:
        """What is known about the model, as it is stored in the catalog."""
        ...

    @property
    def parameters(self) -> Mapping[str, Json]:
        """Everything beside the file that changes results; another value is another analysis."""
        ...

    def load(self) -> Model:
        """The model, loaded once per process.

        Raises: ModelError if the file is gone or is no model.
        """
        ...

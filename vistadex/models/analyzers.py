"""ModelAnalyzer: a model file and the parameters it runs with, loaded once per process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from vistadex.errors import ModelError
from vistadex.models import runtimes
from vistadex.models.cards import MAX_SIDE, ModelCard, ModelFile
from vistadex.models.heads import HEADS
from vistadex.models.runtimes import RUNTIMES
from vistadex.records import Json, Model, Task
from vistadex.registry import lookup

if TYPE_CHECKING:
    from vistadex.models.network import Network

MIN_TILE = 64
OVERLAP_END = 0.9

_loaded: dict[str, Model] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a model runs; what a task has no use for is ignored there."""

    size: int | None = None
    """Long side of the input in pixels; the card's if None."""
    rectangular: bool | None = None
    """Whether the input has the picture's proportions; None: where the graph is dynamic."""
    min_score: float = 0.25
    """Boxes below are left out."""
    nms_iou: float = 0.65
    """Of two boxes of a class that overlap more, the better remains."""
    max_boxes: int = 300
    """Boxes for an image, the best ones."""
    max_classes: int = 5
    """Classes that a classifier gives an image, the best ones."""
    device: str = "auto"
    """auto, cpu or cuda; auto takes CUDA where ONNX Runtime has it."""
    batch_size: int | None = None
    """Pictures at a time; None: 1 on CPU, 16 on CUDA."""
    runtime: str = "auto"
    """One of runtimes.RUNTIMES; auto: the first that reads the file."""
    precision: str = "auto"
    """f32, or bf16 with openvino; auto: f32, or as the file was made."""
    tile: int | None = None
    """Side in pixels of the windows in which a detector goes over larger pictures; None: whole."""
    overlap: float = 0.2
    """Share of a window that the next one covers too."""

    def __post_init__(self) -> None:
        sizes = (self.max_boxes, self.max_classes, self.batch_size or 1, self.size or 1)
        if not (0 <= self.min_score <= 1 and 0 <= self.nms_iou <= 1 and min(sizes) >= 1):
            raise ModelError(
                f"model options: min_score {self.min_score} and nms_iou {self.nms_iou}, expected "
                f"0 to 1; max_boxes, max_classes, batch_size, size: {sizes}, expected 1 or more"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ModelError(f"device {self.device!r} is unknown; expected auto, cpu or cuda")
        if self.runtime not in ("auto", *RUNTIMES):
            known = ", ".join(RUNTIMES)
            raise ModelError(f"runtime {self.runtime!r} is unknown; expected auto, {known}")
        if self.precision not in ("auto", "f32", "bf16"):
            raise ModelError(f"precision {self.precision!r} is unknown; expected auto, f32 or bf16")
        if self.tile is not None and self.tile < MIN_TILE:
            raise ModelError(f"tile {self.tile}: expected {MIN_TILE} pixels or more")
        if not 0 <= self.overlap < OVERLAP_END:
            raise ModelError(f"overlap {self.overlap}: expected 0 to below {OVERLAP_END}")


@dataclass(frozen=True, slots=True)
class ModelAnalyzer:
    """A model and the parameters it runs with. Implements records.Analyzer; picklable."""

    file: ModelFile
    options: RunOptions = RunOptions()

    def __post_init__(self) -> None:
        _check_size(self.file, self.options)
        _choose(self.file, self.options)

    @property
    def sha256(self) -> str:
        """Identity of the model."""
        return self.file.sha256

    @property
    def name(self) -> str:
        """As the card says."""
        return self.file.card.name

    @property
    def task(self) -> Task:
        """What its results are."""
        return self.file.card.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class index; empty for an embedder."""
        return self.file.card.classes

    @property
    def card(self) -> Mapping[str, Json]:
        """The card as JSON values."""
        return self.file.card.to_dict()

    @property
    def rectangular(self) -> bool:
        """Whether inputs have the proportions of their pictures."""
        how, wanted = self.file.card.input, self.options.rectangular
        return how.letterbox and (how.dynamic if wanted is None else wanted)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Size of the input; where rectangular, of the largest."""
        size = self.options.size
        if size is None and not self.rectangular:
            return self.file.card.input.size_wh
        size = size or max(self.file.card.input.size_wh)
        return size, size

    @property
    def runtime(self) -> runtimes.Choice:
        """What computes the network, and in which precision."""
        return _choose(self.file, self.options)

    @property
    def parameters(self) -> Mapping[str, Json]:
        """Everything beside the file that changes results."""
        card, options = self.file.card, self.options
        how = asdict(card.input)
        del how["dynamic"], how["size_wh"]
        width, height = self.size_wh
        size: Json = width if width == height else [width, height]
        values: dict[str, Json] = {"head": card.head, "size": size}
        if card.task == "detector":
            values |= {"rectangular": self.rectangular, "min_score": options.min_score}
            suppressing = lookup(HEADS, card.head, "model head").overlapping
            if suppressing or options.tile is not None:
                values["nms_iou"] = options.nms_iou
            values["max_boxes"] = options.max_boxes
            if options.tile is not None:
                values |= {"tile": options.tile, "overlap": options.overlap}
        elif card.task == "classifier":
            values["max_classes"] = options.max_classes
        unused = {"crop"} if card.input.letterbox else {"pad_value", "stride"}
        if card.task != "embedder":
            values["classes"] = sha256("\n".join(card.classes).encode()).hexdigest()[:12]
        values["preprocessing"] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in how.items()
            if key not in unused
        }
        return values | self.runtime.parameters()

    def load(self) -> Model:
        """The model, loaded once per process; threads that ask at once get the same.

        Raises: ModelError if the file is gone, changed or no model, or the device is missing.
        """
        key = repr((self.sha256, self.file.card, self.options))
        with _lock:
            if key not in _loaded:
                _loaded[key] = self._build(str(self.file.path), shared=True)
            return _loaded[key]

    def _build(self, place: str, *, shared: bool) -> Model:
        from vistadex.models import network
        from vistadex.models.preprocessing import Preprocessor

        card, options = self.file.card, self.options
        opened = runtimes.shared_session if shared else runtimes.open_file
        session = opened(self.file, self.runtime, options.device)
        head = lookup(HEADS, card.head, "model head")()
        wiring = network.wire(session, card, head, place)
        cuda = runtimes.runs_on_cuda(session)
        count = network.batch_size(wiring, options.batch_size, cuda=cuda, place=place)
        preprocessor = Preprocessor(card.input, self.size_wh, rectangular=self.rectangular)
        running = network.Network(session, preprocessor, wiring, count, place)
        return _MODELS[card.task](running, head, card, options)


def analyzer(
    file: ModelFile,
    *,
    min_score: float = 0.25,
    nms_iou: float = 0.65,
    size: int | None = None,
    rectangular: bool | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    overlap: float = 0.2,
) -> ModelAnalyzer:
    """The analyzer that runs a model file; see RunOptions.

    Raises: ModelError if the model can't run so.
    """
    options = RunOptions(
        min_score=min_score,
        nms_iou=nms_iou,
        size=size,
        rectangular=rectangular,
        device=device,
        batch_size=batch_size,
        runtime=runtime,
        precision=precision,
        tile=tile,
        overlap=overlap,
    )
    return ModelAnalyzer(file, options)


def try_out(file: ModelFile, place: str) -> None:
    """Runs a model on a gray picture, so that a file that can't work is refused early.

    Args:
        place: how errors call the file.
    Raises: ModelError that says what is wrong.
    """
    import numpy as np

    from vistadex.records import DecodedImage

    width, height = file.card.input.size_wh
    gray = DecodedImage(np.full((height, width, 3), 114, np.uint8), width, height)
    load_once(file, place).analyze([gray])


def load_once(file: ModelFile, place: str, options: RunOptions | None = None) -> Model:
    """The model with a session of its own, which ends with it; on the CPU without options.

    Args:
        place: how errors call the file.
    Raises: ModelError if the file is no model.
    """
    chosen = RunOptions(device="cpu") if options is None else options
    return ModelAnalyzer(file, chosen)._build(place, shared=False)


def _choose(file: ModelFile, options: RunOptions) -> runtimes.Choice:
    return runtimes.choose(file.path, options.runtime, options.precision, file.card.name)


def _check_size(file: ModelFile, options: RunOptions) -> None:
    how, name = file.card.input, file.card.name
    size = options.size or max(how.size_wh)
    if options.rectangular and not how.letterbox:
        raise ModelError(f"{name}: rectangular input needs a letterbox, the card says {how.resize}")
    if how.dynamic:
        if size > MAX_SIDE or size % how.stride:
            raise ModelError(
                f"{name}: size {size}, expected a multiple of {how.stride} up to {MAX_SIDE}"
            )
    elif options.rectangular or size != max(how.size_wh):
        width, height = how.size_wh
        onnx = file.path.suffix.lower() != ".tflite"
        cure = "; make it dynamic with vistadex models add FILE --dynamic-size" if onnx else ""
        raise ModelError(
            f"{name}: the graph is fixed at {width}x{height} pixels, so neither size {size} nor "
            f"rectangular input{cure}"
        )


def _detector(network: Network, head: Any, card: ModelCard, options: RunOptions) -> Model:
    from vistadex.models.detectors import Detector

    detector = Detector(
        network,
        head,
        len(card.classes),
        min_score=options.min_score,
        nms_iou=options.nms_iou,
        max_boxes=options.max_boxes,
    )
    if options.tile is None:
        return detector
    from vistadex.models.tiling import TiledDetector

    return TiledDetector(
        detector,
        tile=options.tile,
        overlap=options.overlap,
        nms_iou=options.nms_iou,
        max_boxes=options.max_boxes,
    )


def _classifier(network: Network, head: Any, card: ModelCard, options: RunOptions) -> Model:
    from vistadex.models.classifiers import Classifier

    return Classifier(network, head, len(card.classes), max_classes=options.max_classes)


def _embedder(network: Network, head: Any, card: ModelCard, options: RunOptions) -> Model:
    from vistadex.models.embedders import Embedder

    return Embedder(network, head)


_MODELS: Mapping[Task, Callable[[Network, Any, ModelCard, RunOptions], Model]] = {
    "detector": _detector,
    "classifier": _classifier,
    "embedder": _embedder,
}

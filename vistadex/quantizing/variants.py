"""The quantized forms of one model: by method, and for static by how ranges are chosen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vistadex.errors import ModelError, UsageError
from vistadex.models import ModelFile, RunOptions
from vistadex.models.analyzers import load_once
from vistadex.models.cards import file_sha256
from vistadex.quantizing.agreement import agreement
from vistadex.quantizing.equalizing import equalize
from vistadex.quantizing.graphs import Layer, Model, layers, ready
from vistadex.quantizing.pictures import Feeds
from vistadex.quantizing.ranges import RANGES, Range, observe
from vistadex.quantizing.sensitivity import choose_layers, harms
from vistadex.quantizing.static import quantized, quiet_quantizer, tensors_to_observe
from vistadex.quantizing.weights import STORED
from vistadex.records import DecodedImage, Failure, Result

METHODS = ("static", *STORED, "dynamic")
TRAINED = "qat"
"""The name of the form that was trained with rounding in effect."""
PRODUCTS = ("Gemm", "MatMul")
"""What dynamic quantizes."""
LOWEST_SCORE = 0.1
"""What a model says with a lower score is not compared with another's."""
_FOR_LAYERS = 8
"""Pictures with which each layer's harm is measured."""
_FOR_SETS = 32
"""Pictures with which sets of layers and ranges are compared, beside these."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A quantized form of a model, not yet judged."""

    name: str
    """static min-max, weights-int8, …"""
    model: Model
    how: str
    """What was done, in words for a card."""
    agreement: float
    """With the float model, on calibration pictures; decides between variants, judges none."""
    left: tuple[Layer, ...] = ()
    """Layers that stay float, the most harmful first."""


class Workbench:
    """One float model, the pictures to calibrate with, and what it says of them."""

    def __init__(self, file: ModelFile, images: Sequence[DecodedImage], folder: Path) -> None:
        """folder: for copies of the model while they are tried."""
        self.file, self.images, self.folder = file, images, folder
        self.model = ready(file.path)
        self._said: dict[int, list[Result | Failure]] = {}

    def agree(self, count: int, start: int = 0) -> Callable[[Model], float]:
        """A measure of agreement with the float model on some of the pictures."""
        some = self.images[start : start + count] or self.images

        def measure(model: Model) -> float:
            if start not in self._said:
                self._said[start] = results(write(self.model, self.file, self.folder), some)
            return agreement(self._said[start], results(write(model, self.file, self.folder), some))

        return measure


def make(
    bench: Workbench, method: str, calibration: str, say: Callable[[str], None]
) -> list[Variant]:
    """The variants of a method, best agreement first.

    Args:
        calibration: one of ranges.RANGES, or auto for all of them; of static only.
        say: is told what is being done.
    Raises: UsageError for an unknown method or calibration; ModelError if the graph has nothing
        that the method could quantize.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r} is unknown; expected {', '.join(METHODS)}")
    if calibration not in ("auto", *RANGES):
        known = ", ".join(("auto", *RANGES))
        raise UsageError(f"calibration {calibration!r} is unknown; expected {known}")
    if method == "static":
        kinds = list(RANGES) if calibration == "auto" else [calibration]
        found = _static(bench, kinds, say)
    else:
        model = (
            _dynamic(bench.model, bench.file.path)
            if method == "dynamic"
            else STORED[method](bench.model)
        )
        how = {"dynamic": "matrix products in int8, their ranges measured while it runs"}
        text = how.get(method, f"{method.removeprefix('weights-')} weights, folded at load")
        found = [Variant(method, model, text, bench.agree(_FOR_SETS)(model))]
    return sorted(found, key=lambda one: -one.agreement)


def _static(bench: Workbench, kinds: Sequence[str], say: Callable[[str], None]) -> list[Variant]:
    model = copy.deepcopy(bench.model)
    count = equalize(model)
    say(f"{count} pairs of layers equalized; measuring ranges over {len(bench.images)} pictures")
    feeds = Feeds(bench.file, bench.images)
    seen = observe(model, tensors_to_observe(model), feeds)
    ranges = {kind: {name: RANGES[kind](one) for name, one in seen.items()} for kind in kinds}
    say(f"measuring what each of {len(layers(model))} layers does to the results in int8")
    harm = harms(model, ranges[kinds[-1]], bench.agree(_FOR_LAYERS))
    made = []
    for kind in kinds:
        say(f"choosing the layers to be int8, ranges by {kind}")
        chosen = choose_layers(model, ranges[kind], harm, bench.agree(_FOR_SETS, _FOR_LAYERS))
        total = len(layers(model))
        how = f"static {kind}, U8S8 per channel, {total - len(chosen.left)} of {total} layers int8"
        how += f", {count} pairs equalized" if count else ""
        variant = quantized(model, chosen.names, ranges[kind])
        made.append(Variant(f"static {kind}", variant, how, chosen.agreement, tuple(chosen.left)))
    return made


def trained(bench: Workbench) -> Variant:
    """A model that was trained with rounding, in int8 as it was trained: all layers but the stem
    and those that predict, ranges over all values."""
    feeds = Feeds(bench.file, bench.images)
    seen = observe(bench.model, tensors_to_observe(bench.model), feeds)
    ranges: dict[str, Range] = {name: RANGES["min-max"](one) for name, one in seen.items()}
    left = tuple(one for one in layers(bench.model) if one.stem or one.predicts)
    names = [one.name for one in layers(bench.model) if one not in left]
    model = quantized(bench.model, names, ranges)
    how = f"trained with rounding, static min-max, {len(names)} of {len(names) + len(left)} layers"
    return Variant(TRAINED, model, f"{how} int8", bench.agree(_FOR_SETS)(model), left)


def _dynamic(model: Model, place: Path) -> Model:
    """Matrix products in int8. Convolutions stay float: quantized so, YOLOX-nano was seven times as
    slow and found nothing."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not any(layer.kind in PRODUCTS for layer in layers(model)):
        raise ModelError(
            f"{place}: no matrix product, and dynamic pays for nothing else; choose the method "
            "static or weights-int8"
        )
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model.SerializeToString())
        with quiet_quantizer():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=list(PRODUCTS),
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
        return onnx.load(target)


def results(file: ModelFile, images: Sequence[DecodedImage]) -> list[Result | Failure]:
    """What a model says of each picture with scores from LOWEST_SCORE, on one thread of the CPU."""
    options = RunOptions(device="cpu", min_score=LOWEST_SCORE)
    model = load_once(file, str(file.path), options)
    return [result for image in images for result in model.analyze([image])]


def write(model: Model, file: ModelFile, folder: Path, name: str = "trial") -> ModelFile:
    """Writes a graph beside the card of the model that it was made from."""
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    path.with_name(f"{path.name}.json").write_text(file.card.to_json(), encoding="utf-8")
    return replace(file, path=path, sha256=file_sha256(path))

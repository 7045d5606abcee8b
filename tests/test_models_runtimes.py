"""Runtimes under one contract: OpenVINO beside ONNX Runtime, LiteRT for .tflite files."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from vistadex import models
from vistadex.decoding import decode
from vistadex.errors import MissingExtraError, ModelError, ModelQuestionError
from vistadex.models import runtimes
from vistadex.models.cards import Preprocessing
from vistadex.models.sessions import open_session
from vistadex.models.tiny import constant_output, grid_detector
from vistadex.records import Classification, DecodedImage, Detections, Embedding, Pixels
from vistadex.registry import lookup

IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


@pytest.fixture
def store(tmp_path: Path) -> models.ModelStore:
    return models.ModelStore(tmp_path / "store")


@pytest.fixture
def tiny(tmp_path: Path, store: models.ModelStore) -> models.ModelFile:
    """A YOLOX layout that takes any size."""
    path = grid_detector(tmp_path / "m.onnx", classes=2)
    return store.add(path, head="yolox", classes=["a", "b"], dynamic_size=True)


@pytest.fixture
def weights(shared_data: Path) -> Path:
    return shared_data / "weights"


@pytest.fixture
def mobilenet(weights: Path, store: models.ModelStore) -> models.ModelFile:
    names = weights / "coral_imagenet_labels.txt"
    file = weights / "coral_mobilenet_v2_1.0_224_quant.tflite"
    return store.add(file, head="probabilities", classes=names)


def pictures(shared_data: Path, count: int) -> list[DecodedImage]:
    paths = sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:count]
    return [decode(path.read_bytes()) for path in paths]


def noise(count: int) -> list[DecodedImage]:
    """Random pictures of random proportions."""
    dice = np.random.default_rng(0)
    return [
        DecodedImage(dice.integers(0, 256, (h, w, 3), dtype=np.uint8), w, h)
        for w, h in dice.integers(20, 200, (count, 2)).tolist()
    ]


def same_boxes(a: list, b: list, tolerance: float) -> int:
    """How many boxes two lists of Detections have, which must be the same ones."""
    for one, other in zip(a, b, strict=True):
        assert one.class_ids.tolist() == other.class_ids.tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=tolerance)
    return sum(len(one.scores) for one in a)


def run_threads(count: int, work: object) -> None:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# What is chosen


@pytest.mark.parametrize(
    ("name", "runtime", "precision", "expected"),
    [
        ("a.onnx", "auto", "auto", ("onnxruntime", "f32")),
        ("a.onnx", "onnxruntime", "f32", ("onnxruntime", "f32")),
        ("a.onnx", "openvino", "auto", ("openvino", "f32")),
        ("a.ONNX", "openvino", "bf16", ("openvino", "bf16")),
        ("a.tflite", "auto", "auto", ("litert", "")),
        ("a.TFLite", "litert", "auto", ("litert", "")),
    ],
)
def test_the_file_and_the_options_choose_the_runtime(
    name: str, runtime: str, precision: str, expected: tuple[str, str]
) -> None:
    assert runtimes.choose(Path(name), runtime, precision) == expected


@pytest.mark.parametrize(
    ("name", "runtime", "precision", "message"),
    [
        ("a.tflite", "openvino", "auto", r"a\.tflite: runtime openvino does not read \.tflite"),
        ("a.tflite", "openvino", "auto", "leave --runtime out; .*index them in two runs"),
        ("a.onnx", "litert", "auto", r"does not read \.onnx, expected onnxruntime or openvino"),
        ("a.onnx", "auto", "bf16", r"onnxruntime can't .* in bf16, .*--runtime openvino"),
        ("a.tflite", "auto", "f32", r"litert can't .* in f32, expected auto"),
    ],
)
def test_a_runtime_that_can_not_serve_the_file_is_an_error(
    name: str, runtime: str, precision: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        runtimes.choose(Path(name), runtime, precision)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tvm"}, "runtime 'tvm' is unknown; expected auto, onnxruntime, openvino"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown; expected auto, f32 or bf16"),
        ({"precision": "bf16"}, "onnxruntime can't be told to compute in bf16"),
    ],
)
def test_unknown_runtimes_and_precisions_are_refused_before_anything_loads(
    options: dict[str, str], message: str, tiny: models.ModelFile
) -> None:
    with pytest.raises(ModelError, match=message):
        models.analyzer(tiny, **options)


def test_runtime_and_precision_belong_to_the_analysis_only_where_they_change_it(
    tiny: models.ModelFile, mobilenet: models.ModelFile
) -> None:
    plain = models.analyzer(tiny).parameters
    assert not {"runtime", "precision"} & set(plain)
    same = models.analyzer(tiny, runtime="onnxruntime", precision="f32").parameters
    assert same == plain
    other = models.analyzer(tiny, runtime="openvino").parameters
    assert other == {**plain, "runtime": "openvino", "precision": "f32"}
    small = models.analyzer(tiny, runtime="openvino", precision="bf16").parameters
    assert small == {**plain, "runtime": "openvino", "precision": "bf16"}
    parameters = models.analyzer(mobilenet).parameters
    assert (parameters["runtime"], "precision" in parameters) == ("litert", False)


def test_every_runtime_in_the_table_can_be_imported() -> None:
    for name in runtimes.RUNTIMES:
        assert callable(lookup(runtimes.RUNTIMES, name, "runtime"))
        assert name in runtimes.PRECISIONS
        assert any(name in readers for readers in runtimes.BY_SUFFIX.values())


@pytest.mark.parametrize(
    ("library", "runtime"), [("openvino", "openvino"), ("ai_edge_litert", "litert")]
)
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(
    library: str, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"vistadex.models.{runtime}", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Hidden(library), *sys.meta_path])
    message = rf"runtime '{runtime}' needs the package '{library}': .*vistadex\[{runtime}\]"
    with pytest.raises(MissingExtraError, match=message):
        lookup(runtimes.RUNTIMES, runtime, "runtime")


def test_adding_a_tflite_without_the_extra_names_it(
    weights: Path, store: models.ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "vistadex.models.litert", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "ai_edge_litert"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Hidden("ai_edge_litert"), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"vistadex\[litert\]"):
        store.add(weights / "coral_mobilenet_v2_1.0_224_quant.tflite")
    assert not store.folder.exists()


class _Hidden:
    """An import system in which a library is not installed."""

    def __init__(self, library: str) -> None:
        self.hidden = library

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_cuda_is_for_onnx_runtime_only(tiny: models.ModelFile, mobilenet: models.ModelFile) -> None:
    with pytest.raises(ModelError, match="device cuda: runtime openvino runs on the CPU"):
        models.analyzer(tiny, runtime="openvino", device="cuda").load()
    with pytest.raises(ModelError, match=rf"^{mobilenet.card.name}: runtime openvino does not"):
        models.analyzer(mobilenet, runtime="openvino")
    with pytest.raises(ModelError, match="device cuda: runtime litert runs on the CPU"):
        models.analyzer(mobilenet, device="cuda").load()


# OpenVINO


def test_openvino_in_f32_finds_what_onnx_runtime_finds(
    weights: Path, store: models.ModelStore, shared_data: Path
) -> None:
    images = pictures(shared_data, 12)
    for name, dynamic in (("square", False), ("free", True)):
        file = store.add(weights / "yolox_nano.onnx", name=name, dynamic_size=dynamic)
        reference = models.analyzer(file).load().analyze(images)
        found = models.analyzer(file, runtime="openvino").load().analyze(images)
        assert same_boxes(reference, found, 0.01) > 30


def test_openvino_computes_in_the_precision_it_is_told(tiny: models.ModelFile) -> None:
    openvino = pytest.importorskip("vistadex.models.openvino")
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32) * 255
    expected = open_session(tiny.path).run(None, {"images": image})[0]
    far = {}
    for precision in ("f32", "bf16"):
        if precision == "bf16" and not _has_bf16():
            with pytest.raises(ModelError, match="this CPU has none; choose --precision f32"):
                openvino.open_file(tiny, "cpu", precision)
            return
        found = openvino.open_file(tiny, "cpu", precision).run(None, {"images": image})[0]
        far[precision] = float(np.abs(found - expected).max())
    assert far["f32"] < 1e-5 * np.abs(expected).max() < far["bf16"]


def _has_bf16() -> bool:
    from vistadex.models.openvino import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_openvino_says_its_inputs_and_outputs_as_onnx_runtime_does(
    tiny: models.ModelFile, tmp_path: Path
) -> None:
    for file in (tiny.path, constant_output(tmp_path / "c.onnx", np.zeros((84, 7), np.float32))):
        one = models.ModelFile(file, "", tiny.card)
        other = runtimes.open_file(one, runtimes.Choice("openvino", "f32"), "cpu")
        reference = open_session(file)
        for mine, theirs in (
            (other.get_inputs(), reference.get_inputs()),
            (other.get_outputs(), reference.get_outputs()),
        ):
            assert [(v.name, v.type) for v in mine] == [(v.name, v.type) for v in theirs]
            shapes = [[d if isinstance(d, int) else None for d in v.shape] for v in theirs]
            assert [[d if isinstance(d, int) else None for d in v.shape] for v in mine] == shapes


def test_threads_that_share_an_openvino_session_find_what_one_alone_finds(
    tiny: models.ModelFile,
) -> None:
    model = models.analyzer(tiny, runtime="openvino", min_score=0.01).load()
    images = noise(20)
    expected = [repr(model.analyze([image])) for image in images]
    found: dict[int, list[str]] = {}

    def work(thread: int) -> None:
        found[thread] = [repr(model.analyze([image])) for image in images]

    run_threads(4, work)
    assert list(found.values()) == [expected] * 4


def test_a_file_that_openvino_refuses_is_a_model_error(
    tmp_path: Path, tiny: models.ModelFile
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(tiny.path.read_bytes()[:300])
    broken = models.ModelFile(path, "", tiny.card)
    with pytest.raises(ModelError, match=r"broken\.onnx: OpenVINO can't use the file: \w+"):
        runtimes.open_file(broken, runtimes.Choice("openvino", "f32"), "cpu")


def test_openvino_s_own_errors_are_translated_too() -> None:
    from vistadex.models.openvino import OPENVINO_ERRORS

    names = {kind.__name__ for kind in OPENVINO_ERRORS if not issubclass(kind, RuntimeError)}
    assert {"OpConversionFailure", "OpValidationFailure", "GeneralFailure"} <= names


def test_an_input_that_does_not_fit_is_a_model_error(
    tmp_path: Path, tiny: models.ModelFile
) -> None:
    path = constant_output(tmp_path / "c.onnx", np.zeros((84, 7), np.float32))
    file = models.ModelFile(path, "", tiny.card)
    session = runtimes.open_file(file, runtimes.Choice("openvino", "f32"), "cpu")
    with pytest.raises(ModelError, match=r"c\.onnx: OpenVINO failed"):
        session.run(None, {"images": np.zeros((1, 3, 8, 8), np.float32)})


def test_openvino_sends_no_telemetry_and_writes_nothing_home(tmp_path: Path) -> None:
    code = (
        "import sys, threading, vistadex.models.openvino as ours\n"
        "print(threading.active_count(), 'openvino_telemetry' in sys.modules)\n"
        "print(ours.openvino.convert_model is not None)"
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["1", "False", "True"]
    assert list(tmp_path.iterdir()) == []


def test_a_catalog_run_takes_runtime_and_precision(
    weights: Path, store: models.ModelStore, shared_data: Path, tmp_path: Path
) -> None:
    import vistadex

    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    file = str(weights / "yolox_nano.onnx")
    catalog = tmp_path / "c.db"
    first = vistadex.index(folder, detector=file, catalog=catalog)
    again = vistadex.index(folder, detector=file, catalog=catalog, runtime="onnxruntime")
    other = vistadex.index(folder, detector=file, catalog=catalog, runtime="openvino")
    assert (first.indexed, again.indexed, other.indexed) == (4, 0, 4)


# LiteRT


def test_a_tflite_file_is_kept_with_its_ending(
    mobilenet: models.ModelFile, store: models.ModelStore
) -> None:
    assert mobilenet.path == store.folder / f"{mobilenet.sha256}.tflite"
    assert sorted(p.suffix for p in store.folder.iterdir()) == [".json", ".tflite"]
    assert store.list() == [mobilenet]
    assert store.find(mobilenet.sha256) == store.get(mobilenet.card.name) == mobilenet
    assert store.remove(mobilenet.card.name) == mobilenet
    assert list(store.folder.iterdir()) == []


def test_a_tflite_file_says_its_size_and_head_itself(
    weights: Path, store: models.ModelStore
) -> None:
    names = weights / "coral_imagenet_labels.txt"
    file = store.add(weights / "coral_mobilenet_v1_0.25_128_quant.tflite", classes=names)
    assert (file.card.head, file.card.task) == ("probabilities", "classifier")
    how = file.card.input
    assert (how.size_wh, how.color, how.scale, how.resize) == ((128, 128), "RGB", 1.0, "stretch")
    with pytest.raises(ModelQuestionError, match=r"does not say its head(?s:.)*embedding"):
        store.add(weights / "coral_mobilenet_v1_1.0_224_quant_embedding_extractor.tflite")


def test_a_quantized_classifier_knows_imagenette(
    mobilenet: models.ModelFile, shared_data: Path
) -> None:
    """Measured: among the ten classes 96.8 % of all 1,619 pictures are right."""
    options = models.RunOptions(max_classes=1001)
    model = models.ModelAnalyzer(mobilenet, options).load()
    columns = {
        next(i for i, name in enumerate(mobilenet.card.classes) if name.startswith(known)): wnid
        for wnid, known in IMAGENETTE.items()
    }
    paths = [p for p in (shared_data / "imagenette").iterdir() if p.name[:9] in IMAGENETTE]
    right = count = 0
    for path in random.Random(0).sample(sorted(paths), 150):
        found = model.analyze([decode(path.read_bytes())])[0]
        assert isinstance(found, Classification)
        best = next((columns[i] for i in found.class_ids.tolist() if i in columns), "")
        right += best == path.name[:9]
        count += 1
    assert count == 150
    assert right >= 138


def test_an_embedding_of_four_axes_is_one_vector(
    weights: Path, store: models.ModelStore, shared_data: Path
) -> None:
    name = "coral_mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    file = store.add(weights / name, head="embedding")
    model = models.analyzer(file).load()
    vectors, kinds = [], []
    for wnid in ("n01440764", "n03028079", "n03445777"):
        for path in sorted((shared_data / "imagenette").glob(f"{wnid}_*"))[:10]:
            found = model.analyze([decode(path.read_bytes())])[0]
            assert isinstance(found, Embedding)
            assert found.vector.shape == (1024,)
            assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)
            vectors.append(found.vector)
            kinds.append(wnid)
    alike = np.array(vectors) @ np.array(vectors).T - 2 * np.eye(30)
    nearest = alike.argmax(axis=1)
    assert sum(kinds[i] == kind for i, kind in zip(nearest, kinds, strict=True)) >= 27


def test_the_ssd_finds_people_where_they_are(
    weights: Path, store: models.ModelStore, shared_data: Path
) -> None:
    names = weights / "coral_coco_labels.txt"
    file = store.add(weights / "ssd_mobilenet_v1_coco_quant_detect.tflite", classes=names)
    assert (file.card.head, file.card.input.size_wh) == ("tensorflow", (300, 300))
    model = models.analyzer(file, min_score=0.5).load()
    person = file.card.classes.index("person")
    truth = _people(shared_data)
    hits = 0
    for name, boxes in list(truth.items())[:20]:
        image = decode((shared_data / "coco" / "images" / "val" / name).read_bytes())
        found = model.analyze([image])[0]
        assert isinstance(found, Detections)
        mine = found.boxes_xyxy[found.class_ids == person]
        hits += any(_iou(box, other) > 0.5 for box in mine.tolist() for other in boxes)
    assert hits >= 12


def _people(shared_data: Path) -> dict[str, list[list[float]]]:
    """Large boxes of people by file name."""
    import json

    truth = json.loads((shared_data / "coco" / "instances_val.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    person = next(one["id"] for one in truth["categories"] if one["name"] == "person")
    found: dict[str, list[list[float]]] = {}
    for one in truth["annotations"]:
        x, y, w, h = one["bbox"]
        if one["category_id"] == person and w * h > 100 * 100 and not one["iscrowd"]:
            found.setdefault(names[one["image_id"]], []).append([x, y, x + w, y + h])
    return found


def _iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0.0, width) * max(0.0, height)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inside / (both - inside)


def test_normalized_pixels_give_what_the_bytes_give(
    mobilenet: models.ModelFile, weights: Path, store: models.ModelStore, shared_data: Path
) -> None:
    """The input stands for (byte - 128) / 128."""
    images = pictures(shared_data, 5)
    by_bytes = models.analyzer(mobilenet).load().analyze(images)
    file = store.add(
        weights / "coral_mobilenet_v2_1.0_224_quant.tflite", scale=1 / 128, mean=[1.0, 1.0, 1.0]
    )
    normalized = models.analyzer(file).load().analyze(images)
    for one, other in zip(by_bytes, normalized, strict=True):
        assert isinstance(one, Classification)
        assert isinstance(other, Classification)
        assert one.class_ids.tolist() == other.class_ids.tolist()
        np.testing.assert_array_equal(one.scores, other.scores)


def test_preprocessing_that_a_quantized_input_can_not_hold_is_refused(
    weights: Path, store: models.ModelStore
) -> None:
    message = r"coral_\S+: its uint8 input holds -1 to 0\.992, .* gives -2\.12 to 2\.64; .*--preset"
    with pytest.raises(ModelError, match=message):
        store.add(
            weights / "coral_mobilenet_v2_1.0_224_quant.tflite",
            classes=weights / "coral_imagenet_labels.txt",
            preset="imagenet",
        )
    assert list(store.folder.iterdir()) == []


def test_an_8_bit_input_gets_the_bytes_of_the_picture(mobilenet: models.ModelFile) -> None:
    litert = pytest.importorskip("vistadex.models.litert")
    session = litert.open_file(mobilenet, "cpu", "")
    assert [tuple(v) for v in session.get_inputs()] == [
        ("input", [1, 224, 224, 3], "tensor(uint8)")
    ]
    pixels: Pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    from ai_edge_litert.interpreter import Interpreter

    alone = Interpreter(str(mobilenet.path), num_threads=1)
    alone.allocate_tensors()
    alone.set_tensor(alone.get_input_details()[0]["index"], pixels)
    alone.invoke()
    details = alone.get_output_details()[0]
    scale, zero = details["quantization"]
    expected = (alone.get_tensor(details["index"]).astype(np.float32) - zero) * np.float32(scale)
    np.testing.assert_array_equal(session.run(None, {"input": pixels})[0], expected)


def test_threads_that_share_a_tflite_find_what_one_alone_finds(
    mobilenet: models.ModelFile,
) -> None:
    model = models.analyzer(mobilenet).load()
    images = noise(12)
    expected = [repr(model.analyze([image])) for image in images]
    found: dict[int, list[str]] = {}

    def work(thread: int) -> None:
        found[thread] = [repr(model.analyze([image])) for image in images]

    run_threads(4, work)
    assert list(found.values()) == [expected] * 4


def test_a_tflite_is_used_where_it_lies(
    weights: Path, store: models.ModelStore, tmp_path: Path
) -> None:
    path = tmp_path / "Mine.TFLITE"
    path.write_bytes((weights / "coral_mobilenet_v1_0.25_128_quant.tflite").read_bytes())
    with pytest.raises(ModelQuestionError, match="does not say its classes"):
        models.resolve(str(path), task="classifier", store=store)
    known = store.add(path, classes=weights / "coral_imagenet_labels.txt")
    assert known.path.suffix == ".tflite"
    found = models.resolve(str(path), task="classifier", store=store)
    assert (found.path, found.card) == (path, known.card)
    assert models.analyzer(found).load() is not None


def test_a_tflite_that_was_changed_is_refused(mobilenet: models.ModelFile) -> None:
    litert = pytest.importorskip("vistadex.models.litert")
    mobilenet.path.write_bytes(mobilenet.path.read_bytes() + b"x")
    with pytest.raises(ModelError, match="the file was changed since; add it again"):
        litert.open_file(mobilenet, "cpu", "")
    mobilenet.path.unlink()
    with pytest.raises(ModelError, match=r"tflite: can't be read \(No such file"):
        litert.open_file(mobilenet, "cpu", "")


def test_threads_that_come_later_run_the_bytes_that_were_verified(
    mobilenet: models.ModelFile, weights: Path
) -> None:
    model = models.analyzer(mobilenet).load()
    image = noise(1)[0]
    expected = repr(model.analyze([image]))
    mobilenet.path.unlink()
    mobilenet.path.write_bytes(b"another file")
    found: list[str] = []
    run_threads(1, lambda _: found.append(repr(model.analyze([image]))))
    assert found == [expected]


def test_a_tflite_of_fixed_batches_is_not_advised_to_be_rewritten(
    mobilenet: models.ModelFile,
) -> None:
    with pytest.raises(ModelError, match="fixed at batches of 1, wanted are 4; export it") as e:
        models.analyzer(mobilenet, batch_size=4).load()
    assert "--dynamic-size" not in str(e.value)


@pytest.mark.parametrize("option", ["dynamic_size", "optimize"])
def test_a_tflite_is_not_rewritten(option: str, weights: Path, store: models.ModelStore) -> None:
    with pytest.raises(ModelError, match=r"rewrite \.onnx files, a \.tflite stays as it is"):
        store.add(weights / "coral_mobilenet_v2_1.0_224_quant.tflite", **{option: True})


def test_another_size_for_a_tflite_is_refused_without_advice_that_can_not_help(
    mobilenet: models.ModelFile,
) -> None:
    options = models.RunOptions(size=320)
    with pytest.raises(ModelError, match=r"fixed at 224x224 pixels") as caught:
        models.ModelAnalyzer(mobilenet, options)
    assert "--dynamic-size" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 8, 100_000])
def test_bytes_that_are_no_tflite_are_a_model_error(
    length: int, weights: Path, store: models.ModelStore, tmp_path: Path
) -> None:
    path = tmp_path / "broken.tflite"
    data = (weights / "coral_mobilenet_v1_0.25_128_quant.tflite").read_bytes()
    path.write_bytes(data[:length] if length else b"no model at all, but a text of some length")
    with pytest.raises(ModelError, match=r"broken\.tflite: LiteRT can't use the file: \w+"):
        store.add(path, head="probabilities", classes=["a"])


def test_a_tflite_of_another_number_of_classes_is_refused(
    weights: Path, store: models.ModelStore
) -> None:
    with pytest.raises(ModelError, match="graph has 1001 classes, the card names 2"):
        store.add(weights / "coral_mobilenet_v1_0.25_128_quant.tflite", classes=["a", "b"])


def test_a_card_with_a_tflite_name_is_refused() -> None:
    how = Preprocessing(size_wh=(8, 8), color="RGB", resize="stretch")
    with pytest.raises(ModelError, match="name: expected 1 to 200 characters"):
        models.ModelCard(name="a.tflite", task="embedder", head="embedding", input=how)

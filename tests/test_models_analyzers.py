"""ModelAnalyzer: identity, loading, and settings that can't work."""

import hashlib
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from vistadex import models
from vistadex.errors import ModelError
from vistadex.models.sessions import CUDA, on_cuda
from vistadex.models.tiny import constant_output, grid_detector
from vistadex.records import DecodedImage


@pytest.fixture
def fixed(tmp_path: Path) -> models.ModelFile:
    path = grid_detector(tmp_path / "m.onnx", classes=2)
    return models.ModelStore(tmp_path / "store").add(path, head="yolox", classes=["a", "b"])


@pytest.fixture
def free(tmp_path: Path) -> models.ModelFile:
    path = grid_detector(tmp_path / "m.onnx", classes=2)
    return models.ModelStore(tmp_path / "store").add(
        path, head="yolox", classes=["a", "b"], name="free", dynamic_size=True
    )


def test_importing_models_loads_no_heavy_library() -> None:
    code = "import sys, vistadex.models; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"onnxruntime", "onnx", "cv2"}


def test_an_analyzer_says_what_it_is(fixed: models.ModelFile) -> None:
    analyzer = models.analyzer(fixed)
    assert (analyzer.name, analyzer.task, analyzer.classes) == ("m", "detector", ("a", "b"))
    assert analyzer.sha256 == fixed.sha256
    assert analyzer.card == fixed.card.to_dict()


def test_parameters_are_what_changes_results(fixed: models.ModelFile) -> None:
    assert models.analyzer(fixed).parameters == {
        "head": "yolox",
        "size": 64,
        "rectangular": False,
        "min_score": 0.25,
        "nms_iou": 0.65,
        "max_boxes": 300,
        "classes": hashlib.sha256(b"a\nb").hexdigest()[:12],
        "preprocessing": {
            "color": "BGR",
            "resize": "letterbox-top-left",
            "scale": 1.0,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "pad_value": 114,
            "stride": 32,
        },
    }
    same = models.analyzer(fixed, device="cpu", batch_size=1, size=64, rectangular=False)
    assert same.parameters == models.analyzer(fixed).parameters
    assert models.analyzer(fixed, min_score=0.1).parameters["min_score"] == 0.1


def test_corrected_class_names_are_another_analysis(tmp_path: Path) -> None:
    path = grid_detector(tmp_path / "m.onnx", classes=2)
    store = models.ModelStore(tmp_path / "store")
    wrong = models.analyzer(store.add(path, head="yolox", classes=["b", "a"]))
    right = models.analyzer(store.add(path, head="yolox", classes=["a", "b"]))
    assert wrong.sha256 == right.sha256
    assert wrong.parameters != right.parameters


def test_rectangular_is_the_default_where_the_graph_is_dynamic(free: models.ModelFile) -> None:
    assert models.analyzer(free).parameters["rectangular"] is True
    assert models.analyzer(free, rectangular=False).parameters["rectangular"] is False
    assert models.analyzer(free, size=96).parameters["size"] == 96


def test_a_fixed_graph_refuses_other_sizes_and_says_the_cure(fixed: models.ModelFile) -> None:
    for options in ({"rectangular": True}, {"size": 96}):
        with pytest.raises(ModelError, match=r"fixed at 64x64 pixels.*--dynamic-size"):
            models.analyzer(fixed, **options)


@pytest.mark.parametrize("size", [40, 100_000])
def test_a_size_is_a_multiple_of_the_stride(size: int, free: models.ModelFile) -> None:
    with pytest.raises(ModelError, match=f"size {size}, expected a multiple of 32 up to 8192"):
        models.analyzer(free, size=size)


@pytest.mark.parametrize(
    "options",
    [{"min_score": 1.5}, {"nms_iou": -1}, {"batch_size": -1}, {"device": "tpu"}, {"size": -32}],
)
def test_settings_out_of_range_are_refused(
    options: dict[str, float], free: models.ModelFile
) -> None:
    with pytest.raises(ModelError, match="expected"):
        models.analyzer(free, **options)


def test_cuda_that_is_not_there_is_an_error(fixed: models.ModelFile) -> None:
    assert not on_cuda("cpu")
    if CUDA in onnxruntime.get_available_providers():
        assert on_cuda("auto")
        assert on_cuda("cuda")
    else:
        assert not on_cuda("auto")
        with pytest.raises(ModelError, match=r"device cuda: .* onnxruntime-gpu"):
            models.analyzer(fixed, device="cuda").load()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_does_not_start_leaves_the_cpu_and_its_batches(
    free: models.ModelFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this machine's CUDA may start")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    for min_score in (0.2, 0.3):
        assert models.analyzer(free, min_score=min_score).load().batch_size == 1
    assert caplog.text.count("CUDA does not start") == 1
    with pytest.raises(ModelError, match="device cuda: CUDA does not start"):
        models.analyzer(free, device="cuda").load()


def test_a_graph_of_batch_one_takes_no_batches(fixed: models.ModelFile) -> None:
    with pytest.raises(ModelError, match="fixed at batches of 1, wanted are 4"):
        models.analyzer(fixed, batch_size=4).load()


def test_threads_that_load_at_once_get_one_model(fixed: models.ModelFile) -> None:
    analyzers = [models.analyzer(fixed, min_score=0.123) for _ in range(8)]
    found: list[object] = []
    threads = [threading.Thread(target=lambda a=a: found.append(a.load())) for a in analyzers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    other = models.analyzer(fixed, min_score=0.2).load()
    assert other is not found[0]


def test_threads_that_share_a_model_find_what_one_alone_finds(free: models.ModelFile) -> None:
    model = models.analyzer(free, min_score=0.01).load()
    random = np.random.default_rng(0)
    images = [
        DecodedImage(random.integers(0, 256, (h, w, 3), dtype=np.uint8), w, h)
        for w, h in random.integers(20, 200, (20, 2)).tolist()
    ]
    expected = [repr(model.analyze([image])) for image in images]
    found: dict[int, list[str]] = {}

    def work(thread: int) -> None:
        found[thread] = [repr(model.analyze([image])) for image in images]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


def test_an_analyzer_works_in_a_fresh_process(free: models.ModelFile, tmp_path: Path) -> None:
    analyzer = models.analyzer(free, min_score=0.01)
    assert pickle.loads(pickle.dumps(analyzer)) == analyzer
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(analyzer))
    code = (
        "import pickle, sys, numpy as np; from vistadex.records import DecodedImage\n"
        f"a = pickle.load(open({str(tmp_path / 'a.pickle')!r}, 'rb'))\n"
        "pixels = np.full((64, 64, 3), 50, np.uint8)\n"
        "print(repr(a.load().analyze([DecodedImage(pixels, 64, 64)])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    image = DecodedImage(np.full((64, 64, 3), 50, np.uint8), 64, 64)
    assert done.stdout.strip() == repr(analyzer.load().analyze([image]))


def test_a_file_that_changed_or_went_is_an_error(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.full((84, 7), 0.5, np.float32))
    store = models.ModelStore(tmp_path / "store")
    file = store.add(path, head="yolov5", classes=["a", "b"])
    file.path.write_bytes(file.path.read_bytes() + b" ")
    with pytest.raises(ModelError, match="was changed since"):
        models.analyzer(file).load()
    file.path.unlink()
    with pytest.raises(ModelError, match="no such file"):
        models.analyzer(file).load()


def test_the_decoder_is_told_the_size_it_must_provide(free: models.ModelFile) -> None:
    model = models.analyzer(free, size=96).load()
    assert (model.min_long_side, model.min_short_side, model.batch_size) == (96, 0, 1)

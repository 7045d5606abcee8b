"""The parts of quantization: ranges, equalization, stored weights, layers, agreement."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import save

from tests.small_networks import COLORS, color_network, picture
from vistadex.errors import ModelError
from vistadex.models.sessions import open_session
from vistadex.quantizing import ranges, static, weights
from vistadex.quantizing.agreement import agreement
from vistadex.quantizing.equalizing import equalize
from vistadex.quantizing.graphs import Model, layers, ready
from vistadex.quantizing.sensitivity import choose_layers, harms, with_one_rounded
from vistadex.records import Classification, Detections, Embedding, FloatArray

CHANCE = np.random.default_rng(0)
FEEDS: list[Any] = [
    {"images": picture(color, seed).transpose(2, 0, 1)[None].astype(np.float32)}
    for seed in range(2)
    for color in COLORS
]


def run(model: Model) -> FloatArray:
    session = open_session(model.SerializeToString())
    outputs: FloatArray = np.concatenate([session.run(None, feed)[0] for feed in FEEDS])
    return outputs


@pytest.fixture
def network(tmp_path: Path) -> Model:
    """The color network, made ready."""
    save(color_network(), tmp_path / "colors.onnx")
    return ready(tmp_path / "colors.onnx")


def ranges_of(model: Model) -> dict[str, ranges.Range]:
    seen = ranges.observe(model, static.tensors_to_observe(model), FEEDS)
    return {name: ranges.min_max(one) for name, one in seen.items()}


def histogram(*arrays: Any) -> ranges.Histogram:
    found = ranges.Histogram()
    for array in arrays:
        found.add(np.asarray(array, np.float32))
    return found


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1), min_size=1, max_size=6))
def test_a_histogram_counts_every_value_and_keeps_extremes(parts: list[list[float]]) -> None:
    found = histogram(*parts)
    values = [float(np.float32(one)) for part in parts for one in part]
    assert (found.low, found.high) == (min(0, *values), max(0, *values))
    # Nothing but zeros gives a histogram no width: such parts count nowhere.
    if any(parts[0]):
        assert found.counts.sum() == len(values)
    assert found.limit >= max(map(abs, values))


def test_a_histogram_that_grew_equals_one_that_was_wide_from_the_start() -> None:
    small, large = CHANCE.normal(0, 1, 5000), CHANCE.normal(0, 50, 5000)
    grown, wide = histogram(small, large), histogram(large, small)
    low, high = ranges.percentile(grown, 0.99)
    assert (low, high) == pytest.approx(ranges.percentile(wide, 0.99), rel=0.01)


def test_percentile_leaves_out_outliers_and_min_max_does_not() -> None:
    found = histogram(np.append(np.linspace(0, 1, 100_000), 1000))
    assert ranges.min_max(found) == (0, 1000)
    low, high = ranges.percentile(found)
    assert low == 0
    assert 0.9 < high < 2


def test_entropy_cuts_a_long_thin_tail() -> None:
    found = histogram(np.append(CHANCE.normal(0, 1, 200_000), np.linspace(20, 40, 10)))
    _, high = ranges.entropy(found)
    assert 3 < high < 30


@pytest.mark.parametrize("kind", ranges.RANGES)
def test_every_range_holds_zero_and_lies_within_the_extremes(kind: str) -> None:
    for values in (CHANCE.normal(5, 1, 1000), CHANCE.normal(-5, 1, 1000), np.zeros(10)):
        low, high = ranges.RANGES[kind](histogram(values))
        assert min(values.min(), 0) - 1e-6 <= low <= 0 <= high <= max(values.max(), 0) + 1e-6


def test_activations_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        histogram([1.0, np.inf])


def test_equalization_changes_weights_but_not_what_is_computed(network: Model) -> None:
    before, size = run(network), network.ByteSize()
    spread = [np.ptp(np.abs(w).max((1, 2, 3))) for w in _kernels(network)]
    assert equalize(network) == 3
    assert np.allclose(run(network), before, rtol=1e-4, atol=1e-5)
    after = [np.ptp(np.abs(w).max((1, 2, 3))) for w in _kernels(network)]
    assert after[1] < spread[1] / 2  # the depthwise one, whose channels differ a hundredfold
    assert network.ByteSize() == size


def _kernels(model: Model) -> list[FloatArray]:
    return [one for one in weights.weights_of(model).values() if one.ndim == 4]


def test_equalization_leaves_what_a_factor_does_not_pass_through(tmp_path: Path) -> None:
    save(color_network("Sigmoid"), tmp_path / "one.onnx")
    assert equalize(ready(tmp_path / "one.onnx")) == 0


@pytest.mark.parametrize(("method", "share"), [("weights-float16", 0.62), ("weights-int8", 0.45)])
def test_stored_weights_are_smaller_and_say_the_same(
    network: Model, method: str, share: float
) -> None:
    made = weights.STORED[method](network)
    assert made.ByteSize() < share * network.ByteSize()
    assert np.allclose(run(made), run(network), atol=0.03)
    assert {n.op_type for n in made.graph.node} >= {"Cast"}
    assert network.ByteSize() == ready_size(network)


def ready_size(model: Model) -> int:
    """The float model must not have been changed."""
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {1}
    return int(model.ByteSize())


def test_a_weight_beyond_float16_is_refused_by_name(network: Model) -> None:
    import onnx

    tensor = network.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1e7)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, "huge"))
    with pytest.raises(ModelError, match=r"weight huge: .*; choose the method weights-int8"):
        weights.as_float16(network)


def test_layers_know_stem_depthwise_and_prediction(network: Model) -> None:
    known = layers(network)
    assert [one.kind for one in known] == ["Conv", "Conv", "Conv", "Conv", "Gemm"]
    assert [one.stem for one in known] == [True, False, False, False, False]
    assert [one.depthwise for one in known] == [False, True, False, False, False]
    assert [one.predicts for one in known] == [False, False, False, False, True]


def test_static_int8_computes_nearly_the_same_with_int8_convolutions(network: Model) -> None:
    names = [one.name for one in layers(network) if not one.stem]
    made = static.quantized(network, names, ranges_of(network))
    assert np.abs(run(made) - run(network)).max() < 0.1
    kinds = {tensor.data_type for tensor in made.graph.initializer}
    assert {2, 3} <= kinds  # uint8 zero points, int8 weights
    scales = [t for t in made.graph.initializer if t.name == "w3_scale"]
    assert list(scales[0].dims) == [32]


def test_one_layer_rounded_differs_from_float_and_less_than_all(network: Model) -> None:
    known, found = layers(network), ranges_of(network)
    float_ = run(network)
    one = np.abs(run(with_one_rounded(network, known[3], found)) - float_).max()
    assert 0 < one < 0.1


def test_the_most_harmful_layer_is_left_in_float(network: Model) -> None:
    """A range far too wide for one layer's output makes that layer the harmful one."""
    found = ranges_of(network)
    bad = layers(network)[4]
    found[bad.outside] = (-1e4, 1e4)
    expected = run(network)

    def agree(model: Model) -> float:
        return 1 - float(np.abs(run(model) - expected).mean())

    harm = harms(network, found, agree)
    assert max(harm, key=harm.__getitem__) == bad.name
    chosen = choose_layers(network, found, harm, agree)
    assert bad in chosen.left
    assert layers(network)[0] in chosen.left
    assert chosen.names


def test_a_quantized_file_is_not_quantized_again(network: Model, tmp_path: Path) -> None:
    names = [one.name for one in layers(network)]
    save(static.quantized(network, names, ranges_of(network)), tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match="quantized already"):
        ready(tmp_path / "int8.onnx")


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


BOX = (0, 0, 10, 10, 0.8, 1)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (detections(BOX), 1.0),
        (detections(), 0.0),
        (detections((0, 0, 10, 10, 0.8, 2)), 0.0),
        (detections((0, 0, 10, 10, 0.4, 1)), 2 * 0.4 / 1.2),
        (detections((0, 0, 10, 5, 0.8, 1)), 0.5),
        (detections(BOX, BOX), 2 * 0.8 / 2.4),
    ],
)
def test_agreement_of_boxes_is_their_common_part(other: Detections, expected: float) -> None:
    assert agreement([detections(BOX)], [other]) == pytest.approx(expected)
    assert agreement([other], [detections(BOX)]) == pytest.approx(expected)


def test_agreement_of_classes_is_the_common_part_of_their_scores() -> None:
    one = Classification(np.array([0.7, 0.3], np.float32), np.array([0, 1]))
    other = Classification(np.array([0.6, 0.4], np.float32), np.array([1, 0]))
    assert agreement([one], [one]) == pytest.approx(1)
    assert agreement([one], [other]) == pytest.approx(0.7)


def test_models_that_say_nothing_agree_and_embeddings_are_refused() -> None:
    assert agreement([detections()], [detections()]) == 1
    vector = Embedding(np.ones(3, np.float32))
    with pytest.raises(ModelError, match="only boxes with boxes"):
        agreement([vector], [vector])

"""Fake quantization: what int8 will do is what training sees."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.test_training_networks import SMALL, pictures, trained_a_little
from vistadex.errors import UsageError
from vistadex.training.fake_quantization import (
    FakeQuantizedConv2d,
    add_fake_quantization,
    input_ranges,
    rounded_activation,
    rounded_weight,
    without_fake_quantization,
)
from vistadex.training.folding import folded
from vistadex.training.writing import to_onnx


def by_onnx(values: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> np.ndarray:
    """What QuantizeLinear and DequantizeLinear of ONNX Runtime make of values."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=axis),
    ]
    shape = list(values.shape)
    graph = helper.make_graph(
        nodes,
        "rounding",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": values})
    return found


def test_weights_are_rounded_as_onnx_rounds_them_per_channel() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    scale = weight.abs().amax(dim=(1, 2, 3)).numpy() / np.float32(127)
    expected = by_onnx(weight.numpy(), scale, np.zeros(5, np.int8), 0)
    assert np.allclose(rounded_weight(weight).numpy(), expected, atol=1e-7)


def test_activations_are_rounded_as_onnx_rounds_them_per_tensor() -> None:
    x = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 3
    low, high = torch.tensor(-1.0), torch.tensor(2.5)
    scale = np.float32(3.5 / 255)
    zero = np.uint8(np.round(1.0 / scale))
    expected = by_onnx(x.numpy(), np.array(scale), np.array(zero), 1)
    assert np.allclose(rounded_activation(x, low, high).numpy(), expected, atol=1e-6)


def test_gradients_pass_within_the_range_alone() -> None:
    x = torch.tensor([-3.0, -0.5, 0.3, 2.0, 9.0], requires_grad=True)
    rounded_activation(x, torch.tensor(-1.0), torch.tensor(2.5)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_the_named_modules_stay_in_float() -> None:
    network = folded(trained_a_little(SMALL))
    all_convs = sum(type(one) is torch.nn.Conv2d for one in network.modules())
    kept = ("backbone.stem", "classes", "boxes", "objects")
    changed = add_fake_quantization(network, keep_float=kept)
    assert changed == all_convs - 1 - 9
    assert type(network.backbone.stem.conv) is torch.nn.Conv2d
    assert type(network.heads[1].classes) is torch.nn.Conv2d
    assert type(network.heads[1].stem.conv) is FakeQuantizedConv2d
    with pytest.raises(UsageError, match=r"keep float 'backbone.trunk': no convolution"):
        add_fake_quantization(folded(trained_a_little(SMALL)), keep_float=["backbone.trunk"])


def test_ranges_follow_the_inputs_and_have_the_names_of_the_nodes() -> None:
    network = folded(trained_a_little(SMALL))
    plain = copy.deepcopy(network)
    add_fake_quantization(network, keep_float=["backbone.stem"])
    images = torch.from_numpy(pictures(2, 64, 64))
    network.train()(images)
    ranges = input_ranges(network)
    data = to_onnx(without_fake_quantization(network))
    names = {f'"{name}"' for name in ranges}
    assert all(name.strip('"').encode() in data for name in names)
    with torch.no_grad():
        entering = plain.backbone.stem(images)
    low, high = ranges["backbone.stage2.0.0.conv"]
    assert low == 0  # behind ReLU
    assert high == pytest.approx(entering.max().item(), rel=1e-5)


def test_rounding_changes_little_and_every_weight_still_learns() -> None:
    network = folded(trained_a_little(SMALL))
    plain = copy.deepcopy(network)
    add_fake_quantization(network, keep_float=["backbone.stem", "classes", "boxes", "objects"])
    images = torch.from_numpy(pictures(2, 64, 64))
    with torch.no_grad():
        expected = plain(images)
    difference = (network.train()(images) - expected).square().mean()
    difference.backward()
    assert 0 < difference.item() < 0.1 * expected.square().mean().item()
    for name, value in network.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().max() > 0, name


def test_without_rounding_it_is_the_network_that_was_trained() -> None:
    network = folded(trained_a_little(SMALL))
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    add_fake_quantization(network)
    plain = without_fake_quantization(network)
    assert plain.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    assert any(isinstance(one, FakeQuantizedConv2d) for one in network.modules())

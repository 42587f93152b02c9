import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError
from tersor.quantization.quantize import quantize
from tersor.quantization.schemes import schemes


def test_every_scheme_that_is_offered_can_be_built(perceptron, rows):
    kinds = schemes(perceptron, (rows[:2],))
    assert kinds == ("dynamic", "static", "int8", "int4")
    for kind in kinds:
        assert quantize(perceptron, (rows[:2],), [(rows,)], scheme=kind).scheme.kind in (kind, "weights")


def test_a_convolutional_network_is_offered_static_ranges_alone(conv_net, images):
    assert schemes(conv_net, (images[:2],)) == ("static",)


def test_linear_layers_that_hold_most_weights_are_offered_weights_alone():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 64))
    assert schemes(model, (torch.randn(2, 1, 8, 8),)) == ("static", "dynamic", "int8", "int4")


def test_a_runtime_without_integer_kernels_is_offered_nothing(perceptron, rows):
    assert schemes(perceptron, (rows[:2],), "torch") == ()
    assert "dynamic" not in schemes(perceptron, (rows[:2],), "openvino")


def test_a_model_without_layers_is_offered_nothing(rows):
    assert schemes(nn.ReLU(), (rows[:2],)) == ()


def test_an_unknown_runtime_is_refused(perceptron, rows):
    with pytest.raises(ArgumentError, match="onnxruntime"):
        schemes(perceptron, (rows[:2],), "onnx-runtime")

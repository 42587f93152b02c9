import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError
from tersor.exporting.export import RUNTIMES, export, open_artefact
from tersor.quantization.fidelity import fidelity
from tersor.quantization.hardware import detect, scheme_for
from tersor.quantization.insert import parameter_of, quantizer_calls
from tersor.quantization.quantize import quantize

INSTALLED = [name for name in ("onnxruntime", "openvino") if not RUNTIMES[name].missing()]


class Block(nn.Module):
    """A residual block; `short` is what its input takes to the addition."""

    def __init__(self, inputs, outputs, short=None):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = short or nn.Identity()

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))) + self.short(x))


class Reversed(Block):
    """A block that adds its two operands the other way round, and has the second convolution read twice if asked."""

    def __init__(self, *, twice):
        super().__init__(8, 8)
        self.twice = twice

    def forward(self, x):
        y = self.second(torch.relu(self.first(x)))
        z = x + y
        return z + torch.sigmoid(y) if self.twice else z


def residual():
    """A stem, three blocks of which the second has a convolution for a shortcut, and a classifier."""
    torch.manual_seed(0)
    blocks = [Block(8, 8), Block(8, 16, nn.Conv2d(8, 16, 1)), Block(16, 16)]
    stem, end = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()], [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stem, *blocks, *end, nn.Linear(16, 10)).eval()


def made_for(runtime, model, x):
    return quantize(model, (x[:2],), [(x,)], scheme=scheme_for(detect(), "static", runtime))


def rounded(model):
    """Names of the activations that a quantized model rounds."""
    return {str(node.args[0]) for node, _ in quantizer_calls(model.graph_module) if not parameter_of(node)}


def left_out(model, x):
    """Convolutions whose result is rounded for ONNX Runtime and not for OpenVINO; nothing else may differ."""
    usual, other = (made_for(runtime, model, x) for runtime in ("onnxruntime", "openvino"))
    assert rounded(other) <= rounded(usual)
    gone = rounded(usual) - rounded(other)
    nodes = {node.name: node for node in usual.graph_module.graph.nodes}
    weights = {name: str(nodes[name].args[1].args[0].target) for name in gone}
    return {weight.removesuffix(".weight") for weight in weights.values()}


@pytest.fixture
def channels():
    return torch.randn(16, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def test_openvino_alone_leaves_the_main_branch_of_an_addition_unrounded(images):
    assert left_out(residual(), images) == {"2.second", "3.second", "4.second"}


def test_the_main_branch_is_found_on_either_side_of_the_addition(channels):
    assert left_out(Reversed(twice=False), channels) == {"second"}


def test_a_convolution_that_something_else_reads_too_is_rounded(channels):
    assert left_out(Reversed(twice=True), channels) == set()


def test_a_model_without_additions_is_rounded_alike(rows, perceptron):
    assert left_out(perceptron, rows) == set()


@pytest.mark.parametrize("runtime", INSTALLED)
def test_a_file_for_openvino_computes_what_its_model_computes(runtime, images, tmp_path):
    model = made_for("openvino", residual(), images)
    artefact = export(model, (images[:2],), tmp_path / "m.onnx", runtime)
    assert fidelity(model, open_artefact(artefact), [(images,)]) >= 60


def test_openvino_is_closer_to_its_own_places_of_rounding(images, tmp_path):
    pytest.importorskip("openvino")
    found = {}
    for places in ("onnxruntime", "openvino"):
        model = made_for(places, residual(), images)
        file = export(model, (images[:2],), tmp_path / f"{places}.onnx", "openvino")
        found[places] = fidelity(model, open_artefact(file), [(images,)])
    assert found["openvino"] >= found["onnxruntime"] + 6


def test_a_runtime_whose_places_are_not_known_is_refused():
    with pytest.raises(ArgumentError, match="runtime"):
        scheme_for(detect(), "static", "torch")

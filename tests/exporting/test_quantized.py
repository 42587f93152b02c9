import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tersor.exporting.export import RUNTIMES, export, open_artefact
from tersor.quantization.quantize import quantize


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
    )


INSTALLED = [
    name for name in ("onnxruntime", "torch", "openvino", "executorch") if not RUNTIMES[name].missing()
]


@pytest.mark.parametrize("runtime", INSTALLED)
def test_a_quantized_model_becomes_a_file_that_computes_what_it_computes(runtime, tmp_path):
    x = torch.randn(32, 1, 8, 8)
    small = quantize(network(), (x[:2],), [(x,)])
    artefact = export(small, (x[:4],), tmp_path / "m", runtime)
    assert artefact.inputs == ("input",)
    (actual,) = open_artefact(artefact)([x.numpy()])
    np.testing.assert_allclose(actual, small(x).detach().numpy(), atol=0.02 * small(x).std().item())


def test_the_weights_of_a_quantized_file_are_integers(tmp_path):
    x = torch.randn(32, 1, 8, 8)
    artefact = export(quantize(network(), (x[:2],), [(x,)]), (x[:4],), tmp_path / "m.onnx")
    graph = onnx.load(artefact.path).graph
    stored = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) >= 2}
    assert stored <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}

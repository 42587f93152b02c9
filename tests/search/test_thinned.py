"""Copies of a file with fewer channels: they run, and are as large and as fast as a real cut makes the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import PlanError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export, open_artefact
from tersor.graph.trace import trace
from tersor.planning.plan import Cut, Plan
from tersor.quantization.quantize import quantize
from tersor.search.thinned import thinned
from tersor.surgery.apply import apply


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.a, self.b = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return self.head(x.mean((2, 3)))


def separable():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


NETWORKS = {
    "depthwise": (separable, torch.randn(2, 3, 8, 8), {"0": 8}),
    "convolutions": (Residual, torch.randn(2, 3, 8, 8), {"stem.0": 8, "a": 10}),
    "layers": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)
        ),
        torch.randn(2, 3, 4),
        {"1": 7, "3": 11},
    ),
}


@pytest.mark.parametrize("precision", ["float", "static", "dynamic"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_thinned_file_has_the_shapes_of_a_real_cut(name, precision, tmp_path):
    if name != "layers" and precision == "dynamic":
        pytest.skip("dynamic integers leave convolutions in floating point")
    torch.manual_seed(0)
    make, x, kept = NETWORKS[name]
    model = make().eval()
    graph = trace(model, (x,))
    cut = apply(model, Plan(tuple(Cut(g, tuple(range(n))) for g, n in kept.items())), graph).model
    write = lambda net, path: export(
        net if precision == "float" else quantize(net, (x,), [(x,)], scheme=precision), (x,), path
    )
    whole, real = write(model, tmp_path / "whole.onnx"), write(cut, tmp_path / "real.onnx")
    copy = thinned(whole, graph, kept, tmp_path / "copy.onnx")
    (outputs,) = open_artefact(copy)([x.numpy()])
    assert outputs.shape == open_artefact(whole)([x.numpy()])[0].shape
    assert copy.size_bytes == copy.path.stat().st_size
    assert weights_of(copy.path) == weights_of(real.path)


def test_in_floating_point_it_even_computes_what_the_cut_computes(tmp_path):
    make, x, kept = NETWORKS["layers"]
    model = make().eval()
    graph = trace(model, (x,))
    cut = apply(model, Plan(tuple(Cut(g, tuple(range(n))) for g, n in kept.items())), graph).model
    copy = thinned(export(model, (x,), tmp_path / "whole.onnx"), graph, kept, tmp_path / "copy.onnx")
    np.testing.assert_allclose(open_artefact(copy)([x.numpy()])[0], cut(x).detach().numpy(), atol=1e-5)


def test_a_file_of_another_model_is_refused(tmp_path):
    make, x, kept = NETWORKS["layers"]
    file = export(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (x,), tmp_path / "other.onnx")
    with pytest.raises(PlanError, match="does not hold"):
        thinned(file, trace(make(), (x,)), kept, tmp_path / "copy.onnx")


def test_only_onnx_files_can_be_sliced(tmp_path):
    make, x, kept = NETWORKS["layers"]
    file = Artefact("executorch", tmp_path / "model.pte", 0, "")
    with pytest.raises(PlanError, match=r"model.pte is no ONNX file"):
        thinned(file, trace(make(), (x,)), kept, tmp_path / "copy.pte")


def weights_of(path: Path):
    """Shapes of the matrices and kernels of a file."""
    import onnx

    return sorted(tuple(t.dims) for t in onnx.load(path).graph.initializer if len(t.dims) > 1)

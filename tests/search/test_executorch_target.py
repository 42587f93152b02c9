"""One model for ONNX Runtime and ExecuTorch: its second file is a `.pte` with a certificate of its own."""

import pytest
import torch
from torch import nn

from tersor.certification.verify import verify
from tersor.exporting.export import RUNTIMES
from tersor.search.optimize import optimize

pytestmark = pytest.mark.skipif(bool(RUNTIMES["executorch"].missing()), reason="needs executorch")


def split(count: int, seed: int):
    x = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return x.numpy(), (x.mean((1, 2, 3)) > 0).long().numpy()


def network() -> nn.Module:
    """Tell the sign of the mean, with far more arithmetic than that takes."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    x, y = map(torch.from_numpy, split(512, 1))
    optimizer = torch.optim.Adam(layers.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layers(x), y).backward()
        optimizer.step()
    return layers.eval()


def test_both_files_are_certified_and_verified(tmp_path):
    data = {"train": split(512, 1), "search": split(256, 2), "certification": split(600, 3)}
    both = "onnxruntime,executorch"
    result = optimize(network(), data, max_drop="10%", goal="size", target=both, methods=("quantize",))
    result.save(tmp_path / "out")
    assert result.best is not None
    assert [file.runtime for file in (result.artefact, *result.best.others)] == ["onnxruntime", "executorch"]
    assert (tmp_path / "out" / "executorch" / "model.pte").is_file()
    for folder in (tmp_path / "out", tmp_path / "out" / "executorch"):
        assert verify(folder)

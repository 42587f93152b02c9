"""Two networks of clearly different cost, exported once."""

import pytest
import torch
from torch import nn

from tersor.exporting.export import export


@pytest.fixture(scope="session")
def inputs():
    return (torch.randn(2, 64),)


def network(width: int) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
    )


@pytest.fixture(scope="session")
def small(inputs, tmp_path_factory):
    return export(network(256), inputs, tmp_path_factory.mktemp("small") / "small.onnx")


@pytest.fixture(scope="session")
def large(inputs, tmp_path_factory):
    return export(network(768), inputs, tmp_path_factory.mktemp("large") / "large.onnx")

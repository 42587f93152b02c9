import pytest
import torch
from torch import nn

from tersor.errors import DataError
from tersor.quantization.fidelity import fidelity, repeatability
from tersor.quantization.quantize import quantize


class Stream(nn.Module):
    """Layers over features and over tokens in turns, each added after a norm with one large feature."""

    def __init__(self, depth, outlier):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(depth))
        with torch.no_grad():
            for norm in self.norms:
                norm.weight[0] = outlier

    def forward(self, x):
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = (x + layer(norm(x))).transpose(1, 2)
        return x


def rounded(depth, outlier, x):
    torch.manual_seed(0)
    model = Stream(depth, outlier).eval()
    return quantize(model, (x[:2],), [(x,)], scheme="dynamic")


@pytest.fixture
def batch():
    return torch.randn(64, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_model_repeats_itself_less_well_the_deeper_and_the_coarser_it_is(batch):
    shallow, deep, coarse = (
        repeatability(rounded(depth, outlier, batch), [(batch,)])
        for depth, outlier in [(1, 1.0), (24, 1.0), (24, 8.0)]
    )
    assert shallow >= 100
    assert 70 >= deep >= coarse + 3


def test_a_file_is_no_further_from_its_model_than_the_model_is_from_itself(batch, as_file):
    small = rounded(24, 8.0, batch)
    file = as_file(small, (batch[:2],))
    itself = repeatability(small, [(batch,)])
    assert itself < 60
    assert fidelity(small, lambda arrays: [file.run(*arrays)], [(batch,)]) >= itself - 10


def test_measuring_repeatability_leaves_the_model_as_it_was(batch):
    small = rounded(2, 1.0, batch)
    before = small(batch)
    repeatability(small, [(batch,)])
    assert torch.equal(small(batch), before)


def test_repeatability_needs_data(batch):
    with pytest.raises(DataError, match="at least one batch"):
        repeatability(rounded(1, 1.0, batch), [])

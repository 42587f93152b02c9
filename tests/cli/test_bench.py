import pytest
import torch
from torch import nn

from tersor.cli.bench import Sizes, _energy, _line, _numbers, _swept
from tersor.errors import ArgumentError
from tersor.exporting.export import export
from tersor.measurement.energy import energy_missing
from tersor.measurement.race import Entry


def test_the_fastest_way_is_timed_over_the_grid_that_was_asked_for(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(16, 64), nn.Linear(64, 16)).eval()
    tokens = (torch.randint(0, 16, (2, 8)),)
    fastest = Entry("onnxruntime, 1 thread", export(model, tokens, tmp_path / "model.onnx"), 1)
    points = _swept(fastest, tokens, Sizes("1,4", "8, 32"), 0.05)
    assert [(point.length, point.batch) for point in points] == [(8, 1), (8, 4), (32, 1), (32, 4)]
    assert all(point.peak_bytes > 0 and point.load_s > 0 and point.throughput_per_s > 0 for point in points)
    assert _line(points[1]).startswith("batch 4, length 8: ")
    assert bool(_energy(points)) == bool(energy_missing())
    assert _swept(fastest, tokens, Sizes(), 0.05) == ()


@pytest.mark.parametrize("text", ["1,two", "0", "-4"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(ArgumentError, match="whole numbers above zero"):
        _numbers(text)

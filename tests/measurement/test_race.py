import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError, ExportError
from tersor.exporting.export import export, open_artefact
from tersor.measurement.race import _VARIANTS, race
from tersor.measurement.result import Verdict
from tersor.measurement.sweep import sweep, with_length


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4))


def test_the_race_runs_the_unchanged_model_every_way_and_names_the_fastest(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(_VARIANTS, "onnxruntime", {"": {}, "unoptimized": {"graph_optimization": "disable"}})
    monkeypatch.setattr("tersor.measurement.race.usable_cores", lambda: 1)
    model, told = network(), []
    result = race(model, inputs, tmp_path, seconds=0.2, runtimes=("onnxruntime",), listen=told.append)
    assert result.fastest in result.entries
    assert result.entries[0].speed is None
    assert all(entry.speed or entry.reason for entry in result.entries[1:])
    if result.fastest is not result.entries[0]:
        assert result.fastest.speed.verdict is Verdict.FASTER
    assert str(result).count("<- use this") == 1
    assert told
    (actual,) = open_artefact(result.fastest.artefact)([inputs[0].numpy()])
    np.testing.assert_allclose(actual, model(inputs[0]).detach().numpy(), atol=1e-5)


class Branching(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


def test_a_model_that_no_runtime_takes_is_refused_with_every_reason(inputs, tmp_path):
    with pytest.raises(ExportError, match=r"No runtime takes this model.*cannot capture"):
        race(Branching(), inputs, tmp_path, runtimes=("onnxruntime", "torch"))


def test_a_sweep_visits_the_whole_grid(small, inputs):
    points = sweep(small, inputs, batches=(1, 16), threads=(1,), seconds=0.1)
    assert [(point.threads, point.batch) for point in points] == [(1, 1), (1, 16)]
    assert points[1].throughput_per_s > points[0].throughput_per_s / 2


def test_a_sweep_over_lengths_runs_longer_sequences_for_longer(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(16, 128), nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 16)).eval()
    tokens = (torch.randint(0, 16, (2, 8)),)
    file = export(model, tokens, tmp_path / "tokens.onnx")
    points = sweep(file, tokens, batches=(1, 4), lengths=(8, 256), seconds=0.1)
    assert [(point.length, point.batch) for point in points] == [(8, 1), (8, 4), (256, 1), (256, 4)]
    assert points[2].median_s > 2 * points[0].median_s


def test_lengths_need_token_sequences(small, inputs):
    with pytest.raises(ArgumentError, match="lengths do not apply"):
        sweep(small, inputs, lengths=(8,))
    with pytest.raises(ArgumentError, match="at least one token"):
        with_length((torch.zeros(1, 4, dtype=torch.long),), 0)

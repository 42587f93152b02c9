"""What a report tells beyond the search, against direct computations."""

import copy

import pytest
import torch
from torch import nn

from tersor.analysis.collect import collect
from tersor.exporting.export import export
from tersor.graph.trace import trace
from tersor.loading.build import build_task
from tersor.pruning.criteria.registry import make_criterion
from tersor.pruning.score import score
from tersor.search.insight import operators, phases
from tersor.search.sensitivity import PRUNED, ROUNDED, layer_sensitivity


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    x = torch.randn(1200, 12)
    net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    return build_task(net, (x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())).task


def test_the_noise_of_a_pruned_layer_is_that_of_zeroed_units(task):
    graph = trace(task.model, task.inputs)
    found = layer_sensitivity(task, graph, seconds=60.0)
    assert set(found) == {"0", "2", "4"}
    inputs = next(task.search.batches(32, limit=32)).inputs[0]
    rule = make_criterion("magnitude")
    samples = list(task.search.batches(32, limit=32))
    scores = score(collect(task.model, graph.groups, samples, fields=rule.needs), rule)
    with torch.no_grad():
        expected = task.model(inputs).double()
        for layer, following in (("0", "2"), ("2", "4")):
            changed = copy.deepcopy(task.model)
            units = len(scores[layer])
            changed.get_submodule(following).weight[:, scores[layer].argsort()[: units // 2]] = 0.0
            noise = (changed(inputs).double() - expected).square().sum() / expected.square().sum()
            assert found[layer][PRUNED] == pytest.approx(float(noise), rel=1e-4)
    assert PRUNED not in found["4"]
    assert all(0.0 < row[ROUNDED] < 0.01 for row in found.values())


def test_without_time_nothing_is_measured(task):
    assert layer_sensitivity(task, trace(task.model, task.inputs), seconds=0.0) == {}


def test_a_line_of_the_log_tells_what_the_time_before_it_was_spent_on(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        "      0.5 s  data      split   train 3\n"
        "      2.5 s  baseline  torch: 0.1x\n"
        "     10.5 s  candidate int8: accuracy 1\n"
        "not a line of the log\n"
        "     11.0 s  measure   1 file\n"
        "     20.0 s  int8: tried because it was asked for\n"
    )
    found = {phase.name: phase.seconds for phase in phases(log)}
    assert found == {
        "reading the data": 0.5,
        "original and free baselines": 2.0,
        "making candidates": 8.0,
        "measuring candidates": 0.5,
        "measuring the answer": 9.0,
    }
    assert phases(None) == phases(tmp_path / "none") == ()


def test_operators_of_two_files_are_counted(task, tmp_path):
    whole = export(task.model, task.inputs, tmp_path / "whole.onnx")
    part = export(nn.Sequential(nn.Linear(12, 3)), task.inputs, tmp_path / "part.onnx")
    found = {entry.name: (entry.before, entry.after) for entry in operators(whole, part)}
    assert found == {"Gemm": (3, 1), "Relu": (2, 0)}
    assert operators(None, part) == ()

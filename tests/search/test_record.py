"""From what a search knows to what a report says, on a network that was really cut, rounded and exported."""

import pytest
import torch
from torch import nn

from tersor.loading.build import build_task
from tersor.loading.limit import Drop
from tersor.measurement.result import Measurement
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.quantize import quantize
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.describe import _latency
from tersor.search.insight import look
from tersor.search.journal import Journal
from tersor.search.layer_rows import layer_rows
from tersor.search.outcome import Fate, Outcome
from tersor.search.request import Request
from tersor.search.result import Result
from tersor.search.run import Run, calibration_inputs, with_file
from tersor.search.verbs import prune

REQUEST = Request(Drop(0.03, False))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    torch.manual_seed(0)
    x = torch.randn(1600, 10)
    net = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))
    task = build_task(net, (x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())).task
    base = with_file(Candidate("original", Plan(), task.model), task, folder, REQUEST)
    floor = base.quality.value - 0.03
    return Run(task, REQUEST, Clock(), Journal(folder), base, base.artefact, (), 0.03, floor)


@pytest.fixture(scope="module")
def answer(run, tmp_path_factory):
    small, plan = prune(run.task.model, run.task.inputs, ratio=0.5)
    rounded = quantize(small, run.task.inputs, calibration_inputs(run.task), scheme="static")
    edits = Plan(tuple(Quantize(site) for site in rounded.integers))
    made = Candidate("half in integers", plan + edits, rounded, small, losses=(2.0, 1.0), macs=9)
    return with_file(made, run.task, tmp_path_factory.mktemp("answer"), REQUEST)


def test_the_distribution_of_the_times_reaches_the_report():
    told = Measurement(
        2e-3, 3e-3, 4e-3, 5e2, 1, 0.1, 1, 1, 1, "onnxruntime", 900, quantiles_s=(1e-3, 2e-3, 4e-3)
    )
    shown = _latency(told)
    assert shown.samples_s == told.quantiles_s
    assert shown.calls == 900


def test_every_part_that_can_be_learnt_is_there(run, answer):
    found = look(run, answer, None)
    assert found.omitted == ()
    assert set(found.sensitivity) == {"0", "2", "4"}
    assert found.reasons["4"] == "is an output of the model"
    assert sum(part.samples for part in found.slices) == len(run.task.search)
    assert {entry.name for entry in found.operators if entry.after} >= {"QuantizeLinear"}


def test_slices_average_to_the_quality(run, answer):
    found = look(run, answer, None).slices
    for which, quality in (("before", run.base.quality), ("after", answer.quality)):
        total = sum(part.samples * (part.before if which == "before" else part.after) for part in found)
        assert total / len(run.task.search) == pytest.approx(quality.value)


def test_each_layer_tells_what_was_done_to_it_and_why(run, answer):
    rows = {row.name: row for row in layer_rows(run.task.model, answer, look(run, answer, None))}
    assert rows["0"].before == "24×10"
    assert rows["0"].after != rows["0"].before
    assert "weights cut" in rows["0"].change
    assert "8-bit integers" in rows["2"].change
    assert "of their energy" in rows["0"].reason
    whole = {row.name: row for row in layer_rows(run.task.model, run.base, look(run, run.base, None))}
    assert whole["4"].reason == "cannot be cut: it is an output of the model"
    assert whole["0"].reason.startswith("kept whole: ")


def test_a_part_that_fails_is_named_and_costs_nothing(run, answer, tmp_path):
    (tmp_path / "log.txt").write_bytes(b"\xff\xfe")
    found = look(run, answer, tmp_path / "log.txt")
    assert found.phases == ()
    assert found.omitted[0].startswith("phases: UnicodeDecodeError")
    assert found.operators


def test_the_record_of_a_search_without_an_answer_still_tells_the_layers(run, answer):
    missed = Candidate(
        **{name: getattr(answer, name) for name in answer.__dataclass_fields__} | {"fate": Fate.MISSED}
    )
    result = Result(run, (missed,), None, None, Outcome.NOTHING_HELD)
    record = result.record("tersor optimize x", "[optimize]\n", 3)
    assert [layer.name for layer in record.layers] == ["0", "2", "4"]
    assert record.config == "[optimize]\n"
    assert record.changed == ()
    assert record.curves[0].values == (2.0, 1.0)

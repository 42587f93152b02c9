"""What the latency model learns before anything is trained, and what is kept of it."""

from dataclasses import replace
from itertools import pairwise
from math import inf
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.exporting.export import export
from tersor.graph.trace import trace
from tersor.planning.anatomy import Anatomy, Left, anatomy
from tersor.planning.cost_model import features
from tersor.planning.plan import Plan
from tersor.planning.space import CUT, Space, Unit
from tersor.quantization.quantize import quantize
from tersor.search import rehearse as rehearse_module
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.executors import Local
from tersor.search.pricebook import Pricebook
from tersor.search.prices import Prices, Seen, glance
from tersor.search.rehearse import copies_for, designs, rehearse


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4)
    ).eval()
    x = torch.randn(8, 64)
    file = export(network, (x,), tmp_path / "model.onnx")
    said = []
    return SimpleNamespace(
        task=SimpleNamespace(model=network, inputs=(x,)),
        request=SimpleNamespace(
            target="onnxruntime",
            goal="latency",
            threads=1,
            call_size=1,
            seed=0,
            methods=("prune", "factorize"),
            max_memory=inf,
        ),
        executor=Local(),
        clock=Clock(120.0),
        base=Candidate("original", Plan(), model=network, artefact=file),
        say=lambda *words: said.append(words),
        said=said,
    )


def test_the_model_learns_from_thinned_copies_and_the_next_search_from_the_book(run):
    layers = anatomy(trace(run.task.model, run.task.inputs))
    whole = features(layers, Left(), "float")
    prices = glance(run, Prices("latency"), {0: (run.base.artefact, whole)})
    assert prices.base_s > 0
    taught = rehearse(run, prices, {"float": run.base.artefact})
    assert len(taught.seen) == 1 + copies_for(run.clock.left_s, 1)
    assert taught.of(layers, Left({"0": 16, "2": 16}), "float") < 0.7 * taught.of(layers, Left(), "float")
    faster = replace(prices, base_s=prices.base_s / 2, seen=(Seen(whole, prices.base_s / 2),))
    again = rehearse(run, faster, {"float": run.base.artefact})
    assert "known from before" in run.said[-1][1]
    for old, new in zip(taught.seen[1:], again.seen[1:], strict=True):
        assert new.amounts == old.amounts
        assert new.seconds == pytest.approx(old.seconds / 2)


def test_with_time_it_learns_from_factorized_copies_what_a_further_layer_costs(run, monkeypatch):
    monkeypatch.setattr("tersor.search.rehearse.MOST", 2)
    run.clock = Clock(600.0)
    layers = anatomy(trace(run.task.model, run.task.inputs))
    prices = glance(run, Prices("latency"), {0: (run.base.artefact, features(layers, Left(), "float"))})
    taught = rehearse(run, prices, {"float": run.base.artefact})
    pieces = [seen.amounts["float.linear.layers"] for seen in taught.seen]
    assert pieces[:3] == [3.0, 3.0, 3.0]
    assert len(pieces) == 6
    assert max(pieces[3:]) > 3.0
    assert [w for w in run.said if "no copy" in w[1]] == []
    run.request.methods = ("prune",)
    assert len(rehearse(run, prices, {"float": run.base.artefact}).seen) == 3


def test_where_nothing_can_be_thinned_it_learns_from_real_cuts_in_both_precisions(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearse_module, "_FEW", 1)  # each takes seconds
    run.request.target, run.request.methods, run.request.leave = "torch", ("prune",), ()
    run.clock = Clock(None)
    network, (x,) = run.task.model, run.task.inputs
    run.task.calibration = SimpleNamespace(batches=lambda size: iter([SimpleNamespace(inputs=(x,))]))
    run.request.rounds_as = "onnxruntime"
    file = export(network, (x,), tmp_path / "model.pt2", "torch")
    small = quantize(network, (x,), [(x,)], scheme="static")
    files = {"float": file, "static": export(small, (x,), tmp_path / "small.pt2", "torch")}
    run.base = Candidate("original", Plan(), model=network, artefact=file)
    layers = anatomy(trace(network, (x,)))
    whole = features(layers, Left(), "float")
    prices = glance(run, Prices("latency"), {0: (file, whole)})
    taught = rehearse(run, prices, files)
    kinds = [name for seen in taught.seen[1:] for name in seen.amounts if name.endswith("linear.macs")]
    assert sorted(kinds) == ["float.linear.macs", "static.linear.macs"]
    assert "no thinned copies in float: model.pt2 is no ONNX file" in run.said[0][1]


def test_designs_go_from_bold_to_mild_however_few_are_taken():
    levels = tuple(range(64, 0, -1))
    units = tuple(Unit(CUT, str(index), levels, (0.0,) * 64) for index in range(200))
    found = [sum(design) / (63 * 200) for design in designs(Space(Anatomy((), ()), units), 24, 0)]
    assert found[0] == pytest.approx(max(found), rel=0.05)
    assert found[1] < 0.5 * found[0]
    for count in range(2, 24):
        seen = sorted([0.0, *found[:count]])
        assert max(after - before for before, after in pairwise(seen)) < 1.2 / count


def test_goals_in_bytes_need_no_rehearsal(run):
    prices = Prices("size")
    assert rehearse(run, prices, {"float": run.base.artefact}) is prices
    assert not run.said


def test_a_book_that_cannot_be_read_is_empty(tmp_path):
    broken = Pricebook(tmp_path / "book.json")
    assert broken.read() == ()
    broken.path.write_text("{")
    assert broken.read() == ()
    Pricebook(broken.path / "inside a file.json").write([Seen({"constant": 1.0}, 1.0)])

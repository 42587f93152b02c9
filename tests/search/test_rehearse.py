"""What the latency model learns before anything is trained, and what is kept of it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.exporting.export import export
from tersor.graph.trace import trace
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.cost_model import features
from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.pricebook import Pricebook
from tersor.search.prices import Prices, Seen, glance
from tersor.search.rehearse import copies_for, rehearse


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)
    ).eval()
    x = torch.randn(8, 64)
    file = export(network, (x,), tmp_path / "model.onnx")
    said = []
    return SimpleNamespace(
        task=SimpleNamespace(model=network, inputs=(x,)),
        request=SimpleNamespace(target="onnxruntime", goal="latency", threads=1, call_size=1, seed=0),
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

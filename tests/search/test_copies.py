"""Copies that show what smaller networks cost, made as quickly as a file allows and within a time."""

import time
from math import inf

import pytest
import torch
from torch import nn

from tersor.errors import PlanError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import RUNTIMES, export, open_artefact
from tersor.graph.trace import trace
from tersor.loading.build import build_task
from tersor.loading.limit import parse_drop
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.cost_model import features
from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.copies import Copies
from tersor.search.journal import Journal
from tersor.search.request import Request
from tersor.search.run import Run
from tersor.search.thinned import thinned

needs_openvino = pytest.mark.skipif(bool(RUNTIMES["openvino"].missing()), reason="needs openvino")


class Attention(nn.Module):
    """One block over sequences: its sizes are in reshapes, and its weights under no name in a file."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 64), nn.Linear(64, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return self.head((x + self.down(torch.relu(self.up(x)))).mean(1))


def perceptron():
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))


def copies_of(model, x, target, folder):
    """Return the maker of copies at the start of a search, and what it said."""
    torch.manual_seed(0)
    task = build_task(model.eval(), (x, torch.arange(len(x)) % 4), seed=0).task
    said = []
    request = Request(parse_drop(0.02), (target,), listen=lambda event: said.append(event.text))
    base, nothing = Candidate("original", Plan(), model=task.model), Artefact(target, folder, 0, "")
    run = Run(task, request, Clock(), Journal(folder), base, nothing, (), 0.0, 0.0)
    graph = trace(task.model, task.inputs)
    file = export(
        task.model, task.inputs, folder / f"whole{'.pte' if target == 'executorch' else '.onnx'}", target
    )
    return Copies(run, graph, anatomy(graph), {"float": file}, folder), said


@pytest.mark.parametrize("precision", ["float", "static", "dynamic"])
def test_what_cannot_be_thinned_is_cut_for_real(precision, tmp_path):
    maker, said = copies_of(Attention(), torch.randn(400, 6, 32), "onnxruntime", tmp_path)
    bold = Left({"up": 16, "qkv:heads": 1}, {"out": 4})
    assert maker.thin([bold]) == {}
    assert any("no thinned copies in float" in text for text in said)
    with pytest.raises(PlanError, match="heads would change, an integer in the code"):
        thinned(maker.files["float"], maker.graph, {"qkv:heads": 1}, tmp_path / "copy.onnx")
    ((file, amounts),) = maker.real([(precision, bold)], inf)
    assert amounts == features(maker.anatomy, bold, precision)
    assert file.size_bytes < maker.files["float"].size_bytes / 2
    (answer,) = open_artefact(file)([torch.randn(3, 6, 32).numpy()])
    assert answer.shape == (3, 4)


@needs_openvino
def test_files_of_openvino_are_thinned_too(tmp_path):
    maker, said = copies_of(perceptron(), torch.randn(400, 8), "openvino", tmp_path)
    made = maker.thin([Left({"0": 8}), Left({"0": 32})])
    assert [len(found) for found in made.values()] == [2]
    assert not said
    for file, _ in made["float"]:
        assert file.runtime == "openvino"
        assert open_artefact(file)([torch.randn(3, 8).numpy()])[0].shape == (3, 4)


def test_real_copies_stop_when_their_time_is_spent(tmp_path):
    maker, _ = copies_of(perceptron(), torch.randn(400, 8), "onnxruntime", tmp_path)
    wanted = [("float", Left({"0": kept})) for kept in (8, 16, 24, 32, 40, 48, 56)]
    assert maker.real(wanted, 100.0, guess_s=200.0) == []
    begun_s = time.monotonic()
    maker.real(wanted[:1], inf)
    one_s = time.monotonic() - begun_s + 1.0  # timing it takes about a second
    made = maker.real(wanted, 3.5 * one_s)
    assert 1 <= len(made) < len(wanted)
    assert [amounts["float@2"] for _, amounts in made] == sorted(amounts["float@2"] for _, amounts in made)


def test_a_copy_that_takes_too_long_is_stopped_and_said(tmp_path):
    maker, said = copies_of(perceptron(), torch.randn(400, 8), "onnxruntime", tmp_path)
    assert maker.real([("static", Left({"0": 8}))] * 2, 0.05) == []
    assert said == ["no more copies: one in static took longer than the 0.05 s that were left"]


def test_a_copy_that_cannot_be_made_is_left_out_and_said(tmp_path):
    maker, said = copies_of(perceptron(), torch.randn(400, 8), "onnxruntime", tmp_path)
    wanted = [("float", Left(ranks={"nowhere": 3})), ("float", Left({"0": 8}))]
    assert len(maker.real(wanted, inf)) == 1
    assert "nowhere" in said[0]

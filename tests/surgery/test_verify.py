"""Verification finds what is wrong, and says which edit it was."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ModelError
from tersor.graph.structure import Extent
from tersor.graph.trace import trace
from tersor.planning.plan import Cut, Plan
from tersor.surgery.verify import verify
from tests.graph.networks import ResNet, ViT, image
from tests.surgery.cutting import random_plan


def test_a_graph_with_one_wrong_coupling_is_caught_and_the_cut_is_named():
    model, inputs = ResNet().eval(), image()
    graph = trace(model, inputs)
    right = graph.extents["blocks.0.conv2.weight", 1]
    wrong = Extent(right.size, (np.roll(right.slots[0], 1),))
    broken = dataclasses.replace(graph, extents={**graph.extents, ("blocks.0.conv2.weight", 1): wrong})
    plan = random_plan(graph, 0.5)
    assert verify(model, plan, graph, inputs).ok
    verdict = verify(model, plan, broken, inputs)
    assert not verdict.ok
    assert [edit.group for edit in verdict.edits] == ["blocks.0.conv1"]
    assert "Leave out: Cut blocks.0.conv1" in str(verdict)


def test_a_scale_that_depends_on_a_size_is_caught():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            y = self.a(x)
            return self.b(y / len(y[0]))

    model, inputs = Scaled(), (torch.randn(3, 4),)
    graph = trace(model, inputs)
    verdict = verify(model, Plan((Cut("a", (0, 1)),)), graph, inputs)
    assert not verdict.ok
    assert verdict.edits == (Cut("a", (0, 1)),)


def test_other_shapes_than_those_traced_hold_too():
    model = ViT().eval()
    graph = trace(model, image())
    assert verify(model, random_plan(graph, 0.5), graph, (torch.randn(5, 3, 16, 16),)).ok


def test_weights_that_are_not_numbers_are_refused():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    inputs = (torch.randn(3, 4),)
    graph = trace(model, inputs)
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        verify(model, Plan((Cut("0", (0, 1)),)), graph, inputs)


def test_zero_weights_hide_nothing():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    inputs = (torch.randn(3, 4),)
    graph = trace(model, inputs)
    with torch.no_grad():
        model[1].weight.zero_()
    right = graph.extents["1.weight", 1]
    wrong = Extent(right.size, (np.roll(right.slots[0], 1),))
    broken = dataclasses.replace(graph, extents={**graph.extents, ("1.weight", 1): wrong})
    assert not verify(model, Plan((Cut("0", (0, 1)),)), broken, inputs).ok

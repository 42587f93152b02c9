"""Networks that break pruners: everything that can be cut is cut, and equals the masked original."""

import pytest
import torch

from tersor.graph.prove import prove
from tersor.graph.trace import trace
from tersor.surgery.apply import apply
from tersor.surgery.verify import heal, verify
from tests.graph.difficult import DIFFICULT
from tests.surgery.cutting import random_plan


@pytest.mark.parametrize("name", DIFFICULT)
def test_half_of_every_group_goes_and_the_rest_is_exact(name):
    torch.manual_seed(3)
    factory, inputs, fewest = DIFFICULT[name]
    model, given = factory().eval(), inputs()
    graph = trace(model, given)
    prunable = [group for group in graph.groups if group.prunable]
    assert len(prunable) >= fewest
    assert all(prove(group, model, given) < 1e-10 for group in prunable)
    plan = random_plan(graph, 0.5)
    verdict = verify(model, plan, graph, given)
    assert verdict.ok, verdict
    assert verdict.error < 1e-10 or verdict.tolerance > 1e-6


@pytest.mark.parametrize("name", ["literal view", "a spectrum over channels", "a scripted part"])
def test_what_cannot_be_followed_is_left_alone_with_the_reason(name):
    factory, inputs, _ = DIFFICULT[name]
    graph = trace(factory().eval(), inputs())
    assert all(group.reason for group in graph.groups)


def test_operations_without_a_rule_are_named():
    factory, inputs, _ = DIFFICULT["a spectrum over channels"]
    graph = trace(factory(), inputs())
    assert graph.opaque == {"_fft_c2c": 1}
    assert any("_fft_c2c" in group.reason for group in graph.groups)


def test_healing_leaves_out_what_is_wrong_and_keeps_the_rest():
    class Counted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            return self.c(self.b(self.a(x).relu()) / len(self.b.weight))

    model, given = Counted(), (torch.randn(3, 8),)
    graph = trace(model, given)
    healed = heal(model, random_plan(graph, 0.5), graph, given)
    assert healed.verdict.ok
    assert [edit.group for edit in healed.left_out] == ["b"]
    smaller = apply(model, healed.plan, graph).model
    assert smaller.a.out_features == 4
    assert smaller.b.out_features == 8

"""Costs, against counting by hand and against really smaller networks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tersor.analysis.costs import mac_cost, parameter_cost
from tersor.analysis.facts import facts, site_macs
from tersor.graph.trace import trace
from tests.analysis.networks import Attention, Residual


def image(samples=2):
    return (torch.zeros(samples, 3, 8, 8),)


RESIDUAL = trace(Residual(), image())
ATTENTION = trace(Attention(), (torch.zeros(2, 4, 8),))


def test_multiply_adds_are_counted_by_hand():
    found = facts(Residual(), image()).by_site()
    assert found["stem"] == 64 * 3 * 6 * 9
    assert found["conv1"] == 16 * 6 * 5 * 9
    assert found["short"] == 16 * 6 * 6
    assert found["fc"] == 6 * 4


def test_attention_counts_its_parameterless_products():
    tokens, width, inner = 4, 8, 6
    counted = facts(Attention(), (torch.zeros(2, tokens, width),))
    assert counted.macs == tokens * width * inner * 4 + 2 * tokens * tokens * inner


def test_fused_attention_and_recurrent_layers_count_the_same_as_their_parts():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(2, 4, 8)
    assert facts(layer, (x, x, x)).macs == 4 * 8 * 8 * 4 + 2 * 4 * 4 * 8
    assert facts(nn.LSTM(3, 4, batch_first=True), (torch.zeros(2, 5, 3),)).macs == 5 * 16 * (3 + 4)


def test_bytes_are_operands_and_results_once():
    counted = facts(nn.Linear(3, 4), (torch.zeros(2, 3),))
    assert counted.bytes == (2 * 3 + 3 * 4 + 4 + 2 * 4) * 4 // 2
    assert counted.parameter_bytes == 16 * 4


def test_costs_do_not_depend_on_the_batch_and_the_model_keeps_its_modes():
    model = Residual()
    model.norm.eval()
    before = [module.training for module in model.modules()]
    assert facts(model, image(1)).macs == facts(model, image(4)).macs
    assert [module.training for module in model.modules()] == before
    assert model.norm.num_batches_tracked == 0


def test_tied_parameters_count_once():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    counted = facts(model, (torch.zeros(1, 3),))
    assert (counted.parameters, counted.macs) == (9, 18)
    assert site_macs(counted) == {"0.weight": 18}


class Widths(nn.Module):
    """`Residual` with every width free: what a cut network is."""

    def __init__(self, stem, hidden, out):
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(stem)
        self.conv1 = nn.Conv2d(stem, hidden, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(hidden, out, 3, padding=1)
        self.short = nn.Conv2d(stem, out, 1, stride=2, bias=False)
        self.fc = nn.Linear(out, 4)

    forward = Residual.forward


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 6))
def test_the_cost_of_kept_counts_is_the_cost_of_the_smaller_network(stem, hidden, out):
    small = facts(Widths(stem, hidden, out), image())
    kept = {"stem": stem, "conv1": hidden, "conv2": out}
    assert round(parameter_cost(RESIDUAL)(kept)) == small.parameters
    assert round(mac_cost(RESIDUAL)(kept)) == small.macs


def test_attention_costs_what_the_graph_says_of_the_cut_network():
    heads, features = (
        next(g for g in ATTENTION.groups if g.kind == kind) for kind in ("heads", "head features")
    )
    kept, counts = {heads.name: (1,), features.name: (0, 2)}, {heads.name: 1, features.name: 2}
    assert round(mac_cost(ATTENTION)(counts)) == ATTENTION.macs(kept) < ATTENTION.macs()
    assert round(parameter_cost(ATTENTION)(counts)) == ATTENTION.parameters(kept) < ATTENTION.parameters()


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(3, 6), nn.Linear(10, 2)

    def forward(self, x):
        return self.out(torch.relu(torch.cat([self.a(x), self.b(x)], 1)))


def test_segments_of_an_axis_add():
    graph = trace(Concatenated(), (torch.zeros(1, 3),))
    assert round(parameter_cost(graph)({"a": 1, "b": 2})) == (3 + 1) * 3 + 3 * 2 + 2
    assert round(mac_cost(graph)({"a": 1, "b": 2})) == 3 * 3 + 3 * 2


def test_facts_and_graph_count_the_same_multiply_adds():
    assert facts(Residual(), image()).macs == RESIDUAL.macs()
    assert facts(Attention(), (torch.zeros(2, 4, 8),)).macs == ATTENTION.macs()

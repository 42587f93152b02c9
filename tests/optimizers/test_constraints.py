"""Zeros that stay, and proximal steps that are the minimisers they claim to be."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor._check import fraction, not_negative, positive
from tersor.errors import ArgumentError
from tersor.optimizers.constraints import L1, GroupLasso, penalize
from tersor.optimizers.registry import RANGES, RECIPES, make_optimizer, make_recipe
from tersor.surgery.hold import Holder


@pytest.mark.parametrize("name", RECIPES)
def test_masked_entries_stay_zero_under_every_optimizer(name):
    layer = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 24).view(4, 6))
    mask = torch.arange(24).view(4, 6) % 3 > 0
    optimizer = make_optimizer(name, layer.parameters(), lr=0.1)
    Holder(layer, {"weight": mask}).attach(optimizer)
    kept = layer.weight[mask].clone()
    for seed in range(5):
        layer.weight.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        optimizer.step()
        assert (layer.weight[~mask] == 0).all()
    assert name == "prodigy" or (layer.weight[mask] != kept).all()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_refuses_every_value_outside_its_range(name):
    wrong = {positive: 0.0, fraction: 1.0, not_negative: -0.1}
    known = [field.name for field in fields(RECIPES[name]) if field.name in RANGES]
    assert {"lr", "weight_decay"} <= set(known)
    for option in known:
        with pytest.raises(ArgumentError, match=f"`{option}`"):
            make_recipe(name, **{"lr": 0.1, option: wrong[RANGES[option]]})


def value(penalty, members):
    if isinstance(penalty, L1):
        return penalty.strength * sum(t.abs().sum() for t, _ in members)
    squares = sum(t.movedim(axis, 0).reshape(t.shape[axis], -1).square().sum(1) for t, axis in members)
    return penalty.strength * squares.sqrt().sum()


@given(st.integers(0, 10**6), st.floats(0.01, 2.0), st.floats(0.01, 1.0), st.sampled_from([L1, GroupLasso]))
def test_a_proximal_step_minimises_penalty_plus_distance(seed, strength, lr, kind):
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    start = [(random(4, 3), 0), (random(2, 4), 1)]
    end = [(t.clone(), axis) for t, axis in start]
    kind(strength).shrink(end, lr)

    def cost(members):
        distance = sum((t - s).square().sum() for (t, _), (s, _) in zip(members, start, strict=True))
        return float(value(kind(strength), members) + distance / (2 * lr))

    for _ in range(10):
        nearby = [(t + 1e-3 * random(*t.shape), axis) for t, axis in end]
        assert cost(end) <= cost(nearby) + 1e-12


def test_a_unit_becomes_zero_in_every_member_at_once():
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    with torch.no_grad():
        first.weight[1], first.bias[1], second.weight[:, 1] = 1e-3, 1e-3, 1e-3
    members = [(first.weight, 0), (first.bias, 0), (second.weight, 1)]
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    penalize(optimizer, GroupLasso(0.5), [members])
    for p in (*first.parameters(), *second.parameters()):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert (first.weight[1] == 0).all()
    assert first.bias[1] == 0
    assert (second.weight[:, 1] == 0).all()
    assert (first.weight[0] != 0).all()


def test_a_tensor_that_is_not_trained_is_refused():
    with pytest.raises(ArgumentError, match="not among the optimizer's"):
        penalize(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), L1(1.0), [[(torch.ones(1), 0)]])

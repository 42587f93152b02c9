"""Zeros that stay, and proximal steps that are the minimisers they claim to be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.errors import ArgumentError
from tersor.optimizers.constraints import L1, GroupLasso, keep_zeros, penalize
from tersor.optimizers.registry import RECIPES, make_optimizer


@pytest.mark.parametrize("name", RECIPES)
def test_masked_entries_stay_zero_under_every_optimizer(name):
    w = nn.Parameter(torch.linspace(-1, 1, 24).view(4, 6))
    mask = (torch.arange(24).view(4, 6) % 3 > 0).float()
    optimizer = make_optimizer(name, [w], lr=0.1)
    end = keep_zeros(optimizer, [(w, mask)])
    for seed in range(5):
        w.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        optimizer.step()
        assert (w[mask == 0] == 0).all()
    end()
    w.grad = torch.ones(4, 6)
    optimizer.step()
    assert name == "adafactor" or (w[mask == 0] != 0).any()


def test_a_mask_of_another_shape_is_refused():
    w = nn.Parameter(torch.ones(2))
    with pytest.raises(ArgumentError, match="A mask has shape"):
        keep_zeros(torch.optim.SGD([w], lr=0.1), [(w, torch.ones(3))])


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

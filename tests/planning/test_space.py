"""Designs of a network: what they leave, what they harm, and how a design within a budget is found."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tersor.graph.trace import trace
from tersor.planning.allocate import relaxed_harm
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.compose import compose
from tersor.planning.plan import Cut, Drop, Factorize, Plan
from tersor.planning.space import (
    CUT,
    DROP,
    RANK,
    Budget,
    Space,
    Unit,
    gap,
    levels_of,
    polish,
    settle,
    walk,
    weights_by,
)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


@pytest.fixture(scope="module")
def layers():
    net = nn.Sequential(nn.Linear(8, 16), Block(), Block(), nn.Linear(16, 4))
    return anatomy(trace(net, (torch.randn(2, 8),)))


UNITS = (
    Unit(CUT, "1.up", (32, 16, 8), (0.0, 1.0, 3.0), (("1.up", 1),)),
    Unit(RANK, "2.up", (0, 8, 4), (0.0, 0.5, 2.0)),
    Unit(DROP, "1", (1, 0), (0.0, 5.0)),
    Unit(DROP, "2", (1, 0), (0.0, 4.0)),
)


@pytest.fixture(scope="module")
def space(layers):
    return Space(layers, UNITS)


def test_a_design_says_what_is_left_of_each_unit(space):
    assert space.left((1, 2, 0, 0)) == Left({"1.up": 16}, {"2.up": 4}, frozenset())
    assert space.left((0, 0, 0, 1)).dropped == {"2"}


def test_groups_that_are_cut_together_keep_their_proportion(layers):
    tied = Space(layers, (Unit(CUT, "1.up", (16, 8), (0.0, 1.0), (("1.up", 2), ("2.up", 1))),))
    assert tied.left((1,)).kept == {"1.up": 16, "2.up": 8}


def test_a_dropped_block_hides_what_was_done_inside_it(space):
    assert space.effective((2, 0, 1, 0)) == (0, 0, 1, 0)
    assert space.harm((2, 0, 1, 0)) == 5.0
    assert space.harm((2, 0, 0, 1)) == 7.0


def macs(space):
    return lambda design: space.anatomy.macs(space.left(space.effective(design)))


def every_design(space):
    return itertools.product(*(range(len(unit.levels)) for unit in space.units))


@pytest.mark.parametrize("share", [0.8, 0.6, 0.4, 0.2])
def test_the_way_down_reaches_the_target_and_ends_near_the_best_design(space, share):
    price = macs(space)
    floor, whole = price(space.least), price(space.origin)
    target = floor + share * (whole - floor)
    point = polish(space, price, walk(space, price, target), target)
    assert point.cost == price(point.design) <= target
    assert point.harm == space.harm(point.design)
    best = min(space.harm(d) for d in every_design(space) if price(d) <= target)
    assert best <= point.harm <= 1.6 * best


def test_an_unreachable_target_ends_at_the_least_design(space):
    point = walk(space, macs(space), 0.0)
    assert point.cost == pytest.approx(macs(space)(space.least))


tables = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3), min_size=1, max_size=4
)


@settings(deadline=None)
@given(tables, st.integers(0, 100).map(lambda percent: percent / 100))
def test_with_costs_that_add_up_the_way_down_stays_on_the_front(tables, share):
    """Costs fall and harms rise by the drawn amounts; no coupling between units."""
    costs = [[sum(c for c, _ in row[i:]) for i in range(len(row) + 1)] for row in tables]
    units = tuple(
        Unit(
            CUT,
            f"u{i}",
            tuple(range(len(row), -1, -1)),
            tuple(sum(h for _, h in row[:k]) for k in range(len(row) + 1)),
        )
        for i, row in enumerate(tables)
    )
    space = Space(anatomy(trace(nn.Linear(2, 2), (torch.zeros(1, 2),))), units)
    price = lambda design: float(sum(column[place] for column, place in zip(costs, design, strict=True)))
    target = share * price(space.origin)
    point = walk(space, price, target)
    assert point.cost <= target
    menus = space.menus(space.origin, price)
    assert point.harm == pytest.approx(relaxed_harm(menus, point.cost - price(space.origin)))
    better = polish(space, price, point, target)
    best = min(space.harm(d) for d in every_design(space) if price(d) <= target)
    assert best == pytest.approx(better.harm)
    assert point.harm * (1 - gap(space, price, point)) <= point.harm


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_two_budgets_are_kept_at_once_near_the_least_harm(space, share):
    rows = lambda design: space.anatomy.bytes(space.left(space.effective(design)), "float")
    budgets = [Budget(price, share * price(space.origin)) for price in (macs(space), rows)]
    budgets[1] = Budget(rows, 0.8 * budgets[1].most)
    point = settle(space, budgets)
    assert all(budget.holds(point.design) for budget in budgets)
    best = min(space.harm(d) for d in every_design(space) if all(budget.holds(d) for budget in budgets))
    assert best <= point.harm <= 1.6 * best


def test_weights_change_which_kind_goes_first(space):
    price = macs(space)
    target = 0.75 * price(space.origin)
    kinds = lambda point: {u.kind for u, place in zip(space.units, point.design, strict=True) if place}
    no_drops = space.weighed(weights_by({DROP: 1e6}))
    only_drops = space.weighed(weights_by({CUT: 1e6, RANK: 1e6}))
    assert kinds(walk(no_drops, price, target)) <= {CUT, RANK}
    assert kinds(walk(only_drops, price, target)) == {DROP}


@given(st.integers(1, 4096))
def test_levels_fall_from_all_to_a_tenth_and_are_few(size):
    levels = levels_of(size)
    assert levels[0] == size
    assert list(levels) == sorted(set(levels), reverse=True)
    assert levels[-1] >= 1
    assert len(levels) <= 16


def test_plans_of_factorized_layers_compose():
    first = Plan((Factorize("fc", 4),))
    joined = compose(first, Plan((Cut("fc.1", (0, 2)), Drop("block"))))
    assert joined.edits == (Factorize("fc", 4), Cut("fc", (0, 2)), Drop("block"))


def test_a_dropped_block_takes_its_factors_with_it():
    joined = compose(Plan((Factorize("block.up", 4), Factorize("blocks", 2))), Plan((Drop("block"),)))
    assert joined.edits == (Factorize("blocks", 2), Drop("block"))

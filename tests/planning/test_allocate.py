"""The knapsack against brute force."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.errors import ArgumentError, PlanError
from tersor.planning.allocate import allocate, allocate_within, relaxed_harm, sweep
from tersor.planning.options import Menu, Option, hull, undominated

counts = st.integers(0, 12).map(float)


def options_of(costs):
    return st.lists(
        st.builds(
            lambda c, h: (tuple(c), float(h)), st.lists(counts, min_size=costs, max_size=costs), counts
        ),
        min_size=1,
        max_size=5,
    ).map(lambda rows: tuple(Option(level, cost, harm) for level, (cost, harm) in enumerate(rows)))


def menus_of(costs):
    return st.lists(options_of(costs), min_size=1, max_size=5).map(
        lambda found: [Menu(f"unit{i}", options) for i, options in enumerate(found)]
    )


def brute_force(menus, budgets):
    """Least harm over every choice; None where no choice keeps the budgets."""
    harms = [
        sum(option.harm for option in choice)
        for choice in itertools.product(*(menu.options for menu in menus))
        if all(sum(o.cost[k] for o in choice) <= budget for k, budget in enumerate(budgets))
    ]
    return min(harms, default=None)


def checked(menus, allocation, budgets):
    """The sums that an allocation claims, added up again."""
    chosen = [next(o for o in menu.options if o.level == allocation.levels[menu.unit]) for menu in menus]
    assert sum(o.harm for o in chosen) == pytest.approx(allocation.harm)
    for k, budget in enumerate(budgets):
        assert sum(o.cost[k] for o in chosen) == pytest.approx(allocation.cost[k])
        assert allocation.cost[k] <= budget + 1e-9


@settings(deadline=None)
@given(menus_of(1), st.integers(0, 60))
def test_the_dynamic_programme_is_exact_on_whole_numbers(menus, budget):
    best = brute_force(menus, (budget,))
    if best is None:
        with pytest.raises(PlanError, match="least possible cost"):
            allocate(menus, budget)
        return
    least = sum(min(option.cost[0] for option in menu.options) for menu in menus)
    found = allocate(menus, float(budget), buckets=max(1, int(budget - least)))
    checked(menus, found, (budget,))
    assert found.harm == pytest.approx(best)
    assert found.bound <= best + 1e-9


@settings(deadline=None)
@given(menus_of(1), st.floats(0, 60))
def test_with_coarse_buckets_the_budget_still_holds_and_the_gap_covers_the_best(menus, budget):
    best = brute_force(menus, (budget,))
    if best is None:
        return
    found = allocate(menus, budget, buckets=7)
    checked(menus, found, (budget,))
    assert found.bound <= best + 1e-9 <= found.harm + 2e-9
    assert found.harm <= found.bound * (1 + found.gap) + 1e-9 or found.bound == 0


@settings(deadline=None, max_examples=40)
@given(menus_of(2), st.integers(0, 60), st.integers(0, 60))
def test_several_budgets_are_kept_at_once_with_the_least_harm(menus, first, second):
    best = brute_force(menus, (first, second))
    if best is None:
        with pytest.raises(PlanError, match="keeps all budgets"):
            allocate_within(menus, (first, second))
        return
    found = allocate_within(menus, (first, second))
    checked(menus, found, (first, second))
    assert found.harm == pytest.approx(best, abs=1e-6)
    assert found.gap <= 1e-6


@given(menus_of(1))
def test_every_point_of_the_front_is_the_best_at_its_cost(menus):
    points = sweep(menus)
    for point in points:
        checked(menus, point, (point.cost[0],))
        assert point.harm == pytest.approx(brute_force(menus, (point.cost[0],)))
    assert [p.cost[0] for p in points] == sorted((p.cost[0] for p in points), reverse=True)
    assert points[-1].cost[0] == sum(min(o.cost[0] for o in menu.options) for menu in menus)


@given(menus_of(1), st.floats(0, 60))
def test_the_relaxation_bounds_every_choice(menus, budget):
    best = brute_force(menus, (budget,))
    if best is not None:
        assert relaxed_harm(menus, budget) <= best + 1e-9


@given(options_of(2))
def test_no_option_left_is_beaten_and_every_one_gone_is(options):
    left = undominated(Menu("unit", options)).options
    beats = lambda a, b: all(x <= y for x, y in zip((a.harm, *a.cost), (b.harm, *b.cost), strict=True))
    assert not any(beats(a, b) for a in left for b in left if a is not b)
    assert all(any(beats(a, b) for a in left) for b in options)


@given(options_of(1))
def test_along_the_hull_harm_per_saving_rises(options):
    path = [options[index] for index in hull(options)]
    slopes = [(b.harm - a.harm) / (a.cost[0] - b.cost[0]) for a, b in itertools.pairwise(path)]
    assert all(s > 0 for s in slopes)
    assert slopes == sorted(slopes)
    assert path[0].harm == min(o.harm for o in options)
    assert path[-1].cost[0] == min(o.cost[0] for o in options)


def test_an_empty_menu_is_refused():
    with pytest.raises(ArgumentError, match="empty"):
        Menu("conv", ())

"""Where the descent goes next."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.ladder import Ladder

ORIGIN = Candidate("original", Plan())


def test_steps_go_down_while_they_hold():
    ladder = Ladder((0.6, 0.3, 0.1), ORIGIN)
    for share in (0.6, 0.3, 0.1):
        assert ladder.next_share() == share
        ladder = ladder.after(ORIGIN, 2.0, counted=True)
    assert (ladder.held, ladder.next_share()) == (0.1, None)


def test_a_miss_is_followed_by_the_share_between_from_the_network_that_held():
    held = Candidate("prune 40%", Plan())
    ladder = Ladder((0.6, 0.2), ORIGIN).after(held, 2.0, counted=True)
    ladder = ladder.after(Candidate("prune 80%", Plan()), -5.0, counted=True)
    assert ladder.parent is held
    assert 0.2 < ladder.next_share() < 0.6


def test_without_a_budget_refinements_end():
    ladder = Ladder((0.5,), ORIGIN).after(ORIGIN, -1.0, counted=True)
    ladder = ladder.after(ORIGIN, -1.0, counted=True)
    assert ladder.next_share() is None


@given(st.lists(st.floats(-3, 3), min_size=40, max_size=40))
def test_the_descent_ends_whatever_happens(safeties):
    ladder, steps = Ladder((0.6, 0.36, 0.22, 0.13), ORIGIN), 0
    for safe in safeties:
        if ladder.next_share() is None:
            break
        ladder = ladder.after(ORIGIN, safe, counted=True)
        steps += 1
    assert ladder.next_share() is None
    assert steps <= 5


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_a_step_never_takes_more_than_the_time_left_and_later_ones_take_more_of_it(outcomes):
    ladder, left, spent = Ladder((0.6, 0.36, 0.22), ORIGIN, open_end=True), 1.0, []
    for held in outcomes:
        if ladder.next_share() is None:
            break
        spent.append(ladder.part * left)
        left -= spent[-1]
        ladder = ladder.after(ORIGIN, 1.0 if held else -1.0, counted=False)
    assert left >= 0
    assert all(one < other for one, other in pairwise(spent[:3]) if all(outcomes[:3]))


def test_bolder_shares_follow_the_planned_ones_until_nothing_is_left():
    ladder, shares = Ladder((0.5, 0.1), ORIGIN, open_end=True), []
    while (share := ladder.next_share()) is not None:
        shares.append(share)
        ladder = ladder.after(ORIGIN, 2.0, counted=False)
    assert shares == [0.5, 0.1, 0.04, 0.016]


def test_the_network_that_missed_is_remembered_with_what_held():
    made = Candidate("joint 80%", Plan(), model=nn.Identity())
    ladder = Ladder((0.6, 0.2), ORIGIN).after(ORIGIN, 2.0, counted=False)
    ladder = ladder.after(made, -1.0, counted=False)
    assert (ladder.missing, ladder.parent, ladder.missed) == (made, ORIGIN, 0.2)


def test_where_time_is_short_a_step_that_ended_near_the_limit_is_the_last():
    planned = Ladder((0.5, 0.4), ORIGIN, open_end=True, frugal=True)
    held = planned.after(ORIGIN, 2.5, counted=False)
    assert held.next_share() == 0.4
    assert held.after(ORIGIN, 0.5, counted=False).next_share() is None
    assert held.after(ORIGIN, -0.5, counted=False).next_share() is None
    assert held.after(ORIGIN, 2.5, counted=False).next_share() == 0.16
    assert held.after(ORIGIN, -2.5, counted=False).next_share() == 0.447

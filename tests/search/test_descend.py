"""Where the descent goes next."""

from hypothesis import given
from hypothesis import strategies as st

from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.descend import Ladder

ORIGIN = Candidate("original", Plan())


def test_steps_go_down_while_they_hold():
    ladder = Ladder((0.6, 0.3, 0.1), ORIGIN)
    ladder = ladder.after(ORIGIN, 0.55, 2.0, counted=True)
    assert ladder.next_share() == 0.3
    ladder = ladder.after(ORIGIN, 0.08, 2.0, counted=True)
    assert ladder.next_share() is None


def test_a_miss_is_followed_by_the_share_between_from_the_network_that_held():
    held = Candidate("prune 40%", Plan())
    ladder = Ladder((0.6, 0.2), ORIGIN).after(held, 0.6, 2.0, counted=True)
    ladder = ladder.after(Candidate("prune 80%", Plan()), 0.2, -5.0, counted=True)
    assert ladder.parent is held
    assert 0.2 < ladder.next_share() < 0.6


def test_without_a_budget_refinements_end():
    ladder = Ladder((0.5,), ORIGIN).after(ORIGIN, 0.5, -1.0, counted=True)
    ladder = ladder.after(ORIGIN, 0.7, -1.0, counted=True)
    assert ladder.next_share() is None


@given(st.lists(st.floats(-3, 3), min_size=40, max_size=40), st.floats(0.8, 1.3))
def test_the_descent_ends_whatever_happens(safeties, overshoot):
    ladder, steps = Ladder((0.6, 0.36, 0.22, 0.13), ORIGIN), 0
    for safe in safeties:
        share = ladder.next_share()
        if share is None:
            break
        ladder = ladder.after(ORIGIN, share * overshoot, safe, counted=True)
        steps += 1
    assert ladder.next_share() is None
    assert steps <= 8

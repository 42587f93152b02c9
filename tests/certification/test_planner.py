"""The planner: its formula, its inverse, and that the exact test really has the promised power."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tersor.certification.evidence.power import exact_power
from tersor.certification.planner import outlook, samples_needed, smallest_margin
from tersor.errors import ArgumentError


@pytest.mark.parametrize(
    ("margin", "q", "drop", "expected"),
    [
        (0.01, 0.03, 0.0, 1855),
        (0.01, 0.03, 0.002, 2899),
        (0.01, 0.05, 0.003, 6309),
        (0.005, 0.03, 0.002, 20_609),
    ],
)
def test_published_sizes_are_met(margin, q, drop, expected):
    assert samples_needed(margin, q, drop=drop, alpha=0.05) == pytest.approx(expected, abs=1)


@given(n=st.integers(50, 100_000), q=st.floats(0.0, 0.5), share=st.floats(0, 0.9))
def test_the_smallest_margin_is_what_the_samples_suffice_for(n, q, share):
    margin = smallest_margin(n, q, drop=share * q)
    assume(margin < 1)
    assert samples_needed(margin * (1 + 1e-9), q, drop=share * q) <= n
    if margin * 0.99 > share * q:
        assert samples_needed(margin * 0.99, q, drop=share * q) >= n


@pytest.mark.parametrize(
    ("margin", "q", "drop"), [(0.02, 0.03, 0.0), (0.01, 0.04, 0.002), (0.01, 0.03, 0.003)]
)
def test_the_exact_test_has_about_the_planned_power(margin, q, drop):
    n = samples_needed(margin, q, drop=drop, alpha=0.05)
    assert exact_power(n, q, margin, drop=drop, alpha=0.05) == pytest.approx(0.8, abs=0.06)


def test_without_any_difference_a_margin_still_needs_samples():
    assert samples_needed(0.01, 0.0, alpha=0.05) == 299


def test_a_drop_beyond_the_margin_can_never_be_shown():
    with pytest.raises(ArgumentError, match=r"above 0\.02"):
        samples_needed(0.01, 0.05, drop=0.02)
    plan = outlook(1000, 0.01, 0.05, drop=0.02)
    assert plan.needed is None
    assert not plan.enough
    assert "No number of samples" in plan.words()


def test_enough_samples_are_said_to_be_enough():
    plan = outlook(10_000, 0.02, 0.03)
    assert plan.enough
    assert "can be tested" in plan.words()


def test_betting_needs_more():
    assert samples_needed(0.01, 0.03, betting=True) > 1.5 * samples_needed(0.01, 0.03)


@pytest.mark.parametrize("wrong", [{"q": 1.2}, {"q": 0.1, "alpha": 0.0}, {"q": 0.1, "power": 80}])
def test_rates_that_are_no_probabilities_are_refused(wrong):
    with pytest.raises(ArgumentError, match="must be a probability"):
        samples_needed(0.01, **wrong)

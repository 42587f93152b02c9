"""The exact test against enumeration that shares no code with it."""

import math
import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.certification.evidence.exact import ExactScore, exact_p
from tersor.certification.evidence.outcomes import Pairs
from tersor.certification.evidence.power import exact_power, rejection_region
from tersor.certification.evidence.region import Region
from tersor.certification.evidence.score import largest_b, score
from tersor.certification.evidence.tango import Tango
from tersor.errors import ArgumentError, DataError


def naive_score(b: int, c: int, n: int, margin: float) -> float:
    """Tango's score with the constrained maximum likelihood found by ternary search, not by the closed form."""

    def log_likelihood(p01: float) -> float:
        cells = ((b, p01 + margin), (c, p01), (n - b - c, 1 - 2 * p01 - margin))
        return sum(k * math.log(p) if p > 0 else (0.0 if k == 0 else -math.inf) for k, p in cells)

    low, high = 0.0, (1 - margin) / 2
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (left, high) if log_likelihood(left) < log_likelihood(right) else (low, right)
    spread = math.sqrt(max(n * (2 * low + margin - margin**2), 0.0))
    return (b - c - n * margin) / spread if spread > 1e-7 else 0.0


def naive_p(b: int, c: int, n: int, margin: float, rates: int = 1500) -> float:
    """Largest multinomial probability of all tables at most as extreme, by adding them one by one."""
    q = margin + (1 - margin) * np.sin(np.linspace(1e-9, math.pi / 2 - 1e-9, rates)) ** 2
    logs = [np.log(np.maximum(x, 1e-300)) for x in ((q + margin) / 2, (q - margin) / 2, 1 - q)]
    observed, total = float(score(b, c, n, margin)), np.zeros(rates)
    for x, y in product(range(n + 1), repeat=2):
        if x + y <= n and float(score(x, y, n, margin)) <= observed + 1e-9:
            ways = math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(y + 1) - math.lgamma(n - x - y + 1)
            total += np.exp(ways + x * logs[0] + y * logs[1] + (n - x - y) * logs[2])
    return float(total.max())


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_score_uses_the_maximum_likelihood_under_the_margin(data):
    n = data.draw(st.integers(1, 400))
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    margin = data.draw(st.sampled_from([0.001, 0.01, 0.05, 0.3]))
    assert float(score(b, c, n, margin)) == pytest.approx(naive_score(b, c, n, margin), abs=2e-3, rel=2e-3)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 25, 40])
@pytest.mark.parametrize("margin", [0.0, 0.01, 0.1, 0.4])
def test_p_values_equal_the_enumeration_of_all_tables(n, margin):
    rng = np.random.default_rng(n)
    tables = {
        (0, 0),
        (n, 0),
        (0, n),
        (n // 2, n - n // 2),
        *(tuple(rng.multinomial(n, [0.2, 0.2, 0.6])[:2]) for _ in range(3)),
    }
    for b, c in tables:
        expected = naive_p(int(b), int(c), n, margin)
        assert expected - 1e-7 <= exact_p(int(b), int(c), n, margin) <= min(expected + 2e-5, 1.0) + 1e-7


@pytest.mark.parametrize("n", [1, 2, 7, 30, 60, 150, 300])
@pytest.mark.parametrize("margin", [0.001, 0.01, 0.05, 0.2])
def test_the_score_grows_with_b_and_falls_with_c_on_every_table(n, margin):
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    z = np.where(b + c <= n, score(b, c, n, margin), np.nan)
    along_b, along_c = np.diff(z, axis=0), np.diff(z, axis=1)
    assert np.nanmin(along_b) > 0
    assert np.nanmax(along_c) < 0


def test_p_values_are_monotone_in_both_counts():
    n, margin = 50, 0.05
    p = {(b, c): exact_p(b, c, n, margin) for b in range(20) for c in range(20)}
    assert all(p[b, c] <= p[b + 1, c] + 1e-12 for b in range(19) for c in range(20))
    assert all(p[b, c + 1] <= p[b, c] + 1e-12 for b in range(20) for c in range(19))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_p_values_are_monotone_in_counts_and_margin_anywhere(data):
    n = data.draw(st.integers(1, 300))
    b = data.draw(st.integers(0, n - 1))
    c = data.draw(st.integers(0, n - 1 - b))
    margin = data.draw(st.floats(0.001, 0.3))
    p = exact_p(b, c, n, margin)
    assert p <= exact_p(b + 1, c, n, margin) + 1e-9
    assert exact_p(b, c + 1, n, margin) <= p + 1e-9


@pytest.mark.parametrize("n", [20, 100, 500, 2000])
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.05])
def test_the_exact_size_is_at_most_alpha_for_every_disagreement(n, margin):
    """Enumerated with scipy's distributions, not with the recurrence that the test uses."""
    from scipy.stats import binom

    limits = rejection_region(n, margin, 0.05).limits
    m = np.arange(n + 1)
    rates = [margin, *(margin + np.geomspace(1e-4, 0.9 - margin, 25))]
    sizes = []
    for q in rates:
        below = np.where(limits >= 0, binom.cdf(limits, m, min((1 + margin / q) / 2, 1.0)), 0.0)
        sizes.append(float((binom.pmf(m, n, q) * below).sum()))
    assert max(sizes) <= 0.05
    assert n < 500 or max(sizes) > 0.03  # and the level is used, not wasted


def test_a_larger_true_drop_is_certified_even_less_often():
    region = rejection_region(400, 0.02, 0.05)
    rates = np.linspace(0.06, 0.9, 40)
    size = region.probability(rates, 0.02)
    assert all((region.probability(rates, drop) <= size + 1e-9).all() for drop in (0.025, 0.03, 0.05))


@pytest.mark.parametrize(
    ("b", "c", "n", "margin"), [(230, 180, 10_000, 0.01), (5, 4, 10_000, 0.01), (4000, 3950, 10_000, 0.02)]
)
def test_ten_thousand_samples_take_less_than_a_fifth_of_a_second(b, c, n, margin):
    def seconds() -> float:
        start = time.process_time()
        exact_p(b, c, n, margin)
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.2


@pytest.mark.parametrize(("n", "q", "drop"), [(2000, 0.03, 0.0), (5000, 0.04, 0.003), (10_000, 0.04, 0.003)])
def test_exactness_costs_less_than_a_hundredth_of_power(n, q, drop):
    asymptotic = Region(largest_b(n, 0.01, -1.6448536)).probability(np.array([q]), drop)[0]
    assert exact_power(n, q, 0.01, drop=drop) >= asymptotic - 0.01


def test_the_asymptotic_test_exceeds_its_level_where_the_exact_one_does_not():
    size = Region(largest_b(500, 0.01, -1.6448536)).largest_probability(0.01)
    assert size > 0.052
    assert rejection_region(500, 0.01, 0.05).largest_probability(0.01) <= 0.05


def test_region_probabilities_equal_sums_of_binomials():
    from scipy.stats import binom

    n, drop = 300, 0.03
    limits = largest_b(n, 0.03, -1.0)
    m = np.arange(n + 1)
    for q in (0.03, 0.031, 0.1, 0.5, 0.97, 1.0):
        direct = np.where(limits >= 0, binom.cdf(limits, m, (1 + drop / q) / 2), 0.0) @ binom.pmf(m, n, q)
        assert Region(limits).probability(np.array([q]), drop)[0] == pytest.approx(direct, abs=1e-10)


def test_tiny_p_values_keep_their_size():
    assert exact_p(0, 300, 1000, 0.05) < 1e-60


def test_exact_and_asymptotic_agree_on_many_samples():
    base = np.repeat([1.0, 0.0], [9200, 800])
    candidate = base.copy()
    candidate[:230], candidate[-180:] = 0.0, 1.0
    pairs = Pairs(base, candidate)
    exact, tango = ExactScore()(pairs, 0.01), Tango()(pairs, 0.01)
    assert (exact.b, exact.c, exact.n, exact.estimate) == (230, 180, 10_000, pytest.approx(0.005))
    assert exact.p == pytest.approx(tango.p, rel=0.05)


def test_impossible_counts_are_refused():
    with pytest.raises(ArgumentError, match=r"b \+ c <= n"):
        exact_p(6, 5, 10, 0.01)
    with pytest.raises(ArgumentError, match=r"fraction in \[0, 1\), got 1"):
        exact_p(1, 1, 10, 1)


def test_scores_that_are_not_right_or_wrong_are_refused():
    with pytest.raises(DataError, match="0 or 1"):
        ExactScore()(Pairs([0.5], [1.0]), 0.01)


@pytest.mark.parametrize("bad", [[1.0, np.nan], [1.0, 2.0], [1.0, -0.1]])
def test_scores_outside_their_bounds_are_named(bad):
    with pytest.raises(DataError, match="1 of 2 candidate scores"):
        Pairs([1.0, 1.0], bad)


def test_pairs_of_different_length_are_refused():
    with pytest.raises(DataError, match="2 scores and the candidate 1"):
        Pairs([1, 1], [1])

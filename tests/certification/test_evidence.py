"""Betting, bootstrap and agreement: their levels by simulation, their formulas against naive references."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tersor.certification.evidence.agreement import Agreement
from tersor.certification.evidence.betting import Betting, Race, race
from tersor.certification.evidence.bootstrap import BCa, resample
from tersor.certification.evidence.bound import upper_bound
from tersor.certification.evidence.exact import ExactScore
from tersor.certification.evidence.outcomes import Pairs, Resampled, from_arrays
from tersor.certification.evidence.registry import TESTS, fitting_test, smallest_p
from tersor.errors import DataError


def naive_wealth(drops, margin, n0=50, v0=0.06):
    """The product of the definition, one sample at a time."""
    wealth, total, squares, count, path = 1.0, 0.0, n0 * v0, n0, []
    for drop in drops:
        mean = total / count
        variance = max(squares / count - mean**2, 1e-4)
        bet = min(max((margin - mean) / (variance + (margin - mean) ** 2), 0.0), 0.5 / (1 - margin))
        wealth *= 1 + bet * (margin - drop)
        total, squares, count = total + drop, squares + drop**2, count + 1
        path.append(wealth)
    return path


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_wealth_is_the_product_of_the_definition(drops, margin):
    assert np.exp(Betting().log_wealth(np.array(drops), margin)) == pytest.approx(
        naive_wealth(drops, margin), rel=1e-9
    )


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.floats(0, 0.5), st.floats(0.1, 50))
@settings(max_examples=40, deadline=None)
def test_wealth_does_not_depend_on_the_unit_of_the_scores(drops, margin, span):
    drops = np.array(drops)
    scaled = Betting().log_wealth(span * drops, span * margin, span=span * (1 + 1e-12))
    assert scaled == pytest.approx(Betting().log_wealth(drops, margin), abs=1e-6)


def test_a_bet_looks_only_at_samples_before_it():
    rng = np.random.default_rng(0)
    drops = rng.uniform(-1, 1, 200)
    changed = drops.copy()
    changed[150:] = -1
    first, second = (Betting().log_wealth(d, 0.1) for d in (drops, changed))
    assert (first[:150] == second[:150]).all()
    assert first[150] - first[149] == pytest.approx(
        math.log1p((math.expm1(second[150] - second[149])) * (0.1 - drops[150]) / 1.1)
    )


def test_looking_at_every_sample_still_errs_at_most_alpha_of_the_time():
    rng = np.random.default_rng(1)
    false = sum(
        Betting().log_wealth(rng.choice([1.0, -1.0, 0.0], p=[0.03, 0.01, 0.96], size=3000), 0.02).max()
        >= math.log(20)
        for _ in range(800)
    )
    assert false / 800 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 800)


def test_the_futility_mirror_errs_at_most_a_tenth_of_the_time():
    rng = np.random.default_rng(2)
    false = sum(
        race(rng.choice([1.0, -1.0, 0.0], p=[0.03, 0.01, 0.96], size=2000), 0.02, alpha=1e-12)[0]
        is Race.FUTILE
        for _ in range(500)
    )
    assert false / 500 <= 0.1 + 3 * math.sqrt(0.09 / 500)


def test_a_race_decides_once_and_stays_decided():
    rng = np.random.default_rng(3)
    good = rng.choice([1.0, -1.0, 0.0], p=[0.01, 0.01, 0.98], size=8000)
    standing, stopped = race(good, 0.01, alpha=0.05)
    assert standing is Race.HOLDS
    assert stopped < 8000
    assert race(good[: stopped - 1], 0.01, alpha=0.05)[0] is Race.OPEN
    assert race(good[:stopped], 0.01, alpha=0.05) == (Race.HOLDS, stopped)
    assert race(np.ones(500), 0.01, alpha=0.05)[0] is Race.FUTILE


def test_drops_beyond_the_span_are_refused():
    with pytest.raises(DataError, match="must lie in"):
        Betting().log_wealth(np.array([1.5]), 0.1)
    with pytest.raises(DataError, match="finite bounds"):
        Betting()(Pairs([0.0], [1.0], -np.inf, np.inf), 0.1)


def test_the_bootstrap_bound_is_that_of_scipy():
    drops = np.random.default_rng(4).gamma(2.0, 0.05, 300) - 0.08
    theirs = stats.bootstrap(
        (drops,), np.mean, confidence_level=0.95, alternative="less", method="BCa", n_resamples=20_000, rng=1
    )
    ours = resample(lambda index: float(drops[index].mean()), 300, draws=20_000)
    upper = float(theirs.confidence_interval.high)
    assert BCa()(ours, upper).p == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4])
def test_p_is_the_level_at_which_the_textbook_limit_equals_the_margin(alpha):
    """The upper limit of Efron and Tibshirani, equations 14.10 to 14.15, on skewed data where bias and bend matter."""
    drops = np.random.default_rng(6).gamma(0.4, 0.2, 25)
    drawn = resample(lambda index: float(drops[index].mean() + drops[index].std()), 25, draws=20_000)
    bias = stats.norm.ppf((drawn.replicates < drawn.estimate).mean())
    spread = drawn.jackknife.mean() - drawn.jackknife
    bend = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    shifted = bias + stats.norm.ppf(1 - alpha)
    limit = np.quantile(drawn.replicates, stats.norm.cdf(bias + shifted / (1 - bend * shifted)))
    assert abs(bias) > 0.1
    assert abs(bend) > 0.05
    assert BCa()(drawn, float(limit)).p == pytest.approx(alpha, rel=0.05)


@pytest.mark.parametrize("spread", [stats.norm(0.02, 0.1), stats.uniform(-0.18, 0.4)])
def test_the_bootstrap_errs_about_alpha_of_the_time(spread):
    rng, n, false = np.random.default_rng(5), 200, 0
    for _ in range(300):
        drops = spread.rvs(n, random_state=rng)
        draws = drops[rng.integers(0, n, (400, n))].mean(axis=1)
        drawn = Resampled(float(drops.mean()), draws, (drops.sum() - drops) / (n - 1), n)
        false += BCa()(drawn, 0.02).p <= 0.05
    assert 0.01 <= false / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300) + 0.01


def test_metrics_that_are_not_numbers_on_some_draws_are_refused():
    with pytest.raises(DataError, match="not a number on"):
        resample(lambda index: float("nan") if 3 in index else 0.0, 10, draws=50)


def test_a_difference_that_never_varies_gives_the_smallest_p():
    drawn = resample(lambda index: 0.0, 20, draws=999)
    assert BCa()(drawn, 0.01).p == 0.001
    assert BCa()(drawn, 0.0).p == 1.0


def test_agreement_is_the_exact_binomial_bound():
    candidate = np.ones(800)
    candidate[:7] = 0
    evidence = Agreement()(Pairs(np.ones(800), candidate), 0.02)
    assert evidence.p == pytest.approx(stats.binomtest(7, 800, 0.02, alternative="less").pvalue)
    assert (evidence.b, evidence.estimate) == (7, 7 / 800)


@pytest.mark.parametrize("name", ["exact score", "betting", "agreement", "tango"])
@given(lost=st.integers(0, 30), won=st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_p_values_are_probabilities_that_grow_with_every_lost_sample(name, lost, won):
    def p(lost):
        base = np.ones(400)
        base[:50] = 0.0
        candidate = base.copy()
        candidate[:won], candidate[400 - lost :] = 1.0, 0.0
        return TESTS[name](Pairs(base if name != "agreement" else np.ones(400), candidate), 0.05).p

    assert 0 < p(lost) <= p(lost + 1) + 1e-9 or name == "betting"
    assert 0 < p(lost) <= 1


@pytest.mark.parametrize("name", ["exact score", "betting", "agreement", "tango"])
def test_agreeing_everywhere_gives_the_smallest_p(name):
    assert smallest_p(TESTS[name], 500, 0.02) < 0.05
    some = np.ones(500)
    some[3] = 0.0
    assert TESTS[name](Pairs(np.ones(500), some), 0.02).p > smallest_p(TESTS[name], 500, 0.02)


def test_the_bound_is_the_smallest_margin_that_is_shown():
    pairs = Pairs(np.ones(500), np.repeat([0.0, 1.0], [6, 494]))
    bound = upper_bound(ExactScore(), pairs, 0.05)
    assert ExactScore()(pairs, bound).p <= 0.05 < ExactScore()(pairs, bound - 1.1e-4).p
    assert upper_bound(ExactScore(), Pairs([1.0] * 3, [0.0] * 3), 0.05) is None


@pytest.mark.parametrize(
    ("outcomes", "labelled", "name"),
    [
        (Pairs([1, 0], [0, 1]), True, "exact score"),
        (Pairs([1, 1], [0, 1]), False, "agreement"),
        (Pairs([0.4, 1], [0, 1]), True, "betting"),
        (Pairs([-3, 1], [0, 1], -5, 5), True, "betting"),
        (Pairs([3, 1], [0, 1], 0, math.inf), True, "bca"),
        (resample(lambda index: 0.0, 3, draws=2), True, "bca"),
    ],
)
def test_the_test_follows_from_the_outcomes(outcomes, labelled, name):
    assert fitting_test(outcomes, labelled=labelled).name == name


@pytest.mark.parametrize(
    "outcomes", [Pairs([1, 0.5], [0, 1], -2, 3), resample(lambda index: float(index.mean()), 9, draws=5)]
)
def test_outcomes_survive_their_arrays(outcomes):
    again = from_arrays(outcomes.arrays())
    assert {k: v.tolist() for k, v in again.arrays().items()} == {
        k: v.tolist() for k, v in outcomes.arrays().items()
    }
    assert len(again) == len(outcomes)

"""Which sequence of finalists is expected to certify most."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tersor.search.sequence import best_sequence, outlook

draws = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=30)


def differences(*lost, samples=1000):
    """Return candidates that lose so many samples each, the same ones first."""
    return np.stack([np.arange(samples) < count for count in lost], axis=1).astype(float)


def certified(chosen, gains, row):
    """Return the gain that a test of `chosen` ends with, by walking through it."""
    answer = 1.0
    for index in chosen:
        if not row[index]:
            break
        answer = gains[index]
    return answer


@given(draws, st.integers(1, 4))
def test_no_other_sequence_is_expected_to_certify_more(rows, most):
    passes, gains = np.array(rows), (2.0, 4.0, 8.0, 16.0)
    mean = lambda chosen: np.mean([np.log2(certified(chosen, gains, row)) for row in passes])
    best = best_sequence(gains, passes, most)
    others = (chosen for count in range(1, most + 1) for chosen in combinations(range(4), count))
    assert len(best) <= most
    # Places in the order count a hundredth of a doubling, so that equal gains are told apart.
    assert mean(best) >= max(map(mean, others)) - 0.02


def test_the_more_was_lost_the_less_often_a_certificate_is_foreseen():
    passes = outlook(differences(0, 5, 15, 40), (0.5,) * 4, samples=2000, margin=0.02)
    rates = passes.mean(axis=0)
    assert list(rates) == sorted(rates, reverse=True)
    assert rates[0] > 0.95
    assert rates[3] < 0.05


def test_few_search_samples_leave_more_open_than_many():
    few = outlook(differences(1, samples=100), (0.9,), samples=2000, margin=0.02).mean()
    many = outlook(differences(10, samples=1000), (0.9,), samples=2000, margin=0.02).mean()
    assert few < many


def test_candidates_that_fail_on_the_same_samples_are_foreseen_to_fail_together():
    passes = outlook(differences(20, 20), (0.5, 0.5), samples=1000, margin=0.02, seed=1)
    assert np.mean(passes[:, 0] == passes[:, 1]) > 0.8


def test_scores_that_are_no_counts_are_foreseen_too():
    noise = np.random.default_rng(0).normal(0, 0.05, (400, 1))
    near, far = outlook(np.hstack([noise, noise + 0.05]), (0.5, 0.5), samples=500, margin=0.04).mean(axis=0)
    assert near > 0.9
    assert far < 0.1


def chance(won, lost, samples):
    rows = np.zeros((samples, 1))
    rows[:won], rows[won : won + lost] = -1, 1
    return outlook(rows, (0.5,), samples=1000, margin=0.01).mean()


def test_wins_on_few_samples_are_taken_for_luck_and_those_on_many_for_skill():
    few, even, many = chance(12, 0, 200), chance(6, 6, 200), chance(120, 0, 2000)
    assert few < 0.97
    assert few - even < 0.5 * (chance(120, 0, 2000) - chance(60, 60, 2000))
    assert many > 0.99


def test_a_candidate_that_differs_nowhere_goes_before_one_that_won():
    rows = np.zeros((250, 2))
    rows[:10, 1], rows[10:12, 1] = -1, 1
    passes = outlook(rows, (0.1, 0.8), samples=647, margin=0.01)
    assert best_sequence((2.0, 3.2), passes, 8) == (0, 1)

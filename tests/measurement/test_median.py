from math import comb, inf

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tersor.measurement.median import median_interval

values = st.lists(st.floats(0.1, 10.0), min_size=6, max_size=60)


@given(values)
def test_the_interval_holds_the_sample_median(sample):
    interval = median_interval(sample)
    assert interval.low <= interval.median <= interval.high
    assert interval.median == np.median(sample)


@given(st.integers(6, 200), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_ranks_are_the_tightest_with_the_stated_coverage(count, confidence):
    interval = median_interval(list(range(1, count + 1)), confidence)
    if interval.high == inf:
        assert 1 - 2 / 2**count < confidence
        return

    def coverage(rank):
        return 1 - 2 * sum(comb(count, i) for i in range(rank)) / 2**count

    rank = int(interval.low)
    assert interval.high == count + 1 - rank
    assert coverage(rank) >= confidence
    assert rank + 1 > (count + 1) / 2 or coverage(rank + 1) < confidence


def test_the_interval_covers_the_median_of_a_skewed_distribution_as_often_as_it_says():
    samples = np.random.default_rng(0).lognormal(sigma=2.0, size=(2000, 25))
    intervals = [median_interval(row) for row in samples]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert 0.95 - 3 * 0.005 <= covered <= 0.99


def test_five_values_have_no_interval_at_95_per_cent():
    assert median_interval([1.0] * 5).high == inf
    assert median_interval([1.0] * 6).high == 1.0

"""The hash split: what it must keep whatever the data is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.errors import ArgumentError
from tersor.loading.split import Shares, assign, draw
from tersor.loading.survey import fingerprints

SHARES = {"train": 0.6, "search": 0.15, "certification": 0.25}

values = st.lists(st.integers(0, 10_000), min_size=1, max_size=300, unique=True)
seeds = st.integers(0, 2**32 - 1)


def digests_of(numbers) -> np.ndarray:
    return fingerprints((torch.tensor(numbers, dtype=torch.float64),))


def labels_of(numbers, classes=4) -> np.ndarray:
    return np.array([n % classes for n in numbers])


@given(values, seeds)
def test_the_order_of_the_data_changes_nothing(numbers, seed):
    order = np.random.default_rng(seed).permutation(len(numbers))
    digests, labels = digests_of(numbers), labels_of(numbers)
    straight = assign(digests, labels, SHARES)
    assert np.array_equal(assign(digests[order], labels[order], SHARES), straight[order])


@given(values, seeds)
def test_repeated_samples_change_nothing_and_stay_together(numbers, seed):
    again = np.random.default_rng(seed).integers(len(numbers), size=2 * len(numbers))
    digests, labels = digests_of(numbers), labels_of(numbers)
    straight = assign(digests, labels, SHARES)
    both = assign(np.concatenate([digests, digests[again]]), np.concatenate([labels, labels[again]]), SHARES)
    assert np.array_equal(both, np.concatenate([straight, straight[again]]))


@given(values)
def test_copies_with_different_labels_stay_together(numbers):
    digests = np.repeat(digests_of(numbers), 2)
    labels = np.tile([0, 1], len(numbers))
    parts = assign(digests, labels, SHARES).reshape(-1, 2)
    assert (parts[:, 0] == parts[:, 1]).all()
    swapped = assign(digests, 1 - labels, SHARES).reshape(-1, 2)
    assert np.array_equal(parts, swapped)


@given(st.integers(20, 400), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=50)
def test_each_class_is_divided_to_within_one_sample(size, classes, start):
    numbers = np.arange(start, start + size * classes)
    parts, labels = (
        assign(digests_of(numbers), labels_of(numbers, classes), SHARES),
        labels_of(numbers, classes),
    )
    for label in range(classes):
        counts = np.bincount(parts[labels == label], minlength=3)
        assert np.abs(counts - size * np.array(list(SHARES.values()))).max() <= 1 + 1e-9


def test_many_tiny_classes_are_divided_right_on_average():
    numbers = np.arange(3000)
    counts = np.bincount(assign(digests_of(numbers), numbers // 2, SHARES), minlength=3)
    # 1500 classes of two: the standard deviation of each share is below 1.3 per cent.
    assert np.abs(counts / 3000 - np.array(list(SHARES.values()))).max() < 0.05


def test_the_split_is_the_same_in_every_process_and_version():
    parts = assign(digests_of(range(12)), None, SHARES)
    assert parts.tolist() == [2, 0, 0, 1, 0, 2, 0, 0, 2, 0, 1, 0]


@given(st.integers(1, 10_000_000))
def test_shares_sum_to_one_and_leave_none_negative(samples):
    shares = Shares().of(samples)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in shares.values())


def test_small_data_gives_more_to_certification_and_large_data_more_to_training():
    assert Shares().of(100)["certification"] == 0.5
    assert 1500 * Shares().of(1500)["certification"] == pytest.approx(620)
    assert Shares().of(10_000) == {"train": 0.6, "search": 0.15, "certification": 0.25}
    assert 10**6 * Shares().of(10**6)["certification"] == pytest.approx(20_000)


@pytest.mark.parametrize(
    "options",
    [{"search": 0.6, "certification": 0.5}, {"search": 0}, {"certification": 1.0}, {"calibration": 0}],
)
def test_shares_that_cannot_be_are_refused(options):
    with pytest.raises(ArgumentError):
        Shares(**options)


def test_calibration_is_drawn_by_content_not_by_order():
    digests = digests_of(range(100))
    order = np.random.default_rng(0).permutation(100)
    first, second = draw(digests, 10, seed=3), draw(digests[order], 10, seed=3)
    assert set(digests[first]) == set(digests[order][second])
    assert set(digests[draw(digests, 10, seed=4)]) != set(digests[first])


def test_fingerprints_see_values_shapes_and_types():
    base = torch.arange(6.0).reshape(1, 6)
    seen = {
        int(fingerprints((t,))[0])
        for t in (base, base.reshape(1, 2, 3), base.double(), base + 1e-6, base.flip(1))
    }
    assert len(seen) == 5
    assert fingerprints((base, base))[0] != fingerprints((base,))[0]


def test_fingerprints_do_not_depend_on_the_batch_or_the_memory_layout():
    data = torch.randn(7, 3, 5)
    whole = fingerprints((data,))
    single = [int(fingerprints((row[None],))[0]) for row in data]
    turned = fingerprints((data.transpose(1, 2).contiguous().transpose(1, 2),))
    assert whole.tolist() == single == turned.tolist()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float16, torch.int64])
def test_fingerprints_take_every_type(dtype):
    a, b, c = fingerprints((torch.tensor([0, 1, 0]).to(dtype),))
    assert a == c != b

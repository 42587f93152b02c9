"""Given splits that share samples with the sealed one, exactly and nearly."""

import numpy as np
import pytest

from tersor.errors import ArgumentError, DataError
from tersor.loading.build import build_task
from tersor.loading.limit import Drop
from tersor.search.disjoint import check_given_splits, is_given, without_near_copies
from tersor.search.request import Request, check_leave


def with_copies(digits, count):
    """Return the digits with `count` sealed images in train, each with a little noise."""
    images, labels = digits["train"]
    sealed, answers = digits["certification"]
    noise = np.random.default_rng(0).normal(0, 0.01, sealed[:count].shape).astype(np.float32)
    train = (np.concatenate([images, sealed[:count] + noise]), np.concatenate([labels, answers[:count]]))
    return {**digits, "train": train}


def test_many_near_copies_are_refused_with_the_way_to_go_on(perceptron, digits):
    task = build_task(perceptron, with_copies(digits, 60)).task
    with pytest.raises(DataError, match=r"nearly also in train .*--leave-out-copies"):
        check_given_splits(task)


def test_near_copies_are_left_out_of_train_and_the_rest_stays(perceptron, digits):
    task = build_task(perceptron, with_copies(digits, 60)).task
    thinned, remarks = without_near_copies(task)
    assert len(task.train) - len(thinned.train) in range(58, 66)
    assert len(thinned.certification) == len(task.certification)
    assert "train samples left out" in remarks[0]
    check_given_splits(thinned)


def test_a_few_look_alikes_are_remarked_on_and_no_more(perceptron, digits):
    built = build_task(perceptron, digits)
    assert is_given(built)
    remarks = check_given_splits(built.task)
    assert all("few enough to be chance" in remark for remark in remarks)


def test_one_data_set_is_split_by_content_and_needs_no_look(perceptron, digits):
    images, labels = (np.concatenate(parts) for parts in zip(*digits.values(), strict=True))
    assert not is_given(build_task(perceptron, (images, labels)))


@pytest.mark.parametrize(
    ("pattern", "refused"),
    [("layers.1", False), ("layers.*", False), ("layers", False), ("layer.1", True), ("conv*", True)],
)
def test_a_pattern_to_leave_alone_that_matches_nothing_is_an_error(perceptron, digits, pattern, refused):
    task = build_task(perceptron, digits).task
    request = Request(Drop(0.01, False), leave=("layers.3", pattern))
    if not refused:
        check_leave(request, task)
        return
    with pytest.raises(ArgumentError, match=r"matches nothing: .* Names look like .*layers"):
        check_leave(request, task)

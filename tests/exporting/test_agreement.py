import numpy as np
import pytest
import torch

from tersor.exporting.agreement import relative_error


def test_the_error_is_that_of_the_worst_sample():
    expected = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    actual = np.array([[3.0, 4.0], [3.0, 5.0]], dtype=np.float32)
    assert relative_error(expected, actual) == pytest.approx(0.2)


def test_equal_infinities_and_nans_agree_and_others_do_not():
    values = torch.tensor([[float("-inf"), 1.0], [float("nan"), 1.0]])
    assert relative_error(values, values.numpy()) == 0.0
    assert not relative_error(values, np.ones((2, 2), np.float32)) <= 1e-3


def test_another_shape_never_agrees():
    assert relative_error(torch.ones(2, 1), np.ones(2, np.float32)) == float("inf")


def test_integers_count_the_entries_that_differ():
    assert relative_error(torch.tensor([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.25


def test_zeros_are_compared_absolutely():
    assert relative_error(torch.zeros(1, 2), np.array([[0.0, 1e-3]], dtype=np.float32)) == pytest.approx(1e-3)

"""The least-squares core against a reference that stacks the damping as rows."""

import numpy as np
import pytest
import torch

from tersor.pruning.least_squares import least_squares


def test_least_squares_is_the_minimiser_of_its_formula():
    random = np.random.default_rng(0)
    x, y, near = random.normal(size=(30, 4)), random.normal(size=(30, 2)), random.normal(size=(4, 2))
    r = 0.3 * np.diag(x.T @ x).mean() + 1e-12
    stacked = np.linalg.lstsq(
        np.vstack([x, np.sqrt(r) * np.eye(4)]), np.vstack([y, np.sqrt(r) * near]), rcond=None
    )
    found = least_squares(*(torch.tensor(t) for t in (x.T @ x, x.T @ y, near)), 0.3)
    np.testing.assert_allclose(found.numpy(), stacked[0], rtol=1e-9)


def test_a_column_that_is_always_zero_keeps_its_weights():
    x, y = torch.zeros(5, 2).double(), torch.zeros(5, 1).double()
    x[:, 0] = 1
    near = torch.tensor([[0.0], [7.0]]).double()
    assert least_squares(x.T @ x, x.T @ y, near, 0.0)[1].item() == pytest.approx(7.0)

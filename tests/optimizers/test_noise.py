"""The noise scale of a gradient, against its definition over a population."""

import math

import pytest
import torch
from torch import nn

from tersor.loading.task import Batch
from tersor.optimizers.noise import noise_scale


def loss(model, batch):
    return (model(batch.inputs[0]) - batch.target).square().mean()


def test_it_is_the_trace_of_the_covariance_over_the_squared_gradient():
    torch.manual_seed(0)
    x = torch.randn(4000, 5)
    y = x.sum(1, keepdim=True) + torch.randn(4000, 1)
    model = nn.Linear(5, 1, bias=False)
    rows = (2 * (x @ model.weight.detach().T - y) * x).double()
    wanted = (rows.var(0).sum() / rows.mean(0).square().sum()).item()
    batches = [Batch((a,), b, tuple(range(8))) for a, b in zip(x.split(8), y.split(8), strict=True)]
    before = model.weight.detach().clone()
    assert noise_scale(model, batches, loss) == pytest.approx(wanted, rel=0.15)
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None


def test_gradients_that_cancel_have_no_scale():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    batches = [Batch((torch.ones(4, 1),), torch.full((4, 1), sign), (0, 1, 2, 3)) for sign in (1.0, -1.0)]
    assert noise_scale(model, batches, loss) == math.inf

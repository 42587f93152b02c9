"""Every recipe against its formula in float64 NumPy, and the checks that each must pass."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError
from tersor.optimizers.registry import RECIPES, make_optimizer, make_recipe

_spec = importlib.util.spec_from_file_location("references", Path(__file__).with_name("references.py"))
references = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(references)

#: Name and options of every flag that an update rule has.
CASES = [
    ("sgd", {"lr": 0.05}),
    ("sgd", {"lr": 0.05, "nesterov": False, "weight_decay": 0.01}),
    ("sgd", {"lr": 0.05, "momentum": 0.0}),
    ("adam", {"lr": 0.01}),
    ("adam", {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "weight_decay": 0.1}),
    ("adamw", {"lr": 0.01}),
    ("adamw", {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "weight_decay": 0.5}),
    ("rmsprop", {"lr": 0.01}),
    ("rmsprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.1}),
    ("adagrad", {"lr": 0.1}),
    ("adagrad", {"lr": 0.1, "lr_decay": 0.01, "initial": 0.1, "eps": 1e-5, "weight_decay": 0.1}),
]
SHAPES = ((3, 2, 2), (5,), ())


def gradients(steps: int, shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for _ in range(steps)]


def run(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], grads: list[list[np.ndarray]]
) -> None:
    for step in range(len(grads[0])):
        for parameter, series in zip(parameters, grads, strict=True):
            parameter.grad = torch.tensor(series[step], dtype=parameter.dtype)
        optimizer.step()


def weights(dtype=torch.float64) -> list[nn.Parameter]:
    random = np.random.default_rng(7)
    return [nn.Parameter(torch.tensor(random.normal(size=shape), dtype=dtype)) for shape in SHAPES]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_a_hundred_steps_agree_with_the_formula_in_float64(name, options):
    parameters = weights()
    starts = [p.detach().numpy().copy() for p in parameters]
    grads = [gradients(100, shape, seed) for seed, shape in enumerate(SHAPES)]
    run(make_optimizer(name, parameters, **options), parameters, grads)
    for parameter, start, series in zip(parameters, starts, grads, strict=True):
        expected = getattr(references, name)(start, series, **options)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6, atol=1e-12)


def it_minimises_a_quadratic(name):
    w = nn.Parameter(torch.full((4, 3), 2.0))
    optimizer = make_optimizer(name, [w], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        w.square().sum().backward()
        optimizer.step()
    assert w.square().mean() < 1.0


def a_saved_state_continues_with_the_same_bits(name):
    first, grads = weights(torch.float32), [gradients(20, shape) for shape in SHAPES]
    optimizer = make_optimizer(name, first, lr=0.01)
    run(optimizer, first, [series[:10] for series in grads])
    second = [nn.Parameter(p.detach().clone()) for p in first]
    resumed = make_optimizer(name, second, lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, first, [series[10:] for series in grads])
    run(resumed, second, [series[10:] for series in grads])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def a_parameter_without_a_gradient_stays(name):
    w, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer(name, [w, other], lr=0.1)
    w.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(other, torch.ones(2, 2))
    assert not torch.equal(w, torch.ones(2, 2))


def the_learning_rate_of_the_group_is_obeyed(name):
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer(name, [w], lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.0
    w.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(w, torch.ones(2, 2))


def gradients_are_not_changed(name):
    w = nn.Parameter(torch.ones(2, 2))
    w.grad = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    optimizer = make_optimizer(name, [w], lr=0.1)
    optimizer.step()
    assert torch.equal(w.grad, torch.tensor([[1.0, -2.0], [3.0, 0.5]]))


def the_recipe_prints_as_it_is_written(name):
    recipe = make_recipe(name, lr=0.25)
    assert repr(recipe).startswith(f"{RECIPES[name].__name__}(lr=0.25")
    assert recipe == make_recipe(name, lr=0.25)


def a_learning_rate_that_is_not_positive_is_refused(name):
    for lr in (0.0, -1.0, float("nan")):
        with pytest.raises(ArgumentError, match="`lr`"):
            make_recipe(name, lr=lr)


def nothing_to_train_is_refused(name):
    with pytest.raises(ArgumentError, match="no parameters"):
        make_optimizer(name, [], lr=0.1)


CHECKS = [
    it_minimises_a_quadratic,
    a_saved_state_continues_with_the_same_bits,
    a_parameter_without_a_gradient_stays,
    the_learning_rate_of_the_group_is_obeyed,
    gradients_are_not_changed,
    the_recipe_prints_as_it_is_written,
    a_learning_rate_that_is_not_positive_is_refused,
    nothing_to_train_is_refused,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", RECIPES)
def test_optimizer(name, check):
    check(name)


def test_unknown_names_and_options_are_refused_with_what_is_allowed():
    with pytest.raises(ArgumentError, match="Did you mean 'adam'"):
        make_recipe("adm", lr=0.1)
    with pytest.raises(ArgumentError, match="has no option 'beta3'"):
        make_recipe("adam", lr=0.1, beta3=0.5)

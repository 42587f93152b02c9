"""Every recipe against its formula in float64 NumPy, and the checks that each must pass."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError
from tersor.optimizers import single_pass
from tersor.optimizers.muon import orthogonalize
from tersor.optimizers.registry import RECIPES, make_optimizer, make_recipe
from tersor.optimizers.single_pass import Kernel

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
    ("lion", {"lr": 0.01}),
    ("lion", {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.5}),
    ("nadamw", {"lr": 0.01}),
    ("nadamw", {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "weight_decay": 0.5}),
    ("adafactor", {"lr": 0.01}),
    ("adafactor", {"lr": 0.3, "decay": -0.5, "eps": 0.1, "clip": 1.1, "weight_decay": 0.1}),
    ("muon", {"lr": 0.01}),
    ("muon", {"lr": 0.01, "momentum": 0.8, "steps": 3, "weight_decay": 0.5}),
    ("schedule_free", {"lr": 0.01}),
    ("schedule_free", {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "weight_decay": 0.5}),
]
#: A rate at which each optimizer moves a weight of size one within some hundred steps.
LR = dict.fromkeys(RECIPES, 0.05) | {"prodigy": 1.0}
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


@pytest.mark.parametrize(
    "options", [{"lr": 1.0}, {"lr": 0.5, "beta2": 0.9, "weight_decay": 0.1, "d0": 1e-3}], ids=str
)
def test_a_hundred_steps_of_prodigy_agree_with_the_formula_over_all_parameters(options):
    parameters = weights()
    starts = [p.detach().numpy().copy() for p in parameters]
    grads = [[g + start for g in gradients(100, start.shape, seed)] for seed, start in enumerate(starts)]
    run(make_optimizer("prodigy", parameters, **options), parameters, grads)
    for parameter, expected in zip(parameters, references.prodigy(starts, grads, **options), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6, atol=1e-12)


def test_schedule_free_evaluates_at_the_mean_of_its_iterates_and_comes_back():
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = make_optimizer("schedule_free", [w], lr=0.1)
    for g in gradients(30, (2,)):
        w.grad = torch.tensor(g)
        optimizer.step()
    at_training = w.detach().clone()
    optimizer.to_evaluation_point()
    z = optimizer.state[w]["z"]
    torch.testing.assert_close(0.1 * z + 0.9 * w.detach(), at_training)
    with pytest.raises(ArgumentError, match="to_training_point"):
        optimizer.step()
    optimizer.to_training_point()
    torch.testing.assert_close(w.detach(), at_training)


@pytest.mark.parametrize("name", ["rmsprop", "nadamw", "lion", "schedule_free"])
def test_bundles_of_small_tensors_and_blocks_of_large_ones_take_the_same_steps(name, monkeypatch):
    options = {"lr": 0.01, "momentum": 0.9} if name == "rmsprop" else {"lr": 0.01}
    shapes = ((30, 3), (7,), (2, 3, 4, 5), (40, 11), ())
    results = []
    for block, bundle in ((1, 1), (64, 64), (64, 500), (10**6, 10**6)):
        monkeypatch.setattr("tersor.optimizers.single_pass.BLOCK", block)
        monkeypatch.setattr("tersor.optimizers.single_pass.BUNDLE", bundle)
        parameters = [nn.Parameter(torch.linspace(-1, 1, int(np.prod(s))).double().view(s)) for s in shapes]
        parameters.append(nn.Parameter(torch.ones(2, 3, 4, 4).double().to(memory_format=torch.channels_last)))
        grads = [gradients(5, tuple(p.shape), seed) for seed, p in enumerate(parameters)]
        run(make_optimizer(name, parameters, **options), parameters, grads)
        results.append([p.detach() for p in parameters])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmsprop", "nadamw", "lion", "schedule_free"])
def test_the_compiled_kernel_takes_the_same_steps(name, monkeypatch):
    options = {"lr": 0.01, "momentum": 0.9} if name == "rmsprop" else {"lr": 0.01}
    results = []
    for worth in (10**12, 40):
        monkeypatch.setattr("tersor.optimizers.single_pass.WORTH_COMPILING", worth)
        parameters = weights()
        run(make_optimizer(name, parameters, **options), parameters, [gradients(8, s) for s in SHAPES])
        results.append([p.detach() for p in parameters])
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-14)
    assert single_pass._compiled(make_optimizer(name, weights(), **options).rule).works


def test_a_step_is_taken_in_blocks_where_nothing_can_be_compiled(monkeypatch):
    def fail(*_args, **_kwargs):
        def kernel(*_):
            raise RuntimeError("no C++ compiler")

        return kernel

    rule = lambda w, g, lr: w.sub_(g * lr)
    monkeypatch.setattr(torch, "compile", fail)
    w = torch.ones(3)
    Kernel(rule)((w, torch.ones(3)), (0.25,))
    assert torch.equal(w, torch.full((3,), 0.75))


def test_orthogonalising_keeps_singular_vectors_and_evens_singular_values():
    matrix = torch.randn(20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = orthogonalize(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ result @ right.T
    assert (inside - inside.diag().diag()).abs().max() < 1e-9
    assert ((inside.diag() > 0.6) & (inside.diag() < 1.3)).all()
    torch.testing.assert_close(orthogonalize(matrix.T), result.T)


def it_minimises_a_quadratic(name):
    w = nn.Parameter(torch.full((4, 3), 2.0))
    optimizer = make_optimizer(name, [w], lr=LR[name])
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


def test_gradients_that_come_and_go_take_the_steps_of_each_parameter_alone():
    def train(separately):
        parameters = weights()
        owners = [[p] for p in parameters] if separately else [parameters]
        optimizers = [make_optimizer("nadamw", owned, lr=0.01) for owned in owners]
        for step in range(12):
            for index, p in enumerate(parameters):
                p.grad = None if (step + index) % 3 == 0 else torch.full_like(p, 1.0 + step)
            for optimizer in optimizers:
                optimizer.step()
        return [p.detach() for p in parameters]

    torch.testing.assert_close(train(False), train(True), rtol=1e-12, atol=0)

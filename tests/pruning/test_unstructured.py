"""Zeros inside weights: what the plans mean once applied, and that the zeros stay."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.errors import ArgumentError, PlanError
from tersor.graph.trace import trace
from tersor.planning.plan import Mask, Plan
from tersor.pruning.gradual import Cubic, tightened
from tersor.pruning.unstructured import mask_blocks, mask_n_of_m, mask_ratio, mask_threshold, quantile
from tersor.recovery.gradual import gradually
from tersor.surgery.apply import apply
from tersor.surgery.hold import Holder, zeros_of


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def masked(model: nn.Module, plan: Plan) -> nn.Module:
    return apply(model, plan, trace(model, (torch.zeros(1, 8),))).model


def zeros(model: nn.Module) -> list[float]:
    return [float((weight == 0).float().mean()) for weight in model.parameters() if weight.dim() > 1]


def test_a_threshold_zeroes_exactly_the_weights_below_it():
    model = network()
    made = masked(model, mask_threshold(model, 0.1))
    for old, new in zip(model.parameters(), made.parameters(), strict=True):
        expected = torch.where(old.abs() < 0.1, 0.0, old) if old.dim() > 1 else old
        assert torch.equal(new, expected)


@given(st.floats(0.01, 0.95))
def test_a_global_ratio_zeroes_that_share_of_all_weights(ratio):
    model = network()
    plan = mask_ratio(model, ratio)
    gone = sum(
        int((dict(model.named_parameters())[edit.parameter].abs() < float(edit.pattern.split(":")[1])).sum())
        for edit in plan.edits
    )
    assert abs(gone - ratio * 192) <= 1


def test_a_ratio_by_layer_takes_it_from_each():
    model = network()
    assert zeros(masked(model, mask_ratio(model, 0.25, scope="layer"))) == [0.25, 0.25]
    together = zeros(masked(model, mask_ratio(model, 0.25)))
    assert together[0] != together[1]


def test_two_of_four_leaves_two_of_every_four():
    model = network()
    made = masked(model, mask_n_of_m(model))
    for weight in (made[0].weight, made[2].weight):
        assert ((weight.reshape(-1, 4) != 0).sum(1) == 2).all()


def test_blocks_and_n_of_m_skip_weights_that_they_do_not_tile():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    assert mask_n_of_m(model).edits == (Mask("1.weight", "2:4"),)
    assert mask_blocks(model, 0.5, block=(2, 3)).edits == (Mask("0.weight", "block:2x3:0.5"),)


def test_parameters_limit_the_plan():
    assert {edit.parameter for edit in mask_ratio(network(), 0.5, parameters=["2.weight"]).edits} == {
        "2.weight"
    }


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda m: mask_ratio(m, 50), ArgumentError, "0.5"),
        (lambda m: mask_ratio(m, 0.5, scope="locl"), ArgumentError, "`scope` must be one of"),
        (lambda m: mask_threshold(m, 0), ArgumentError, "positive"),
        (lambda m: mask_threshold(m, 1e-30), PlanError, "No weight lies below"),
        (lambda m: mask_ratio(m, 0.5, parameters=["2.weigth"]), PlanError, "Did you mean '2.weight'"),
        (lambda m: mask_n_of_m(m, 4, 4), ArgumentError, "0 < N < M"),
        (lambda m: mask_n_of_m(m, 2, 7), PlanError, "7 divides"),
        (lambda m: mask_blocks(m, 0.5, block=(5, 5)), PlanError, "5x5 tile no weight"),
        (lambda m: mask_ratio(nn.ReLU(), 0.5), PlanError, "no parameter of two or more axes"),
        (lambda m: Cubic(1.0), ArgumentError, "final"),
        (lambda m: Cubic(0.5, begin=5, end=5), ArgumentError, "begin < end"),
        (lambda m: Holder(m, {"x": torch.ones(1)}), ArgumentError, "no such parameter"),
        (lambda m: Holder(m, {"0.weight": torch.ones(1)}), ArgumentError, r"the model has shape \(16, 8\)"),
    ],
)
def test_bad_requests_say_what_would_do(make, kind, message):
    with pytest.raises(kind, match=message):
        make(network())


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 50), st.integers(1, 100), st.integers(1, 10))
def test_the_cubic_schedule_is_monotone_and_ends_where_it_says(initial, final, begin, length, every):
    schedule = Cubic(final, begin, begin + length, every, initial)
    ratios = [schedule.ratio(step) for step in range(begin + length + 5)]
    assert ratios[0] == pytest.approx(initial)
    assert ratios[-1] == ratios[begin + length] == final
    steps = [b - a for a, b in pairwise(ratios)]
    assert all(step >= -1e-12 for step in steps) or all(step <= 1e-12 for step in steps)


def test_the_schedule_is_the_published_formula():
    schedule = Cubic(0.9, begin=10, end=110)
    assert schedule.ratio(60) == pytest.approx(0.9 - 0.9 * (1 - 50 / 100) ** 3)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_held_zeros_stay_zero_through_training_and_others_move(optimizer):
    model = network()
    made = masked(model, mask_ratio(model, 0.5))
    held = zeros_of(made)
    stepper = getattr(torch.optim, optimizer)(made.parameters(), lr=0.1, weight_decay=0.1)
    Holder(made, held).attach(stepper)
    for _ in range(5):
        stepper.zero_grad()
        made(torch.randn(4, 8)).square().sum().backward()
        stepper.step()
    parameters = dict(made.named_parameters())
    for name, mask in held.items():
        assert (parameters[name][~mask] == 0).all()
        assert not torch.equal(parameters[name][mask], dict(model.named_parameters())[name][mask])


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_gradual_pruning_reaches_its_ratio_and_never_lets_a_weight_back(scope):
    model = network()
    hold = Holder(model, {name: torch.ones_like(w) for name, w in model.named_parameters() if w.dim() > 1})
    after_step = gradually(hold, Cubic(0.75, begin=2, end=10, every=2), scope=scope)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before, ratios = hold.masks, []
    for step in range(1, 13):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        after_step(step)
        assert all(not (mask & ~before[name]).any() for name, mask in hold.masks.items())
        before = hold.masks
        ratios.append(hold.ratio)
    assert ratios[0] == 0
    assert ratios[-1] == pytest.approx(0.75, abs=0.01)
    assert len(set(ratios)) >= 4


def test_asking_for_fewer_zeros_lets_none_back():
    weights = {"w": torch.randn(16, 8)}
    half = tightened(weights, {"w": torch.ones(16, 8, dtype=torch.bool)}, 0.5)
    assert torch.equal(tightened(weights, half, 0.25)["w"], half["w"])
    assert half["w"].sum() == 64


def test_blocks_go_whole_and_those_of_least_norm_first():
    model = network()
    made = masked(model, mask_blocks(model, 0.5, block=(2, 4), parameters=["0.weight"]))
    tiles = made[0].weight.detach().reshape(8, 2, 2, 4)
    norms = model[0].weight.detach().reshape(8, 2, 2, 4).square().sum((1, 3))
    gone = (tiles == 0).all(dim=3).all(dim=1)
    assert gone.sum() == 8
    assert norms[gone].max() <= norms[~gone].min()


def test_a_quantile_leaves_its_ratio_below():
    values = torch.randn(1000)
    assert (values < quantile([values[:300], values[300:]], 0.3)).sum() == 300

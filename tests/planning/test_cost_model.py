"""The cost model against latencies made by a rule that it does not know."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.analysis.facts import facts
from tersor.errors import MeasurementError
from tersor.graph.trace import trace
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.cost_model import CostModel, features, fit, priced
from tersor.planning.plan import Cut, Drop, Factorize, Plan
from tersor.surgery.apply import apply


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = Residual()
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.block(torch.relu(self.stem(x))).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Conv2d(16, 32, 3, padding=1)
        self.down = nn.Conv2d(32, 16, 1)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


INPUTS = (torch.randn(2, 3, 8, 8),)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = Net().eval()
    graph = trace(net, INPUTS)
    return net, graph, anatomy(graph)


PLANS = {
    "cuts": (
        Plan((Cut("block.up", tuple(range(20))), Cut("stem", tuple(range(8))))),
        Left({"block.up": 20, "stem": 8}),
    ),
    "rank": (Plan((Factorize("block.up", 5),)), Left(ranks={"block.up": 5})),
    "drop": (Plan((Drop("block"),)), Left(dropped=frozenset({"block"}))),
    "cut and rank": (
        Plan((Cut("stem", tuple(range(8))), Factorize("block.up", 5))),
        Left({"stem": 8}, {"block.up": 5}),
    ),
}


@pytest.mark.parametrize("precision", ["float", "static", "dynamic"])
def test_prices_of_states_seen_before_are_those_of_the_features(network, precision):
    _, _, layers = network
    times = dict.fromkeys(features(layers, Left(), precision), 1e-09) | {
        "constant": 1e-6,
        "boundary": 3e-8,
    }
    model = CostModel(times, scale=1.7)
    price = priced(model, layers, precision)
    lefts = [Left(), *(left for _, left in PLANS.values()), Left({"stem": 4}), Left(ranks={"head": 3})]
    for left in lefts + lefts[::-1]:
        assert price(left) == pytest.approx(model(features(layers, left, precision)), rel=1e-12)


@pytest.mark.parametrize("name", PLANS)
def test_the_anatomy_counts_what_surgery_leaves(network, name):
    net, graph, layers = network
    plan, left = PLANS[name]
    made = facts(apply(net, plan, graph).model, INPUTS)
    assert layers.macs(left) == pytest.approx(made.macs)
    assert layers.bytes(left, "float") == pytest.approx(4 * made.parameters)


def test_weights_in_integers_take_a_quarter(network):
    _, _, layers = network
    weights = sum(layer.weights for layer in layers.layers)
    saved = layers.bytes(Left(), "float") - layers.bytes(Left(), "static")
    assert saved == pytest.approx(3 * weights)
    assert layers.bytes(Left(), "int4") > layers.bytes(Left(), "static")  # only the head is linear


def random_lefts(count, rng):
    return [
        Left({"stem": int(rng.integers(2, 17)), "block.up": int(rng.integers(2, 33))}) for _ in range(count)
    ]


def slow_machine(amounts):
    """Padded work, a dear layer of its own, a launch cost, a constant: nothing like the prior."""
    return (
        3e-5
        + 9e-11 * amounts.get("static.convolution.macs8", 0.0)
        + 4e-10 * amounts.get("static@stem", 0.0)
        + 2e-5 * amounts.get("static.convolution.layers", 0.0)
        + 2e-9 * amounts.get("static.pointwise.outputs", 0.0)
    )


def test_latencies_of_models_that_were_held_out_are_predicted(network):
    _, _, layers = network
    rng = np.random.default_rng(0)
    rows = [features(layers, left, "static") for left in random_lefts(40, rng)]
    model = fit(rows[:24], [slow_machine(row) * (1 + 0.01 * rng.standard_normal()) for row in rows[:24]])
    errors = [abs(model(row) / slow_machine(row) - 1) for row in rows[24:]]
    assert np.median(errors) < 0.03
    assert model.error < 0.05
    assert model.margin == pytest.approx(1 + model.error)


def test_one_measured_model_sets_the_speed_of_the_machine(network):
    _, _, layers = network
    whole, half = (features(layers, left, "float") for left in (Left(), Left({"block.up": 16})))
    model = fit([whole], [5e-3])
    assert model(whole) == pytest.approx(5e-3, rel=0.05)
    assert model(half) < 0.8 * model(whole)
    assert model.error is None


@given(st.lists(st.floats(1e-6, 1e-2), min_size=1, max_size=8), st.integers(0, 99))
def test_no_time_is_negative_so_less_work_is_never_slower(seconds, seed):
    rng = np.random.default_rng(seed)
    rows = [
        {
            "constant": 1.0,
            "float.linear.macs": float(rng.integers(1, 10**6)),
            "float.linear.layers": float(rng.integers(1, 9)),
        }
        for _ in seconds
    ]
    model = fit(rows, seconds)
    assert all(time >= 0 for time in model.times.values())


def test_what_was_never_measured_takes_its_scaled_prior():
    model = CostModel({"constant": 1e-5}, scale=2.0)
    assert model({"boundary": 1.0}) == pytest.approx(1e-9)


def test_nothing_measured_is_an_error():
    with pytest.raises(MeasurementError, match="at least one measured model"):
        fit([], [])

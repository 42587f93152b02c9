"""Where one site cannot be rounded, it stays in floating point and the rest runs in integers."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.planning.plan import Quantize
from tersor.search.limits import Limits
from tersor.search.optimize import optimize
from tersor.search.origin import mend
from tersor.search.outcome import Fate


class Spread(nn.Module):
    """Has numbers in its middle that span orders of magnitude from sample to sample, and takes their logarithm."""

    def __init__(self):
        super().__init__()
        self.first, self.middle = nn.Linear(8, 32), nn.Linear(32, 32)
        self.wide, self.last = nn.Linear(32, 256), nn.Linear(256, 4)

    def forward(self, x):
        spread = self.middle(torch.exp(3 * self.first(x)))
        return self.last(torch.relu(self.wide(torch.log(spread.abs() + 1e-3))))


@pytest.fixture(scope="module")
def spread():
    torch.manual_seed(0)
    network = Spread().eval()
    with torch.no_grad():
        network.first.weight.mul_(4)
        network.middle.weight.copy_(torch.rand(32, 32) ** 6)
        network.middle.bias.zero_()
        x = torch.randn(2400, 8)
        network.last.bias.sub_(network(x).mean(0))
        return network, (x, network(x).argmax(1))


@pytest.fixture(scope="module")
def result(spread):
    network, data = spread
    return optimize(network, data, max_drop=0.05, goal="size", methods=("quantize",))


def named(result, name):
    return next(c for c in result.tried if c.name == name)


def test_rounding_everything_misses_and_all_but_one_site_is_certified(result):
    assert named(result, "int8").fate is Fate.MISSED
    part = named(result, "int8 in part")
    assert part.fate is Fate.CERTIFIED
    assert {edit.site for edit in part.plan.of(Quantize)} == {"first", "wide", "last"}


def test_the_steps_name_the_site_that_stays(result):
    told = named(result, "int8 in part").steps[-1]
    assert told.startswith("keep 1 site in floating point, which rounding hurts most: middle (")


@pytest.mark.parametrize(
    ("price", "limits", "mended"), [(0.5, Limits(), 1), (2.0, Limits(), 0), (2.0, Limits(size=1e6), 1)]
)
def test_only_twins_that_gain_at_the_goal_or_serve_a_limit_are_mended(result, price, limits, mended):
    run = replace(result.run, request=replace(result.run.request, limits=limits))
    prices = SimpleNamespace(of=lambda layers, left, scheme: {"float": 1.0}.get(scheme, price))
    asked = []
    twins = SimpleNamespace(mend=lambda parent, made, effort: asked.extend(made))
    mend(run, SimpleNamespace(prices=prices), twins, {"dynamic": named(result, "int8")})
    assert asked == ["dynamic"] * mended


def test_no_mixed_twin_is_made_where_rounding_holds(found):
    assert not [c for c in found.result.tried if c.name.endswith("in part")]

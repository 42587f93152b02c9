"""Refitting what is left: exact where it can be, the least-squares answer where it cannot."""

import copy

import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError, DataError, PlanError
from tersor.graph.trace import trace
from tersor.loading.task import Batch
from tersor.planning.plan import Cut, Plan
from tersor.pruning import readers
from tersor.pruning.compensate import compensate, refit
from tersor.surgery.apply import apply


def data(*shape: int, count: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [Batch((torch.randn(*shape, generator=generator),), None, ()) for _ in range(count)]


def prepared(model: nn.Module, batches: list[Batch], cuts: dict[str, tuple[int, ...]]):
    graph = trace(model, batches[0].inputs)
    plan = Plan(tuple(Cut(name, keep) for name, keep in cuts.items()))
    return apply(model, plan, graph).model, model, graph, plan, batches


def residual(given, model) -> float:
    _, original, _, _, batches = given
    with torch.no_grad():
        return sum(float((model(*b.inputs) - original(*b.inputs)).square().mean()) for b in batches)


class Convolutions(nn.Sequential):
    """The units 2 and 3 of the hidden layer repeat 0 and 1."""

    def __init__(self, bias: bool = True) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=bias), nn.Flatten(), nn.Linear(20, 2)
        )
        for tensor in (self[0].weight.data, self[0].bias.data):
            tensor[2:] = tensor[:2]


def test_the_work_of_repeated_units_is_taken_over_exactly():
    given = prepared(Convolutions(), data(16, 3, 6, 6), {"0": (0, 1)})
    assert residual(given, given[0]) > 1e-3
    assert residual(given, compensate(*given, damping=1e-7)) < 1e-8


def test_the_refit_is_the_damped_least_squares_answer():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    given = prepared(model, data(50, 6), {"0": (1, 2, 5)})
    new = refit(*given, damping=0.1)
    rows = torch.cat([b.inputs[0] for b in given[4]])
    hidden = torch.tanh(given[0][0](rows)).detach().double()
    targets = model(rows).detach().double()
    x, y = hidden - hidden.mean(0), targets - targets.mean(0)
    start = given[0][2].weight.detach().double()
    # The ridge as extra rows: sqrt(lambda n) (W - start) = 0.
    root = (0.1 * x.square().mean(0).mean() * len(x)).sqrt()
    stacked = torch.cat([x, root * torch.eye(3)]), torch.cat([y, root * start.T])
    weight = torch.linalg.lstsq(*stacked).solution.T
    torch.testing.assert_close(new["2.weight"].double(), weight, rtol=1e-4, atol=1e-5)
    bias = targets.mean(0) - weight @ hidden.mean(0)
    torch.testing.assert_close(new["2.bias"].double(), bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_several_layers_are_repaired_in_order_and_the_error_falls(bias):
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=bias), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, bias=bias), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Flatten(), nn.Linear(12 * 16, 4),
    ).eval()  # fmt: skip
    given = prepared(model, data(64, 3, 4, 4), {"0": tuple(range(0, 12, 2)), "3": tuple(range(8))})
    new = refit(*given)
    assert (
        list(new) == ["3.weight", "3.bias", "7.weight", "7.bias"]
        if bias
        else ["3.weight", "7.weight", "7.bias"]
    )
    assert residual(given, compensate(*given)) < 0.5 * residual(given, given[0])


def test_modules_are_not_changed_and_the_result_has_their_kind():
    model = Convolutions().train()
    given = prepared(model, data(8, 3, 6, 6), {"0": (0, 3)})
    before = [copy.deepcopy(m.state_dict()) for m in given[:2]]
    made = compensate(*given)
    for module, state in zip(given[:2], before, strict=True):
        assert module.training
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert type(made) is Convolutions
    assert made.training
    assert made[2].weight.dtype == model[2].weight.dtype


def test_strong_damping_keeps_the_weights():
    given = prepared(Convolutions(), data(8, 3, 6, 6), {"0": (0, 3)})
    new = refit(*given, damping=1e8)
    torch.testing.assert_close(new["2.weight"], given[0][2].weight.detach(), rtol=1e-5, atol=1e-6)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.mix = nn.Linear(4, 9), nn.Linear(9, 4), nn.Linear(4, 2)

    def forward(self, x):
        for _ in range(2):
            x = x + self.down(torch.tanh(self.up(x)))
        return self.mix(x)


def test_a_layer_that_runs_twice_is_fitted_to_both():
    given = prepared(Shared(), data(64, 4), {"up": tuple(range(5))})
    assert set(refit(*given)) == {"down.weight", "down.bias"}
    assert residual(given, compensate(*given)) < 0.5 * residual(given, given[0])


def test_bad_requests_are_refused():
    model = Convolutions()
    given = prepared(model, data(8, 3, 6, 6), {"0": (0, 3)})
    with pytest.raises(DataError, match="no calibration batch"):
        refit(*given[:4], [])
    with pytest.raises(ArgumentError, match="damping"):
        refit(*given, damping=0)
    with pytest.raises(PlanError, match="nothing to refit"):
        refit(model, model, given[2], Plan(), given[4])
    with pytest.raises(PlanError, match="not what the plan gives"):
        refit(model, model, given[2], given[3], given[4])


def test_outputs_held_from_one_pass_are_those_of_a_pass_each_even_where_activations_write_over_them(
    monkeypatch,
):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 7), nn.ReLU(inplace=True), nn.Linear(7, 4)
    )
    given = prepared(model, data(50, 6), {"0": (0, 1, 4), "2": (1, 2, 5)})
    held = refit(*given)
    monkeypatch.setattr(readers, "HELD", 0)
    alone = refit(*given)
    assert held.keys() == alone.keys() == {"2.weight", "2.bias", "4.weight", "4.bias"}
    for name, value in held.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-4)

"""Ranks and factors: optimal where theory says so, and refused where they save nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.analysis.collect import input_moments
from tersor.analysis.facts import facts
from tersor.errors import ArgumentError, DataError, PlanError
from tersor.factorization.factors import factors, refactor
from tersor.factorization.ranks import factorize_energy, factorize_ratio, factorize_to_budget, rank_cost
from tersor.factorization.spectrum import Spectrum, spectra
from tersor.graph.trace import trace
from tersor.loading.task import Batch
from tersor.planning.plan import Cut, Factorize, Plan
from tersor.surgery.apply import apply


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Flatten(), nn.Linear(256, 64),
        nn.ReLU(), nn.Linear(64, 4),
    ).eval()  # fmt: skip


def data(seed: int = 0) -> Batch:
    """Inputs whose energy lies in few directions."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 48, generator=torch.Generator().manual_seed(9))
    return Batch(((torch.randn(64, 6, generator=generator) @ mixing).reshape(64, 3, 4, 4),), None, ())


def spectrum(values, outputs=40, features=60, layer="fc"):
    return Spectrum(layer, outputs, features, torch.tensor(values))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12), st.floats(0, 0.999))
def test_the_rank_for_an_energy_keeps_it_and_one_less_does_not(values, energy):
    found = spectrum(sorted(values, reverse=True))
    rank = found.rank_for(energy)
    assert 1 - found.lost(rank) >= energy - 1e-9
    assert rank == 1 or 1 - found.lost(rank - 1) < energy


@given(st.integers(1, 80), st.integers(1, 80))
def test_break_even_is_the_last_rank_that_saves(outputs, features):
    rank = spectrum([1.0], outputs, features).break_even
    assert rank * (outputs + features) < outputs * features <= (rank + 1) * (outputs + features)


def test_a_spectrum_lists_ordinary_layers_and_their_energies():
    model = network()
    found = spectra(model, data().inputs)
    assert [(s.layer, s.outputs, s.features) for s in found] == [
        ("0", 16, 27),
        ("2", 16, 144),
        ("4", 64, 256),
        ("6", 4, 64),
    ]
    torch.testing.assert_close(
        found[1].values.square().sum().float(), model[2].weight.detach().square().sum(), rtol=1e-5, atol=0
    )


def test_an_activation_aware_spectrum_measures_output_energy():
    model, batch = network(), data()
    found = spectra(model, batch.inputs, batches=[batch])[3]
    with torch.no_grad():
        outputs = model(*batch.inputs) - model[6].bias
    torch.testing.assert_close(
        found.values.square().sum().float(), outputs.square().sum(1).mean(), rtol=1e-3, atol=0
    )


def test_shared_grouped_and_subclassed_layers_are_left_out():
    class Own(nn.Linear):
        pass

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.own, self.grouped = nn.Linear(8, 8), Own(8, 8), nn.Conv2d(8, 8, 1, groups=2)

        def forward(self, x):
            return self.grouped(self.own(self.twice(self.twice(x)))[:, :, None, None])

    with pytest.raises(PlanError, match="no linear or ungrouped"):
        spectra(Mixed(), (torch.randn(2, 8),))


def test_factors_are_the_best_of_their_rank_for_the_inputs():
    """Any other pair, also the best one found by gradient descent, leaves at least as large an output error."""
    torch.manual_seed(0)
    weight, x = torch.randn(6, 8).double(), torch.randn(200, 8).double() @ torch.randn(8, 8).double()
    gram = x.T @ x / 200
    error = lambda m: float((x @ (weight - m).T).square().sum(1).mean())
    first, second = factors(weight, 3, gram=gram)
    plain = factors(weight, 3)
    assert error(second @ first) < error(plain[1] @ plain[0])
    a, b = (m.clone(memory_format=torch.contiguous_format).requires_grad_() for m in (first, second))
    optimizer = torch.optim.LBFGS([a, b], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = (x @ (weight - b @ a).T).square().sum(1).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert error(second @ first) <= error((b @ a).detach()) * (1 + 1e-3)


def test_plain_factors_are_the_truncated_svd():
    weight = torch.randn(5, 3, 2, 2)
    first, second = factors(weight, 2)
    u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    torch.testing.assert_close(second @ first, u[:, :2] * s[:2] @ v[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second.norm(dim=0), first.norm(dim=1), rtol=1e-4, atol=0)


def applied(model, plan):
    return apply(model, plan, trace(model, data().inputs)).model


def test_refactored_models_are_closer_to_the_original_and_leave_it_alone():
    model, batch = network(), data()
    plan = Plan((Factorize("2", 4), Factorize("4", 6)))
    small = applied(model, plan)
    before = {
        name: value.clone() for name, value in (*small.state_dict().items(), *model.state_dict().items())
    }
    better = refactor(small, model, plan, [batch])
    held_out = data(1).inputs[0]
    with torch.no_grad():
        error = [float((m(held_out) - model(held_out)).square().mean()) for m in (small, better)]
    assert error[1] < 0.7 * error[0]
    assert all(
        torch.equal(value, before[name])
        for name, value in (*small.state_dict().items(), *model.state_dict().items())
    )


def test_full_rank_is_exact():
    model, batch = network(), data()
    plan = Plan((Factorize("6", 4),))
    made = refactor(applied(model, plan), model, plan, [batch])
    torch.testing.assert_close(made(*batch.inputs), model(*batch.inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_a_budget_of_multiply_adds_holds_in_the_model_that_comes_out(share):
    model, batch = network(), data()
    counted = facts(model, batch.inputs)
    found = spectra(model, batch.inputs, batches=[batch])
    amounts = counted.by_site()
    cost = rank_cost(found, amounts, counted.macs - sum(amounts[s.layer] for s in found))
    assert round(cost({})) == counted.macs
    plan = factorize_to_budget(found, cost=cost, budget=share * counted.macs, keep_energy=0)
    small = facts(applied(model, plan), batch.inputs)
    assert small.macs == round(cost({edit.layer: edit.rank for edit in plan.edits})) <= share * counted.macs


def test_a_budget_spends_where_energy_is_cheap():
    flat, steep = spectrum([1.0] * 40, layer="flat"), spectrum([10.0, *[0.01] * 39], layer="steep")
    cost = rank_cost([flat, steep], {"flat": 2400, "steep": 2400})
    plan = factorize_to_budget([flat, steep], cost=cost, budget=2600)
    assert [edit.layer for edit in plan.edits] == ["steep"]


def test_energy_and_ratio_plans_skip_layers_that_would_grow():
    steep, wide = spectrum([10.0, *[0.01] * 39], layer="steep"), spectrum([1.0] * 40, layer="wide")
    assert factorize_energy([steep, wide], energy=0.95).edits == (Factorize("steep", 1),)
    assert factorize_ratio([spectrum([1.0], 2, 2, "tiny"), wide], ratio=0.5).edits == (Factorize("wide", 12),)
    assert factorize_ratio([wide], ratio=0.5, multiple_of=8).edits == (Factorize("wide", 8),)


FLAT = spectrum([1.0] * 40)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: factorize_energy([FLAT], energy=99), ArgumentError, "pass 0.99"),
        (lambda: factorize_energy([FLAT], energy=0.9), PlanError, r"first one does at 0\.575"),
        (lambda: factorize_ratio([FLAT], ratio=0.5, multiple_of=0), ArgumentError, "at least 1"),
        (lambda: factorize_ratio([spectrum([1.0], 2, 2)], ratio=0.5), PlanError, "Prune units"),
        (
            lambda: factorize_to_budget([FLAT], cost=rank_cost([FLAT], {"fc": 2400}), budget=10),
            PlanError,
            "cannot go below 2000",
        ),
        (lambda: refactor(network(), network(), Plan((Cut("0", (1,)),)), [data()]), PlanError, "factorizes nothing"),
        (lambda: refactor(network(), network(), Plan((Factorize("4", 3),)), [data()]), PlanError, "not what the plan"),
        (lambda: refactor(network(), network(), Plan((Factorize("4", 3),)), []), DataError, "No input of '4'"),
    ],
)  # fmt: skip
def test_bad_requests_say_what_would_do(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_input_moments_are_empty_without_batches():
    assert input_moments(network(), ["4.weight"], [], gram=True) == {}

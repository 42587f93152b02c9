"""The automatic choice: cheap, repeatable, no worse than its control."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.errors import ArgumentError, DataError
from tersor.loading.task import Batch
from tersor.optimizers.adamw import AdamW
from tersor.optimizers.auto import Rules, choose
from tersor.optimizers.sgd import SGD
from tersor.optimizers.situations import census, portfolio, recovery_rule


def batches(count=20, seed=0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    result = []
    for index in range(count):
        x = torch.randn(32, 8, generator=generator)
        result.append(Batch((x,), (x[:, 0] * x[:, 1] > 0).long(), tuple(range(32 * index, 32 * index + 32))))
    return result


def objective(model, batch):
    return F.cross_entropy(model(*batch.inputs), batch.target)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))


PROBE = batches(4, seed=1)


def scored(model: nn.Module) -> float:
    with torch.no_grad():
        return sum(objective(model.eval(), batch).item() for batch in PROBE) / len(PROBE)


@pytest.mark.parametrize("steps", [1500, 6000])
def test_the_choice_costs_at_most_its_share_and_counts_every_step(steps):
    calls = {"train": 0, "score": 0}

    def counting(model, batch):
        value = objective(model, batch)
        # Steps train; of passes in eval mode, those with a gradient measure its noise and cost as much.
        calls["train" if value.requires_grad else "score"] += 1
        return value

    choice = choose(network(), batches(), counting, steps=steps, probe=PROBE)
    assert choice.overhead <= 0.15
    assert choice.overhead * steps == pytest.approx(calls["train"] + calls["score"] / 3)
    assert choice.trials


def test_the_same_call_gives_the_same_choice_and_leaves_model_and_random_numbers_alone():
    model, before, state = network(), network(), torch.get_rng_state()
    first = choose(model, batches(), objective, steps=1600, probe=PROBE)
    assert torch.equal(torch.get_rng_state(), state)
    assert choose(model, batches(), objective, steps=1600, probe=PROBE) == first
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("steps", [2000, 5000])
def test_the_winner_met_the_control_in_the_last_round(steps):
    control = SGD(lr=1e-6)
    choice = choose(network(), batches(), objective, steps=steps, probe=PROBE, rules=Rules(control=control))
    last = [t for t in choice.trials if t.steps == choice.trials[-1].steps]
    assert {control, choice.recipe} <= {t.recipe for t in last}
    assert choice.recipe != control
    assert "the control SGD" in choice.reason
    rates = {t.recipe: t.loss for t in last if type(t.recipe) is type(choice.recipe)}
    start, best = scored(network()), min(rates.values())
    assert (start - rates[choice.recipe]) / (start - best) > 0.8  # a usual rate gives up a fifth at most
    assert choice.noise_scale > 0
    if steps == 5000:
        lengths = [t.steps for t in choice.trials]
        assert lengths == sorted(lengths)


def test_a_usual_rate_is_left_only_for_one_that_learns_much_more():
    choice = choose(network(), batches(), objective, steps=2000, probe=PROBE)
    usual = [t for t in choice.trials if t.recipe in portfolio(network(), steps=2000)]
    rates = {t.recipe.lr: t.loss for t in choice.trials if type(t.recipe) is type(choice.recipe)}
    start, best = scored(network()), min(t.loss for t in choice.trials)
    known = next(t for t in usual if type(t.recipe) is type(choice.recipe))
    ahead = (known.loss - min(rates.values())) / (start - best)
    assert (choice.recipe != known.recipe) == (ahead > 0.2)


def test_a_control_that_nothing_beats_is_kept():
    control = AdamW(lr=0.5)
    calls = []

    def rigged(model, batch):
        # Large weights, which only the control reaches in a few steps, are what this loss wants.
        calls.append(1)
        return -sum(p.abs().mean() for p in model.parameters()).clamp(max=1e6)

    choice = choose(network(), batches(), rigged, steps=1500, probe=PROBE, rules=Rules(control=control))
    assert choice.recipe == control
    assert "nothing beat it" in choice.reason


def test_rates_beyond_the_stability_edge_are_left():
    # A quadratic of curvature 2c: gradient descent diverges for lr > 1/c.
    curvature = 1e4
    target = lambda model, _batch: curvature * model.weight.square().sum()
    choice = choose(
        nn.Linear(1, 1, bias=False),
        batches(),
        target,
        steps=4000,
        probe=PROBE[:1],
        rules=Rules(control=SGD(lr=1e-9)),
    )
    assert math.isfinite(min(t.loss for t in choice.trials))
    tried = [t.recipe.lr for t in choice.trials if isinstance(t.recipe, SGD)]
    assert choice.trials[-1].loss < 1e10
    assert all(lr < 1.0 for lr in tried)


def test_short_runs_take_the_table_without_a_trial():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    choice = choose(model, batches(), objective, steps=1499, probe=PROBE)
    assert (choice.trials, choice.overhead) == ((), 0.0)
    assert choice.recipe == portfolio(model, steps=1499)[0]
    assert "1499 steps are too few" in choice.reason


def test_the_census_sees_the_kind_of_norm():
    assert census(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))).norm == "layer"
    assert census(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))).norm == "batch"
    assert census(nn.Linear(2, 2)).norm == "none"
    assert census(nn.Linear(2, 2)).parameters == 6


def test_nothing_to_score_or_train_with_is_refused():
    with pytest.raises(DataError, match="no probe batches"):
        choose(network(), batches(), objective, steps=1500, probe=[])
    single = [Batch((torch.ones(1, 8),), torch.zeros(1).long(), (0,))]
    with pytest.raises(DataError, match="two or more samples"):
        choose(network(), single, objective, steps=1500, probe=PROBE)
    with pytest.raises(ArgumentError, match="`share`"):
        Rules(share=1.5)


def test_a_model_that_diverges_everywhere_still_gets_an_answer():
    def broken(model, batch):
        return objective(model, batch) * float("nan")

    choice = choose(copy.deepcopy(network()), batches(), broken, steps=1500, probe=PROBE)
    assert choice.recipe is not None
    assert all(t.loss == math.inf for t in choice.trials)


def test_a_large_transformer_recovers_the_slower_the_fewer_steps_there_are():
    large = nn.Sequential(nn.Linear(2500, 2500), nn.LayerNorm(2500))
    small = nn.Sequential(nn.Linear(25, 25), nn.LayerNorm(25))
    rates = [recovery_rule(large, 128, steps).recipe.lr for steps in (20, 50, 200, 2000)]
    assert rates == sorted(rates)
    assert rates[0] < 0.2 * rates[-1]
    assert rates[-1] == rates[-2] == recovery_rule(large, 128).recipe.lr
    assert recovery_rule(small, 128, 20) == recovery_rule(small, 128)

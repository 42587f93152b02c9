"""The training loop: it learns, repeats to the bit, holds masks, survives trouble."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.errors import ArgumentError, DataError, DivergedError
from tersor.loading.task import Batch
from tersor.optimizers.registry import RECIPES, make_recipe
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import train
from tersor.recovery.schedules import Constant, Cosine, OneCycle
from tersor.recovery.settings import Settings

SGD = make_recipe("sgd", lr=0.05)


def spirals(samples=200, seed=0) -> InMemory:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator)
    return InMemory(x, (x[:, 0] * x[:, 1] > 0).long())


def network(seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_it_learns_and_leaves_the_given_model_untouched():
    model, before = network(), network()
    trained = train(model, Epochs(spirals(), 32, 20), loss=F.cross_entropy, optimizer=SGD)
    assert sum(trained.losses[-7:]) < 0.6 * sum(trained.losses[:7])
    assert same(model, before)
    assert not trained.model.training
    assert trained.rollbacks == 0


def test_two_runs_with_one_seed_are_equal_to_the_bit():
    first, second = (
        train(network(), Epochs(spirals(), 32, 3), loss=F.cross_entropy, optimizer=SGD) for _ in range(2)
    )
    assert first.losses == second.losses
    assert same(first.model, second.model)


@pytest.mark.parametrize("name", RECIPES)
def test_every_optimizer_trains(name):
    lr = 1.0 if name == "prodigy" else 0.02
    trained = train(
        network(), Epochs(spirals(), 32, 12), loss=F.cross_entropy, optimizer=make_recipe(name, lr=lr)
    )
    assert sum(trained.losses[-7:]) < 0.9 * sum(trained.losses[:7])


def test_the_model_itself_is_trained_where_the_caller_says_so():
    model, before = network(), network()
    trained = train(
        model, Epochs(spirals(), 32), loss=F.cross_entropy, optimizer=SGD, settings=Settings(in_place=True)
    )
    assert trained.model is model
    assert not same(model, before)


def test_masked_weights_stay_exactly_zero():
    mask = (torch.arange(64).view(16, 4) % 3 > 0).float()
    decayed = make_recipe("adamw", lr=0.05, weight_decay=0.1)
    trained = train(
        network(),
        Epochs(spirals(), 32, 3),
        loss=F.cross_entropy,
        optimizer=decayed,
        settings=Settings(hold={"0.weight": mask}),
    )
    weight = trained.model.state_dict()["0.weight"]
    assert (weight[mask == 0] == 0).all()
    assert (weight[mask == 1] != 0).all()


def test_a_mask_that_names_nothing_is_refused():
    with pytest.raises(ArgumentError, match="no such parameter"):
        train(
            network(),
            Epochs(spirals(), 32),
            loss=F.cross_entropy,
            optimizer=SGD,
            settings=Settings(hold={"w": torch.ones(1)}),
        )


def test_a_diverging_learning_rate_is_halved_until_the_run_holds():
    x = torch.linspace(-1, 1, 32)[:, None]
    model = nn.Linear(1, 1)
    batches = [Batch((x,), 3 * x, tuple(range(32)))] * 400
    steep = make_recipe("sgd", lr=30.0, momentum=0.0)
    trained = train(
        model,
        batches,
        loss=F.mse_loss,
        optimizer=steep,
        schedule=Constant(),
        settings=Settings(clip=None, patience=10),
    )
    assert trained.rollbacks > 0
    assert trained.losses[-1] < 1e-3
    assert len(trained.losses) == 400


def test_data_with_nan_is_given_up_with_advice():
    bad = Batch((torch.full((4, 1), float("nan")),), torch.zeros(4, 1), (0, 1, 2, 3))
    with pytest.raises(DivergedError, match="Check the data for NaN"):
        train(nn.Linear(1, 1), [bad], loss=F.mse_loss, optimizer=SGD)


def test_a_batch_of_one_passes_through_batch_norm():
    trained = train(network(), Epochs(spirals(33), 32, 2), loss=F.cross_entropy, optimizer=SGD)
    assert len(trained.losses) == 4


def test_a_split_shorter_than_a_batch_is_one_batch():
    trained = train(network(), Epochs(spirals(7), 128, 3), loss=F.cross_entropy, optimizer=SGD)
    assert len(trained.losses) == 3


def test_labels_are_asked_for():
    with pytest.raises(DataError, match="the batch has none"):
        train(network(), [Batch((torch.zeros(2, 4),), None, (0, 1))], loss=F.cross_entropy, optimizer=SGD)


def test_no_batches_and_an_empty_split_are_refused():
    with pytest.raises(DataError, match="no batches"):
        train(network(), [], loss=F.cross_entropy, optimizer=SGD)
    with pytest.raises(DataError, match="is empty"):
        Epochs(spirals(0), 32)


def test_the_mean_of_the_weights_is_smoother_than_the_weights():
    run = lambda average: train(
        network(), Epochs(spirals(), 32, 6), loss=F.cross_entropy, optimizer=SGD, schedule=Constant(),
        settings=Settings(average=average),
    )  # fmt: skip
    plain, averaged = run(None), run(0.9)
    assert plain.losses == averaged.losses
    assert not same(plain.model, averaged.model)


def test_progress_is_told_after_every_step():
    seen = []
    train(
        network(), Epochs(spirals(), 64), loss=F.cross_entropy, optimizer=SGD,
        settings=Settings(on_step=lambda step, total, loss: seen.append((step, total))),
    )  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("schedule", [Cosine(), Cosine(warmup=0.2), OneCycle(), Constant()], ids=repr)
def test_a_schedule_reaches_its_peak_and_stays_within(schedule):
    factors = [schedule(step, 100) for step in range(100)]
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) >= 0
    assert all(0 <= schedule(step, total) <= 1 for total in (1, 2, 3) for step in range(total))


def test_the_two_kinds_of_walk_see_each_sample_once_per_epoch():
    seen = [i for batch in Epochs(spirals(10), 4, 2) for i in batch.ids]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


@pytest.mark.parametrize("cliff", [118, 119, 120, 121])
def test_a_loss_that_explodes_to_a_finite_height_goes_back_too(cliff):
    x = torch.linspace(-1, 1, 32)[:, None]
    batches = [Batch((x,), slope * x, tuple(range(32))) for slope in (3.0, 2.5)] * 100
    schedule = lambda step, _total: 300.0 if step == cliff else 1.0
    trained = train(
        nn.Linear(1, 1), batches, loss=F.mse_loss, optimizer=make_recipe("sgd", lr=0.1, momentum=0.0),
        schedule=schedule, settings=Settings(clip=None, every=10),
    )  # fmt: skip
    assert 0 < trained.rollbacks <= 5
    assert max(trained.losses[-20:]) < 0.1

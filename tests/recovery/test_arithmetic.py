"""How passes compute: outputs stay float32, trainings learn as in float32, and only what is sound is taken."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.optimizers.registry import RECIPES, make_recipe
from tersor.recovery import arithmetic as room
from tersor.recovery.arithmetic import PLAIN, Arithmetic, quickest
from tersor.recovery.course import Course
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import train
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings
from tersor.recovery.train import train as whole_training

WAYS = [Arithmetic(half, last) for half in (False, True) for last in (False, True)]


def network(seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 2),
    )


def images(samples=192) -> InMemory:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 1, 8, 8, generator=generator)
    return InMemory(x, (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).long())


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    split = images(2400)
    return split.inputs, split.target


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_outputs_are_float32_and_near_those_of_float32(way):
    model, x = network().eval(), torch.randn(4, 1, 8, 8)
    found, wanted = way.output(model, (x,)), model(x)
    assert found.dtype == torch.float32
    assert (found - wanted).norm() <= 2**-6 * wanted.norm()


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", RECIPES)
def test_every_optimizer_learns_in_every_way_and_weights_stay_float32(name, way):
    lr = 1.0 if name == "prodigy" else 0.02
    trained = train(
        network(),
        Epochs(images(), 32, 8),
        loss=F.cross_entropy,
        optimizer=make_recipe(name, lr=lr),
        settings=Settings(arithmetic=way),
    )
    assert sum(trained.losses[-6:]) < 0.9 * sum(trained.losses[:6])
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in trained.model.parameters())


def test_a_recovery_in_bfloat16_comes_as_close_to_the_teacher():
    teacher, student = network(), network(1)
    ladder = Ladder(rungs=("distillation",), task_kind="classification")
    plain, quick = (
        recover(
            student, teacher, images(), epochs=20, ladder=replace(ladder, training=Settings(arithmetic=way))
        ).rungs[-1]
        for way in (PLAIN, Arithmetic(bfloat16=True, channels_last=True))
    )
    assert quick.kept
    assert quick.after <= 1.2 * plain.after


def test_the_quickest_leaves_the_model_and_random_numbers_alone():
    model = network()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    quickest(model, (torch.ones(8, 1, 8, 8),))
    assert torch.rand(1) == expected
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture
def eager(monkeypatch):
    """Let every sound way win, whatever this machine is quick at."""
    monkeypatch.setattr(room, "_step_s", lambda model, inputs, way: 0.1 if way == PLAIN else 0.01)
    monkeypatch.setattr(room, "_ways", lambda model: [Arithmetic(bfloat16=True)])


def test_a_quicker_way_is_taken(eager):
    assert quickest(network(), (torch.randn(8, 1, 8, 8),)) == Arithmetic(bfloat16=True)


def test_float32_stays_where_little_is_gained(eager, monkeypatch):
    monkeypatch.setattr(room, "_step_s", lambda model, inputs, way: 0.1 if way == PLAIN else 0.09)
    assert quickest(network(), (torch.randn(8, 1, 8, 8),)) == PLAIN


class Cancelling(nn.Module):
    """The difference of two nearly equal numbers: nothing of it is left in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = copy.deepcopy(self.first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = 1e4 * torch.ones(4)
        return (F.linear(x, self.first.weight, large) - F.linear(x, self.second.weight, large + 1e-2)) ** 3


class FloatsOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.layer(x)
        if hidden.dtype != torch.float32:
            raise RuntimeError("float32 only")
        return hidden


@pytest.mark.parametrize("model", [Cancelling(), FloatsOnly()], ids=["other gradients", "cannot run"])
def test_a_way_that_is_not_sound_is_not_taken(eager, model):
    assert quickest(model, (torch.randn(8, 4),)) == PLAIN


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (network().double(), torch.randn(8, 1, 8, 8).double()),
        (network().requires_grad_(False), torch.randn(8, 1, 8, 8)),
        (network(), torch.randn(1, 1, 8, 8)),
    ],
    ids=["float64", "nothing to train", "one sample"],
)
def test_what_cannot_be_compared_stays_as_it_is(eager, model, inputs):
    assert quickest(model, (inputs,)) == PLAIN


def test_a_training_takes_the_quickest_way_only_where_time_counts(eager):
    data = arrays()
    with_budget = whole_training(network(), data, epochs=1, optimizer="sgd", course=Course(budget=30))
    without = whole_training(network(), data, epochs=1, optimizer="sgd")
    asked = whole_training(
        network(), data, epochs=1, optimizer="sgd", course=Course(budget=30, precision="float32")
    )
    assert [t.arithmetic for t in (with_budget, without, asked)] == [Arithmetic(bfloat16=True), PLAIN, PLAIN]
    assert with_budget.as_json()["arithmetic"] == "products of bfloat16"


def test_a_resumed_training_computes_as_it_began(eager, monkeypatch, tmp_path):
    data, course = arrays(), Course(budget=30, folder=tmp_path)
    first = whole_training(network(), data, epochs=1, optimizer="sgd", course=course)
    monkeypatch.setattr(room, "_ways", lambda model: [])
    again = whole_training(network(), data, epochs=1, optimizer="sgd", course=course)
    assert first.arithmetic == again.arithmetic == Arithmetic(bfloat16=True)


def test_an_unknown_precision_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="float32"):
        Course(precision="float8")

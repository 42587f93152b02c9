"""Training from end to end: length, early stopping, running mean, head first, decay by layer, resuming."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.errors import ArgumentError, DataError, FolderError, ModelError
from tersor.loading.weights import read_weights
from tersor.optimizers.groups import levels, parameter_groups
from tersor.optimizers.registry import make_recipe
from tersor.optimizers.sgd import SGD
from tersor.recovery.average import Average
from tersor.recovery.course import Course
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.head import head_of, new_head
from tersor.recovery.loop import train as loop
from tersor.recovery.settings import Settings
from tersor.recovery.train import distill, train
from tersor.recovery.watch import Watch


def samples(count=600, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return x, x[:, :classes].argmax(1)


def network(classes=3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, classes))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_a_network_learns_and_says_how():
    model, before = network(), network()
    learned = train(model, samples(), epochs=10)
    assert learned.score > 0.85
    assert learned.before < 0.6
    assert len(learned.looks) == 10
    assert same(model, before)
    assert any("optimizer" in line for line in learned.words())


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free"])
def test_the_weights_that_come_back_are_those_of_the_best_look(average, optimizer):
    course = Course(average=average)
    learned = train(network(), samples(), epochs=6, optimizer=optimizer, course=course)
    assert learned.score == max(score for _, score in learned.looks)
    again = train(learned.model, samples(), epochs=1, course=Course(lr=1e-9))
    assert again.before == learned.score


def test_training_ends_early_where_nothing_gets_better():
    falling = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.95])
    watch = Watch(lambda _: next(falling), every=2, patience=3)
    x, y = samples()
    batches = Epochs(InMemory(x, y), 60, 10)
    done = loop(
        network(), batches, loss=F.cross_entropy, optimizer=SGD(lr=0.01), settings=Settings(watch=watch)
    )
    assert done.looks == ((2, 0.5), (4, 0.9), (6, 0.8), (8, 0.7), (10, 0.6))
    assert len(done.losses) == 10 < len(batches)
    steep = train(network(), samples(), epochs=40, optimizer=SGD(lr=2.0), course=Course(patience=2))
    assert len(steep.losses) < steep.steps
    assert any("ended early" in line for line in steep.words())


def test_the_best_weights_are_the_ones_of_that_step():
    x, y = samples()
    kept = {}
    scores = iter([0.1, 0.9, 0.2, 0.3])

    def score(model):
        value = next(scores)
        kept[value] = {name: t.clone() for name, t in model.state_dict().items()}
        return value

    done = loop(
        network(), Epochs(InMemory(x, y), 60, 2), loss=F.cross_entropy, optimizer=SGD(lr=0.1),
        settings=Settings(watch=Watch(score, every=5)),
    )  # fmt: skip
    assert all(torch.equal(tensor, kept[0.9][name]) for name, tensor in done.model.state_dict().items())


def test_a_running_mean_is_the_recursion_of_its_formula():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    mean = Average(model, 0.8)
    expected = {name: t.double() for name, t in mean.tensors.items()}
    for step in range(1, 9):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn(tensor.shape))
        mean.update(model, step)
        beta = min(0.8, (1 + step) / (10 + step))
        now = model.state_dict()
        expected = {name: beta * old + (1 - beta) * now[name].double() for name, old in expected.items()}
    assert "1.running_var" in expected
    for name, tensor in mean.tensors.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    own = model[0].weight.detach().clone()
    with mean.shown(model):
        assert torch.equal(model[0].weight, mean.tensors["0.weight"])
    assert torch.equal(model[0].weight, own)


def test_rates_fall_by_level_from_the_head_down():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)) for _ in range(2))
            self.head = nn.Linear(2, 3)

    depth = levels(Net())
    assert [depth[f"{name}.weight"] for name in ("stem", "blocks.0.0", "blocks.0.1", "blocks.1.0", "head")] == [
        0, 1, 1, 2, 3,
    ]  # fmt: skip
    groups = parameter_groups(Net(), layer_decay=0.5)
    rates = {id(p): group["rate"] for group in groups for p in group["params"]}
    net = Net()
    assert sorted(rates.values(), reverse=True)[0] == 1.0
    assert {group["rate"] for group in groups} == {1.0, 0.5, 0.25, 0.125}
    assert len(rates) == sum(1 for _ in net.parameters())
    with pytest.raises(ArgumentError, match="layer_decay"):
        parameter_groups(Net(), layer_decay=0.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon", "nadamw"])
def test_lower_layers_move_less_under_decay(optimizer):
    x, y = samples()
    moved = {}
    for decay in (1.0, 0.01):
        model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
        done = loop(
            model, Epochs(InMemory(x, y), 60, 1), loss=F.cross_entropy, optimizer=make_recipe(optimizer, lr=1e-3),
            settings=Settings(layer_decay=decay),
        )  # fmt: skip
        moved[decay] = [(done.model[i].weight - model[i].weight).norm().item() for i in (0, 2)]
    assert moved[0.01][0] < 0.03 * moved[1.0][0]
    assert moved[0.01][1] > 0.5 * moved[1.0][1]


def test_a_new_head_keeps_the_body_and_learns_other_classes():
    body = train(network(), samples(), epochs=5).model
    changed = new_head(body, torch.randn(2, 6), classes=5)
    assert head_of(body, torch.randn(2, 6)) == "3"
    assert torch.equal(changed[0].weight, body[0].weight)
    assert changed(torch.randn(2, 6)).shape == (2, 5)
    said = []
    learned = train(
        changed, samples(800, classes=5, seed=3), epochs=8,
        course=Course(start="trained", head_epochs=3, layer_decay=0.8, say=said.append),
    )  # fmt: skip
    assert learned.score > learned.before + 0.3
    assert any("'3', alone" in line for line in said)
    assert all(p.requires_grad for p in learned.model.parameters())


def test_the_head_is_trained_on_a_body_that_stands_still():
    start = network()
    course = Course(head_epochs=2, lr=1e-12)
    learned = train(start, samples(), epochs=0.1, optimizer="sgd", course=course)
    assert torch.allclose(learned.model[0].weight, start[0].weight, atol=1e-6)
    assert (learned.model[3].weight - start[3].weight).norm() > 0.1


def test_a_model_without_a_head_says_so():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    with pytest.raises(ModelError, match="number of classes you want"):
        new_head(Shared(), torch.zeros(1, 4), classes=3)

    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 10), nn.Linear(4, 7)

        def forward(self, x):
            return (self.a(x), self.b(x))

    with pytest.raises(ModelError, match="is not its head"):
        new_head(Trunk(), torch.zeros(1, 4), classes=3)


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_course_goes_on_where_it_was_stopped(tmp_path, cut):
    class Stop(Exception):
        pass

    def course(folder=None, stop_at=None):
        count = [0]

        def on_step(*_):
            count[0] += 1
            if count[0] == stop_at:
                raise Stop

        return Course(folder=folder, average=0.9, head_epochs=0.5, batch=60, on_step=on_step)

    kwargs = {"epochs": 2.0}
    whole = train(network(), samples(), **kwargs, course=course())
    with pytest.raises(Stop):
        train(network(), samples(), **kwargs, course=course(tmp_path / "run", stop_at=cut))
    resumed = train(network(), samples(), **kwargs, course=course(tmp_path / "run"))
    assert resumed.losses == whole.losses
    assert same(resumed.model, whole.model)
    assert resumed.looks == whole.looks
    with pytest.raises(ArgumentError, match="in other words"):
        train(network(), samples(), epochs=3.0, course=course(tmp_path / "run"))


def test_a_budget_of_time_is_kept_roughly():
    learned = train(network(), samples(), optimizer="adamw", course=Course(budget="2s"))
    assert 0.3 < learned.wall_s < 4
    assert learned.steps > 50


def test_saved_weights_are_read_back(tmp_path):
    learned = train(network(), samples(), epochs=1)
    learned.save(tmp_path / "out")
    weights = read_weights(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(t, learned.model.state_dict()[name]) for name, t in weights.items())
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["score"] == learned.score
    assert len(report["losses"]) == len(learned.losses)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError, match="Cannot write"):
        learned.save(tmp_path / "file")


def test_a_student_imitates_without_labels():
    x, _ = samples()
    teacher = train(network(), samples(), epochs=5).model
    torch.manual_seed(5)
    student = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    learned = distill(student, teacher, x, epochs=20, optimizer="adamw")
    assert learned.metric == "agreement"
    assert learned.score > learned.before + 0.2


def test_wrong_trainings_are_refused_with_advice():
    x, y = samples()
    with pytest.raises(DataError, match="`distill` from a teacher"):
        train(network(), x)
    with pytest.raises(ArgumentError, match="one shape"):
        distill(nn.Linear(6, 4), network(), (x, y))
    with pytest.raises(DataError, match="no training samples"):
        train(network(), {"search": (x[:300], y[:300]), "certification": (x[300:], y[300:])})
    with pytest.raises(ArgumentError, match="adamw"):
        train(network(), (x, y), optimizer="adamv")
    with pytest.raises(ArgumentError, match="start"):
        Course(start="begin")
    with pytest.raises(ArgumentError, match="`epochs`"):
        train(network(), (x, y), epochs=-1)
    with pytest.raises(ArgumentError, match="patience"):
        Course(patience=0)


def test_fewer_samples_than_a_batch_and_a_last_batch_of_one_are_fine():
    x, y = samples(60)
    learned = train(network(), (x, y), epochs=2, course=Course(batch=512))
    assert learned.batch < 60
    assert train(network(), (x, y), epochs=1, course=Course(batch=1)).rollbacks == 0


def test_a_diverging_rate_is_reported_and_survived():
    x = torch.linspace(-1, 1, 400)[:, None]
    steep = SGD(lr=100.0, momentum=0.0)
    learned = train(nn.Linear(1, 1), (x, 3 * x), epochs=60, optimizer=steep)
    assert learned.rollbacks > 0
    assert any("exploded" in line for line in learned.words())
    assert learned.score < 0.1 * learned.before
    hopeless = train(nn.Linear(1, 1), (x, 3 * x), epochs=5, optimizer=SGD(lr=1e12, momentum=0.0))
    assert any("worse than before" in line for line in hopeless.words())

"""The single verbs, on real modules."""

import pytest
import torch
from torch import nn

from tersor.cli.digits import ConvNet, Perceptron
from tersor.errors import ArgumentError, DataError, PlanError
from tersor.loading.task import Batch
from tersor.recovery.train import distill
from tersor.search.verbs import factorize, prune
from tersor.surgery.apply import apply


@pytest.fixture
def convnet():
    torch.manual_seed(0)
    return ConvNet(16).eval()


@pytest.mark.parametrize("by", ["macs", "global", "uniform"])
def test_pruning_keeps_the_class_and_the_output_shape(convnet, by):
    images = torch.randn(3, 1, 8, 8)
    smaller, plan = prune(convnet, images, ratio=0.5, by=by)
    assert type(smaller) is ConvNet
    assert smaller(images).shape == (3, 10)
    assert len(plan) > 0
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in convnet.parameters())


def test_pruning_by_gradients_takes_labels_where_there_are_some(convnet):
    images = torch.randn(8, 1, 8, 8)
    batch = Batch((images,), torch.randint(0, 10, (8,)), tuple(range(8)))
    plans = [
        prune(convnet, images, ratio=0.5, criterion="taylor", batches=[batch], loss=loss).plan
        for loss in (None, nn.functional.cross_entropy)
    ]
    assert plans[0] != plans[1]


def test_with_data_the_weights_that_stay_take_over(convnet):
    images = torch.randn(64, 1, 8, 8)
    batch = Batch((images,), None, tuple(range(64)))
    plain, plan = prune(convnet, images, ratio=0.5)
    repaired = prune(convnet, images, ratio=0.5, batches=[batch])
    assert repaired.plan == plan
    with torch.no_grad():
        wanted = convnet(images)
        far, near = ((made(images) - wanted).norm() for made in (plain, repaired.model))
    assert near < 0.7 * far


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 50}, "pass 0.5"),
        ({"ratio": -0.1}, "fraction"),
        ({"ratio": 0.5, "by": "unifrom"}, "uniform"),
        ({"ratio": 0.5, "criterion": "magnitud"}, "magnitude"),
    ],
)
def test_wrong_words_for_pruning_say_what_would_do(convnet, options, message):
    with pytest.raises(ArgumentError, match=message):
        prune(convnet, torch.randn(2, 1, 8, 8), **options)


def test_factorizing_a_low_rank_network_keeps_its_function():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            left, right = torch.randn(layer.out_features, 3), torch.randn(3, layer.in_features)
            layer.weight.copy_(left @ right / 10)
    x = torch.randn(5, 32)
    thin, plan = factorize(net, x, energy=0.9999)
    assert {edit.layer for edit in plan.edits} == {"0", "2"}
    torch.testing.assert_close(thin(x), net(x), atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in thin.parameters()) < 0.5 * sum(p.numel() for p in net.parameters())


def test_factorizing_a_full_rank_network_is_refused():
    torch.manual_seed(0)
    with pytest.raises(PlanError, match="Lower `energy`"):
        factorize(nn.Sequential(nn.Linear(16, 16)), torch.randn(2, 16), energy=0.9999)


def test_a_plan_repeats_what_a_verb_did(convnet):
    from tersor.graph.trace import trace

    images = torch.randn(2, 1, 8, 8)
    smaller, plan = prune(convnet, images, ratio=0.4)
    again = apply(convnet, plan, trace(convnet, (images,))).model
    assert torch.equal(smaller(images), again(images))


def test_a_distilled_student_answers_more_like_its_teacher(perceptron, digits):
    torch.manual_seed(1)
    student = Perceptron(24)
    data = {name: digits[name] for name in ("train", "search", "certification")}
    recovered = distill(student, perceptron, data, epochs=12)
    images = torch.from_numpy(digits["search"][0])
    wanted = perceptron(images).argmax(1)
    before = (student(images).argmax(1) == wanted).float().mean()
    after = (recovered.model(images).argmax(1) == wanted).float().mean()
    assert after > before + 0.4


def test_distilling_without_training_samples_is_refused(perceptron, digits):
    data = {name: digits[name] for name in ("search", "certification")}
    with pytest.raises(DataError, match="train"):
        distill(Perceptron(24), perceptron, data)

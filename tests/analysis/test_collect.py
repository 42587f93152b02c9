"""Evidence, against finite differences and sums written out."""

import copy

import pytest
import torch
from torch import nn

from tersor.analysis.collect import collect
from tersor.analysis.layout import order_of
from tersor.errors import ArgumentError, DataError
from tersor.graph.groups import Group, Member
from tersor.loading.task import Batch
from tests.analysis.networks import Attention, Residual, attention_groups, residual_groups

SAMPLES = 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual().double().eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return Batch((torch.randn(SAMPLES, 3, 8, 8).double(),), torch.tensor([0, 3, 1]), (0, 1, 2))


def loss(output, target):
    return nn.functional.cross_entropy(output, target)


def test_parts_have_one_row_per_unit_and_the_role_that_was_seen(model, batch):
    evidence = collect(model, residual_groups(), [batch])
    assert {name: [part.role for part in found.parts] for name, found in evidence.items()} == {
        "conv1": ["writes", "carries", "reads"],
        "stem": ["writes", "scales", "carries", "carries", "carries", "reads", "reads"],
        "conv2": ["writes", "carries", "writes", "reads"],
    }
    assert all(len(part.weight) == found.size for found in evidence.values() for part in found.parts)
    reads = evidence["conv1"].parts[2]
    assert torch.equal(reads.weight[1], model.conv2.weight[:, 1].permute(1, 2, 0).flatten())
    assert reads.width == 9


def test_saliency_is_the_derivative_of_each_loss_along_the_removal(model, batch):
    """Scale what consumers read of one unit by 1 + h; central differences of the loss of each sample."""
    found = collect(model, residual_groups(), [batch], fields={"saliency"}, loss=loss)["stem"]
    unit, h = 2, 1e-5
    losses = []
    for scale in (1 + h, 1 - h):
        moved = copy.deepcopy(model)
        for name in ("conv1", "short"):
            moved.get_submodule(name).weight.data[:, unit] *= scale
        losses.append(nn.functional.cross_entropy(moved(*batch.inputs), batch.target, reduction="none"))
    expected = (losses[0] - losses[1]) / (2 * h)
    effects = sum(part.saliency for part in found.of("reads"))
    torch.testing.assert_close(effects[:, unit], expected.detach(), rtol=1e-6, atol=1e-9)


def test_curvature_is_the_mean_of_squared_products(model, batch):
    part = collect(model, residual_groups(), [batch], fields={"curvature"}, loss=loss)["conv2"].of("reads")[0]
    expected = torch.zeros(6, dtype=torch.float64)
    for i in range(SAMPLES):
        weight = model.fc.weight
        (grad,) = torch.autograd.grad(
            loss(model(batch.inputs[0][i : i + 1]), batch.target[i : i + 1]), weight
        )
        expected += (weight * grad).detach().square().sum(0) / SAMPLES
    torch.testing.assert_close(part.curvature, expected)


def test_gram_and_moment_are_those_of_the_consumers_inputs(model, batch):
    seen = []
    handle = model.conv2.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(*batch.inputs)
    handle.remove()
    rows = nn.functional.unfold(seen[0], 3, padding=1).transpose(1, 2).flatten(0, 1).float()
    found = collect(model, residual_groups(), [batch, batch], fields={"gram"})["conv1"].of("reads")[0]
    torch.testing.assert_close(found.gram, (rows.T @ rows / len(rows)).detach(), rtol=1e-5, atol=1e-6)
    only = collect(model, residual_groups(), [batch], fields={"moment"})["conv1"].of("reads")[0]
    assert only.gram is None
    torch.testing.assert_close(only.moment.flatten(), found.gram.diagonal(), rtol=1e-5, atol=1e-6)


def test_heads_are_rows_of_their_features_in_weight_and_gram():
    torch.manual_seed(0)
    model = Attention()
    batch = Batch((torch.randn(2, 4, 8),), None, (0, 1))
    evidence = collect(model, attention_groups(), [batch], fields={"gram"})
    heads, features = (evidence[name].of("reads")[0] for name in ("heads", "value features"))
    assert (heads.width, features.width) == (3, 2)
    assert torch.equal(heads.weight.reshape(6, 8), model.out.weight.detach().T)
    interleaved = [0, 3, 1, 4, 2, 5]
    assert torch.equal(features.weight.reshape(6, 8), model.out.weight.detach().T[interleaved])
    torch.testing.assert_close(features.gram, heads.gram[interleaved][:, interleaved])


def test_the_model_is_not_changed(model, batch):
    model.train()
    model.fc.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    collect(model, residual_groups(), [batch], fields={"saliency", "gram"}, loss=loss)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert not model.fc.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_groups_that_must_stay_are_left_out_and_shapes_tell_kinds_apart(model, batch):
    groups = residual_groups()
    frozen = Group("fc", "channels", 4, (Member("fc.weight", 0, (0, 1, 2, 3)),), reason="an output")
    evidence = collect(model, [*groups, frozen], [batch])
    assert set(evidence) == {"conv1", "stem", "conv2"}
    assert evidence["stem"].shape != evidence["conv1"].shape


def test_buffers_that_are_not_saved_may_be_members():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model.register_buffer("scale", torch.ones(3), persistent=False)
    units = (0, 1, 2)
    group = Group("0", "hidden", 3, (Member("0.weight", 0, units), Member("scale", 0, units)))
    evidence = collect(model, [group], [Batch((torch.ones(1, 2),), None, (0,))])
    assert [part.role for part in evidence["0"].parts] == ["writes", "carries"]


def test_tied_members_count_once():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    units = (0, 1, 2)
    group = Group("width", "embedding", 3, (Member("0.weight", 1, units), Member("1.weight", 1, units)))
    batch = Batch((torch.tensor([[1, 2], [3, 4]]),), None, (0, 1))
    (part,) = collect(model, [group], [batch], fields={"gram"})["width"].parts
    assert part.role == "reads"
    assert part.gram is not None


def test_an_unknown_field_is_refused(model, batch):
    with pytest.raises(ArgumentError, match="`fields` must be one of"):
        collect(model, residual_groups(), [batch], fields={"gradient"})


def test_without_a_loss_squared_effects_are_squared_changes_of_the_outputs(model, batch):
    """E over random directions v of (v^T J w)^2 is |J w|^2; J w from central differences."""
    unlabelled = [Batch(batch.inputs, None, batch.ids)] * 400
    part = collect(model, residual_groups(), unlabelled, fields={"saliency"})["conv2"].of("reads")[0]
    unit, h, outputs = 1, 1e-5, []
    for scale in (1 + h, 1 - h):
        moved = copy.deepcopy(model)
        moved.fc.weight.data[:, unit] *= scale
        outputs.append(moved(*batch.inputs).detach())
    expected = ((outputs[0] - outputs[1]) / (2 * h)).square().sum(1).mean()
    measured = part.saliency[:, unit].square().mean()
    assert abs(measured / expected - 1) < 0.25


def test_missing_data_is_refused(model, batch):
    with pytest.raises(DataError, match="no calibration batch"):
        collect(model, residual_groups(), [])
    with pytest.raises(DataError, match="targets"):
        collect(
            model, residual_groups(), [Batch(batch.inputs, None, (0, 1, 2))], fields={"saliency"}, loss=loss
        )


def test_groups_of_another_model_are_refused(model, batch):
    with pytest.raises(ArgumentError, match=r"'body.weight', which this model does not have"):
        collect(model, [Group("g", "channels", 1, (Member("body.weight", 0, (0,)),))], [batch])


def test_units_of_unequal_share_are_refused():
    with pytest.raises(ArgumentError, match="equally many"):
        order_of((0, 0, 1), 2)

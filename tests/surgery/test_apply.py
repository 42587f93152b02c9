"""What surgery keeps, what it refuses, and what it says."""

import pytest
import torch
from torch import nn

from tersor.errors import PlanError
from tersor.graph.trace import trace
from tersor.planning.plan import Cut, Drop, Factorize, Mask, Plan, Quantize
from tersor.surgery.apply import apply, close
from tersor.surgery.verify import verify
from tests.graph.networks import Bert, Llama, ResNet, ViT, image, words
from tests.surgery.cutting import output, parameters, random_plan


def two_layers():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, trace(model, (torch.randn(3, 4),))


def test_tied_weights_stay_tied():
    model = Llama()
    graph = trace(model, words())
    smaller = apply(model, random_plan(graph, 0.5), graph).model
    assert smaller.head.weight is smaller.embed.weight
    assert smaller.embed.weight.shape == (40, 16)


def test_types_devices_gradients_hooks_and_modes_are_kept():
    model, graph = two_layers()
    model.to(torch.bfloat16).train()
    model[0].weight.requires_grad_(False)
    model[1].eval()
    called = []
    model[0].register_forward_hook(lambda *_: called.append(1))
    smaller = apply(model, Plan((Cut("0", (1, 5)),)), graph).model
    assert smaller[0].weight.dtype == torch.bfloat16
    assert not smaller[0].weight.requires_grad
    assert smaller[2].weight.requires_grad
    assert smaller.training
    assert not smaller[1].training
    smaller(torch.zeros(1, 4, dtype=torch.bfloat16))
    assert called


def test_kept_weights_are_those_of_the_original():
    model, graph = two_layers()
    smaller = apply(model, Plan((Cut("0", (1, 5)),)), graph).model
    assert torch.equal(smaller[0].weight, model[0].weight[[1, 5]])
    assert torch.equal(smaller[2].weight, model[2].weight[:, [1, 5]])
    smaller[0].weight.data.zero_()
    assert model[0].weight.abs().min() > 0


def test_changed_attributes_are_named_with_old_and_new_value():
    model = Bert()
    graph = trace(model, words())
    heads = next(group for group in graph.groups if group.kind == "heads")
    changed = apply(model, Plan((Cut(heads.name, (0, 2)),)), graph).changed
    assert changed["heads"] == (4, 2)
    assert changed["all_head_size"] == (24, 12)
    assert changed["query.out_features"] == (24, 12)
    assert "head_size" not in changed


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ((Cut("1", (0,)),), "no group '1'"),
        ((Cut("0", ()),), "no unit"),
        ((Cut("0", (3, 1)),), "ascending"),
        ((Cut("0", (0, 8)),), "0..7"),
        ((Cut("2", (0,)),), "output of the model"),
        ((Cut("0", (0,)), Cut("0", (1,))), "twice"),
        ((Quantize("0"),), "tersor.quantize"),
        ((Drop("0"),), "adds to its input"),
        ((Factorize("9", 2),), "no layer"),
        ((Factorize("1", 2),), "ReLU"),
        ((Factorize("0", 9),), "1..4"),
        ((Mask("0.weights", "2:4"),), "no parameter"),
        ((Mask("0.weight", "3 of 4"),), "Not a pattern"),
        ((Mask("0.weight", "ratio:50"),), "fraction"),
        ((Mask("0.weight", "2:3"),), "divides"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(edits, message):
    model, graph = two_layers()
    with pytest.raises(PlanError, match=message):
        apply(model, Plan(edits), graph)


def test_a_graph_of_another_model_is_refused():
    _, graph = two_layers()
    with pytest.raises(PlanError, match="another model"):
        apply(nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2)), Plan((Cut("0", (1, 5)),)), graph)


def test_a_plan_that_breaks_a_tie_is_refused_and_closing_it_helps():
    model = nn.Sequential(nn.Linear(4, 8), Halves(), nn.Linear(8, 2))
    graph = trace(model, (torch.randn(3, 4),))
    first = graph.groups[0].name
    broken = Plan((Cut(first, (0,)),))
    with pytest.raises(PlanError, match=r"equal parts.*close"):
        apply(model, broken, graph)
    closed = close(
        broken, graph, {name: [1.0, 9.0, 2.0, 3.0] for name in (g.name for g in graph.groups if g.prunable)}
    )
    assert verify(model, closed, graph, (torch.randn(3, 4),)).ok


class Halves(nn.Module):
    """Two halves of a layer used in different ways."""

    def forward(self, x):
        a, b = x.chunk(2, -1)
        return torch.cat([a.relu(), b.tanh()], -1)


def test_dropping_a_block_leaves_its_skip_connection():
    model = ViT().eval()
    inputs = image()
    graph = trace(model, inputs)
    assert set(graph.blocks) == {"blocks.0", "blocks.1"}
    smaller = apply(model, Plan((Drop("blocks.1"),)), graph).model
    reference = ViT().eval()
    reference.load_state_dict(model.state_dict())
    reference.blocks = reference.blocks[:1]
    assert torch.equal(output(smaller, inputs), output(reference, inputs))
    assert verify(model, Plan((Drop("blocks.1"),)), graph, inputs).ok


def test_factorized_layers_are_the_best_of_their_rank():
    model = ResNet().eval()
    inputs = image()
    graph = trace(model, inputs)
    plan = random_plan(graph, 0.25) + Plan((Factorize("blocks.1.conv2", 3), Factorize("fc", 2)))
    assert verify(model, plan, graph, inputs).error < 1e-9
    smaller = apply(model, plan, graph).model
    assert parameters(smaller) < parameters(apply(model, random_plan(graph, 0.25), graph).model)
    whole = apply(model, Plan((Factorize("fc", 5),)), graph).model
    torch.testing.assert_close(output(whole, inputs), output(model, inputs), rtol=1e-5, atol=1e-6)


def test_masked_weights_stay_zero_through_training():
    model, graph = two_layers()
    plan = Plan((Mask("0.weight", "2:4"), Mask("2.weight", "ratio:0.5")))
    smaller = apply(model, plan, graph).model.train()
    optimizer = torch.optim.AdamW(smaller.parameters(), lr=0.1)
    for _ in range(3):
        smaller(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert ((smaller[0].weight != 0).sum(1) == 2).all()
    assert (smaller[2].weight == 0).sum() == 8
    assert verify(model, plan, graph, (torch.randn(3, 4),)).ok

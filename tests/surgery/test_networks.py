"""Every network with one difficulty: groups are symmetries, and cut models equal the masked originals."""

import copy

import pytest
import torch

from tersor.graph.prove import prove
from tersor.graph.trace import trace
from tersor.loading.inputs import call, main_output
from tersor.surgery.apply import apply
from tersor.surgery.verify import verify
from tests.graph.networks import NETWORKS
from tests.surgery.cutting import output, parameters, random_plan


def made(name):
    torch.manual_seed(3)
    factory, inputs, share = NETWORKS[name]
    return factory().eval(), inputs(), share


@pytest.mark.parametrize("name", NETWORKS)
def test_permuting_the_units_of_a_group_changes_nothing(name):
    model, inputs, _ = made(name)
    prunable = [group for group in trace(model, inputs).groups if group.prunable]
    assert prunable
    for group in prunable:
        assert prove(group, model, inputs) < 1e-12, group.name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_model_is_the_original_with_the_units_excluded(name):
    model, inputs, share = made(name)
    graph = trace(model, inputs)
    for seed in range(2):
        plan = random_plan(graph, 0.5, seed)
        verdict = verify(model, plan, graph, inputs)
        assert verdict.error < 1e-10, verdict
        smaller = apply(model, plan, graph).model
        assert type(smaller) is type(model)
        assert parameters(smaller) <= share * parameters(model)
        assert parameters(smaller) == graph.parameters({c.group: c.keep for c in plan.edits})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_given_model_stays_as_it_is(name):
    model, inputs, _ = made(name)
    before, reference = copy.deepcopy(model.state_dict()), output(model, inputs)
    graph = trace(model, inputs)
    apply(model, random_plan(graph, 0.5), graph)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(output(model, inputs), reference)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_model_trains_and_copies(name):
    model, inputs, _ = made(name)
    graph = trace(model, inputs)
    smaller = copy.deepcopy(apply(model, random_plan(graph, 0.5), graph).model).train()
    main_output(call(smaller, inputs)).square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in smaller.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_identity_plan_changes_nothing(name):
    model, inputs, _ = made(name)
    graph = trace(model, inputs)
    same = apply(model, random_plan(graph, 0.0), graph)
    assert not same.changed
    assert torch.equal(output(same.model, inputs), output(model, inputs))

"""Designs of a real network: harms, proposals, and what the ladder of fidelities makes of them."""

import re
from dataclasses import replace
from math import inf
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.errors import PlanError
from tersor.graph.trace import trace
from tersor.loading.build import build_task
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.plan import Cut, Drop, Factorize, Plan
from tersor.planning.space import CUT, DROP, RANK
from tersor.recovery.arithmetic import PLAIN
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.effort import batch_of
from tersor.search.executors import Local
from tersor.search.harm import space_of, unit_scores
from tersor.search.journal import Journal
from tersor.search.limits import Limits
from tersor.search.prices import Prices
from tersor.search.propose import Lessons, propose
from tersor.search.rungs import TooBold, climb, refuse_hopeless
from tersor.search.shrink import stitch, survey


class Block(nn.Module):
    def __init__(self, strength):
        super().__init__()
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)
        self.down.weight.data.mul_(strength)
        self.down.bias.data.zero_()

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), Block(1.0), Block(1e-3), nn.Linear(32, 4)).eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    network = make_network()
    x = torch.randn(600, 16, generator=torch.Generator().manual_seed(1))
    y = network(x).argmax(1)
    task = build_task(network, (x, y), seed=0).task
    said = []
    request = SimpleNamespace(
        methods=("prune", "factorize", "drop", "distill"),
        goal="size",
        seed=0,
        listen=lambda event: None,
        leaves_alone=lambda name: False,
        limits=Limits(),
        max_memory=inf,
    )
    macs = anatomy(trace(network, task.inputs)).macs(Left())
    base = Candidate("original", Plan(), model=network, macs=int(macs), quality=SimpleNamespace(value=1.0))
    return SimpleNamespace(
        task=task,
        request=request,
        base=base,
        clock=Clock(),
        arithmetic=PLAIN,
        executor=Local(),
        journal=Journal(tmp_path_factory.mktemp("search")),
        say=lambda *words: said.append(words),
        said=said,
        margin=0.01,
    )


@pytest.fixture(scope="module")
def known(run):
    return survey(run, run.base)


def test_every_kind_of_unit_is_found_with_harms_that_rise(known):
    assert {unit.kind for unit in known.space.units} == {CUT, RANK, DROP}
    for unit in known.space.units:
        assert unit.harms[0] == 0.0
        assert list(unit.harms) == sorted(unit.harms)
        assert len(unit.harms) == len(unit.levels)


def test_a_block_that_does_nothing_is_the_cheapest_to_drop(known):
    drops = {unit.name: unit.harms[1] for unit in known.space.units if unit.kind == DROP}
    assert drops["2"] < 1e-3 * drops["1"]


def test_the_harm_of_a_block_is_the_second_order_effect_of_leaving_it_out(run, known):
    """Against a finite difference: the branch scaled down a little, per sample."""
    from tersor.search.harm import evidence

    model, losses, steps = run.task.model, [], 1e-2
    block = model[1]
    weight, bias = block.down.weight.data.clone(), block.down.bias.data.clone()
    for batch in evidence(run.task, 96):
        values = []
        for scale in (1.0, 1.0 - steps):
            block.down.weight.data, block.down.bias.data = weight * scale, bias * scale
            with torch.no_grad():
                output = model(*batch.inputs)
            values.append(
                torch.stack(
                    [run.task.loss(o[None], t[None]) for o, t in zip(output, batch.target, strict=True)]
                )
            )
        losses.append((values[1] - values[0]) / steps)
    block.down.weight.data, block.down.bias.data = weight, bias
    naive = torch.cat(losses).square().mean() / 2
    found = next(unit.harms[1] for unit in known.space.units if unit.kind == DROP and unit.name == "1")
    assert found == pytest.approx(float(naive), rel=0.1)


def test_stitching_carries_out_every_kind_of_edit(run, known):
    plan = Plan((Cut("1.up", tuple(range(24))), Drop("2"), Factorize("1.down", 6)))
    made = stitch(run, known, plan)
    assert {type(edit) for edit in made.plan.edits} == {Cut, Drop, Factorize}
    assert made.model[1].up.out_features == 24
    assert made.model[1].down[0].out_features == 6
    assert made.model(*run.task.inputs).shape == (len(run.task.inputs[0]), 4)


def test_factors_that_a_cut_made_pointless_are_left_out(run, known):
    made = stitch(run, known, Plan((Cut("1.up", (0, 1, 2, 3)), Factorize("1.down", 12))))
    assert made.plan.of(Factorize) == ()


def test_the_joint_design_is_no_further_from_the_original_than_any_single_method(run, known):
    lessons = Lessons(Prices("size"), whole=known.space)
    proposals = propose(run, known, lessons, ("float",), 0.5)
    target = lessons.target(("float",), 0.5) * 1.02
    assert all(p.point.cost <= target for p in proposals)
    assert [p.divergence for p in proposals] == sorted(p.divergence for p in proposals)
    assert any(isinstance(edit, Drop) and edit.block == "2" for edit in proposals[0].stitched.plan.edits)
    assert set(lessons.weights) <= {CUT, RANK, DROP}


def test_what_the_proposal_promises_is_what_the_stitched_model_weighs(run, known):
    lessons = Lessons(Prices("size"), whole=known.space)
    best = propose(run, known, lessons, ("float",), 0.6)[0]
    parameters = sum(p.numel() for p in best.stitched.model.parameters())
    assert 4 * parameters == pytest.approx(best.point.cost, rel=0.02)


def test_a_limit_of_size_binds_beside_the_goal(run, known):
    bare = known.space.anatomy.bytes(Left(), "float")
    base = replace(run.base, artefact=SimpleNamespace(size_bytes=bare + 500))
    request = SimpleNamespace(**{**vars(run.request), "limits": Limits(size=500 + 0.3 * bare)})
    limited = SimpleNamespace(**{**vars(run), "base": base, "request": request})
    lessons = Lessons(Prices("size"), whole=known.space)
    best = propose(limited, known, lessons, ("float",), 0.9)[0]
    assert sum(4 * p.numel() for p in best.stitched.model.parameters()) <= 0.3 * bare


def test_a_goal_that_nothing_brings_closer_is_an_error(run):
    request = SimpleNamespace(**{**vars(run.request), "methods": ()})
    idle = SimpleNamespace(**{**vars(run), "request": request})
    with pytest.raises(PlanError, match="Nothing of this model"):
        survey(idle, run.base)


def test_without_a_budget_the_closest_stitched_design_goes_on(run, known):
    proposals = propose(run, known, Lessons(Prices("size"), whole=known.space), ("float",), 0.5)
    assert climb(run, proposals, Lessons(Prices("size")), 20.0) is proposals[0]


def test_with_a_budget_a_short_training_decides_and_its_agreement_is_told(run, known):
    timed = SimpleNamespace(**{**vars(run), "clock": Clock(600.0)})
    proposals = propose(run, known, Lessons(Prices("size"), whole=known.space), ("float",), 0.4)
    lessons = Lessons(Prices("size"))
    best = climb(timed, proposals, lessons, 10.0)
    if len(proposals) > 1:
        assert lessons.finalists in (2, 4)
        assert "rank correlation" in run.said[-1][1]
        told = [
            float(value) for value in re.findall(r"(?:prune|factorize|drop) ([\d.e+-]+)", run.said[-1][1])
        ]
        assert best.divergence == pytest.approx(min(told), rel=1e-3)


def test_a_hopeless_model_is_given_up_before_a_short_training_only(run):
    timed = SimpleNamespace(**{**vars(run), "clock": Clock(600.0)})
    bad, lessons = nn.Sequential(nn.Linear(16, 4)), Lessons(Prices("size"))
    with pytest.raises(TooBold, match="milder"):
        refuse_hopeless(timed, lessons, bad, 1.0)
    refuse_hopeless(timed, lessons, bad, 100 * batch_of(run.task) / len(run.task.train))
    refuse_hopeless(run, lessons, bad, 1.0)
    refuse_hopeless(timed, lessons, run.task.model, 1.0)


def test_scores_of_an_empty_choice_are_empty(run):
    assert unit_scores(run.task, run.task.model, ()) == {}
    graph = trace(run.task.model, run.task.inputs)
    assert space_of(run.task, run.task.model, graph, {}, (), (CUT,)).units == ()

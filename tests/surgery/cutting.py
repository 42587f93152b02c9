"""Random plans, and the checks that every network must pass."""

import copy

import numpy as np
import torch

from tersor.graph.prove import as_double
from tersor.loading.inputs import call, main_output
from tersor.planning.plan import Cut, Plan
from tersor.surgery.apply import close


def random_plan(graph, ratio: float, seed: int = 0) -> Plan:
    """Return a plan that removes a share of the units of every prunable group."""
    chance = np.random.default_rng(seed)
    cuts = []
    for group in graph.groups:
        if group.prunable:
            keep = max(1, group.size - int(ratio * group.size))
            cuts.append(
                Cut(group.name, tuple(sorted(chance.choice(group.size, keep, replace=False).tolist())))
            )
    return close(Plan(tuple(cuts)), graph)


def output(model, inputs):
    model = copy.deepcopy(model).double().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        return main_output(call(model, as_double(inputs)))


def parameters(model) -> int:
    return sum(p.numel() for p in model.parameters())

"""A share of the multiply-adds of a model: the cut that removes it, with what the model's code ties together."""

from tersor._check import fraction
from tersor.analysis.costs import mac_cost
from tersor.analysis.ties import ties
from tersor.errors import PlanError
from tersor.graph.solve import close
from tersor.graph.structure import Graph
from tersor.planning.plan import Cut, Plan
from tersor.pruning.score import Scores
from tersor.pruning.select import lowest_cost, prune_to_budget

#: How often units that the code needs back are made up for elsewhere.
_ROUNDS = 8


def prune_macs(
    scores: Scores, graph: Graph, *, ratio: float, per_cost: bool = False, keep_at_least: float = 0.1
) -> Plan:
    """Plan the cuts that remove `ratio` of the multiply-adds; what comes out fits the sizes in the model's code.

    As `prune_to_budget`, with groups that one size in the code stands for cut alike. Where the code needs
    further units back, that much is cut elsewhere. At most what one unit costs is removed beyond the ratio,
    save where units come back.

    Args:
        scores: score of each unit of each group, comparable between groups.
        graph: the traced model.
        ratio: fraction of the multiply-adds removed, in [0, 1).
        per_cost: weigh scores by what they cost, for scores in the unit of the loss.
        keep_at_least: fraction of each group that stays whatever its scores; never less than one unit.

    Raises:
        ArgumentError: as `prune_to_budget`.
        PlanError: if so much cannot go; the message has the share that can.

    Example:
        >>> import torch
        >>> from tersor.graph.trace import trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> graph = trace(net, (torch.zeros(1, 4),))
        >>> print(prune_macs({"0": torch.arange(8.0)}, graph, ratio=0.5))
        Cut 0: keep 4 units
    """
    whole, tied, cost = graph.macs(), ties(graph), mac_cost(graph)
    budget = aim = (1 - fraction("ratio", ratio)) * whole
    floor = lowest_cost(scores, cost=cost, together=tied, keep_at_least=keep_at_least)
    least, values = floor, {name: units.tolist() for name, units in scores.items()}
    for _ in range(_ROUNDS if floor <= budget else 0):
        chosen = prune_to_budget(
            scores, cost=cost, budget=aim, per_cost=per_cost, together=tied, keep_at_least=keep_at_least
        )
        kept = close(graph, {cut.group: cut.keep for cut in chosen.of(Cut)}, values)
        least = graph.macs(kept)
        if least <= budget:
            return Plan(tuple(Cut(name, keep) for name, keep in kept.items()))
        if aim == floor:
            break
        aim = max(aim - (least - budget), floor)
    raise PlanError(_refusal(graph, ratio, 1 - least / whole if whole else 0.0, keep_at_least))


def _refusal(graph: Graph, ratio: float, reached: float, keep_at_least: float) -> str:
    stay = [group for group in graph.groups if not group.prunable]
    why = f" {len(stay)} of {len(graph.groups)} groups must stay whole" if stay else ""
    why += f", such as {stay[0].name!r}: {stay[0].reason}." if stay else ""
    return (
        f"{ratio:.1%} fewer multiply-adds cannot be reached: {max(reached, 0):.1%} of the model's can go while every "
        f"group keeps {keep_at_least:.0%} of its units.{why} Ask for less, or combine pruning with other edits; "
        "`tersor.groups(model, inputs)` lists what can go."
    )

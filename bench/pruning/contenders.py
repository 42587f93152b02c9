"""Who is compared: each takes the model, the multiply-adds to keep and labelled samples, and gives a smaller model."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tersor.analysis.collect import collect
from tersor.analysis.costs import mac_cost
from tersor.analysis.facts import facts
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.loading.task import Batch
from tersor.planning.plan import Plan
from tersor.pruning.compensate import compensate
from tersor.pruning.criteria.registry import Criterion, make_criterion
from tersor.pruning.score import score
from tersor.pruning.select import prune_to_budget, prune_uniform
from tersor.surgery.apply import apply

Prune = Callable[[nn.Module, float, Sequence[Batch]], nn.Module]


@dataclass(frozen=True)
class Contender:
    """A way to prune.

    Attributes:
        tool: whose code it is.
        name: criterion and selection.
        prune: from (model, largest multiply-adds per sample, calibration) to a smaller model.
        distil: fine-tune towards the outputs of the unpruned model, as the product does, in place of the labels.
    """

    tool: str
    name: str
    prune: Prune = field(compare=False)
    distil: bool = False


def _least_ratio(cut: Callable[[float], tuple[float, object]], most: float) -> object:
    """Return what the smallest ratio gives whose cost is at most `most`."""
    low, high = 0.0, 0.95
    best = cut(high)[1]
    for _ in range(9):
        middle = (low + high) / 2
        cost, made = cut(middle)
        low, high, best = (middle, high, best) if cost > most else (low, middle, made)
    return best


def _tersor(criterion: Criterion, select: str, repair: bool = False) -> Prune:
    def prune(model: nn.Module, most: float, batches: Sequence[Batch]) -> nn.Module:
        graph = trace(model, (batches[0].inputs[0][:2],))
        evidence = collect(
            model, graph.groups, batches, fields=criterion.needs, loss=nn.functional.cross_entropy
        )
        plan = _plan(score(evidence, criterion), graph, select, most)
        small = apply(model, plan, graph).model
        return compensate(small, model, graph, plan, batches) if repair else small

    return prune


def _plan(scores: dict[str, Tensor], graph: Graph, select: str, most: float) -> Plan:
    cost = mac_cost(graph)
    if select != "local":
        return prune_to_budget(scores, cost=cost, budget=most, per_cost=select == "per MAC")

    def cut(ratio: float) -> tuple[float, Plan]:
        plan = prune_uniform(scores, ratio=ratio)
        return cost({edit.group: len(edit.keep) for edit in plan.edits}), plan

    return _least_ratio(cut, most)


def _torch_pruning(importance: str, everywhere: bool) -> Prune:
    def prune(model: nn.Module, most: float, batches: Sequence[Batch]) -> nn.Module:
        import torch_pruning as peer

        example = batches[0].inputs[0][:2]

        def cut(ratio: float) -> tuple[float, nn.Module]:
            small = copy.deepcopy(model)
            pruner = peer.pruner.BasePruner(
                small,
                example,
                importance=getattr(peer.importance, importance)(),
                global_pruning=everywhere,
                pruning_ratio=ratio,
                max_pruning_ratio=0.9,
                ignored_layers=[small.fc],
            )
            _gradients(small, batches)
            pruner.step()
            small.zero_grad(set_to_none=True)
            return facts(small, (example,)).macs, small

        return _least_ratio(cut, most)

    return prune


def _gradients(model: nn.Module, batches: Sequence[Batch]) -> None:
    model.eval()
    for batch in batches:
        nn.functional.cross_entropy(model(*batch.inputs), batch.target).backward()


def _ours(name: str, select: str, *, repair: bool = False, distil: bool = False) -> Contender:
    label = f"{name}, {select}" + ", compensated" * repair + ", distilled" * distil
    return Contender("tersor", label, _tersor(make_criterion(name), select, repair), distil)


def _theirs(importance: str, everywhere: bool) -> Contender:
    name = importance.removeprefix("Group").removesuffix("Importance").lower()
    return Contender(
        "Torch-Pruning",
        f"{name}, {'global' if everywhere else 'local'}",
        _torch_pruning(importance, everywhere),
    )


def contenders() -> list[Contender]:
    """Return every contender; those of the same criterion and selection stand next to each other."""
    import tersor.pruning.criteria  # noqa: F401  fills the registry

    torch.manual_seed(0)
    return [
        _ours("fisher", "per MAC"),
        _ours("fisher", "per MAC", repair=True),
        _ours("fisher", "per MAC", repair=True, distil=True),
        _ours("taylor", "per MAC"),
        _ours("taylor", "global"),
        _ours("taylor", "local"),
        _ours("magnitude", "global"),
        _ours("magnitude", "local"),
        *(
            _theirs(i, e)
            for i in ("GroupTaylorImportance", "GroupMagnitudeImportance")
            for e in (True, False)
        ),
    ]

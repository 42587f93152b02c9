"""The single verbs `prune` and `factorize`: one method, one call, the same parts as the search."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from tersor._check import fraction, one_of
from tersor.analysis.collect import collect
from tersor.analysis.evidence import Evidence
from tersor.analysis.ties import ties
from tersor.errors import PlanError
from tersor.factorization.ranks import factorize_energy
from tersor.factorization.spectrum import spectra
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.loading.inputs import as_inputs
from tersor.loading.task import Batch
from tersor.planning.plan import Plan
from tersor.pruning.compensate import compensate
from tersor.pruning.criteria.registry import Criterion, make_criterion
from tersor.pruning.macs import prune_macs
from tersor.pruning.score import score
from tersor.pruning.select import prune_global, prune_uniform
from tersor.surgery.apply import apply, close
from tersor.surgery.settings import follow_sizes
from tersor.surgery.verify import verify

Scores = Mapping[str, Tensor]
Select = Callable[[Mapping[str, Evidence], Criterion, float, Graph], Plan]

#: Evidence from which scores come out in the unit of the loss, so that those of all groups compare.
_IN_LOSS = frozenset({"saliency", "curvature"})


def _by_macs(evidence: Mapping[str, Evidence], rule: Criterion, ratio: float, graph: Graph) -> Plan:
    in_loss = bool(rule.needs & _IN_LOSS)
    scores = score(evidence, rule, normalize="none" if in_loss else "mean")
    return prune_macs(scores, graph, ratio=ratio, per_cost=in_loss)


def _by_units(choose: Callable[[Scores, float, Graph], Plan]) -> Select:
    def select(evidence: Mapping[str, Evidence], rule: Criterion, ratio: float, graph: Graph) -> Plan:
        scores = score(evidence, rule)
        return close(choose(scores, ratio, graph), graph, scores)

    return select


_SELECT: dict[str, Select] = {
    "macs": _by_macs,
    "global": _by_units(lambda scores, ratio, graph: prune_global(scores, ratio=ratio, together=ties(graph))),
    "uniform": _by_units(lambda scores, ratio, _: prune_uniform(scores, ratio=ratio)),
}


class Changed(NamedTuple):
    """A new model and the plan that made it."""

    model: nn.Module
    plan: Plan


def prune(
    model: nn.Module,
    inputs: object,
    *,
    ratio: float,
    by: str = "macs",
    criterion: str = "magnitude",
    batches: Iterable[Batch] = (),
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Changed:
    """Return a smaller copy of `model` without its least important units, proved to be the original without them.

    With `batches` the weights that stay are then refitted, by least squares, to take over the work of those that
    went; `apply(model, plan, graph)` gives the network before that. The configuration of a model of `transformers`
    follows, where all layers are cut alike, so that its folder loads with `from_pretrained`.

    Args:
        model: any module that runs one forward pass; not changed.
        inputs: example inputs: a tensor, a tuple, or a mapping of names.
        ratio: fraction removed, in [0, 1).
        by: what `ratio` counts: `macs` (multiply-adds of the whole model; at least that share goes), `global` (units,
            ranked together) or `uniform` (units of every group).
        criterion: name of a criterion, such as `magnitude`, `taylor`, `activation` or `random`.
        batches: calibration data, to refit on, and for criteria that need more than weights.
        loss: scalar loss of (output, target), for criteria that need gradients; without one they are taken of the
            outputs.

    Raises:
        ArgumentError: if a name is unknown or `ratio` is no fraction.
        PlanError: if nothing can be cut that far, or the result fails its proof; it names the groups at fault.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> prune(net, torch.randn(2, 4), ratio=0.5).model
        Sequential(
          (0): Linear(in_features=4, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    ratio, select = fraction("ratio", ratio), _SELECT[one_of("by", by, _SELECT)]
    rule, example = make_criterion(criterion), as_inputs(inputs)
    graph = trace(model, example)
    batches = list(batches)
    samples = batches or [Batch(example, None, ())]
    # The evidence holds every weight twice; it goes before the proof, which needs room for copies.
    plan = select(collect(model, graph.groups, samples, fields=rule.needs, loss=loss), rule, ratio, graph)
    if ratio and not plan.edits:
        raise PlanError(
            f"A ratio of {ratio:.1%} by {by!r} takes no unit: groups are too small, or sizes in the model's code tie "
            "them together. Ask for more, or use by='macs', which cuts until the multiply-adds have gone."
        )
    verdict = verify(model, plan, graph, example)
    if not verdict.ok:
        raise PlanError(f"The pruned model is not the original without the cut units: {verdict}.")
    made = apply(model, plan, graph).model
    follow_sizes(made, model)
    return Changed(_refitted(made, model, graph, plan, batches) if batches else made, plan)


def _refitted(made: nn.Module, model: nn.Module, graph: Graph, plan: Plan, batches: list[Batch]) -> nn.Module:
    try:
        return compensate(made, model, graph, plan, batches)
    except PlanError:  # only products of activations read what was cut: there is nothing to refit
        return made


def factorize(
    model: nn.Module, inputs: object, *, energy: float = 0.99, batches: Iterable[Batch] = ()
) -> Changed:
    """Return a copy of `model` whose linear and convolution weights are products of two smaller ones, where that pays.

    Args:
        model: any module; not changed.
        inputs: example inputs.
        energy: share of the squared singular values kept in every layer, in [0, 1).
        batches: calibration data; with it, energy is that of the layers' outputs.

    Raises:
        ArgumentError: if `energy` is no fraction.
        PlanError: if no layer gets cheaper at this energy.

    Example:
        >>> import torch
        >>> thin = nn.Linear(32, 1, bias=False).weight.detach()
        >>> net = nn.Linear(32, 32, bias=False)
        >>> _ = net.load_state_dict({"weight": thin.T @ thin})
        >>> factorize(nn.Sequential(net), torch.randn(2, 32)).plan.edits
        (Factorize(layer='0', rank=1),)
    """
    example = as_inputs(inputs)
    plan = factorize_energy(spectra(model, example, batches=batches), energy=energy)
    return Changed(apply(model, plan, trace(model, example)).model, plan)

"""How much each layer matters: what the outputs lose when it alone is pruned or rounded, for the report."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tersor.analysis.collect import collect
from tersor.errors import TersorError
from tersor.graph.groups import Group
from tersor.graph.structure import Graph
from tersor.loading.inputs import Inputs, call, main_output
from tersor.loading.task import Batch, Task
from tersor.planning.plan import Cut, Plan
from tersor.pruning.criteria.registry import make_criterion
from tersor.pruning.score import score
from tersor.pruning.select import keep_highest
from tersor.quantization.model import QuantizedModel
from tersor.quantization.quantize import quantize
from tersor.quantization.sensitivity import sensitivity
from tersor.surgery.apply import apply, close

#: Names of the methods in a report.
PRUNED, ROUNDED = "prune 50%", "8-bit integers"
#: Samples that the outputs are compared on.
_SAMPLES = 32

#: Layer -> method -> energy of the change of the outputs over their energy.
Noise = dict[str, dict[str, float]]


def layer_sensitivity(task: Task, graph: Graph, *, seconds: float) -> Noise:
    """Return what the outputs lose when one layer alone is changed.

    noise = sum ||y' - y||^2 / sum ||y||^2 over samples of the search split, where y' are the outputs with half of a
    group's units gone (the lowest in magnitude, without any retraining), or with one layer on its integer grid.

    Args:
        task: the original model and the data.
        graph: its trace.
        seconds: about the time to spend; layers that do not fit are left out.

    Returns:
        For each layer the noise by method. A group of several layers gives all of them the same number.
    """
    inputs = next(task.search.batches(_SAMPLES, limit=_SAMPLES)).inputs
    started = time.monotonic()
    with torch.no_grad():
        expected = _outputs(task.model, inputs)
    call_s = time.monotonic() - started
    found: Noise = {}
    _prune_each(task, graph, inputs, expected, found, started + 0.6 * seconds)
    left_s = seconds - (time.monotonic() - started)
    if 2.0 * call_s * len(graph.operations) < left_s:
        for layer, noise in _rounding(task, inputs).items():
            found.setdefault(layer, {})[ROUNDED] = noise
    return found


def _outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    return main_output(call(model, inputs)).double()


def _prune_each(
    task: Task, graph: Graph, inputs: Inputs, expected: Tensor, found: Noise, until_s: float
) -> None:
    """Add to `found` what half of each group is worth, group by group until the time is up."""
    groups = [group for group in graph.groups if group.prunable and group.size > 1]
    rule = make_criterion("magnitude")
    scores = (
        score(collect(task.model, groups, [Batch(inputs, None, ())], fields=rule.needs), rule)
        if groups
        else {}
    )
    for group in groups:
        if time.monotonic() > until_s:
            return
        noise = _half(task.model, graph, group, scores, inputs, expected)
        for layer in produced_by(group) if noise is not None else ():
            found.setdefault(layer, {})[PRUNED] = noise or 0.0


def _half(
    model: nn.Module,
    graph: Graph,
    group: Group,
    scores: Mapping[str, Tensor],
    inputs: Inputs,
    expected: Tensor,
) -> float | None:
    keep = keep_highest(scores[group.name], group.size - group.size // 2)
    try:
        plan = close(Plan((Cut(group.name, keep),)), graph, scores)
        with torch.no_grad():
            change = _outputs(apply(model, plan, graph).model, inputs) - expected
    except (TersorError, RuntimeError):  # a group that cannot be cut by half alone has no number
        return None
    return float(change.square().sum() / expected.square().sum().clamp_min(1e-30))


def produced_by(group: Group) -> list[str]:
    """Return the layers whose outputs are the units of `group`.

    Example:
        >>> from tersor.graph.groups import Member
        >>> produced_by(Group("a", "channels", 2, (Member("a.weight", 0, (0, 1)), Member("b.weight", 1, (0, 1)))))
        ['a']
    """
    return [
        m.tensor.removesuffix(".weight")
        for m in group.members
        if m.axis == 0 and m.tensor.endswith(".weight")
    ]


def _rounding(task: Task, inputs: Inputs) -> dict[str, float]:
    """Return the noise of each layer that can run in integers; empty where the model cannot."""
    calibration = [batch.inputs for batch in task.calibration.batches(32, limit=64)]
    try:
        rounded = quantize(task.model, task.inputs, calibration)
        assert isinstance(rounded, QuantizedModel)
        return {cost.site: cost.noise for cost in sensitivity(rounded, [inputs])}
    except (TersorError, RuntimeError, NotImplementedError):  # not every model can be captured
        return {}
